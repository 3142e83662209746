// What a leader of the certificates may meet: its own death at any write, clocks that differ, an
// API server that is away, another leader, missing rights. What comes of it is in
// docs/certificates.md.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../../certs/issue.ts';
import { readBundle } from '../../../certs/cert.ts';
import type { CertKeeper } from '../../../certs/keeper.ts';
import { certStore, ownObjects } from '../../../certs/store.ts';
import { explainError, jsonLog } from '../../../platform/log.ts';
import { until } from '../../../lab/cluster/gate.ts';
import {
  HOUR,
  DAY,
  SANS,
  SECRETS,
  EXTENDER_CA,
  cp,
  gate,
  load,
  leaderKube,
  logged,
  registries,
  store,
  aKeeper,
  settled,
  type Secret,
  textOf,
  harm,
  remove,
  bundle,
  wipeBundles,
  extenderCas,
  fails,
  expectSound,
  began,
  metricsNow,
} from '../../builders/cert-world.ts';

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
