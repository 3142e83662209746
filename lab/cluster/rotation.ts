// The scenario behind `npm run bench -- rotation` and its short form: two replicas behind one
// Service, `failurePolicy: Fail`, a steady load, certificates so short-lived that they rotate all
// the time. Runs as a script of its own in a network namespace.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { readCert, type KeyPair } from '../../certs/cert.ts';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import type { Kube } from '../../platform/kube.ts';
import { startLoad, type Call, type Load } from '../../test/support/calls.ts';
import { tcpProxy } from '../../test/support/tcp-proxy.ts';
import { binariesFromEnvironment } from './cluster.ts';
import { startControlPlane, type ControlPlane } from './control-plane.ts';
import { installChart, until } from './gate.ts';
import type { Running } from './lifetime.ts';
import { startProcess, startReplicas } from './replicas.ts';

/** Addresses that the namespace must have. */
export const ADDRESSES = ['10.99.0.1', '10.99.0.2', '10.99.0.11', '10.99.0.12', '10.99.0.21', '10.99.0.22'] as const;
const [FIRST_SERVER, SECOND_SERVER, ...PROCESSES] = ADDRESSES;
const REPLICAS = PROCESSES.slice(0, 2);
const KEEPERS = PROCESSES.slice(2);
const SECRETS = '/api/v1/namespaces/gpu-gate/secrets';
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zz-gpu-gate';
const DAY = 86_400_000;

export interface RotationOptions {
  /** Calls a second, and how many there must be at least. */
  readonly rate: number;
  readonly calls: number;
  readonly leafRotations: number;
  readonly caRotations: number;
  /** Durations as the program's options take them. */
  readonly certLife: string;
  readonly caLife: string;
  readonly window: string;
  readonly grace: string;
  /** A second API server that hears of everything so much later, ms. */
  readonly lag?: number;
  /**
   * A further change of CA, under the load, by a leader that reaches both API servers through one
   * address, the second so much later, ms.
   */
  readonly hidden?: number;
  /**
   * Leaders are killed (SIGKILL) at every kind of step of a change of CA, in a further run of the
   * load.
   */
  readonly kill?: boolean;
  /**
   * Certificates live for long, and are put in place aged where one has to be due: on a busy
   * machine short-lived ones would run out before their successors are there. Calls have half a
   * minute. The late certificate of the control comes once a call has failed.
   */
  readonly patient?: boolean;
  /** How often the control replaces CA and certificate at once. */
  readonly control: number;
  /** s */
  readonly within: number;
}

export interface Measured {
  readonly calls: number;
  readonly failed: number;
  readonly example: string | undefined;
}
export interface RotationResult extends Measured {
  readonly leafRotations: number;
  readonly caRotations: number;
  /**
   * ms; of calls while a rotation was on its way (from its first step until 2 s after its last) and
   * of the others.
   */
  readonly p99: { readonly rotating: number; readonly quiet: number };
  readonly quietCalls: number;
  /** Between publishing a new CA and its confirmation, ms, each. */
  readonly confirmations: readonly number[];
  readonly killed: Killed | undefined;
  /** `confirmedAfter`: ms from publishing to the certificate of the new CA. */
  readonly hidden: (Measured & { readonly confirmedAfter: number }) | undefined;
  /** CA and certificate replaced at once; and with the certificate reaching the replicas later. */
  readonly control: Measured & { readonly swaps: number };
  readonly lateControl: Measured & { readonly swaps: number; readonly lateMs: number };
}

/** `diedOn`: kinds of step that were the last thing a leader said before it was killed. */
export interface Killed extends Measured {
  readonly leaders: number;
  readonly steps: readonly string[];
  readonly diedOn: readonly string[];
}

/** Every kind of step in a change of CA that another writer began. */
export const STEP_KINDS = [
  'adopt',
  'publish',
  'issue-canary',
  'confirm',
  'issue-leaf',
  'retire',
  'drop-old',
  'make-ca',
] as const;

interface Step {
  readonly at: number;
  readonly step: string;
  readonly because: string;
}

