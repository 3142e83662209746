// `npm run bench -- wakeup [--tries 200]`: from open to bound on the real scheduler, with an
// extender 2 s behind; and without the second writes, to show that the race is real.
import { startLagging } from '../lab/cluster/lagging.ts';
import { numberArg, quantile, type BenchContext, type Row } from './rows.ts';

const PATIENCE_MS = 20_000;

export const about = 'from open to bound on the real scheduler, with an extender 2 s behind';
export const options = {
  '--tries N': 'how often (200)',
};

/** Tries with the second writes, and a tenth as many without them. */
export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const tries = numberArg(args, 'tries', 200);
  const measure = async (wakeAfter: string, count: number, lagMs: number): Promise<readonly number[]> => {
    const lagging = await startLagging({ lagMs, wakeAfter });
    try {
      say(`${count} tries, extender ${lagMs} ms behind, woken again after: ${wakeAfter || 'never'}`);
      return (await lagging.tries(count, PATIENCE_MS)).map(({ ms }) => ms);
    } finally {
      await lagging.stop();
    }
  };
  const prompt = await measure('1s,3s,10s', tries, 0);
  const late = await measure('1s,3s,10s', tries, 2000);
  const alone = await measure('', Math.max(8, Math.round(tries / 20)), 2000);
  const left = (times: readonly number[]): number => times.filter((ms) => ms === Infinity).length;
  return [
    { name: 'open to bound, p50', value: quantile(prompt, 0.5), unit: 'ms' },
    { name: 'open to bound, p99', value: quantile(prompt, 0.99), unit: 'ms' },
    { name: 'open to bound, extender 2 s behind, p50', value: quantile(late, 0.5), unit: 'ms' },
    { name: 'open to bound, extender 2 s behind, p99', value: quantile(late, 0.99), unit: 'ms' },
    {
      name: `left behind of ${2 * tries}`,
      value: left(prompt) + left(late),
      unit: 'pods',
      bar: 'none',
      held: left(prompt) + left(late) === 0,
    },
    {
      name: `left behind of ${alone.length} without the second writes`,
      value: left(alone),
      unit: 'pods',
      bar: 'some: else the second writes are for nothing',
      held: left(alone) > 0,
    },
  ];
}
