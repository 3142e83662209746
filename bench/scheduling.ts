// `npm run bench -- scheduling [--nodes 1000] [--pods 200] [--rounds 5]`: pods a second of the real
// scheduler, in turns: with no extender, with ours, with a minimal Go one
// (bench/reference/extender-go), and with the startup taint alone. Every tenth node takes no GPU
// pods: the extenders refuse it, the taint keeps pods off, and with nothing at all it is used.
// `--nodes 5000` is the long form.
import { spawn, type ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { issueCa, issueLeaf } from '../certs/issue.ts';
import { MERGE_PATCH } from '../platform/kube.ts';
import { openNode } from '../lab/churn/churn.ts';
import { startCluster, type Cluster } from '../lab/cluster/cluster.ts';
import { startGate, startSecondScheduler, until, untilEnforcing } from '../lab/cluster/gate.ts';
import { tailOf } from '../lab/cluster/lifetime.ts';
import { named } from '../test/support/schedulers.ts';
import { goProgram } from './reports/programs.ts';
import { numberArg, quantile, type BenchContext, type Row } from './rows.ts';

const EVERY = 10;
/** What an extender may cost: it is asked twice for each pod. */
const LEAST_OF_NONE = 0.85;
const VARIANTS = ['none', 'ours', 'go', 'taint'] as const;
type Variant = (typeof VARIANTS)[number];
const TAINT = 'startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate';
const PODS = '/api/v1/namespaces/default/pods';

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const queue = items.values();
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (const item of queue) await work(item);
    }),
  );
}

