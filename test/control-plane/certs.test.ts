// Every way in which certificates may be harmed, on a real API server with `failurePolicy: Fail` and a steady load of calls:
// what comes of it is written down in docs/certificates.md. The leader's part runs in this process, under the chart's
// ServiceAccount, so that it can die after any write and live by another clock.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import { readBundle, type KeyPair } from '../../certs/read.ts';
import { CertKeeper, type KeeperOptions } from '../../certs/keeper.ts';
import { certMetrics } from '../../certs/metrics.ts';
import { certProbe } from '../../certs/probe.ts';
import type { Step } from '../../certs/renewal.ts';
import { certStore, type CertStore } from '../../certs/store.ts';
import { openKube, type Kube } from '../../platform/kube.ts';
import { explainError, jsonLog } from '../../platform/log.ts';
import { binariesFromEnvironment } from '../cluster/cluster.ts';
import { startControlPlane, type ControlPlane } from '../cluster/control-plane.ts';
import { startGate, startSecondScheduler, until, type Gate } from '../cluster/gate.ts';
import { named } from '../support/schedulers.ts';
import { startLoad, type Load } from '../support/calls.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const SANS = ['gpu-gate-webhook.gpu-gate.svc', '127.0.0.1'];
const SECRETS = '/api/v1/namespaces/gpu-gate/secrets';
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gpu-gate';

let cp: ControlPlane;
let gate: Gate;
let load: Load;
let leaderKube: Kube;
let leaderAccess: { kubeconfig: string; userAgent: string };
/** Every line that any keeper of this file logged, every metric it showed, every private key that was ever in a Secret. */
const logged: string[] = [];
const registries: Registry[] = [];
const keys = new Set<string>();

beforeAll(async () => {
  cp = await startControlPlane({ binaries: await binariesFromEnvironment(console.log), scheduler: false });
  gate = await startGate(cp, {
    values: { webhook: { failurePolicy: 'Fail' }, extender: { requireClientCertificate: true } },
    // Handshakes all the time: over a connection that is kept nobody looks at a certificate.
    flags: ['--calls-per-connection', '5', '--extender-clients', 'gpu-gate-scheduler'],
  });
  await gate.stopReconciler();
  leaderAccess = {
    kubeconfig: await cp.serviceAccountKubeconfig('gpu-gate', 'gpu-gate-reconciler'),
    userAgent: 'gpu-gate/certs',
  };
  leaderKube = await openKube(leaderAccess);
  load = startLoad([cp.admin], 40);
});
afterAll(async () => {
  await load?.stop();
  await cp?.stop();
});

const store = (): CertStore => certStore(leaderKube, 'gpu-gate', () => true);

function aKeeper(more: Partial<KeeperOptions> = {}): CertKeeper {
  const registry = new Registry();
  registries.push(registry);
  const now = more.now ?? Date.now;
  return new CertKeeper({
    store: store(),
    probe: certProbe({
      kube: leaderKube,
      access: leaderAccess,
      namespace: 'gpu-gate',
      apiServerName: 'kubernetes.default.svc',
      apiServers: [new URL(cp.server).host],
      service: 'gpu-gate-webhook',
      replicas: [`127.0.0.1:${gate.webhookPort}`],
      serverName: SANS[0] ?? '',
    }),
    log: jsonLog('debug', (line) => void logged.push(line)),
    metrics: certMetrics(registry, now),
    leads: () => true,
    now,
    webhookSans: SANS,
    extenderSans: ['gpu-gate-extender.gpu-gate.svc', '127.0.0.1'],
    certLife: 90 * DAY,
    caLife: 5 * 365 * DAY,
    extenderCaLife: 10 * 365 * DAY,
    canaryWindow: 300,
    caGrace: 300,
    checkEvery: 100,
    ...more,
  });
}

