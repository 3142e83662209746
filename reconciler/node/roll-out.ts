// A validated node's turn in a roll-out: it closes, its pods leave, and only then it takes the
// stack that the policy says. Decides the phase; the walk does the rest.
import { digestOf } from '../../core/digest.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { Component } from '../../core/components.ts';
import type { PodObject } from '../model.ts';
import { changedBetween, movedBetween, stackIdOf, touchesDriver, type Target } from '../stack.ts';
import { DONE, type RollOut, type Skipped, type Walk } from '../walk.ts';
import { drainOf, type Drain, type Eviction } from './drain.ts';

/** What the nodes of the policy do beside this one. */
export interface Others {
  /** One of `upgrade.maxUnavailable` is free for this node, or it has one. */
  readonly isFree: boolean;
  /** Another node failed on the new stack. */
  readonly isStopped: boolean;
  /**
   * The DaemonSets of what the policy says are there. The API server may refuse one, and a node
   * would wait for its pod for ever.
   */
  readonly isRendered: boolean;
  /** The maintenance window of the policy is not open. */
  readonly isShut?: boolean;
  /** When that changes, ms since the epoch. */
  readonly changesAt?: number | undefined;
}
export const NO_PLACE: Others = { isFree: false, isStopped: false, isRendered: true };

export interface TurnInput {
  readonly walk: Walk;
  readonly held: Target;
  readonly wanted: Target;
  readonly policy: GpuPolicy;
  readonly users: readonly PodObject[];
  /** Users hold a driver that is still there. */
  readonly isInUse: boolean;
  readonly others: Others;
  readonly now: number;
  readonly watchedSince: number;
  /** A person asks for another try. */
  readonly isAsked: boolean;
  readonly optedOut: ReadonlySet<string>;
  readonly evictions: ReadonlyMap<string, Eviction>;
}

export interface Turn {
  readonly rollOut: RollOut | undefined;
  readonly skipped: Skipped | undefined;
  /** What the node would have to replace to run what the policy says. */
  readonly changed: readonly Component[];
  /** How the pods leave, while they are waited for. */
  readonly drain: Drain | undefined;
  /** What the node takes now; `undefined` if it keeps what it has. */
  readonly takes: Target | undefined;
  /** It is to move, and waits for a place. */
  readonly waits: boolean;
  /** When to look again though nothing changes, ms since the epoch. */
  readonly wakeAt: number | undefined;
}

/**
 * A pod that the scheduler placed just before the node closed is bound within that time, ms. A node
 * without a pod is not touched before.
 */
export const QUIET_MS = 3000;

/** How often a failed node looks whether there is what it could take, ms. */
const RENDER_MS = 5000;

