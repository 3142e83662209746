// `npm run bench -- join [--long] [--rest 60]`: nodes are opted in at once and walk side by side;
// how long, how many writes, and what it costs, beside a minimal client that makes the same number
// of writes on the same simulated hardware.
import { setTimeout as sleep } from 'node:timers/promises';
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { MANAGED, POLICIES_PATH, PROOF, STATE } from '../core/keys.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { startCluster, type Cluster } from '../lab/cluster/cluster.ts';
import { startGate, until, type Gate } from '../lab/cluster/gate.ts';
import { bareJoin } from '../lab/cluster/join.ts';
import { MERGE_PATCH } from '../platform/kube.ts';
import { numberArg, type BenchContext, type Row } from './rows.ts';

const SIZES = [100, 300, 1000];
const LONG_SIZES = [...SIZES, 5000];
/** Nodes are opted in by so many calls at once. */
const CALLS = 16;
const WITHIN_MS = 900_000;

/** Bars of the whole, and why. */
const MOST_WRITES = 12;
const MOST_OVER_FLOOR = 1.3;
const MOST_GROWTH = 1.3;
const MOST_RSS: Readonly<Record<number, number>> = { 1000: 150, 5000: 250 };
const MOST_AT_REST: Readonly<Record<number, number>> = { 1000: 1, 5000: 3 };

interface Figures {
  readonly cpuSeconds: number;
  readonly rssMiB: number;
  readonly writes: number;
  /** Writes by kind and result. */
  readonly kinds: Readonly<Record<string, number>>;
}

async function figures(gate: Gate): Promise<Figures> {
  const text = await (await fetch(gate.metricsUrls.reconciler)).text();
  const sum = (name: string): number =>
    [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce((all, [, v]) => all + Number(v), 0);
  return {
    cpuSeconds: sum('process_cpu_seconds_total'),
    rssMiB: sum('process_resident_memory_bytes') / 2 ** 20,
    writes: sum('gpu_gate_writes_total'),
    kinds: Object.fromEntries(
      [...text.matchAll(/^gpu_gate_writes_total\{kind="([^"]+)",result="([^"]+)"\} (\S+)$/gm)].map(
        ([, kind, result, count]) => [`${kind} ${result}`, Number(count)],
      ),
    ),
  };
}

interface Node {
  readonly metadata: { readonly labels: Record<string, string>; readonly annotations?: Record<string, string> };
}

const countProven = async (cluster: Cluster): Promise<number> => {
  const { items } = await cluster.admin.request<{ items: Node[] }>('GET', '/api/v1/nodes', {
    query: { labelSelector: `${STATE}=validated` },
    timeoutMs: 60_000,
  });
  return items.filter(({ metadata }) => metadata.annotations?.[PROOF] !== undefined).length;
};

async function optIn(cluster: Cluster, names: readonly string[]): Promise<void> {
  const queue = [...names];
  await Promise.all(
    Array.from({ length: CALLS }, async () => {
      for (let name = queue.shift(); name !== undefined; name = queue.shift())
        await cluster.admin.request('PATCH', `/api/v1/nodes/${name}`, {
          contentType: MERGE_PATCH,
          body: { metadata: { labels: { [MANAGED]: 'true' } } },
        });
    }),
  );
}

const namesOf = (from: number, count: number): string[] => Array.from({ length: count }, (_, i) => `gpu-${from + i}`);
const VALUES = { policy: { spec: { bringUp: { maxConcurrent: '100%' }, injection: { schedulerName: '' } } } };

interface Join {
  readonly seconds: number;
  readonly writesEach: number;
  readonly cpuSeconds: number;
  readonly rssMiB: number;
  readonly left: number;
  /** Of one core, percent, and writes, with nothing to do. */
  readonly atRest: { readonly percent: number; readonly writes: number };
}

async function join(size: number, restSeconds: number, say: (line: string) => void): Promise<Join> {
  const cluster = await startCluster({ nodes: size });
  try {
    const gate = await startGate(cluster, { values: VALUES, scheduler: false });
    const before = await figures(gate);
    const began = performance.now();
    await optIn(cluster, namesOf(0, size));
    await until(`${size} nodes to be validated`, async () => (await countProven(cluster)) === size, WITHIN_MS).catch(
      () => undefined,
    );
    const seconds = (performance.now() - began) / 1000;
    await sleep(15_000);
    const after = await figures(gate);
    for (const [kind, count] of Object.entries(after.kinds).filter(([, count]) => count > 0))
      say(`${kind}: ${(count / size).toFixed(2)} a node`);
    await sleep(restSeconds * 1000);
    const rested = await figures(gate);
    return {
      seconds,
      writesEach: (after.writes - before.writes) / size,
      cpuSeconds: after.cpuSeconds - before.cpuSeconds,
      rssMiB: after.rssMiB,
      left: size - (await countProven(cluster)),
      atRest: {
        percent: ((rested.cpuSeconds - after.cpuSeconds) / restSeconds) * 100,
        writes: rested.writes - after.writes,
      },
    };
  } finally {
    await cluster.stop();
  }
}

/**
 * The minimal client on a cluster of its own, where gpu-gate has made the DaemonSets for one more
 * node.
 */
async function floor(size: number, writesEach: number): Promise<number> {
  const cluster = await startCluster({ nodes: size + 1 });
  try {
    const gate = await startGate(cluster, { values: VALUES, scheduler: false });
    await optIn(cluster, namesOf(size, 1));
    await until('the first node to be validated', async () => (await countProven(cluster)) === 1, 120_000);
    await gate.stopReconciler();
    const policy: GpuPolicy = parsePolicy(await cluster.admin.request('GET', `${POLICIES_PATH}/default`));
    const began = performance.now();
    await bareJoin(cluster, namesOf(0, size), policy, writesEach);
    return (performance.now() - began) / 1000;
  } finally {
    await cluster.stop();
  }
}

export const about = 'nodes are opted in at once; time and writes beside a minimal client';
export const options = {
  '--nodes N': 'one size only',
  '--long': 'up to 5,000 nodes',
  '--rest SECONDS': 'at rest afterwards (60)',
};

export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const only = numberArg(args, 'nodes', 0);
  const restSeconds = numberArg(args, 'rest', 60);
  const sizes = only > 0 ? [only] : args.includes('--long') ? LONG_SIZES : SIZES;
  const rows: Row[] = [];
  let first: { readonly size: number; readonly join: Join } | undefined;
  for (const size of sizes) {
    say(`${size} nodes are opted in at once`);
    const measured = await join(size, restSeconds, say);
    say(`${size} nodes with the minimal client, ${Math.round(measured.writesEach)} writes each`);
    const least = await floor(size, Math.round(measured.writesEach));
    first ??= { size, join: measured };
    rows.push(...rowsOf(size, measured, least, first));
  }
  return rows;
}