/** Checks again and again, as the leader does, until nothing is due; which steps there were. */
async function settled(keeper: CertKeeper | (() => CertKeeper), within = 20_000): Promise<readonly string[]> {
  const steps: string[] = [];
  await until(
    'certificates to settle',
    async () => {
      const step: Step = await (typeof keeper === 'function' ? keeper() : keeper).step();
      if (step.kind !== 'wait') steps.push(step.kind);
      return step.kind === 'wait' && step.on === 'nothing';
    },
    within,
  );
  // What is served now is known to whoever calls: ten more of them.
  const seen = load.calls.length;
  await until('ten calls', () => load.calls.length >= seen + 10);
  return steps;
}

interface Secret {
  type: string;
  data: Record<string, string>;
}
const secret = (name: string): Promise<Secret> => cp.admin.request('GET', `${SECRETS}/${name}`);
const textOf = async (name: string, key: string): Promise<string> =>
  Buffer.from((await secret(name)).data[key] ?? '', 'base64').toString();
const harm = async (name: string, data: Readonly<Record<string, string>>): Promise<unknown> => {
  await note();
  return cp.admin.request('PATCH', `${SECRETS}/${name}`, {
    contentType: 'application/merge-patch+json',
    body: { data: Object.fromEntries(Object.entries(data).map(([k, v]) => [k, Buffer.from(v).toString('base64')])) },
  });
};
const remove = async (name: string): Promise<unknown> => {
  await note();
  return cp.admin.request('DELETE', `${SECRETS}/${name}`);
};
/** Remembers every private key that is in a Secret now. */
async function note(): Promise<void> {
  const { items } = await cp.admin.request<{ items: Secret[] }>('GET', SECRETS);
  for (const { data } of items)
    for (const [key, value] of Object.entries(data ?? {}))
      if (key.endsWith('.key')) keys.add(Buffer.from(value, 'base64').toString());
}
const bundle = async (entry: number): Promise<string> =>
  Buffer.from(
    (await cp.admin.request<{ webhooks: { clientConfig: { caBundle?: string } }[] }>('GET', CONFIGURATION)).webhooks[
      entry
    ]?.clientConfig.caBundle ?? '',
    'base64',
  ).toString();
const fails = (since: number): readonly string[] => load.failures(since).map(({ failure }) => failure ?? '');
/** Everything in order: one CA, trusted alone, its certificate served, each API server's canary too. */
async function expectSound(): Promise<void> {
  const ca = new X509Certificate(await textOf('gpu-gate-ca', 'tls.crt'));
  const leaf = new X509Certificate(await textOf('gpu-gate-webhook-tls', 'tls.crt'));
  expect(leaf.verify(ca.publicKey)).toBe(true);
  expect(Date.parse(leaf.validFrom)).toBeLessThan(Date.now());
  expect(Date.parse(leaf.validTo)).toBeGreaterThan(Date.now() + 80 * DAY);
  for (const entry of [0, 1])
    expect(readBundle(await bundle(entry)).map(({ fingerprint }) => fingerprint)).toEqual([ca.fingerprint256]);
}

let began = 0;
beforeEach(async () => {
  await settled(aKeeper());
  began = Date.now();
});

