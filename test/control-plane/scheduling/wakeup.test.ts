// An extender whose watch lags by 2 s is asked before it knows that the node opened, and refuses
// the pod once more: the second writes make the scheduler ask again.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startLagging, type Lagging } from '../../../lab/cluster/lagging.ts';

let lagging: Lagging;
beforeAll(async () => {
  lagging = await startLagging({ lagMs: 2000, wakeAfter: '1s,3s,10s', say: console.log });
});
afterAll(async () => lagging?.stop());

it(
  'a pod refused by an extender that lags 2 s is bound all the same: 20 tries, none left behind',
  { timeout: 400_000 },
  async () => {
    const times = await lagging.tries(20, 15_000);
    console.log(`extender 2 s behind, proof to bound, 20 tries: p50 ${times[10]} ms, largest ${times[19]} ms`);
    expect(times.every((ms) => ms < 15_000)).toBe(true);
    // Sooner than the lag nobody could know, but where it had not yet heard of the closing either:
    // without it this would show nothing.
    expect(times[10]).toBeGreaterThan(1500);
  },
);
