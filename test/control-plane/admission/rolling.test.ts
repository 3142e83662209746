// Two replicas behind one Service, restarted in turn under up to 100 creates a second with
// `failurePolicy: Fail`: no create fails.
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { RollingResult } from '../../../lab/cluster/rolling.ts';
import { inOwnNetwork, noOwnNetwork } from '../../support/network.ts';

const reason = noOwnNetwork();
const SCRIPT = join(import.meta.dirname, '..', '..', '..', 'lab', 'cluster', 'rolling.ts');
const ADDRESSES = ['10.99.0.1', '10.99.0.11', '10.99.0.12', '10.99.0.21'];

if (reason !== undefined) console.log(`skipped: ${reason}`);
it.skipIf(reason !== undefined)('a rolling restart under load fails no create', async () => {
  const argument = { rate: 100, rounds: 1 };
  const result = await inOwnNetwork<RollingResult>(SCRIPT, { addresses: ADDRESSES, argument, say: console.log });
  console.log(`${result.calls} creates, ${result.restarts} restarts, ${result.failed} failed`);
  expect([result.failed, result.example, result.restarts]).toEqual([0, undefined, 2]);
  expect(result.calls).toBeGreaterThan(0);
  expect(result.failedWithNone).toBeGreaterThan(0);
});
