// The short form of `npm run bench -- rotation`, with a second API server that hears of every
// change late.
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ADDRESSES, type RotationOptions, type RotationResult } from '../../../lab/cluster/rotation.ts';
import { inOwnNetwork, noOwnNetwork } from '../../support/network.ts';

const reason = noOwnNetwork();
if (reason !== undefined) console.log(`rotation under load is skipped: ${reason}`);
const LAG = 700;
/** Longer than the window of the canary: one API server alone would be confirmed before. */
const HIDDEN_LAG = 4000;

describe.skipIf(reason !== undefined)(
  `certificates rotate under load${reason === undefined ? '' : ` (skipped: ${reason})`}`,
  () => {
    it('two replicas, two API servers of which one is late: no call fails', async () => {
      const argument: RotationOptions = {
        rate: 40,
        calls: 200,
        leafRotations: 1,
        caRotations: 1,
        patient: true,
        certLife: '',
        caLife: '',
        window: '1s',
        grace: '1s',
        lag: LAG,
        hidden: HIDDEN_LAG,
        control: 1,
        within: 120,
      };
      const result = await inOwnNetwork<RotationResult>(
        join(import.meta.dirname, '..', '..', '..', 'lab', 'cluster', 'rotation.ts'),
        {
          addresses: ADDRESSES,
          argument,
          say: console.log,
        },
      );
      expect(result.example).toBeUndefined();
      expect(result.failed).toBe(0);
      // How many calls there are depends on the machine; that there are some while certificates
      // rotate does not.
      expect(result.calls).toBeGreaterThan(0);
      expect(result.leafRotations).toBeGreaterThanOrEqual(1);
      expect(result.caRotations).toBeGreaterThanOrEqual(1);
      // The canary waited for the late one.
      expect(result.confirmations.length).toBeGreaterThan(0);
      expect(Math.min(...result.confirmations)).toBeGreaterThan(LAG);
      // Behind one address the canary waited for both.
      expect(result.hidden?.example).toBeUndefined();
      expect(result.hidden?.failed).toBe(0);
      expect(result.hidden?.confirmedAfter).toBeGreaterThan(HIDDEN_LAG);
      // The same load on a replacement at once shows that it would have seen a failure.
      expect(result.lateControl.failed).toBeGreaterThan(0);
    });
  },
);