/** The Go extender on its own CA; returns how the scheduler reaches it. */
async function startGo(
  cluster: Cluster,
  nodes: number,
  context: BenchContext,
): Promise<{ urlPrefix: string; caFile: string; child: ChildProcess }> {
  const program = await goProgram('extender-go', context.say);
  const now = Date.now();
  const ca = await issueCa('bench', 86_400_000, now);
  const leaf = await issueLeaf(ca, { name: 'bench', sans: ['127.0.0.1'], usage: 'server', life: 86_400_000 }, now);
  const file = (name: string, text: string): string => {
    writeFileSync(join(cluster.dir, name), text, { mode: 0o600 });
    return join(cluster.dir, name);
  };
  const [caFile, cert, key] = [file('go-ca', ca.cert), file('go-cert', leaf.cert), file('go-key', leaf.key)];
  const child = spawn(program, ['serve', String(nodes), String(EVERY), cert, key, '', 'gpu-'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const port = await new Promise<string>((resolve) => createInterface({ input: child.stdout }).once('line', resolve));
  return { urlPrefix: `https://127.0.0.1:${port}`, caFile, child };
}

interface Bound {
  readonly spec: { readonly nodeName?: string };
  readonly status: { readonly conditions?: readonly { readonly type: string; readonly message?: string }[] };
}

/**
 * Makes pods for one scheduler and waits until all are bound; returns seconds, and whether one
 * stands on a node that takes none.
 */
async function round(cluster: Cluster, variant: Variant, count: number): Promise<{ seconds: number; astray: number }> {
  const query = { labelSelector: `bench=${variant}` };
  const list = async (): Promise<Bound[]> =>
    (await cluster.admin.request<{ items: Bound[] }>('GET', PODS, { query })).items;
  const began = performance.now();
  await inParallel(
    Array.from({ length: count }, (_, i) => i),
    (i) =>
      cluster.admin.request('POST', PODS, {
        body: {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: `${variant}-${i}`, labels: { bench: variant, 'gpu-gate.dev/inject': 'false' } },
          spec: {
            schedulerName: variant,
            terminationGracePeriodSeconds: 0,
            // The taint is to work on one scheduler's pods only.
            tolerations: variant === 'taint' ? [] : [{ key: TAINT, operator: 'Exists' }],
            containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
          },
        },
      }),
  );
  const bound = await until(
    `${count} pods of ${variant} to be bound`,
    async () => {
      const pods = await list();
      return pods.every(({ spec }) => spec.nodeName !== undefined) && pods;
    },
    300_000,
    async () => {
      const waiting = (await list()).filter(({ spec }) => spec.nodeName === undefined);
      const because = waiting[0]?.status.conditions?.find(({ type }) => type === 'PodScheduled')?.message;
      const log = tailOf(join(cluster.dir, `${variant}.log`));
      return `${waiting.length} wait, one because: ${because ?? 'nothing said'}; the scheduler's log:\n${log}`;
    },
  );
  const seconds = (performance.now() - began) / 1000;
  const astray = bound.filter(({ spec }) => Number(spec.nodeName?.replace('gpu-', '')) % EVERY === 0).length;
  await cluster.kubectl(['delete', 'pods', '-l', `bench=${variant}`, '--force', '--grace-period=0', '--wait=false']);
  await until('the pods to go', async () => (await list()).length === 0, 120_000);
  await sleep(500);
  return { seconds, astray };
}

export const about = 'pods a second of the real scheduler: no extender, ours, Go, the startup taint alone';
export const options = {
  '--nodes N': '1000; 5000 is the long form',
  '--pods N': 'pods of a round (200)',
  '--rounds N': 'of each (5)',
};

export async function run(context: BenchContext): Promise<readonly Row[]> {
  const count = numberArg(context.args, 'nodes', 1000);
  const pods = numberArg(context.args, 'pods', 200);
  const rounds = numberArg(context.args, 'rounds', 5);
  // Leases of thousands of nodes would take most of two cores, and nodes whose lease is late are
  // closed to pods: what is measured is the scheduler.
  const cluster = await startCluster({
    nodes: count,
    say: context.say,
    leaseSeconds: 600,
    managerArgs: ['--node-monitor-grace-period', '15m'],
  });
  let go: ChildProcess | undefined;
  try {
    const gate = await startGate(cluster, {
      scheduler: false,
      values: { policy: { spec: { unmanagedNodes: 'Deny', startupTaint: 'Off' } } },
    });
    // As in the churn's test: the policy enforces by its own rule, then a stand-in writes what
    // walks would have written.
    await cluster.kubectl(['label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true']);
    await untilEnforcing(cluster);
    await gate.stopReconciler();
    context.say(`opening ${count} nodes but every tenth`);
    await inParallel(
      Array.from({ length: count }, (_, i) => i),
      async (i) => {
        await openNode(cluster.admin, `gpu-${i}`);
        if (i % EVERY === 0)
          await cluster.admin.request('PATCH', `/api/v1/nodes/gpu-${i}`, {
            contentType: MERGE_PATCH,
            body: {
              metadata: { annotations: { 'gpu-gate.dev/hold': 'bench' } },
              spec: { taints: [{ key: TAINT, effect: 'NoSchedule' }] },
            },
          });
      },
    );
    const reference = await startGo(cluster, count, context);
    go = reference.child;
    const edits: Record<Variant, Parameters<typeof named>[1]> = {
      none: () => undefined,
      ours: (extender) => extender,
      go: (extender) => ({
        ...extender,
        urlPrefix: reference.urlPrefix,
        tlsConfig: { caFile: reference.caFile },
        preemptVerb: undefined,
      }),
      taint: () => undefined,
    };
    for (const variant of VARIANTS)
      await startSecondScheduler(cluster, gate.extenderPort, variant, named(variant, edits[variant]));
    const rates: Record<Variant, number[]> = { none: [], ours: [], go: [], taint: [] };
    const astray: Record<Variant, number> = { none: 0, ours: 0, go: 0, taint: 0 };
    for (const variant of VARIANTS) await round(cluster, variant, Math.ceil(pods / 4));
    for (let i = 0; i < rounds; i += 1)
      for (const variant of i % 2 === 0 ? VARIANTS : VARIANTS.toReversed()) {
        const result = await round(cluster, variant, pods);
        rates[variant].push(pods / result.seconds);
        astray[variant] += result.astray;
        context.say(`round ${i + 1} of ${rounds}, ${variant}: ${(pods / result.seconds).toFixed(0)} pods a second`);
      }
    const rate = (variant: Variant): number => quantile(rates[variant], 0.5);
    const beside = (name: Variant): NonNullable<Row['reference']> => ({ name, value: rate(name) });
    const what = `${count} nodes, pods bound a second`;
    const strayed = (variant: Variant): string => `${astray[variant]} of ${pods * rounds} on nodes that take none`;
    return [
      {
        name: `${what}: ours`,
        value: rate('ours'),
        unit: 'pods/s',
        reference: beside('go'),
        bar: "at or above the Go extender's",
        held: rate('ours') >= rate('go'),
      },
      {
        name: `${what}: ours beside none`,
        value: rate('ours'),
        unit: 'pods/s',
        reference: beside('none'),
        bar: `at least ${LEAST_OF_NONE} times that of no extender`,
        held: rate('ours') >= LEAST_OF_NONE * rate('none'),
      },
      { name: `${what}: the startup taint alone`, value: rate('taint'), unit: 'pods/s', reference: beside('none') },
      { name: `with ours: ${strayed('ours')}`, value: astray.ours, unit: 'pods', bar: 'none', held: astray.ours === 0 },
      {
        name: `with the taint: ${strayed('taint')}`,
        value: astray.taint,
        unit: 'pods',
        bar: 'none',
        held: astray.taint === 0,
      },
      {
        name: `with nothing: ${strayed('none')}`,
        value: astray.none,
        unit: 'pods',
        bar: 'some, or nothing was shown',
        held: astray.none > 0,
      },
    ];
  } finally {
    go?.kill('SIGKILL');
    await cluster.stop();
  }
}
