// Every way in which certificates may be harmed, on a real API server with `failurePolicy: Fail`
// and a steady load of calls: what comes of it is written down in docs/certificates.md. The
// leader's part runs in this process, under the chart's ServiceAccount, so that it can die after
// any write and live by another clock.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../../certs/issue.ts';
import { readBundle, readCert, type CertFacts, type KeyPair } from '../../../certs/cert.ts';
import { CertKeeper, type KeeperOptions } from '../../../certs/keeper.ts';
import { certMetrics } from '../../../certs/metrics.ts';
import { certProbe } from '../../../certs/probe.ts';
import type { Step } from '../../../certs/chain.ts';
import { certStore, ownObjects, type CertStore } from '../../../certs/store.ts';
import { openKube, type Kube } from '../../../platform/kube.ts';
import { explainError, jsonLog } from '../../../platform/log.ts';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { startGate, startSecondScheduler, until, type Gate } from '../../../lab/cluster/gate.ts';
import { named } from '../../support/schedulers.ts';
import { startLoad, type Load } from '../../support/calls.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const SANS = ['gpu-gate-webhook.gpu-gate.svc', '127.0.0.1'];
const SECRETS = '/api/v1/namespaces/gpu-gate/secrets';
const EXTENDER_CA = '/api/v1/namespaces/gpu-gate/configmaps/gpu-gate-extender-ca';
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zz-gpu-gate';

let cp: ControlPlane;
let gate: Gate;
let load: Load;
let leaderKube: Kube;
let leaderAccess: { kubeconfig: string; userAgent: string };
/**
 * Every line that any keeper of this file logged, every metric it showed, every private key that
 * was ever in a Secret.
 */
const logged: string[] = [];
const registries: Registry[] = [];
const keys = new Set<string>();