const stepsOf = (keepers: readonly Running[]): Step[] =>
  [...new Set(keepers.map(({ logFile }) => logFile))]
    .flatMap((file) => readFileSync(file, 'utf8').split('\n'))
    .filter((line) => line.includes('"msg":"certificate step"'))
    .map((line) => JSON.parse(line) as { time: string; chain: string; step: string; because: string })
    .filter(({ chain }) => chain === 'webhook')
    .map(({ time, step, because }) => ({ at: Date.parse(time), step, because }))
    .toSorted((a, b) => a.at - b.at);

const measured = (calls: readonly Call[]): Measured => {
  const failed = calls.filter(({ failure }) => failure !== undefined);
  return { calls: calls.length, failed: failed.length, example: failed[0]?.failure };
};

const p99 = (calls: readonly Call[]): number => {
  const sorted = calls.map(({ ms }) => ms).toSorted((a, b) => a - b);
  return sorted[Math.floor(0.99 * sorted.length)] ?? 0;
};

/** From the first step of each rotation until 2 s after its last. */
const spansOf = (steps: readonly Step[]): readonly (readonly [number, number])[] => {
  const spans: [number, number][] = [];
  let began: number | undefined;
  for (const { at, step } of steps) {
    if (step === 'make-ca') began = at;
    else if (step === 'drop-old') {
      spans.push([began ?? at, at + 2000]);
      began = undefined;
    } else if (step === 'issue-leaf') spans.push([at, at + 2000]);
  }
  if (began !== undefined) spans.push([began, Infinity]);
  return spans;
};

