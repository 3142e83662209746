// `npm run bench -- soak [--minutes 30] [--nodes 60] [--seed 1]`: the churn, with roll-outs all the
// time. In the first half leaders are killed. In the second half the processes live on, and what
// they hold must stay what it is.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { POLICIES_PATH } from '../core/keys.ts';
import { churn, judge, SCHEDULER_LOG } from '../lab/churn/churn.ts';
import { startProbes } from '../lab/churn/probes.ts';
import { startCluster, type Cluster } from '../lab/cluster/cluster.ts';
import { schedulerClient, startGate, until, type Gate } from '../lab/cluster/gate.ts';
import { MERGE_PATCH } from '../platform/kube.ts';
import { numberArg, quantile, type BenchContext, type Row } from './rows.ts';

const SAMPLE_MS = 2000;
const KILLS = 6;
const ROLL_OUT_MS = 40_000;
const DRIVERS = ['595.91.07', '596.10.01'];
/** What a process holds may grow by so much from the first third of the time to the last. */
const MOST_GROWTH = 1.15;

export const about = 'churn with roll-outs, reboots and leader kills; what processes hold stays flat';
export const options = {
  '--minutes N': 'how long (30)',
  '--nodes N': 'how many (60)',
  '--seed N': 'of the history (1)',
};

/** What a process holds at one moment. */
interface Sample {
  readonly rss: number;
  readonly handles: number;
  readonly timers: number;
}
const PARTS = ['requestPath', 'reconciler'] as const;
type Part = (typeof PARTS)[number];
const UNITS = { rss: 'MiB', handles: 'open files and sockets', timers: 'timers' } as const;

const valueOf = (text: string, name: string): number => {
  const [, value = 'NaN'] = new RegExp(`^${name} (\\S+)$`, 'm').exec(text) ?? [];
  return Number(value);
};
async function sampleOf(gate: Gate, part: Part): Promise<Sample | undefined> {
  try {
    const answer = await fetch(gate.metricsUrls[part], { signal: AbortSignal.timeout(SAMPLE_MS) });
    const text = await answer.text();
    const timers = valueOf(text, 'nodejs_active_resources\\{type="Timeout"\\}');
    return {
      rss: valueOf(text, 'process_resident_memory_bytes') / 2 ** 20,
      handles: valueOf(text, 'process_open_fds'),
      timers: Number.isNaN(timers) ? 0 : timers,
    };
  } catch {
    // It was killed, and the next one is about to come.
    return undefined;
  }
}

export async function run(context: BenchContext): Promise<readonly Row[]> {
  const minutes = numberArg(context.args, 'minutes', 30);
  const count = numberArg(context.args, 'nodes', 60);
  const seed = numberArg(context.args, 'seed', 1);
  const cluster = await startCluster({ nodes: count, say: context.say, schedulerArgs: SCHEDULER_LOG });
  try {
    return await soak(cluster, context, { minutes, count, seed });
  } finally {
    await cluster.stop();
  }
}

interface Extent {
  readonly minutes: number;
  readonly count: number;
  readonly seed: number;
}

