// The time of a state: its limit, its failure, its backoff, and what ends a failure early. The time
// is an argument.
import type { Component } from '../../core/components.ts';
import { RETRY } from '../../core/keys.ts';
import { STAGES } from '../../core/stages.ts';
import type { Failure, Walk } from '../walk.ts';
import type { Climb, Stop } from './climb.ts';
import { digest, hasPciLabel } from './findings.ts';
import { iso, operandPod, type Observed } from './observed.ts';
import type { PodAction, WalkState } from './states/state.ts';

/** Inputs of a state: a change of them ends a failure at once. */
const inputsOf = ({ input, boot }: Observed, stage: string): string =>
  digest(
    stage,
    boot,
    hasPciLabel(input.node),
    input.policy.name,
    input.revisions,
    input.policy.spec.validation,
    input.policy.spec.injection,
    input.policy.spec.resources,
  );

/** The retry annotation, if its value has not been obeyed yet. Taking it away asks for nothing. */
const asked = ({ input, walk }: Observed): string | undefined => {
  const value = input.node.metadata.annotations?.[RETRY];
  return value === walk.retry ? undefined : value;
};

type Due = 'operator' | 'inputs' | 'backoff';

/** Is it time to try the failed state again? */
function retryDue(seen: Observed, stage: string): Due | undefined {
  const { walk, input } = seen;
  const { failed } = walk;
  if (failed?.stage !== stage) return undefined;
  if (asked(seen) !== undefined) return 'operator';
  // A first walk that failed has given its place up, and needs one again to go on.
  if (walk.proven === undefined && stage !== 'preflight' && !input.slotFree) return undefined;
  if (failed.inputs !== inputsOf(seen, stage)) return 'inputs';
  const retryAt = Date.parse(failed.retryAt);
  // No backoff is longer than that: the clock that wrote it was ahead.
  const isAhead = retryAt - input.now > input.policy.spec.validation.backoff.max * MOST_JITTER;
  return input.now >= retryAt || isAhead ? 'backoff' : undefined;
}

export const isBackingOff = (seen: Observed, stage: string): boolean =>
  seen.walk.failed?.stage === stage && retryDue(seen, stage) === undefined;

export const attemptFor = (seen: Observed, stage: string): number =>
  seen.walk.attempt + (retryDue(seen, stage) === undefined ? 0 : 1);

export interface Timed {
  readonly walk: Walk;
  /** The state has failed, and is not being tried again. */
  readonly failure: Failure | undefined;
  /** When to look again though nothing changes, ms since the epoch. */
  readonly wakeAt: number | undefined;
  readonly message: string;
  /** Pods to start afresh for another try. */
  readonly discard: readonly PodAction[];
}

/** How often a failed first walk asks for a place, ms. */
const PLACE_MS = 60_000;

const none = (walk: Walk): Timed => ({ walk, failure: undefined, wakeAt: undefined, message: '', discard: [] });

/**
 * Moves the walk's clock on: another state starts it, a failure or a limit sets the time of the
 * next try.
 */
export function clocked(seen: Observed, climb: Climb): Timed {
  const { stop } = climb;
  const { input } = seen;
  const timed = passed(seen.walk, stop, input.now);
  if (stop === undefined) return none(obeyed(seen, timed));
  const begun = started(timed, stop, input.now);
  const due = retryDue(seen, stop.state.name);
  if (due !== undefined) return triedAgain(seen, climb, stop, begun, due);
  if (begun.failed !== undefined)
    return {
      ...none(begun),
      failure: begun.failed,
      wakeAt: Math.max(Date.parse(begun.failed.retryAt), input.now + (input.slotFree ? 0 : PLACE_MS)),
      message: begun.failed.message,
    };
  // At the operator's word what hangs is started afresh without waiting for its limit. A validation
  // has no operand: another try of it is another pod.
  if (asked(seen) !== undefined && stop.finding.kind === 'waiting') {
    const attempt = begun.attempt + (stop.state.operand === undefined ? 1 : 0);
    return {
      ...none({ ...obeyed(seen, begun), since: iso(input.now), attempt }),
      wakeAt: limitOf(seen, stop, { ...begun, since: iso(input.now) }),
      message: stop.finding.message,
      discard: restarted(seen, climb, stop.state.operand, `trying ${stop.state.name} again`),
    };
  }
  return judged(seen, stop, begun);
}