beforeAll(async () => {
  cp = await startControlPlane({ binaries: await binariesFromEnvironment(console.log), scheduler: false });
  gate = await startGate(cp, {
    values: { webhook: { failurePolicy: 'Fail' } },
    // Handshakes all the time, because a kept connection does not check a certificate again.
    flags: ['--calls-per-connection', '5'],
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
      webhook: { service: 'gpu-gate-webhook', replicas: [`127.0.0.1:${gate.webhookPort}`] },
      extender: { service: 'gpu-gate-extender', replicas: [`127.0.0.1:${gate.extenderPort}`] },
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
    extenderCaOverlap: 60 * DAY,
    canaryWindow: 300,
    caGrace: 300,
    checkEvery: 100,
    ...more,
  });
}

/** Checks again and again, as the leader does, until nothing is due; which steps there were. */
async function settled(keeper: CertKeeper): Promise<readonly string[]> {
  const steps = await quiet(keeper);
  // The extender's too.
  await keeper.check();
  await tenCalls();
  return steps;
}
async function quiet(keeper: CertKeeper): Promise<readonly string[]> {
  const steps: string[] = [];
  await until('certificates to settle', async () => {
    const step: Step = await keeper.step();
    if (step.kind !== 'wait') steps.push(step.kind);
    return step.kind === 'wait' && step.on === 'nothing';
  });
  return steps;
}
/** Waits for ten more calls, so that callers have met what is served now. */
async function tenCalls(): Promise<void> {
  const seen = load.calls.length;
  await until('ten calls', () => load.calls.length >= seen + 10);
}

interface Secret {
  metadata: { resourceVersion: string; labels?: Record<string, string>; annotations?: Record<string, string> };
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
const wipeBundles = (): Promise<unknown> =>
  cp.admin.request('PATCH', CONFIGURATION, {
    contentType: 'application/json-patch+json',
    body: [0, 1].map((i) => ({ op: 'remove', path: `/webhooks/${i}/clientConfig/caBundle` })),
  });
const extenderCas = async (): Promise<readonly CertFacts[]> => {
  const { data } = await cp.admin.request<{ data: Record<string, string> }>('GET', EXTENDER_CA);
  return readBundle(data['ca.crt']);
};
const fails = (since: number): readonly string[] => load.failures(since).map(({ failure }) => failure ?? '');
/**
 * Everything in order: one CA, trusted alone, its certificate served, each API server's canary too;
 * the extender's as well.
 */
async function expectSound(): Promise<void> {
  const ca = new X509Certificate(await textOf('gpu-gate-ca', 'tls.crt'));
  const leaf = new X509Certificate(await textOf('gpu-gate-webhook-tls', 'tls.crt'));
  expect(leaf.verify(ca.publicKey)).toBe(true);
  expect(Date.parse(leaf.validFrom)).toBeLessThan(Date.now());
  expect(Date.parse(leaf.validTo)).toBeGreaterThan(Date.now() + 80 * DAY);
  for (const entry of [0, 1])
    expect(readBundle(await bundle(entry)).map(({ fingerprint }) => fingerprint)).toEqual([ca.fingerprint256]);
  const cas = await extenderCas();
  for (const name of ['gpu-gate-extender-tls', 'gpu-gate-scheduler-client']) {
    const cert = readCert(await textOf(name, 'tls.crt'));
    expect(cas.some((known) => cert?.signedBy(known))).toBe(true);
    expect(cert?.from).toBeLessThan(Date.now());
    expect(cert?.to).toBeGreaterThan(Date.now() + 80 * DAY);
    expect(readBundle(await textOf(name, 'ca.crt')).map(({ fingerprint }) => fingerprint)).toEqual(
      cas.map(({ fingerprint }) => fingerprint),
    );
  }
}

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
const ANSWERED = [200, 400, 415];
const schedulerClient = async (): Promise<KeyPair> => ({
  cert: await textOf('gpu-gate-scheduler-client', 'tls.crt'),
  key: await textOf('gpu-gate-scheduler-client', 'tls.key'),
});

let began = 0;
beforeEach(async () => {
  await oneExtenderCa();
  began = Date.now();
});

describe('the extender', () => {
  it('serves only callers that have the client certificate of the Secret', async () => {
    const mine = await schedulerClient();
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
    expect(ANSWERED).toContain(await ask(mine));
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

  it('does not answer a real scheduler that has none: the pod waits, and says why', async () => {
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
  ])('%s: it is issued again, the last good one is served meanwhile, and no call fails', async (_, doHarm) => {
    await doHarm();
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('of a foreign CA: replicas keep one that callers trust, it is issued again, and no call fails', async () => {
    const foreign = await issueCa('foreign', DAY, Date.now());
    const leaf = await issueLeaf(foreign, { name: 'x', sans: SANS, usage: 'server', life: DAY }, Date.now());
    const said = saidBy('gpu-gate', 'no CA of the webhook configuration signed it');
    const before = said();
    await harm('gpu-gate-webhook-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': foreign.cert });
    await until('the replica to say why not', () => said() > before);
    await tenCalls();
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('of a foreign CA that callers come to trust: taken then', async () => {
    const foreign = await issueCa('foreign', 400 * DAY, Date.now());
    const leaf = await issueLeaf(foreign, { name: 'x', sans: SANS, usage: 'server', life: 90 * DAY }, Date.now());
    const said = saidBy('gpu-gate', 'no CA of the webhook configuration signed it');
    const taken = saidBy('gpu-gate', 'certificate in use');
    const before = [said(), taken()] as const;
    await harm('gpu-gate-webhook-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key });
    await until('the replica to say why not', () => said() > before[0]);
    await cp.admin.request('PATCH', CONFIGURATION, {
      contentType: 'application/json-patch+json',
      body: [
        { op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: Buffer.from(foreign.cert).toString('base64') },
      ],
    });
    await until('the replica to take it', () => taken() > before[1]);
    await settled(aKeeper());
    await expectSound();
  });
});

/** How often a process has logged a text. */
const saidBy = (process_: string, text: string) => (): number =>
  readFileSync(`${cp.dir}/${process_}.log`, 'utf8').split(text).length - 1;

describe('what others do to a Secret', () => {
  it('labels and annotations of others survive a write', async () => {
    await harm('gpu-gate-webhook-tls', { 'tls.key': 'AAAA' });
    await cp.admin.request('PATCH', `${SECRETS}/gpu-gate-webhook-tls`, {
      contentType: 'application/merge-patch+json',
      body: { metadata: { labels: { theirs: 'a' }, annotations: { 'their.tool/note': 'b' } } },
    });
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    const { metadata } = await secret('gpu-gate-webhook-tls');
    expect(metadata.labels).toMatchObject({ theirs: 'a', 'app.kubernetes.io/part-of': 'gpu-gate' });
    expect(metadata.annotations).toMatchObject({ 'their.tool/note': 'b' });
    await expectSound();
  });

  it('one of another type gets the standard one, labels of others with it', async () => {
    await remove('gpu-gate-webhook-tls');
    await cp.admin.request('POST', SECRETS, {
      body: { metadata: { name: 'gpu-gate-webhook-tls', labels: { theirs: 'a' } }, type: 'Opaque', data: {} },
    });
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    const { type, metadata } = await secret('gpu-gate-webhook-tls');
    expect([type, metadata.labels?.['theirs']]).toEqual(['kubernetes.io/tls', 'a']);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });
});

describe('the certificates beside it', () => {
  const truncate = async (name: string): Promise<unknown> =>
    harm(name, { 'tls.crt': (await textOf(name, 'tls.crt')).slice(0, 400) });
  it.each([
    ['the extender deleted', 'gpu-gate-extender-tls', () => remove('gpu-gate-extender-tls')],
    ['the extender corrupted', 'gpu-gate-extender-tls', () => harm('gpu-gate-extender-tls', { 'tls.key': 'AAAA' })],
    ['the extender truncated', 'gpu-gate-extender-tls', () => truncate('gpu-gate-extender-tls')],
    [
      'the extender of a foreign CA',
      'gpu-gate-extender-tls',
      async () => {
        const foreign = await issueCa('foreign', DAY, Date.now());
        const sans = ['gpu-gate-extender.gpu-gate.svc', '127.0.0.1'];
        const leaf = await issueLeaf(foreign, { name: 'x', sans, usage: 'server', life: DAY }, Date.now());
        return harm('gpu-gate-extender-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': foreign.cert });
      },
    ],
    ['the client of the scheduler deleted', 'gpu-gate-scheduler-client', () => remove('gpu-gate-scheduler-client')],
    ['the canary deleted', 'gpu-gate-canary-tls', () => remove('gpu-gate-canary-tls')],
  ])('%s: it is issued again by the known CA, and no call fails', async (_, name, doHarm) => {
    const cas = (await extenderCas()).map(({ fingerprint }) => fingerprint);
    await doHarm();
    expect(await settled(aKeeper())).toEqual(name === 'gpu-gate-canary-tls' ? ['issue-canary'] : []);
    expect((await extenderCas()).map(({ fingerprint }) => fingerprint)).toEqual(cas);
    await until('the extender to serve', async () => ANSWERED.includes(Number(await ask(await schedulerClient()))));
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('the ConfigMap with the CA of the extender deleted: the same CA again', async () => {
    const before = (await extenderCas()).map(({ fingerprint }) => fingerprint);
    await cp.admin.request('DELETE', EXTENDER_CA);
    await aKeeper().check();
    expect((await extenderCas()).map(({ fingerprint }) => fingerprint)).toEqual(before);
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
      'truncated',
      async () => harm('gpu-gate-ca', { 'tls.crt': (await textOf('gpu-gate-ca', 'tls.crt')).slice(0, 400) }),
    ],
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
    ]);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('deleted: schedulers that read the CA of the extender before go on', async () => {
    await oneExtenderCa();
    const [before] = await extenderCas();
    const served = await textOf('gpu-gate-extender-tls', 'tls.crt');
    await remove('gpu-gate-ca');
    // Also where the ConfigMap is lost with it: the CA is beside the certificate too.
    await cp.admin.request('DELETE', EXTENDER_CA);
    await settled(aKeeper());
    const after = await extenderCas();
    expect(after).toHaveLength(2);
    expect(after[1]?.fingerprint).toBe(before?.fingerprint);
    expect(await textOf('gpu-gate-extender-tls', 'tls.crt')).toBe(served);
    expect(readCert(served)?.signedBy(after[1] as CertFacts)).toBe(true);
    const shown = await metricsNow();
    expect(shown).toContain('gpu_gate_extender_ca_certificates 2');
    expect(shown).toMatch(/gpu_gate_certificate_left_seconds\{certificate="extender"\} 77\d{5}/);
    // Its key is lost with it: a day before the end of what is served.
    expect(restartBy(shown)).toBeCloseTo(((readCert(served)?.to ?? 0) - DAY) / 1000, -1);
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
    ]);
    expect(fails(began)).toEqual([]);
    expect(await textOf('gpu-gate-ca', 'tls.crt')).toBe(ca.cert);
    await expectSound();
  });
});

const metricsNow = async (): Promise<string> => (await registries.at(-1)?.metrics()) ?? '';
const restartBy = (metrics: string): number =>
  Number(/^gpu_gate_schedulers_restart_by_seconds (\S+)/m.exec(metrics)?.[1] ?? Number.NaN);
/**
 * Nothing is due in either chain, and no change of a CA is under way. Schedulers count as
 * restarted, so that the extender may serve a certificate of its newest CA at once: where the key
 * of the previous CA is lost, the leader itself would wait for weeks.
 */
async function oneExtenderCa(): Promise<void> {
  // One keeper: it must see for the grace time that replicas were given the newest CA.
  const keeper = aKeeper({ extenderCaOverlap: 0 });
  await until('one CA of each chain', async () => {
    const step = await keeper.check();
    const ca = {
      cert: await textOf('gpu-gate-ca', 'extender-ca.crt'),
      key: await textOf('gpu-gate-ca', 'extender-ca.key'),
    };
    const newest = readCert(ca.cert) as CertFacts;
    if (readCert(await textOf('gpu-gate-extender-tls', 'tls.crt'))?.signedBy(newest) !== true) {
      const sans = ['gpu-gate-extender.gpu-gate.svc', '127.0.0.1'];
      const request_ = { name: 'e', sans, usage: 'server', life: 90 * DAY } as const;
      const leaf = await issueLeaf(ca, request_, Date.now());
      await harm('gpu-gate-extender-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key });
      return false;
    }
    return step.kind === 'wait' && step.on === 'nothing' && (await extenderCas()).length === 1;
  });
}

describe('the CA of the extender', () => {
  it('due: the previous CA signs until the stated day, then the new CA; callers are served all the time', async () => {
    await oneExtenderCa();
    const made = Date.now() - 300 * DAY;
    const old = await issueCa('aged', 400 * DAY, made);
    const sans = ['gpu-gate-extender.gpu-gate.svc', '127.0.0.1'];
    const serving = await issueLeaf(old, { name: 'e', sans, usage: 'server', life: 90 * DAY }, Date.now());
    const request_ = { name: 'gpu-gate-scheduler', sans: [], usage: 'client', life: 90 * DAY } as const;
    const client = await issueLeaf(old, request_, Date.now());
    await cp.admin.request('PATCH', EXTENDER_CA, {
      contentType: 'application/merge-patch+json',
      body: { data: { 'ca.crt': old.cert } },
    });
    await harm('gpu-gate-ca', { 'extender-ca.crt': old.cert, 'extender-ca.key': old.key });
    const put = { 'tls.crt': serving.cert, 'tls.key': serving.key, 'ca.crt': old.cert };
    await harm('gpu-gate-extender-tls', put);
    await harm('gpu-gate-scheduler-client', { 'tls.crt': client.cert, 'tls.key': client.key, 'ca.crt': old.cert });
    await until('the old one to be served', async () => ANSWERED.includes(Number(await ask(client))));

    const oldCa = readCert(old.cert) as CertFacts;
    const servedBy = async (ca: CertFacts): Promise<boolean> =>
      readCert(await textOf('gpu-gate-extender-tls', 'tls.crt'))?.signedBy(ca) === true;
    const clientBy = async (ca: CertFacts): Promise<boolean> =>
      readCert(await textOf('gpu-gate-scheduler-client', 'tls.crt'))?.signedBy(ca) === true;
    await aKeeper({ caGrace: DAY }).check();
    const [newCa, ...before] = await extenderCas();
    expect(before.map(({ fingerprint }) => fingerprint)).toEqual([oldCa.fingerprint]);
    if (newCa === undefined) throw new Error('no CA');
    expect([await servedBy(oldCa), await clientBy(oldCa)]).toEqual([true, true]);
    expect(restartBy(await metricsNow())).toBeCloseTo(Date.now() / 1000 + 60 * 86_400, -2);
    expect(await metricsNow()).toContain('gpu_gate_certificate_not_after_seconds{certificate="extender-ca-previous"}');
    expect(logged.some((line) => line.includes('restart every scheduler that asks it'))).toBe(true);

    // A certificate that is lost meanwhile is issued again by the CA that schedulers know.
    await remove('gpu-gate-extender-tls');
    await aKeeper({ caGrace: DAY }).check();
    expect(await servedBy(oldCa)).toBe(true);

    // The client certificate follows after the grace time, and the previous one goes on being
    // served.
    const follows = aKeeper();
    await until('a client certificate of the new CA', async () => {
      await follows.check();
      return clientBy(newCa);
    });
    await until('both to be served', async () =>
      (await Promise.all([ask(client), ask(await schedulerClient())])).every((status) =>
        ANSWERED.includes(Number(status)),
      ),
    );
    await aKeeper().check();
    expect([await servedBy(oldCa), (await extenderCas()).length]).toEqual([true, 2]);

    // The day has come.
    const ends = aKeeper({ extenderCaOverlap: 0 });
    await until('the CA of before to be dropped', async () => {
      await ends.check();
      return (await extenderCas()).length === 1;
    });
    await aKeeper().check();
    expect(await servedBy(newCa)).toBe(true);
    expect(Object.keys((await secret('gpu-gate-ca')).data).filter((key) => key.startsWith('extender-ca-'))).toEqual([]);
    expect(restartBy(await metricsNow())).toBeNaN();
    expect(await metricsNow()).not.toContain('extender-ca-previous');
    await until('the old client to be refused', async () => !ANSWERED.includes(Number(await ask(client))));
    expect(ANSWERED).toContain(await ask(await schedulerClient()));
    await expectSound();
  });
});

const STEP_KINDS = ['adopt', 'confirm', 'drop-old', 'issue-canary', 'issue-leaf', 'make-ca', 'publish', 'retire'];

describe('time', () => {
  /** A CA that is due, in place of the one there: a change of CA to it, then one away from it. */
  const agedCa = async (): Promise<void> => {
    const ca = await issueCa('aged', 400 * DAY, Date.now() - 300 * DAY);
    await harm('gpu-gate-ca', { 'tls.crt': ca.cert, 'tls.key': ca.key });
  };

  it('a certificate that expired during a long sleep is not served, is reported, and is issued again at the first check', async () => {
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
      await remove('gpu-gate-extender-tls');
      await remove('gpu-gate-scheduler-client');
      await aKeeper({ now }).check();
      await expectSound();
      await remove('gpu-gate-ca');
      await remove('gpu-gate-webhook-tls');
      expect(await settled(aKeeper({ now }))).toContain('make-ca');
      expect(fails(began)).toEqual([]);
      await expectSound();
      expect(logged.some((line) => line.includes("the clock here is not the API server's"))).toBe(true);
    },
  );

  it('a leader whose clock is two hours ahead does not cut the grace time short', async () => {
    await agedCa();
    const keeper = aKeeper({ caGrace: HOUR });
    await until('nothing of the old CA to be served', async () => (await keeper.step()).kind === 'retire');
    const ahead = aKeeper({ caGrace: HOUR, now: () => Date.now() + 2 * HOUR });
    expect(await ahead.step()).toMatchObject({ kind: 'wait', on: 'grace' });
    await settled(aKeeper());
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('a leader that dies before and after every single write: the next one goes on, no call fails', async () => {
    await agedCa();
    let writes = 0;
    let last = '';
    const steps: string[] = [];
    const [before, after] = [new Set<string>(), new Set<string>()];
    const note = (line: string): void => {
      logged.push(line);
      const { msg, step } = JSON.parse(line) as { msg: string; step?: string };
      if (msg === 'certificate step') steps.push(step ?? '');
    };
    const dying = (): CertKeeper => {
      const real = store();
      let dead = false;
      const dies = async (write: () => Promise<boolean>): Promise<boolean> => {
        if (dead) throw new Error('dead');
        dead = true;
        const step = steps.at(-1) ?? '';
        // Each kind of step is died on twice: before its write and after it.
        if (!before.has(step)) {
          before.add(step);
          throw new Error('killed before a write');
        }
        await write();
        after.add(step);
        writes += 1;
        throw new Error('killed after a write');
      };
      return aKeeper({
        canaryWindow: 0,
        log: jsonLog('info', note),
        store: {
          ...real,
          writeSecret: (...args) => dies(() => real.writeSecret(...args)),
          writeBundles: (...args) => dies(() => real.writeBundles(...args)),
        },
      });
    };
    await until('the change to end', async () => {
      const step = await dying()
        .step()
        .catch((error: unknown) => {
          last = explainError(error);
        });
      return step?.kind === 'wait' && step.on === 'nothing';
    });
    expect(last).toBe('killed after a write');
    // Two changes of CA: to the aged one, and away from it.
    expect(writes).toBeGreaterThanOrEqual(16);
    for (const kinds of [before, after]) expect([...kinds].sort()).toEqual(STEP_KINDS);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

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
    // It names the former CA of the extender, and schedulers that know that one would be waited
    // for.
    await cp.admin.request('DELETE', EXTENDER_CA);
    await wipeBundles();
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

  it('alone writes: a replica that does not lead repairs nothing', async () => {
    await remove('gpu-gate-webhook-tls');
    await remove('gpu-gate-extender-tls');
    const versions = async (): Promise<readonly string[]> =>
      (await cp.admin.request<{ items: Secret[] }>('GET', SECRETS)).items.map(
        ({ metadata }) => metadata.resourceVersion,
      );
    const before = await versions();
    const bystander = (): CertKeeper =>
      aKeeper({ leads: () => false, store: certStore(leaderKube, 'gpu-gate', () => false) });
    await expect(bystander().check()).rejects.toThrow('not leading any more');
    const stop = new AbortController();
    const running = bystander().run(stop.signal);
    await sleep(600);
    stop.abort();
    await running;
    expect(await versions()).toEqual(before);
    await settled(aKeeper());
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('repairs at once what its watches report, long before its next check', async () => {
    const stop = new AbortController();
    let leads = true;
    const keeper = aKeeper({ checkEvery: 300_000, leads: () => leads });
    const shown = registries.at(-1);
    const log = jsonLog('info', (line) => void logged.push(line));
    const own = ownObjects({ kube: leaderKube, log, namespace: 'gpu-gate', onChange: () => keeper.wake() });
    for (const watch of Object.values(own)) watch.start(stop.signal);
    const running = keeper.run(stop.signal);
    await Promise.all(Object.values(own).map((watch) => watch.whenSynced()));
    await sleep(1000);
    const healed = async (
      what: string,
      doHarm: () => Promise<unknown>,
      well: () => Promise<boolean>,
    ): Promise<void> => {
      await doHarm();
      // Its next check would be after this wait.
      await until(what, well);
    };
    await healed(
      'the certificate to be issued again',
      () => remove('gpu-gate-webhook-tls'),
      async () => (await textOf('gpu-gate-webhook-tls', 'tls.crt')).includes('BEGIN'),
    );
    await healed(
      'the ConfigMap to be written again',
      () => cp.admin.request('DELETE', EXTENDER_CA),
      async () => (await extenderCas()).length > 0,
    );
    await sleep(500);
    expect(fails(began)).toEqual([]);
    await healed('caBundle to be written again', wipeBundles, async () => (await bundle(0)).includes('BEGIN'));
    await until('twenty calls that do not fail', () =>
      load.calls.slice(-20).every(({ failure }) => failure === undefined),
    );
    // Another one leads: nothing is claimed any more.
    await until('the canary', async () =>
      ((await shown?.metrics()) ?? '').includes('gpu_gate_certificate_canary_ok 1'),
    );
    leads = false;
    keeper.wake();
    await until(
      'silence',
      async () =>
        !/^gpu_gate_(certificate_(step|left|canary|not)|ca_bundle)\S* \d/m.test((await shown?.metrics()) ?? ''),
    );
    stop.abort();
    await running;
    await settled(aKeeper());
    await expectSound();
  });

  it('tells a change of CA in its metrics', async () => {
    const ca = await issueCa('aged', 400 * DAY, Date.now() - 300 * DAY);
    await harm('gpu-gate-ca', { 'tls.crt': ca.cert, 'tls.key': ca.key });
    await settled(aKeeper());
    const keeper = aKeeper();
    await harm('gpu-gate-ca', { 'tls.crt': 'junk' });
    await until('the confirmation', async () => (await keeper.step()).kind === 'confirm');
    await keeper.step();
    const during = await metricsNow();
    expect(during).toContain('gpu_gate_ca_bundle_certificates 2');
    expect(during).toContain('gpu_gate_certificate_canary_ok 1');
    expect(during).toContain('gpu_gate_certificate_rotations_total{chain="webhook",kind="make-ca",result="ok"} 1');
    const [, before] = readBundle(await bundle(0));
    expect(during).toContain(
      `gpu_gate_certificate_not_after_seconds{certificate="webhook-ca-previous"} ${(before?.to ?? 0) / 1000}`,
    );
    await settled(keeper);
    const done = await metricsNow();
    expect(done).toContain('gpu_gate_ca_bundle_certificates 1');
    expect(done).toContain('gpu_gate_certificate_rotations_total{chain="webhook",kind="drop-old",result="ok"} 1');
    expect(done).not.toContain('webhook-ca-previous');
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('may read the configuration and not change it: it reports this once, stays ready, and tries again', async () => {
    const path = '/apis/rbac.authorization.k8s.io/v1/clusterroles/gpu-gate-reconciler';
    const role = await cp.admin.request<{ rules: { resources?: string[]; verbs: string[] }[] }>('GET', path);
    const set = (rules: unknown): Promise<unknown> =>
      cp.admin.request('PATCH', path, { contentType: 'application/merge-patch+json', body: { rules } });
    await set(
      role.rules.map((rule) =>
        rule.resources?.includes('mutatingwebhookconfigurations') === true
          ? { ...rule, verbs: ['get', 'list', 'watch'] }
          : rule,
      ),
    );
    try {
      await wipeBundles();
      await until('the refusal', async () => {
        const step = await aKeeper().check();
        return (
          step.kind === 'wait' && step.because.includes('may not update the MutatingWebhookConfiguration zz-gpu-gate')
        );
      });
      const lines: string[] = [];
      const keeper = aKeeper({ log: jsonLog('info', (line) => void lines.push(line)) });
      for (let i = 0; i < 4; i += 1) await keeper.check();
      logged.push(...lines);
      const sentences = lines
        .map((line) => ({ ...(JSON.parse(line) as object), time: '' }))
        .map((o) => JSON.stringify(o));
      expect(sentences.filter((line) => line.includes('the webhook configuration cannot be written'))).toHaveLength(1);
      expect(new Set(sentences).size).toBe(sentences.length);
      expect(await metricsNow()).toContain('gpu_gate_certificate_step{chain="webhook",step="wait-configuration"} 1');
      await gate.startReconciler();
      expect(await (await fetch(gate.metricsUrls.reconciler.replace('/metrics', '/readyz'))).text()).toBe('ok\n');
      await gate.stopReconciler();
      await set(role.rules);
      await until(
        'permission',
        async () => (await bundle(0)).includes('BEGIN') || (await keeper.check()) === undefined,
      );
      await settled(keeper);
      await expectSound();
    } finally {
      await set(role.rules);
    }
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
          step.because.includes('may not read the MutatingWebhookConfiguration zz-gpu-gate')
        );
      });
      expect(await registries.at(-1)?.metrics()).toContain(
        'gpu_gate_certificate_step{chain="webhook",step="wait-configuration"} 1',
      );
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
    const own = { query: { fieldSelector: 'metadata.name=gpu-gate-webhook-tls' } };
    await requestPath.request('GET', SECRETS, own);
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
    // As a Secret carries them: any 64 characters of it.
    const encoded = [...keys].flatMap((key) => Buffer.from(key).toString('base64').match(/.{64}/g)?.slice(1) ?? []);
    expect(encoded.filter((piece) => shown.includes(piece))).toEqual([]);
    expect(lines.length).toBeGreaterThan(100);
    expect(lines.filter((line) => shown.includes(line))).toEqual([]);
    expect(shown).not.toContain('PRIVATE KEY');
  });
});