async function scenario(options: RotationOptions, say: (line: string) => void): Promise<RotationResult> {
  const cp = await startControlPlane({
    binaries: await binariesFromEnvironment(say),
    say,
    address: FIRST_SERVER,
    apiServerArgs: ['--enable-aggregator-routing=true'],
    scheduler: false,
  });
  try {
    const servers: Kube[] = [cp.admin];
    const toEtcd = await tcpProxy(cp.etcdPort);
    cp.lifetime.onStop(() => toEtcd.close());
    if (options.lag !== undefined) {
      servers.push(await cp.addApiServer(SECOND_SERVER, toEtcd.port));
      toEtcd.delay(options.lag);
      say(`a second API server hears of everything ${options.lag} ms late`);
    }
    const patient = options.patient === true;
    const webhook = { failurePolicy: 'Fail', ...(patient ? { timeoutSeconds: 30 } : {}) };
    await installChart(cp, 'install', { deployments: { create: false }, webhook });
    const begin = (): Load => startLoad(servers, options.rate, patient ? 20 : Infinity);
    await until('the ServiceAccounts', () =>
      cp.admin.request('GET', '/api/v1/namespaces/gpu-gate/serviceaccounts/gpu-gate-reconciler'),
    );
    // Handshakes all the time: over a connection that is kept nobody looks at a certificate.
    await startReplicas(cp, { addresses: REPLICAS, flags: ['--calls-per-connection', '20', '--drain', '1s'] });
    let lives = patient ? [] : ['--cert-life', options.certLife, '--ca-life', options.caLife];
    let made = 0;
    const startKeeper = (address: string, more: readonly string[] = []): Promise<Running> =>
      startProcess(cp, `keeper-${(made += 1)}`, 'gpu-gate-reconciler', address, [
        '--roles',
        'certs',
        '--lease-duration',
        '2s',
        '--cert-check',
        '500ms',
        '--canary-window',
        options.window,
        '--ca-grace',
        options.grace,
        ...lives,
        ...more,
      ]);
    const keepers = await Promise.all(KEEPERS.map((address) => startKeeper(address)));
    const one = { apiVersion: 'v1', kind: 'Pod', metadata: { generateName: 'first-' }, spec: POD_SPEC };
    for (const server of servers)
      await until(
        'a first call',
        async () =>
          (await server.request('POST', '/api/v1/namespaces/default/pods', { query: { dryRun: 'All' }, body: one })) !==
          undefined,
      );
    await until('both replicas', async () => (await ready(cp)) === REPLICAS.length);

    say(`${options.rate} calls a second`);
    const began = Date.now();
    let load = begin();
    const enough = (): boolean => {
      const { ca, leaf } = counts(stepsOf(keepers), began);
      return load.calls.length >= options.calls && ca >= options.caRotations && leaf >= options.leafRotations;
    };
    if (patient)
      await ageAndReplace(cp, options, () => ({ ...counts(stepsOf(keepers), began), calls: load.calls.length }));
    for (let tick = 1; !enough() && Date.now() - began < options.within * 1000; tick += 1) {
      await sleep(500);
      if (tick % 60 !== 0) continue;
      const { ca, leaf } = counts(stepsOf(keepers), began);
      say(`${load.calls.length} calls, ${load.failures(0).length} failed, ${leaf} leaf rotations, ${ca} CA rotations`);
    }
    await load.stop();
    const steps = stepsOf(keepers);
    const spans = spansOf(steps);
    const isRotating = ({ at }: Call): boolean => spans.some(([from, to]) => from - 500 <= at && at <= to);
    const quiet = load.calls.filter((call) => !isRotating(call));
    const main = measured(load.calls);
    const rotating = load.calls.filter(isRotating);
    const { ca, leaf } = counts(steps, began);
    for (const keeper of keepers) await keeper.stop();

    // From here on certificates live for long: only what this scenario does rotates them.
    lives = [];
    // The short-lived ones of before would run out meanwhile: one more change of CA, in peace, to
    // ones that last.
    if (!patient && (options.hidden !== undefined || options.kill === true)) {
      await takeOver(cp, Date.now());
      const peaceful = await startKeeper(KEEPERS[0] ?? '');
      await untilStep(peaceful, 'issue-leaf');
      // What was served may have run out already: then there is nothing of before to drop.
      if (stepsOf([peaceful]).some(({ step }) => step === 'adopt')) await untilStep(peaceful, 'drop-old');
      await sleep(2000);
      await until('both replicas', async () => (await ready(cp)) === REPLICAS.length);
      await peaceful.stop();
    }
    let hidden: RotationResult['hidden'];
    if (options.hidden !== undefined) {
      const places = [FIRST_SERVER, SECOND_SERVER].map((host) => ({ host, port: Number(new URL(cp.server).port) }));
      let turn = 0;
      const one = await tcpProxy(() => places[(turn += 1) % places.length] ?? cp.etcdPort);
      cp.lifetime.onStop(() => one.close());
      toEtcd.delay(options.hidden);
      say(`one address for both API servers, the second one ${options.hidden} ms late`);
      load = begin();
      await takeOver(cp, Date.now());
      const keeper = await startKeeper(KEEPERS[0] ?? '', ['--api-servers', `127.0.0.1:${one.port}`]);
      await untilStep(keeper, 'drop-old');
      await load.stop();
      const at = (kind: string): number => stepsOf([keeper]).find(({ step }) => step === kind)?.at ?? Number.NaN;
      // A server so far behind its etcd does not answer every call in time, webhook or not.
      const answered = load.calls.filter(({ failure }) => failure?.includes('not reached') !== true);
      hidden = { ...measured(answered), confirmedAfter: at('confirm') - at('publish') };
      // The delay stays: with a shorter one, bytes would overtake those before.
      await keeper.stop();
    }
    let killed: RotationResult['killed'];
    if (options.kill === true) {
      load = begin();
      const leaders = await killEveryLeader(cp, startKeeper, say);
      await load.stop();
      killed = {
        ...measured(load.calls),
        leaders: leaders.length,
        steps: stepsOf(leaders).map(({ step }) => step),
        diedOn: [...new Set(leaders.flatMap((leader) => lastStep(leader) ?? []))].sort(),
      };
    }

    const control = async (late: number): Promise<Measured & { swaps: number }> => {
      const of = begin();
      await sleep(500);
      for (let i = 0; i < options.control; i += 1) {
        const seen = of.failures(0).length;
        await replaceAtOnce(cp, () =>
          patient && late > 0 ? until('a call to fail', () => of.failures(0).length > seen) : sleep(late),
        );
        await sleep(1500);
      }
      await of.stop();
      return { ...measured(of.calls), swaps: options.control };
    };
    return {
      ...main,
      leafRotations: leaf,
      caRotations: ca,
      p99: { rotating: p99(rotating), quiet: p99(quiet) },
      quietCalls: quiet.length,
      confirmations: confirmationsOf(steps.filter(({ at }) => at >= began)),
      hidden,
      killed,
      control: await control(0),
      lateControl: { ...(await control(LATE)), lateMs: LATE },
    };
  } finally {
    await cp.stop();
  }
}