describe('the extender', () => {
  const ask = (client: Partial<KeyPair>): Promise<number | string> =>
    new Promise((resolve) => {
      const call = request(
        { port: gate.extenderPort, method: 'POST', path: '/filter', rejectUnauthorized: false, ...client },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      call.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
      call.end('{}');
    });

  it('serves whoever has the client certificate of the Secret, and nobody else', async () => {
    const mine = {
      cert: await textOf('gpu-gate-scheduler-client', 'tls.crt'),
      key: await textOf('gpu-gate-scheduler-client', 'tls.key'),
    };
    const foreign = await issueLeaf(
      await issueCa('foreign', DAY, Date.now()),
      { name: 'gpu-gate-scheduler', sans: [], usage: 'client', life: DAY },
      Date.now(),
    );
    const extenderCa = {
      cert: await textOf('gpu-gate-ca', 'extender-ca.crt'),
      key: await textOf('gpu-gate-ca', 'extender-ca.key'),
    };
    const otherName = await issueLeaf(extenderCa, { name: 'other', sans: [], usage: 'client', life: DAY }, Date.now());
    expect([200, 400, 415]).toContain(await ask(mine));
    expect(await ask(otherName)).toBe(403);
    for (const client of [{}, foreign]) expect(await ask(client)).toMatch(/ECONNRESET|SSL|EPIPE|ALERT/);
  });

  it('is asked by the real scheduler with it', async () => {
    const resources = { cpu: '8', memory: '8Gi', pods: '10', 'nvidia.com/gpu': '8' };
    await cp.admin.request('POST', '/api/v1/nodes', {
      body: { metadata: { name: 'n' }, status: { allocatable: resources, capacity: resources } },
    });
    await cp.admin.request('POST', '/api/v1/namespaces/default/pods', {
      body: {
        metadata: { name: 'asks' },
        spec: {
          schedulerName: 'gpu-gate-scheduler',
          tolerations: [{ operator: 'Exists' }],
          containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
        },
      },
    });
    await until('the pod to be bound', async () => {
      const { spec } = await cp.admin.request<{ spec: { nodeName?: string } }>(
        'GET',
        '/api/v1/namespaces/default/pods/asks',
      );
      return spec.nodeName === 'n';
    });
    const asked = /gpu_gate_extender_calls_total\{[^}]*\} [1-9]/;
    expect(await gate.metrics()).toMatch(asked);
  });

  it('does not answer a real scheduler that has none: the pod waits, and says why', { timeout: 60_000 }, async () => {
    await startSecondScheduler(
      cp,
      gate.extenderPort,
      'no-certificate',
      named('no-certificate', ({ tlsConfig: { caFile, serverName }, ...extender }) => ({
        ...extender,
        tlsConfig: { caFile, serverName },
      })),
    );
    await cp.admin.request('POST', '/api/v1/namespaces/default/pods', {
      body: {
        metadata: { name: 'unheard' },
        spec: {
          schedulerName: 'no-certificate',
          tolerations: [{ operator: 'Exists' }],
          containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
        },
      },
    });
    const waits = await until('the refusal', async () => {
      const { spec, status } = await cp.admin.request<{
        spec: { nodeName?: string };
        status: { conditions?: { message?: string }[] };
      }>('GET', '/api/v1/namespaces/default/pods/unheard');
      expect(spec.nodeName).toBeUndefined();
      return status.conditions?.find(({ message }) => message?.includes('/filter'))?.message;
    });
    expect(waits).toMatch(/certificate required|bad certificate/);
  });
});

