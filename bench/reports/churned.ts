// What the measurements by random churn share: a fleet that gpu-gate walks, probes of its extender,
// and the judgement.
import { join } from 'node:path';
import { churn, judge, SCHEDULER_LOG, type Judgement } from '../../lab/churn/churn.ts';
import { startProbes } from '../../lab/churn/probes.ts';
import { startCluster, type Cluster } from '../../lab/cluster/cluster.ts';
import { schedulerClient, startGate, until, type Gate } from '../../lab/cluster/gate.ts';
import type { Row } from '../rows.ts';

/** Half of so many nodes may take that long to be validated. */
const WALKS_MS = 900_000;

export interface Churned {
  readonly cluster: Cluster;
  readonly gate: Gate;
  readonly nodes: readonly string[];
  /** Ends the probes, and judges the pods of namespace `default`. */
  readonly judged: () => Promise<Judgement | undefined>;
}

/** Starts nodes that gpu-gate walks, and runs `body` once half of them are validated. */
export async function churned(
  count: number,
  spec: object,
  say: (line: string) => void,
  body: (fleet: Churned) => Promise<readonly Row[]>,
): Promise<readonly Row[]> {
  const cluster = await startCluster({ nodes: count, say, schedulerArgs: SCHEDULER_LOG });
  try {
    const gate = await startGate(cluster, {
      flags: ['--not-ready-grace', '3s'],
      values: {
        policy: {
          spec: {
            unmanagedNodes: 'Deny',
            startupTaint: 'Off',
            bringUp: { maxConcurrent: '100%' },
            validation: { backoff: { initial: '1s', max: '4s' } },
            ...spec,
          },
        },
      },
    });
    const nodes = Array.from({ length: count }, (_, i) => `gpu-${i}`);
    await cluster.kubectl(['label', 'nodes', '--all', 'gpu-gate.dev/managed=true']);
    say(`opted ${count} nodes in; waiting for half of them to be validated`);
    await until(
      'half of the nodes to be validated',
      async () => {
        const { items } = await cluster.admin.request<{ items: unknown[] }>('GET', '/api/v1/nodes', {
          query: { labelSelector: 'gpu-gate.dev/state=validated' },
        });
        return items.length >= count / 2;
      },
      WALKS_MS,
    );
    const file = join(cluster.dir, 'probes.jsonl');
    const probes = startProbes({ port: gate.extenderPort, client: await schedulerClient(cluster), nodes, file });
    return await body({
      cluster,
      gate,
      nodes,
      async judged() {
        await probes.stop();
        const { closings, known, namespaces } = await judge(cluster, file, ['gpu-gate-scheduler']);
        say(`the extender was seen to know of ${known} of ${closings} closings`);
        const { default: report } = namespaces;
        for (const violation of report?.violations ?? []) say(JSON.stringify(violation));
        return report;
      },
    });
  } finally {
    await cluster.stop();
  }
}

export interface LongChurn {
  readonly minutes: number;
  readonly count: number;
  readonly seed: number;
  /** The claim template that pods ask by; none: they request a GPU. */
  readonly template?: string;
}

/** Disturbs the fleet for so many minutes, and judges what was bound meanwhile. */
export async function disturbed(
  { cluster, nodes, judged }: Churned,
  { minutes, count, seed, ...template }: LongChurn,
  say: (line: string) => void,
): Promise<Judgement | undefined> {
  const counts = await churn({
    kube: cluster.admin,
    nodes,
    seed,
    seconds: minutes * 60,
    walkedBy: 'gpu-gate',
    stepsPerSecond: Math.max(0.2, count / 100),
    podsPerSecond: 5,
    namespace: 'default',
    ...template,
  });
  say(`steps: ${JSON.stringify(counts)}`);
  return judged();
}

/** The row of the promise itself. */
export function promiseRow(what: string, report: Judgement | undefined, minutes: number): Row {
  const { bindings = 0, allocations = 0 } = report ?? {};
  return {
    name: `${what}: pods bound to a node not open${allocations === 0 ? '' : ', and claims given devices of one'}`,
    value: report?.violations.length ?? Number.NaN,
    unit: allocations === 0 ? `of ${bindings}` : `of ${bindings} pods, ${allocations} claims`,
    bar: '0, and at least 10 bindings a minute to judge',
    held: report?.violations.length === 0 && bindings >= 10 * minutes,
  };
}