/** Waits for a leader to take that step; what it said instead where it does not. */
async function untilStep(leader: Running, kind: string): Promise<void> {
  try {
    await until(`the step ${kind}`, () => stepsOf([leader]).some(({ step }) => step === kind));
  } catch (error) {
    const said = readFileSync(leader.logFile, 'utf8').trim().split('\n').slice(-12).join('\n');
    throw new Error(`the leader said:\n${said}`, { cause: error });
  }
}

const POD_SPEC = { containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }] };

const ready = async (cp: ControlPlane): Promise<number> => {
  const { items } = await cp.admin.request<{ items: { endpoints?: { conditions?: { ready?: boolean } }[] }[] }>(
    'GET',
    '/apis/discovery.k8s.io/v1/namespaces/gpu-gate/endpointslices',
    { query: { labelSelector: 'kubernetes.io/service-name=gpu-gate-webhook' } },
  );
  return items.flatMap(({ endpoints }) => endpoints ?? []).filter(({ conditions }) => conditions?.ready === true)
    .length;
};

/**
 * Whole changes of CA since then; certificates replaced because they aged, those of a change of CA
 * not counted.
 */
const counts = (steps: readonly Step[], since: number): { ca: number; leaf: number } => {
  const seen = steps.filter(({ at }) => at >= since);
  return {
    ca: seen.filter(({ step }) => step === 'drop-old').length,
    leaf: seen.filter(({ step, because }) => step === 'issue-leaf' && because.includes('two thirds')).length,
  };
};

const confirmationsOf = (steps: readonly Step[]): readonly number[] => {
  const took: number[] = [];
  let published: number | undefined;
  let made = false;
  for (const { at, step } of steps) {
    if (step === 'make-ca') {
      made = true;
      published = undefined;
    } else if (step === 'publish' && made) {
      published = at;
      made = false;
    } else if (step === 'confirm' && published !== undefined) {
      took.push(at - published);
      published = undefined;
    }
  }
  return took;
};

/** Puts a CA made at that time in place of the one there: a change of CA to it. */
async function takeOver(cp: ControlPlane, made: number): Promise<void> {
  const ca = await issueCa('other', 400 * DAY, made);
  const data = { 'tls.crt': encode(ca.cert), 'tls.key': encode(ca.key) };
  await cp.admin.request('PATCH', `${SECRETS}/gpu-gate-ca`, { contentType: MERGE, body: { data } });
}

/** What is due comes about under the load: a certificate that ages, then a CA. */
async function ageAndReplace(
  cp: ControlPlane,
  options: RotationOptions,
  now: () => { readonly ca: number; readonly leaf: number; readonly calls: number },
): Promise<void> {
  for (let i = 1; i <= options.leafRotations; i += 1) {
    const secret = async (name: string): Promise<KeyPair> => {
      const { data } = await cp.admin.request<{ data: Record<string, string> }>('GET', `${SECRETS}/${name}`);
      return { cert: decode(data['tls.crt']), key: decode(data['tls.key']) };
    };
    const ca = await secret('gpu-gate-ca');
    // It must lack nothing but youth.
    const { sans = [] } = readCert((await secret('gpu-gate-webhook-tls')).cert) ?? {};
    const leaf = await issueLeaf(ca, { name: 'aged', sans, usage: 'server', life: 90 * DAY }, Date.now() - 80 * DAY);
    await cp.admin.request('PATCH', `${SECRETS}/gpu-gate-webhook-tls`, {
      contentType: MERGE,
      body: { data: { 'tls.crt': encode(leaf.cert), 'tls.key': encode(leaf.key) } },
    });
    await until('the aged certificate to be replaced', () => now().leaf >= i);
  }
  for (let i = 1; i <= options.caRotations; i += 1) {
    await takeOver(cp, Date.now() - 300 * DAY);
    // One to the CA that is due, and one away from it.
    await until('two changes of CA', () => now().ca >= 2 * i);
  }
  await until(`${options.calls} calls`, () => now().calls >= options.calls);
}