describe('a Secret of the webhook', () => {
  it.each([
    ['deleted', () => remove('gpu-gate-webhook-tls')],
    ['corrupted', () => harm('gpu-gate-webhook-tls', { 'tls.key': 'AAAA' })],
    [
      'truncated',
      async () =>
        harm('gpu-gate-webhook-tls', { 'tls.crt': (await textOf('gpu-gate-webhook-tls', 'tls.crt')).slice(0, 400) }),
    ],
    [
      'with a wrong name',
      async () => {
        const ca = { cert: await textOf('gpu-gate-ca', 'tls.crt'), key: await textOf('gpu-gate-ca', 'tls.key') };
        const leaf = await issueLeaf(
          ca,
          { name: 'x', sans: ['elsewhere.svc'], usage: 'server', life: DAY },
          Date.now(),
        );
        return harm('gpu-gate-webhook-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key });
      },
    ],
  ])('%s: made anew, the last good one is served meanwhile, no call fails', async (_, doHarm) => {
    await doHarm();
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('of a foreign CA: calls fail until the next check of the leader, and no longer', async () => {
    const foreign = await issueCa('foreign', DAY, Date.now());
    const leaf = await issueLeaf(foreign, { name: 'x', sans: SANS, usage: 'server', life: DAY }, Date.now());
    await harm('gpu-gate-webhook-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': foreign.cert });
    await until('calls to fail', () => fails(began).length > 0);
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    const mended = Date.now();
    await until('ten more calls', () => load.calls.filter(({ at }) => at > mended).length >= 10);
    expect(fails(mended)).toEqual([]);
    await expectSound();
  });
});

describe('the Secret of the CA', () => {
  const foreignCa = (): Promise<KeyPair> => issueCa('foreign', 5 * 365 * DAY, Date.now());
  it.each([
    ['deleted', () => remove('gpu-gate-ca')],
    ['corrupted', () => harm('gpu-gate-ca', { 'tls.crt': 'junk', 'tls.key': 'junk' })],
    ['without its key', () => harm('gpu-gate-ca', { 'tls.key': '' })],
    [
      'deleted together with that of the webhook',
      async () => {
        await remove('gpu-gate-ca');
        await remove('gpu-gate-webhook-tls');
      },
    ],
  ])('%s: a new CA, both trusted until nothing of the old one is served, no call fails', async (_, doHarm) => {
    await doHarm();
    const steps = await settled(aKeeper());
    expect(steps.filter((kind) => kind !== 'issue-canary')).toEqual([
      'make-ca',
      'publish',
      'confirm',
      'issue-leaf',
      'retire',
      'drop-old',
      'publish',
      'confirm',
    ]);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('deleted: schedulers that read the CA of the extender before go on', async () => {
    const inConfigMap = async (): Promise<readonly string[]> => {
      const { data } = await cp.admin.request<{ data: Record<string, string> }>(
        'GET',
        '/api/v1/namespaces/gpu-gate/configmaps/gpu-gate-extender-ca',
      );
      return readBundle(data['ca.crt']).map(({ fingerprint }) => fingerprint);
    };
    await aKeeper().check();
    const [before = ''] = await inConfigMap();
    const served = await textOf('gpu-gate-extender-tls', 'tls.crt');
    await remove('gpu-gate-ca');
    await settled(aKeeper());
    await aKeeper().check();
    const after = await inConfigMap();
    expect(after).toHaveLength(2);
    expect(after[0]).not.toBe(before);
    expect(await textOf('gpu-gate-extender-tls', 'tls.crt')).toBe(served);
    expect(
      readBundle(served)[0]?.signedBy(readBundle(await textOf('gpu-gate-extender-tls', 'ca.crt'))[1] as never),
    ).toBe(true);
    expect(await registries.at(-1)?.metrics()).toContain('gpu_gate_extender_ca_certificates 2');
    expect(await registries.at(-1)?.metrics()).toMatch(
      /gpu_gate_certificate_left_seconds\{certificate="extender"\} 77\d{5}/,
    );
  });

  it('replaced by a foreign CA: taken over as a change of CA, no call fails', async () => {
    const ca = await foreignCa();
    await harm('gpu-gate-ca', { 'tls.crt': ca.cert, 'tls.key': ca.key });
    const steps = await settled(aKeeper());
    expect(steps.filter((kind) => kind !== 'issue-canary')).toEqual([
      'adopt',
      'publish',
      'confirm',
      'issue-leaf',
      'retire',
      'drop-old',
      'publish',
      'confirm',
    ]);
    expect(fails(began)).toEqual([]);
    expect(await textOf('gpu-gate-ca', 'tls.crt')).toBe(ca.cert);
    await expectSound();
  });
});

describe('time', () => {
  /** A CA that is due, in place of the one there: a change of CA to it, then one away from it. */
  const agedCa = async (): Promise<void> => {
    const ca = await issueCa('aged', 400 * DAY, Date.now() - 300 * DAY);
    await harm('gpu-gate-ca', { 'tls.crt': ca.cert, 'tls.key': ca.key });
  };

  it('a certificate that expired during a long sleep: not served, said so, made anew at the first check', async () => {
    const ca = { cert: await textOf('gpu-gate-ca', 'tls.crt'), key: await textOf('gpu-gate-ca', 'tls.key') };
    const old = await issueLeaf(ca, { name: 'x', sans: SANS, usage: 'server', life: DAY }, Date.now() - 2 * DAY);
    await gate.stopRequestPath();
    await harm('gpu-gate-webhook-tls', { 'tls.crt': old.cert, 'tls.key': old.key });
    const readyz = gate.metricsUrls.requestPath.replace('/metrics', '/readyz');
    const started = gate.startRequestPath();
    const sentence = 'no usable certificate in Secret gpu-gate/gpu-gate-webhook-tls yet';
    await until('the reason', async () => (await (await fetch(readyz)).text()).includes(sentence));
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    await started;
    const ready = Date.now();
    await until('ten more calls', () => load.calls.filter(({ at }) => at > ready).length >= 10);
    expect(fails(ready)).toEqual([]);
    await expectSound();
  });

  it.each([
    ['two hours ahead', 2 * HOUR],
    ['two hours behind', -2 * HOUR],
  ])(
    "the leader's clock %s: nothing is done before its time, and what is made is right by the API server's clock",
    async (_, off) => {
      const now = (): number => Date.now() + off;
      expect(await settled(aKeeper({ now }))).toEqual([]);
      await remove('gpu-gate-ca');
      await remove('gpu-gate-webhook-tls');
      expect(await settled(aKeeper({ now }))).toContain('make-ca');
      expect(fails(began)).toEqual([]);
      await expectSound();
      expect(logged.some((line) => line.includes("the clock here is not the API server's"))).toBe(true);
    },
  );

  it(
    'a leader that dies after every single write: the next one goes on, no call fails',
    { timeout: 90_000 },
    async () => {
      await agedCa();
      let writes = 0;
      let last = '';
      const dying = (): CertKeeper => {
        const real = store();
        let dead = false;
        const dies = async (write: Promise<boolean>): Promise<boolean> => {
          if (dead) throw new Error('dead');
          dead = true;
          await write;
          writes += 1;
          throw new Error('killed after a write');
        };
        return aKeeper({
          canaryWindow: 0,
          store: {
            ...real,
            writeSecret: (...args) => dies(real.writeSecret(...args)),
            writeBundles: (...args) => dies(real.writeBundles(...args)),
          },
        });
      };
      await until(
        'the change to end',
        async () => {
          const step = await dying()
            .step()
            .catch((error: unknown) => {
              last = explainError(error);
            });
          return step?.kind === 'wait' && step.on === 'nothing';
        },
        80_000,
      );
      expect(last).toBe('killed after a write');
      // Two changes of CA: to the aged one, and away from it.
      expect(writes).toBeGreaterThanOrEqual(16);
      expect(fails(began)).toEqual([]);
      await expectSound();
    },
  );

  it('the API server restarted in the middle of a change: it goes on, and no call that reached it fails', async () => {
    await agedCa();
    const keeper = aKeeper();
    await until('the new CA to be published', async () => (await keeper.step()).kind === 'publish');
    await cp.stopApiServer();
    await expect(keeper.step()).rejects.toThrow('not reached');
    await cp.startApiServer();
    const steps = await settled(keeper);
    expect(steps).toContain('drop-old');
    const unreachable = /not reached|apiserver not ready|shutting down|etcdserver|not yet|status 50[03]/;
    expect(fails(began).filter((failure) => /webhook|x509|tls/.test(failure) && !unreachable.test(failure))).toEqual(
      [],
    );
    await expectSound();
  });
});

describe('the leader', () => {
  it('two at once on a cluster with nothing: one CA, one certificate of it, trusted', async () => {
    await aKeeper().check();
    for (const name of ['ca', 'webhook-tls', 'canary-tls', 'extender-tls', 'scheduler-client'])
      await remove(`gpu-gate-${name}`);
    await cp.admin.request('PATCH', CONFIGURATION, {
      contentType: 'application/json-patch+json',
      body: [0, 1].map((i) => ({ op: 'remove', path: `/webhooks/${i}/clientConfig/caBundle` })),
    });
    await gate.stopRequestPath();
    const two = [aKeeper(), aKeeper()];
    // Each until its own check ends well: a lost compare-and-swap looks again.
    await Promise.all(two.map((keeper) => until('a check', async () => (await keeper.check()).kind === 'wait')));
    await gate.startRequestPath();
    const ready = Date.now();
    await settled(aKeeper());
    expect(fails(ready)).toEqual([]);
    await expectSound();
  });

  it('without permission on the configuration: one clear sentence, metric, certificates served go on', async () => {
    const path = '/apis/rbac.authorization.k8s.io/v1/clusterroles/gpu-gate-reconciler';
    const role = await cp.admin.request<{ rules: { resources?: string[] }[] }>('GET', path);
    const set = (rules: unknown): Promise<unknown> =>
      cp.admin.request('PATCH', path, { contentType: 'application/merge-patch+json', body: { rules } });
    await set(role.rules.filter(({ resources }) => resources?.includes('mutatingwebhookconfigurations') !== true));
    try {
      const keeper = aKeeper();
      await until('the refusal', async () => {
        const step = await keeper.check();
        return (
          step.kind === 'wait' &&
          step.on === 'configuration' &&
          step.because.includes('may not read the MutatingWebhookConfiguration gpu-gate')
        );
      });
      expect(await registries.at(-1)?.metrics()).toContain('gpu_gate_certificate_step{step="wait-configuration"} 1');
      await remove('gpu-gate-webhook-tls');
      await keeper.check();
      expect(await textOf('gpu-gate-webhook-tls', 'tls.crt')).toContain('BEGIN CERTIFICATE');
      expect(await (await fetch(gate.metricsUrls.requestPath.replace('/metrics', '/readyz'))).text()).toBe('ok\n');
      expect(fails(began)).toEqual([]);
    } finally {
      await set(role.rules);
    }
    await until('permission', async () => (await aKeeper().step()).kind === 'wait');
  });
});

describe('secrets', () => {
  it('are of the standard type, and the request path cannot read those of the CA', async () => {
    await aKeeper().check();
    for (const name of ['ca', 'webhook-tls', 'canary-tls', 'extender-tls', 'scheduler-client']) {
      const { type, data } = await secret(`gpu-gate-${name}`);
      expect([type, Object.keys(data).includes('tls.crt'), Object.keys(data).includes('tls.key')]).toEqual([
        'kubernetes.io/tls',
        true,
        true,
      ]);
    }
    const requestPath = await openKube({
      kubeconfig: await cp.serviceAccountKubeconfig('gpu-gate', 'gpu-gate'),
      userAgent: 'test',
    });
    await requestPath.request('GET', `${SECRETS}/gpu-gate-webhook-tls`);
    for (const denied of ['gpu-gate-ca', 'gpu-gate-scheduler-client'])
      await expect(requestPath.request('GET', `${SECRETS}/${denied}`)).rejects.toThrow('forbidden');
    await expect(requestPath.request('GET', SECRETS)).rejects.toThrow('forbidden');
    await expect(leaderKube.request('GET', SECRETS)).rejects.toThrow('forbidden');
    await expect(leaderKube.request('DELETE', `${SECRETS}/gpu-gate-ca`)).rejects.toThrow('forbidden');
  });

  it('private keys are in no log, metric or event', async () => {
    await note();
    const events = await cp.admin.request('GET', '/api/v1/events');
    const shown = [
      ...logged,
      ...(await Promise.all(registries.map((registry) => registry.metrics()))),
      await gate.metrics(),
      JSON.stringify(events),
      ...['gpu-gate', 'gpu-gate-reconciler'].map((name) => readFileSync(`${cp.dir}/${name}.log`, 'utf8')),
    ].join('\n');
    expect(logged.length).toBeGreaterThan(50);
    expect(keys.size).toBeGreaterThan(20);
    // Any one line of a key would be too much.
    const lines = [...keys].flatMap((key) => key.split('\n').filter((line) => line.length >= 60));
    expect(lines.length).toBeGreaterThan(100);
    expect(lines.filter((line) => shown.includes(line))).toEqual([]);
    expect(shown).not.toContain('PRIVATE KEY');
  });
});
