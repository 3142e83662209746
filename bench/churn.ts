// The churn of test/control-plane/scheduling/churn.test.ts for 20 minutes, with nodes that gpu-gate
// itself walks: hardware fails and recovers, nodes reboot and are opted in and out. `--minutes 20
// --nodes 200 --seed 1`.
import { churned, disturbed, promiseRow } from './reports/churned.ts';
import { numberArg, type BenchContext, type Row } from './rows.ts';

export const about = 'hardware fails, nodes reboot and come and go; no pod may reach a node that is not open';
export const options = {
  '--minutes N': 'how long (20)',
  '--nodes N': 'how many (200)',
  '--seed N': 'of the history (1)',
};

export async function run({ args, say }: BenchContext): Promise<readonly Row[]> {
  const minutes = numberArg(args, 'minutes', 20);
  const count = numberArg(args, 'nodes', 200);
  const seed = numberArg(args, 'seed', 1);
  return churned(count, {}, say, async (fleet) => {
    const report = await disturbed(fleet, { minutes, count, seed }, say);
    const what = `${minutes} min on ${count} nodes, seed ${seed}`;
    return [
      promiseRow(what, report, minutes),
      { name: `${what}: bindings under way when the node closed`, value: report?.underWay ?? 0, unit: 'bindings' },
      { name: `${what}: longest of those`, value: report?.longestUnderWayMs ?? 0, unit: 'ms' },
    ];
  });
}