/**
 * How long after it announced a step a leader dies, ms, once each kind was died on at once: in the
 * middle, after the write, later.
 */
const DEATHS = [60, 250, 1000];

const lastStep = (leader: Running): string | undefined => stepsOf([leader]).at(-1)?.step;

/**
 * Changes of CA to one that is due, then one away from it, while every leader is killed: the n-th
 * at the n-th kind of step, until each kind was the last word of one; then at whichever comes, some
 * time after it. Returns the dead.
 */
async function killEveryLeader(
  cp: ControlPlane,
  start: (address: string) => Promise<Running>,
  say: (line: string) => void,
): Promise<readonly Running[]> {
  await takeOver(cp, Date.now() - 300 * DAY);
  const leaders: Running[] = [];
  const diedOn = new Set<string>();
  const end = Date.now() + 300_000;
  let idle = 0;
  const whole = (): boolean => STEP_KINDS.every((kind) => diedOn.has(kind));
  while ((idle < 2 || !whole()) && Date.now() < end) {
    // Nothing to do any more, and not every kind was died on: another change.
    if (idle >= 2) await takeOver(cp, Date.now() - 300 * DAY);
    const leader = await start(KEEPERS[0] ?? '');
    leaders.push(leader);
    const before = Date.now();
    const due = (): boolean => {
      const last = lastStep(leader);
      return last !== undefined && (whole() || !diedOn.has(last));
    };
    // A step, or a long quiet: then there is nothing more to do.
    while (Date.now() - before < 8000 && !due()) await sleep(2);
    idle = lastStep(leader) === undefined ? idle + 1 : 0;
    if (whole()) await sleep(DEATHS[leaders.length % DEATHS.length] ?? 0);
    process.kill(leader.pid, 'SIGKILL');
    await leader.stop();
    const last = lastStep(leader);
    if (last !== undefined) diedOn.add(last);
  }
  say(`killed ${leaders.length} leaders, on ${[...diedOn].join(', ')}`);
  return leaders;
}

/** How late a mounted Secret is, at its best: the kubelet looks at it once a minute or so. */
const LATE = 1000;

/**
 * What others do: a new CA and a certificate of it, both at once; or the certificate later, as
 * where replicas read a mounted file.
 */
async function replaceAtOnce(cp: ControlPlane, later: () => Promise<unknown>): Promise<void> {
  const ca = await issueCa('control', DAY, Date.now());
  const sans = ['gpu-gate-webhook.gpu-gate.svc'];
  const leaf = await issueLeaf(ca, { name: 'control', sans, usage: 'server', life: DAY }, Date.now());
  const data = { 'tls.crt': encode(leaf.cert), 'tls.key': encode(leaf.key), 'ca.crt': encode(ca.cert) };
  await Promise.all([
    later().then(() =>
      cp.admin.request('PATCH', `${SECRETS}/gpu-gate-webhook-tls`, { contentType: MERGE, body: { data } }),
    ),
    cp.admin.request('PATCH', CONFIGURATION, {
      contentType: 'application/json-patch+json',
      body: [{ op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: encode(ca.cert) }],
    }),
  ]);
}

const MERGE = 'application/merge-patch+json';
const encode = (text: string): string => Buffer.from(text).toString('base64');
const decode = (text = ''): string => Buffer.from(text, 'base64').toString();

if (process.argv[1] === import.meta.filename) {
  const options = JSON.parse(process.argv[2] ?? '{}') as RotationOptions;
  const result = await scenario(options, (line) => console.log(line));
  console.log(`RESULT ${JSON.stringify(result)}`);
}
