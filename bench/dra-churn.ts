// The churn of bench/churn.ts with pods that ask by claims, and with a DRA driver that restarts,
// publishes half a pool and has a device that fails: `--minutes 20 --nodes 60 --seed 1`.
import { createTemplate, exactly } from '../lab/cluster/devices.ts';
import { churned, disturbed, promiseRow } from './reports/churned.ts';
import { numberArg, type BenchContext, type Row } from './rows.ts';

export const about = 'the churn with claims: no device may be given to a pod before its node is open';
export const options = {
  '--minutes N': 'how long (20)',
  '--nodes N': 'how many (60)',
  '--seed N': 'of the history (1)',
};

export async function run({ args, say }: BenchContext): Promise<readonly Row[]> {
  const minutes = numberArg(args, 'minutes', 20);
  const count = numberArg(args, 'nodes', 60);
  const seed = numberArg(args, 'seed', 1);
  return churned(count, { allocation: 'DRA' }, say, async (fleet) => {
    await createTemplate(fleet.cluster.admin, 'gpu', exactly('gpu.nvidia.com'));
    const report = await disturbed(fleet, { minutes, count, seed, template: 'gpu' }, say);
    const what = `${minutes} min on ${count} nodes, seed ${seed}`;
    return [
      promiseRow(what, report, minutes),
      {
        name: `${what}: devices that rules left out alone`,
        value: report?.deviceRules ?? Number.NaN,
        unit: 'rules',
        bar: 'some: otherwise nothing was left out',
        held: (report?.deviceRules ?? 0) > 0,
      },
      { name: `${what}: under way when the node closed`, value: report?.underWay ?? 0, unit: 'bindings and claims' },
      { name: `${what}: longest of those`, value: report?.longestUnderWayMs ?? 0, unit: 'ms' },
    ];
  });
}