function rowsOf(
  size: number,
  measured: Join,
  least: number,
  first: { readonly size: number; readonly join: Join },
): readonly Row[] {
  const { seconds, writesEach, cpuSeconds, rssMiB, left, atRest } = measured;
  const perNode = (cpuSeconds / size) * 1000;
  const firstPerNode = (first.join.cpuSeconds / first.size) * 1000;
  const rss = MOST_RSS[size];
  const rest = MOST_AT_REST[size];
  return [
    {
      name: `${size} nodes, from the label to the last one validated`,
      value: seconds,
      unit: 's',
      reference: { name: 'minimal client', value: least },
      bar: `at most ${MOST_OVER_FLOOR} times the client that decides nothing: a join is writes and waiting`,
      held: seconds <= MOST_OVER_FLOOR * least,
    },
    { name: `${size} nodes, not validated in the end`, value: left, unit: 'nodes', bar: 'none', held: left === 0 },
    {
      name: `${size} nodes, writes a node`,
      value: writesEach,
      unit: 'writes',
      bar: `at most ${MOST_WRITES}: every write is an event for every watch of nodes`,
      held: writesEach <= MOST_WRITES,
    },
    {
      name: `${size} nodes, CPU a node`,
      value: perNode,
      unit: 'ms',
      reference: { name: `${first.size} nodes`, value: firstPerNode },
      bar: `at most ${MOST_GROWTH} times that of ${first.size} nodes: work for one node does not grow with the cluster`,
      held: perNode <= MOST_GROWTH * firstPerNode,
    },
    {
      name: `${size} nodes, RSS`,
      value: rssMiB,
      unit: 'MiB',
      ...(rss === undefined ? {} : { bar: `under ${rss} MiB`, held: rssMiB < rss }),
    },
    {
      name: `${size} nodes at rest, of one core`,
      value: atRest.percent,
      unit: '%',
      ...(rest === undefined ? {} : { bar: `under ${rest} %`, held: atRest.percent < rest }),
    },
    {
      name: `${size} nodes at rest, writes`,
      value: atRest.writes,
      unit: 'writes',
      bar: 'none: only the Lease is renewed',
      held: atRest.writes === 0,
    },
  ];
}
