// One chain of certificates as the keeper drives it: what it is given, and what it does when asked.
import type { Log } from '../platform/log.ts';
import type { ChainInput, Change, ReadingOnce, Watching } from './chain.ts';
import type { CertMetrics } from './metrics.ts';
import type { Probe } from './probe.ts';
import type { CertStore } from './store.ts';

/** What both chains need. Durations in milliseconds. */
export interface ChainOptions {
  readonly store: CertStore;
  readonly probe: Probe;
  readonly log: Log;
  readonly metrics: CertMetrics;
  readonly certLife: number;
  /**
   * How long a replica or a scheduler may lag behind a Secret, and how long a CA outlives its last
   * certificate.
   */
  readonly caGrace: number;
}

export interface Seen<Callers extends Watching | ReadingOnce = Watching | ReadingOnce> {
  readonly input: ChainInput<Callers>;
}

/** One chain of certificates, as the loop drives it. */
export interface Chain<S extends Seen = Seen> {
  readonly name: 'webhook' | 'extender';
  /** A check begins. */
  begin(): void;
  observe(now: () => number): Promise<S>;
  /** Takes a step. False if another writer was faster, so that the loop looks again. */
  take(step: Change, seen: S): Promise<boolean>;
  /** Nothing is due. */
  atRest(seen: S): Promise<void>;
  /**
   * Nothing that was seen until now counts: the clock here was wrong, or another leader led in
   * between.
   */
  forget(because: 'clock' | 'leader'): void;
}
