// The world of the certificates' tests: a real API server with `failurePolicy: Fail` and a steady
// load of calls. The leader's part runs in this process, under the chart's ServiceAccount, so that
// it can die after any write and live by another clock. A file that imports this has all of it for
// itself, and each of its tests begins with one CA in each chain and nothing due.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, expect } from 'vitest';
import { issueLeaf } from '../../certs/issue.ts';
import { readBundle, readCert, type CertFacts, type KeyPair } from '../../certs/cert.ts';
import { CertKeeper, type KeeperOptions } from '../../certs/keeper.ts';
import { certMetrics } from '../../certs/metrics.ts';
import { certProbe } from '../../certs/probe.ts';
import type { Step } from '../../certs/chain.ts';
import { certStore, type CertStore } from '../../certs/store.ts';
import { openKube, type Kube } from '../../platform/kube.ts';
import { jsonLog } from '../../platform/log.ts';
import { binariesFromEnvironment } from '../../lab/cluster/cluster.ts';
import { startControlPlane, type ControlPlane } from '../../lab/cluster/control-plane.ts';
import { startGate, until, type Gate } from '../../lab/cluster/gate.ts';
import { startLoad, type Load } from '../support/calls.ts';

export const HOUR = 3_600_000;
export const DAY = 24 * HOUR;
export const SANS = ['gpu-gate-webhook.gpu-gate.svc', '127.0.0.1'];
export const SECRETS = '/api/v1/namespaces/gpu-gate/secrets';
export const EXTENDER_CA = '/api/v1/namespaces/gpu-gate/configmaps/gpu-gate-extender-ca';
export const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zz-gpu-gate';

export let cp: ControlPlane;
export let gate: Gate;
export let load: Load;
export let leaderKube: Kube;
let leaderAccess: { kubeconfig: string; userAgent: string };
/**
 * Every line that any keeper of this file logged, every metric it showed, every private key that
 * was ever in a Secret.
 */
export const logged: string[] = [];
export const registries: Registry[] = [];
export const keys = new Set<string>();

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

export const store = (): CertStore => certStore(leaderKube, 'gpu-gate', () => true);

export function aKeeper(more: Partial<KeeperOptions> = {}): CertKeeper {
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
export async function settled(keeper: CertKeeper): Promise<readonly string[]> {
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
export async function tenCalls(): Promise<void> {
  const seen = load.calls.length;
  await until('ten calls', () => load.calls.length >= seen + 10);
}

export interface Secret {
  metadata: { resourceVersion: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  type: string;
  data: Record<string, string>;
}
export const secret = (name: string): Promise<Secret> => cp.admin.request('GET', `${SECRETS}/${name}`);
export const textOf = async (name: string, key: string): Promise<string> =>
  Buffer.from((await secret(name)).data[key] ?? '', 'base64').toString();
export const harm = async (name: string, data: Readonly<Record<string, string>>): Promise<unknown> => {
  await note();
  return cp.admin.request('PATCH', `${SECRETS}/${name}`, {
    contentType: 'application/merge-patch+json',
    body: { data: Object.fromEntries(Object.entries(data).map(([k, v]) => [k, Buffer.from(v).toString('base64')])) },
  });
};
export const remove = async (name: string): Promise<unknown> => {
  await note();
  return cp.admin.request('DELETE', `${SECRETS}/${name}`);
};
/** Remembers every private key that is in a Secret now. */
export async function note(): Promise<void> {
  const { items } = await cp.admin.request<{ items: Secret[] }>('GET', SECRETS);
  for (const { data } of items)
    for (const [key, value] of Object.entries(data ?? {}))
      if (key.endsWith('.key')) keys.add(Buffer.from(value, 'base64').toString());
}
export const bundle = async (entry: number): Promise<string> =>
  Buffer.from(
    (await cp.admin.request<{ webhooks: { clientConfig: { caBundle?: string } }[] }>('GET', CONFIGURATION)).webhooks[
      entry
    ]?.clientConfig.caBundle ?? '',
    'base64',
  ).toString();
export const wipeBundles = (): Promise<unknown> =>
  cp.admin.request('PATCH', CONFIGURATION, {
    contentType: 'application/json-patch+json',
    body: [0, 1].map((i) => ({ op: 'remove', path: `/webhooks/${i}/clientConfig/caBundle` })),
  });
export const extenderCas = async (): Promise<readonly CertFacts[]> => {
  const { data } = await cp.admin.request<{ data: Record<string, string> }>('GET', EXTENDER_CA);
  return readBundle(data['ca.crt']);
};
export const fails = (since: number): readonly string[] => load.failures(since).map(({ failure }) => failure ?? '');
/**
 * Everything in order: one CA, trusted alone, its certificate served, each API server's canary too;
 * the extender's as well.
 */
export async function expectSound(): Promise<void> {
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

export const ask = (client: Partial<KeyPair>): Promise<number | string> =>
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
export const ANSWERED = [200, 400, 415];
export const schedulerClient = async (): Promise<KeyPair> => ({
  cert: await textOf('gpu-gate-scheduler-client', 'tls.crt'),
  key: await textOf('gpu-gate-scheduler-client', 'tls.key'),
});

export let began = 0;
beforeEach(async () => {
  await gate.requestPathRuns();
  await oneExtenderCa();
  began = Date.now();
});

/** How often a process has logged a text. */
export const saidBy = (process_: string, text: string) => (): number =>
  readFileSync(`${cp.dir}/${process_}.log`, 'utf8').split(text).length - 1;

export const metricsNow = async (): Promise<string> => (await registries.at(-1)?.metrics()) ?? '';
export const restartBy = (metrics: string): number =>
  Number(/^gpu_gate_schedulers_restart_by_seconds (\S+)/m.exec(metrics)?.[1] ?? Number.NaN);
/**
 * Nothing is due in either chain, and no change of a CA is under way. Schedulers count as
 * restarted, so that the extender may serve a certificate of its newest CA at once: where the key
 * of the previous CA is lost, the leader itself would wait for weeks.
 */
export async function oneExtenderCa(): Promise<void> {
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
