// The churn of test/control-plane/scheduling/churn.test.ts for 20 minutes, with nodes that gpu-gate
// itself walks: hardware fails and recovers, nodes reboot and are opted in and out. `--minutes 20
// --nodes 200 --seed 1`.
import { join } from 'node:path';
import { churn, judge, SCHEDULER_LOG } from '../lab/churn/churn.ts';
import { startProbes } from '../lab/churn/probes.ts';
import { startCluster } from '../lab/cluster/cluster.ts';
import { schedulerClient, startGate, until } from '../lab/cluster/gate.ts';
import { numberArg, type BenchContext, type Row } from './rows.ts';

export const about = 'hardware fails, nodes reboot and come and go; no pod may reach a node that is not open';
export const options = {
  '--minutes N': 'how long (20)',
  '--nodes N': 'how many (200)',
  '--seed N': 'of the history (1)',
};

export async function run(context: BenchContext): Promise<readonly Row[]> {
  const minutes = numberArg(context.args, 'minutes', 20);
  const count = numberArg(context.args, 'nodes', 200);
  const seed = numberArg(context.args, 'seed', 1);
  const cluster = await startCluster({ nodes: count, say: context.say, schedulerArgs: SCHEDULER_LOG });
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
          },
        },
      },
    });
    const nodes = Array.from({ length: count }, (_, i) => `gpu-${i}`);
    await cluster.kubectl(['label', 'nodes', '--all', 'gpu-gate.dev/managed=true']);
    context.say(`opted ${count} nodes in; waiting for half of them to be validated`);
    await until(
      'half of the nodes to be validated',
      async () => {
        const { items } = await cluster.admin.request<{ items: unknown[] }>('GET', '/api/v1/nodes', {
          query: { labelSelector: 'gpu-gate.dev/state=validated' },
        });
        return items.length >= count / 2;
      },
      900_000,
    );
    const file = join(cluster.dir, 'probes.jsonl');
    const probes = startProbes({ port: gate.extenderPort, client: await schedulerClient(cluster), nodes, file });
    const counts = await churn({
      kube: cluster.admin,
      nodes,
      seed,
      seconds: minutes * 60,
      walkedBy: 'gpu-gate',
      stepsPerSecond: Math.max(0.2, count / 100),
      podsPerSecond: 5,
      namespace: 'default',
    });
    context.say(`steps: ${JSON.stringify(counts)}`);
    await probes.stop();
    const { closings, known, namespaces } = await judge(cluster, file, ['gpu-gate-scheduler']);
    context.say(`the extender was seen to know of ${known} of ${closings} closings`);
    const report = namespaces['default'];
    for (const violation of report?.violations ?? []) context.say(JSON.stringify(violation));
    const name = (what: string): string => `${minutes} min on ${count} nodes, seed ${seed}: ${what}`;
    const bindings = report?.bindings ?? 0;
    return [
      {
        name: name('pods bound to a node not open'),
        value: report?.violations.length ?? Number.NaN,
        unit: `of ${bindings}`,
        bar: '0, and at least 10 bindings a minute to judge',
        held: report?.violations.length === 0 && bindings >= 10 * minutes,
      },
      { name: name('bindings under way when the node closed'), value: report?.underWay ?? 0, unit: 'bindings' },
      { name: name('longest of those'), value: report?.longestUnderWayMs ?? 0, unit: 'ms' },
    ];
  } finally {
    await cluster.stop();
  }
}
