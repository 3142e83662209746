// What is to be done for one node, and what its controller is to count and to remember of it.
import type { Action } from '../actions.ts';
import type { Keep } from '../limits/breaker.ts';
import type { Walk } from '../walk.ts';

export interface NodePlan {
  readonly actions: readonly Action[];
  /**
   * The milder plan that keeps a proof about to be withdrawn, with the reason that the closed node
   * shows.
   */
  readonly unless?: (keep: Keep) => readonly Action[];
  /** When to look again though nothing changes, ms since the epoch. */
  readonly wakeAt: number | undefined;
  /** Holds one of `bringUp.maxConcurrent`. */
  readonly holdsSlot: boolean;
  /** Keeps one of `upgrade.maxUnavailable`, or waits for one; absent if neither. */
  readonly rollOut?: 'holds' | 'waits';
  /** A proof is about to be withdrawn with no reboot behind it: what the circuit breaker counts. */
  readonly withdraws: boolean;
  /** The walk before and after, for the figures. */
  readonly walked?: { readonly before: Walk; readonly after: Walk };
}

export const NOTHING: NodePlan = { actions: [], wakeAt: undefined, holdsSlot: false, withdraws: false };