const placeOf = (stage: string): number => STAGES.findIndex((one) => one === stage);

/**
 * How long the stage took that is behind the walk now. One that waited for others, or had failed,
 * says nothing about the usual time.
 */
function passed(walk: Walk, stop: Stop | undefined, now: number): Walk {
  const at = placeOf(walk.stage);
  const isPassed = at >= 0 && (stop === undefined || placeOf(stop.state.name) > at);
  if (!isPassed || walk.untimed === true || walk.failed !== undefined) return walk;
  return { ...walk, tookMs: { ...walk.tookMs, [walk.stage]: Math.max(0, now - Date.parse(walk.since)) } };
}

/** The walk at this stop: the clock of another state, or of one that ran none, begins now. */
function started(walk: Walk, { state, finding }: Stop, now: number): Walk {
  const isUntimed = finding.kind === 'waiting' && finding.untimed === true;
  const { untimed, failed, ...rest } = walk;
  const marked = isUntimed ? { untimed: true as const } : {};
  if (walk.stage !== state.name) return { ...rest, ...marked, stage: state.name, since: iso(now), streak: 0 };
  const kept = failed === undefined ? {} : { failed };
  return untimed === true && !isUntimed ? { ...rest, ...kept, since: iso(now) } : { ...rest, ...kept, ...marked };
}

const obeyed = (seen: Observed, walk: Walk): Walk => {
  const value = asked(seen);
  if (value === undefined) return walk;
  const { restarted: _, ...rest } = walk;
  return { ...rest, retry: value };
};

function triedAgain(seen: Observed, climb: Climb, stop: Stop, begun: Walk, due: Due): Timed {
  const { input, users } = seen;
  const { failed, ...rest } = begun;
  const walk: Walk = {
    ...obeyed(seen, rest),
    since: iso(input.now),
    attempt: rest.attempt + 1,
    streak: due === 'backoff' ? rest.streak + 1 : 0,
    // With no GPU pod in the way the newest revisions are what may help, where a person changed
    // something, or where the revision that the node runs exists no more.
    ...(users.length === 0 && (due !== 'backoff' || isOrphaned(seen, stop)) ? { renew: true as const } : {}),
  };
  // Nothing to try: preflight is judged by what is seen now.
  if (stop.state.name === 'preflight' && stop.finding.kind === 'failed') return judged(seen, stop, walk);
  const component = remedy(seen, stop, due, failed);
  const isByClock = component !== undefined && due !== 'operator';
  return {
    ...none(isByClock ? { ...walk, restarted: [...new Set([...(walk.restarted ?? []), component])] } : walk),
    wakeAt: limitOf(seen, stop, walk),
    message: 'trying again',
    discard: restarted(seen, climb, component, `trying ${stop.state.name} again`),
  };
}

/**
 * The operand that a retry restarts. The operator's retry restarts the state's own operand. A timed
 * retry restarts one only if no pod with GPUs depends on it: the operand that fails or hangs, or,
 * if its pod is Ready and the state still fails, each operand that a person would restart, one
 * after the other and each once.
 */
function remedy(
  seen: Observed,
  { state, finding }: Stop,
  due: Due,
  failed: Failure | undefined,
): Component | undefined {
  if (due === 'operator') return state.operand;
  if (seen.users.length > 0) return undefined;
  const isHealthy = finding.kind === 'waiting' ? finding.healthy === true : finding.disproves === true;
  if (isHealthy) return due === 'backoff' ? nextOf(seen, state) : undefined;
  // An operand that is on its feet again is left to the kubelet.
  const isStuck = finding.kind === 'failed' || failed?.reason === 'TimedOut';
  return isStuck && seen.proof === undefined ? state.operand : undefined;
}

