// The API server's clock. It verifies certificates, so it dates what is made here.
import type { Log } from '../platform/log.ts';
import type { CertMetrics } from './metrics.ts';

export interface ServerClock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** True if the clock here was found to be wrong and is corrected. */
  readonly corrected: boolean;
  /** Reads the API server's clock. True if the time assumed until now was wrong. */
  read(): Promise<boolean>;
}

/** Clocks nearer than this (ms) count as equal, because the API server's is read to the second. */
const TOLERANCE = 60_000;

export function serverClock(options: {
  readonly serverTime: () => Promise<number>;
  readonly now: () => number;
  readonly log: Log;
  readonly metrics: CertMetrics;
}): ServerClock {
  const { serverTime, now, log, metrics } = options;
  let offset = 0;
  return {
    now: () => now() + offset,
    get corrected() {
      return offset !== 0;
    },
    async read() {
      const found = (await serverTime()) - now();
      metrics.clockOffset.set(found / 1000);
      if (Math.abs(found - offset) <= TOLERANCE) return false;
      if (Math.abs(found) > TOLERANCE)
        log.error("the clock here is not the API server's, which is the one that counts: set this machine's", {
          seconds: Math.round(found / 1000),
        });
      offset = Math.abs(found) > TOLERANCE ? found : 0;
      return true;
    },
  };
}