async function soak(
  cluster: Cluster,
  { say }: BenchContext,
  { minutes, count, seed }: Extent,
): Promise<readonly Row[]> {
  const gate = await startGate(cluster, {
    flags: ['--not-ready-grace', '3s'],
    values: {
      policy: {
        spec: {
          unmanagedNodes: 'Deny',
          startupTaint: 'Off',
          bringUp: { maxConcurrent: '100%' },
          upgrade: { maxUnavailable: '20%', drain: { mode: 'Evict', timeoutSeconds: 20 } },
          validation: { backoff: { initial: '1s', max: '4s' } },
        },
      },
    },
  });
  const nodes = Array.from({ length: count }, (_, i) => `gpu-${i}`);
  await cluster.kubectl(['label', 'nodes', '--all', 'gpu-gate.dev/managed=true']);
  await until(
    'half of the nodes to be validated',
    async () => {
      const { items } = await cluster.admin.request<{ items: unknown[] }>('GET', '/api/v1/nodes', {
        query: { labelSelector: 'gpu-gate.dev/state=validated' },
      });
      return items.length >= count / 2;
    },
    240_000,
  );
  say(`half of ${count} nodes are validated; ${minutes} min begin`);
  const file = join(cluster.dir, 'probes.jsonl');
  const probes = startProbes({ port: gate.extenderPort, client: await schedulerClient(cluster), nodes, file });
  const totalMs = minutes * 60_000;
  const began = performance.now();
  const left = (): number => began + totalMs - performance.now();

  let rollOuts = 0;
  const rollOut = async (): Promise<void> => {
    for (; left() > 0; await sleep(ROLL_OUT_MS)) {
      rollOuts += 1;
      await cluster.admin.request('PATCH', `${POLICIES_PATH}/default`, {
        contentType: MERGE_PATCH,
        body: { spec: { components: { driver: { version: DRIVERS[rollOuts % 2] } } } },
      });
    }
  };
  const kill = async (): Promise<void> => {
    for (let i = 0; i < KILLS; i += 1) {
      await sleep(totalMs / 2 / (KILLS + 1));
      await gate.killReconciler();
      await gate.startReconciler();
      say(`leader ${i + 1} of ${KILLS} killed, and another one runs`);
    }
  };
  const samples: Record<Part, Sample[]> = { requestPath: [], reconciler: [] };
  const watch = async (): Promise<void> => {
    await sleep(totalMs / 2);
    for (; left() > 0; await sleep(SAMPLE_MS))
      for (const part of PARTS) {
        const sample = await sampleOf(gate, part);
        if (sample !== undefined) samples[part].push(sample);
      }
  };
  const [counts] = await Promise.all([
    churn({
      kube: cluster.admin,
      nodes,
      seed,
      seconds: minutes * 60,
      walkedBy: 'gpu-gate',
      stepsPerSecond: Math.max(0.2, count / 100),
      podsPerSecond: 3,
      namespace: 'default',
    }),
    rollOut(),
    kill(),
    watch(),
  ]);
  say(`steps: ${JSON.stringify(counts)}, ${rollOuts} edits of the driver`);
  await probes.stop();
  const { closings, known, namespaces } = await judge(cluster, file, ['gpu-gate-scheduler']);
  say(`the extender was seen to know of ${known} of ${closings} closings`);
  const report = namespaces['default'];
  for (const violation of report?.violations ?? []) say(JSON.stringify(violation));
  const bindings = report?.bindings ?? 0;
  const what = `${minutes} min on ${count} nodes, ${KILLS} leaders killed, ${rollOuts} edits`;
  return [
    {
      name: `${what}: pods bound to a node not open`,
      value: report?.violations.length ?? Number.NaN,
      unit: `of ${bindings}`,
      bar: '0, and at least 10 bindings a minute to judge',
      held: report?.violations.length === 0 && bindings >= 10 * minutes,
    },
    ...PARTS.flatMap((part) => growthOf(part, samples[part])),
  ];
}

/** The median of the last third beside that of the first. */
function growthOf(part: Part, samples: readonly Sample[]): readonly Row[] {
  const third = Math.floor(samples.length / 3);
  return (['rss', 'handles', 'timers'] as const).map((what) => {
    const median = (some: readonly Sample[]): number =>
      quantile(
        some.map((sample) => sample[what]),
        0.5,
      );
    const before = median(samples.slice(0, third));
    const after = median(samples.slice(-third));
    // A few handles more or less are calls under way.
    const spare = what === 'rss' ? 0 : 10;
    return {
      name: `${part}: ${what} at the end`,
      value: after,
      unit: UNITS[what],
      reference: { name: 'after the last kill', value: before },
      bar: `at most ${MOST_GROWTH} times${spare === 0 ? '' : ` and ${spare} more`}: what is held does not grow`,
      held: third > 0 && after <= before * MOST_GROWTH + spare,
    };
  });
}