/** The nearest component of ours that was not restarted yet. */
const nextOf = ({ walk, deployed }: Observed, { restarts }: WalkState): Component | undefined =>
  restarts.find((component) => deployed[component] !== undefined && walk.restarted?.includes(component) !== true);

/** The revision that the node is to run has no DaemonSet any more: its pod cannot come. */
const isOrphaned = ({ input, walk }: Observed, { state, finding }: Stop): boolean => {
  const choice = walk.target[state.name];
  return (
    finding.kind === 'waiting' &&
    finding.reason === 'PodMissing' &&
    choice !== undefined &&
    'revision' in choice &&
    ![...input.daemonSets.keys()].some((name) => name.endsWith(`-${choice.revision}`))
  );
};

function judged(seen: Observed, stop: Stop, walk: Walk): Timed {
  const { finding } = stop;
  if (finding.kind === 'failed') return failing(seen, stop, walk, finding.reason, finding.message);
  const end = limitOf(seen, stop, walk);
  if (end !== undefined && seen.input.now >= end) {
    const after = seconds(end - beginOf(seen, stop, walk));
    const message = `timed out after ${after}: still ${finding.message}`;
    return failing(seen, stop, walk, finding.telling === true ? finding.reason : 'TimedOut', message);
  }
  return { ...none(walk), wakeAt: earliest(end, finding.wakeAt), message: finding.message };
}

export const earliest = (...times: readonly (number | undefined)[]): number | undefined =>
  times.reduce((a, b) => (a === undefined || (b !== undefined && b < a) ? b : a), undefined);

const seconds = (ms: number): string =>
  ms >= 120_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 1000)} s`;

/** When the state's time began: not before this leader looked, whose clock may be another one. */
const beginOf = ({ input }: Observed, { finding }: Stop, walk: Walk): number => {
  const since = finding.kind === 'waiting' ? Date.parse(finding.since ?? '') || 0 : 0;
  return Math.max(Math.min(since, input.now), Date.parse(walk.since), input.watchedSince);
};

function limitOf(seen: Observed, stop: Stop, walk: Walk): number | undefined {
  const limit = stop.state.limit(seen.input.policy);
  if (limit === undefined || (stop.finding.kind === 'waiting' && stop.finding.untimed === true)) return undefined;
  return beginOf(seen, stop, walk) + limit;
}

const MOST_JITTER = 1.2;
/** Jitter without randomness: nodes that failed together must not all try again together. */
const jitterOf = (uid: string, attempt: number): number =>
  0.8 + (0.4 * Number.parseInt(digest(uid, attempt).slice(0, 4), 16)) / 0xffff;

function failing(seen: Observed, { state }: Stop, walk: Walk, reason: string, message: string): Timed {
  const { input } = seen;
  const { initial, max } = input.policy.spec.validation.backoff;
  const backoff = Math.min(max, initial * 2 ** walk.streak) * jitterOf(input.node.metadata.uid, walk.attempt);
  const retryAt = input.now + backoff;
  const failed: Failure = {
    stage: state.name,
    reason,
    message,
    at: iso(input.now),
    retryAt: iso(retryAt),
    inputs: inputsOf(seen, state.name),
  };
  return { ...none({ ...walk, failed }), failure: failed, wakeAt: retryAt, message };
}

/** The component's pod goes, so that its DaemonSet makes another one. */
function restarted(
  seen: Observed,
  climb: Climb,
  component: Component | undefined,
  because: string,
): readonly PodAction[] {
  const revision = component === undefined ? undefined : climb.deploy[component];
  if (component === undefined || revision === undefined) return [];
  const pod = operandPod(seen.input, component, revision);
  return pod === undefined
    ? []
    : [{ kind: 'delete-pod', namespace: pod.namespace, name: pod.name, uid: pod.uid, because }];
}
