// An extender whose watch lags by 2 s is asked before it knows that the node opened, and refuses
// the pod once more: the second writes make the scheduler ask again.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startLagging, type Lagging } from '../../../lab/cluster/lagging.ts';

let lagging: Lagging;
beforeAll(async () => {
  lagging = await startLagging({ lagMs: 2000, wakeAfter: '1s,3s,10s', say: console.log });
});
afterAll(async () => lagging?.stop());

it('a pod refused by an extender that lags 2 s is bound all the same: eight tries, none left behind', async () => {
  // Without the second writes a pod waits for the scheduler's own five minutes.
  const tries = await lagging.tries(8, 120_000);
  expect(tries.filter(({ ms }) => ms === Infinity)).toEqual([]);
  // Otherwise the extender did not lag, and this would show nothing.
  expect(tries.filter(({ wakes }) => wakes > 0).length).toBeGreaterThan(0);
});
