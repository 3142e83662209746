// `npm run bench -- soak [--minutes 30] [--nodes 60] [--seed 1]`: the churn, with roll-outs all the
// time. In the first half leaders are killed. In the second half the processes live on, and what
// they hold must stay what it is.
import { setTimeout as sleep } from 'node:timers/promises';
import { POLICIES_PATH } from '../core/keys.ts';
import { churn } from '../lab/churn/churn.ts';
import type { Gate } from '../lab/cluster/gate.ts';
import { MERGE_PATCH } from '../platform/kube.ts';
import { churned, promiseRow, type Churned } from './reports/churned.ts';
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
  readonly heap: number;
  readonly handles: number;
  readonly timers: number;
}
const PARTS = ['requestPath', 'reconciler'] as const;
type Part = (typeof PARTS)[number];
/** How often a line is printed of what they hold, so that a growth can be seen to begin. */
const LINE_MS = 60_000;
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
      heap: valueOf(text, 'nodejs_heap_size_used_bytes') / 2 ** 20,
      handles: valueOf(text, 'process_open_fds'),
      timers: Number.isNaN(timers) ? 0 : timers,
    };
  } catch {
    // It was killed, and the next one is about to come.
    return undefined;
  }
}

export async function run({ args, say }: BenchContext): Promise<readonly Row[]> {
  const minutes = numberArg(args, 'minutes', 30);
  const count = numberArg(args, 'nodes', 60);
  const seed = numberArg(args, 'seed', 1);
  const spec = { upgrade: { maxUnavailable: '20%', drain: { mode: 'Evict', timeoutSeconds: 20 } } };
  return churned(count, spec, say, (fleet) => soak(fleet, say, { minutes, seed }));
}

async function soak(
  { cluster, gate, nodes, judged }: Churned,
  say: (line: string) => void,
  { minutes, seed }: { readonly minutes: number; readonly seed: number },
): Promise<readonly Row[]> {
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
  const tell = async (): Promise<void> => {
    for (; left() > 0; await sleep(LINE_MS)) {
      const minute = Math.round((performance.now() - began) / 60_000);
      for (const part of PARTS) {
        const sample = await sampleOf(gate, part);
        if (sample === undefined) continue;
        const { rss, heap, handles, timers } = sample;
        say(
          `minute ${minute}, ${part}: RSS ${Math.round(rss)} MiB, heap in use ${Math.round(heap)} MiB, ${handles} open files and sockets, ${timers} timers`,
        );
      }
    }
  };
  const [counts] = await Promise.all([
    churn({
      kube: cluster.admin,
      nodes,
      seed,
      seconds: minutes * 60,
      walkedBy: 'gpu-gate',
      stepsPerSecond: Math.max(0.2, nodes.length / 100),
      podsPerSecond: 3,
      namespace: 'default',
    }),
    rollOut(),
    kill(),
    watch(),
    tell(),
  ]);
  say(`steps: ${JSON.stringify(counts)}, ${rollOuts} edits of the driver`);
  const what = `${minutes} min on ${nodes.length} nodes, ${KILLS} leaders killed, ${rollOuts} edits`;
  return [promiseRow(what, await judged(), minutes), ...PARTS.flatMap((part) => growthOf(part, samples[part]))];
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