const earliest = (...times: readonly (number | undefined)[]): number | undefined => {
  const known = times.filter((at) => at !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
};

const iso = (at: number): string => new Date(at).toISOString();

/** The move and the way it was tried: another edit makes it another one. */
const moveOf = ({ wanted, policy }: TurnInput): string =>
  digestOf(JSON.stringify([stackIdOf(wanted), policy.spec.upgrade.drain]), 10);

export function turnOf(input: TurnInput): Turn {
  const { walk, isInUse, isAsked } = input;
  const changed = changedBetween(input.held, input.wanted);
  const skipped = changed.length === 0 || isAsked || walk.skipped?.move !== moveOf(input) ? undefined : walk.skipped;
  const still: Turn = {
    rollOut: undefined,
    skipped,
    changed,
    drain: undefined,
    takes:
      !isInUse && (walk.proven === undefined || (walk.renew === true && input.others.isRendered))
        ? input.wanted
        : undefined,
    waits: false,
    wakeAt: undefined,
  };
  // A first walk takes what the policy says by itself.
  if (walk.proven === undefined) return { ...still, skipped: undefined };
  if (walk.rollOut?.phase === 'replace') return replacing(input, still, walk.rollOut);
  if (walk.rollOut !== undefined) return draining(input, still, walk.rollOut);
  if (changed.length === 0 || skipped !== undefined) return still;
  if (hasFailed(walk) && !input.others.isRendered) return { ...still, wakeAt: input.now + RENDER_MS };
  if (hasFailed(walk)) return draining(input, still, { phase: 'drain', since: iso(input.now), spare: true });
  const isReady = walk.stage === DONE && walk.notReady === undefined && walk.renew !== true;
  if (!isReady) return still;
  const mayBegin = !isHalted(input) && input.others.isFree;
  return mayBegin
    ? draining(input, still, { phase: 'drain', since: iso(input.now) })
    : { ...still, waits: true, wakeAt: input.others.changesAt };
}

/** A node that serves pods, and might go on, is not touched. */
const isHalted = ({ policy, others }: TurnInput): boolean =>
  policy.spec.upgrade.paused || others.isStopped || !others.isRendered || others.isShut === true;

/** Failed on what it runs, or is being tried again after that. */
const hasFailed = ({ failed, streak, stage }: Walk): boolean => stage !== DONE && (failed !== undefined || streak > 0);

/** Closed, and running pods leave. */
function draining(input: TurnInput, still: Turn, rollOut: RollOut): Turn {
  const { policy, now, users, walk } = input;
  const { changed } = still;
  // A node that went out of sight meanwhile gives its turn to another one.
  const isLost = walk.notReady !== undefined;
  if (changed.length === 0 || ((isLost || isHalted(input)) && rollOut.spare !== true))
    return { ...still, takes: undefined };
  const began = Date.parse(rollOut.since);
  const drain = drainOf({
    users,
    spec: policy.spec.upgrade.drain,
    since: Math.max(began, input.watchedSince),
    now,
    isDriverTouched: touchesDriver(changed),
    optedOut: input.optedOut,
    evictions: input.evictions,
  });
  if (drain.awaited.length > 0)
    return drain.isExpired
      ? { ...still, takes: undefined, skipped: { move: moveOf(input), at: iso(now), text: drain.text } }
      : { ...still, rollOut, drain, takes: undefined, wakeAt: earliest(drain.wakeAt, input.others.changesAt) };
  const quietAt = began + QUIET_MS;
  // A failed node has been closed before.
  if (rollOut.spare !== true && walk.failed === undefined && now < quietAt)
    return { ...still, rollOut, drain, takes: undefined, wakeAt: quietAt };
  return { ...still, rollOut: { ...rollOut, phase: 'replace' }, takes: takenBy(input, rollOut) };
}

/** The stack is being replaced. Another edit changes where it goes, unless pods are in the way. */
function replacing(input: TurnInput, still: Turn, rollOut: RollOut): Turn {
  const { policy, isInUse, users, now } = input;
  const { mode, timeout: _, ...spec } = policy.spec.upgrade.drain;
  const passes = mode === 'None' && !touchesDriver(still.changed);
  const drain = drainOf({
    users: isInUse ? users : [],
    spec: { ...spec, mode, timeout: 0 },
    since: now,
    now,
    isDriverTouched: touchesDriver(still.changed),
    optedOut: input.optedOut,
    evictions: input.evictions,
  });
  const mayGo = input.others.isRendered && (!isInUse || passes);
  // Where it goes now is away from what it failed on.
  const isElsewhere = still.changed.length > 0 && mayGo;
  const { failed, ...rest } = rollOut;
  return {
    ...still,
    rollOut: isElsewhere && failed !== undefined ? { ...rest, spare: true } : rollOut,
    ...(drain.awaited.length > 0 ? { drain, wakeAt: drain.wakeAt } : {}),
    takes: mayGo ? takenBy(input, rollOut) : undefined,
  };
}

/** A node that failed has nothing to lose, and takes all that the policy says. */
const takenBy = ({ held, wanted }: TurnInput, { spare }: RollOut): Target =>
  spare === true ? wanted : movedBetween(held, wanted);
