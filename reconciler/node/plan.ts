// One opted-in node: what is observed → what its Node should say, and the pods to make or remove.
// Each step is a value made of the ones before it; nothing is planned twice.
import { GPU_VALIDATED, MANAGED, WALK } from '../../core/keys.ts';
import { isOurs } from '../../gate/node-proof.ts';
import type { Action } from '../actions.ts';
import type { Keep } from '../limits/breaker.ts';
import { ROLL_OUT } from '../limits/places.ts';
import type { Walk } from '../walk.ts';
import { climbed } from './climb.ts';
import { clocked, earliest } from './clock.ts';
import { desiredMarks } from './desired.ts';
import type { Finding } from './findings.ts';
import { eventsOf, restartsOf, strayEvents } from './events.ts';
import { judge } from './judge.ts';
import type { NodeObject } from '../model.ts';
import { changesOnlySaid, differences, setTaints, withoutOurs, type Desired } from './marks.ts';
import { NOTHING, type NodePlan } from './node-plan.ts';
import { evictionsOf } from './drain.ts';
import { observe, remembered, type NodeInput, type Observed, type WithPolicy } from './observed.ts';
import { planRemoval, planUnselected } from './removal.ts';
import { WALK_STATES } from './states/list.ts';
import type { WalkState } from './states/state.ts';

/** The actions that bring one node a step nearer to validated, or out of our hands. */
export function planNode(input: NodeInput, states: readonly WalkState[] = WALK_STATES): NodePlan {
  const { node, policy } = input;
  if (node.metadata.deletionTimestamp !== undefined) return NOTHING;
  // Both labels were removed by hand, so the walk's remaining annotation is removed too.
  const isLeft = node.metadata.annotations?.[WALK] !== undefined;
  if (!isOurs(node) && !isLeft) return { ...NOTHING, actions: strayEvents(node) };
  if (node.metadata.labels?.[MANAGED] !== 'true') return planRemoval(input, true);
  if (policy === undefined) return planUnselected(input);
  if (policy.deleting) return planRemoval(input, false);
  if (policy.spec.suspend) {
    const taints = withoutOurs(node);
    // A node that is closed for a roll-out stays so, and keeps its place.
    const frozen: NodePlan = { ...NOTHING, ...turnIn(remembered(node, input.now), false) };
    return taints.length === (node.spec?.taints ?? []).length
      ? frozen
      : { ...frozen, actions: [setTaints(node, taints)] };
  }
  return planWalk({ ...input, policy }, states);
}

function planWalk(input: WithPolicy, states: readonly WalkState[]): NodePlan {
  const { node, now } = input;
  const seen = observe(input);
  const climb = climbed(seen, states);
  const timed = clocked(seen, climb);
  const judgement = judge(seen, climb, timed);
  const evictions = evictionsOf(
    seen.turn.drain,
    `${seen.turn.changed.join(', ') || 'the stack'} of node ${node.metadata.name} is replaced in a roll-out`,
  );
  const pods = [...climb.pods, ...timed.discard, ...evictions];
  const isTroubled = climb.stop !== undefined && isTrouble(climb.stop.finding);
  const write = (keep: Keep | undefined): Written => {
    const desired = desiredMarks(seen, climb, timed, judgement, keep);
    const all = differences(node, desired);
    const marks = begun(node, desired, all);
    const settled = settlesAt(node, desired, marks, isTroubled ? TROUBLE_MS : SETTLE_MS);
    const isEarly = settled !== undefined && now < settled;
    return {
      after: desired.walk,
      actions: [
        ...(isEarly ? [] : marks),
        ...pods,
        ...eventsOf(node, seen.before, desired),
        ...restartsOf(node, timed.discard),
      ],
      wakeAt: isEarly ? settled : marks.length < all.length ? now + SETTLE_MS : undefined,
    };
  };
  const { actions, after, wakeAt } = write(undefined);
  const { stop } = climb;
  const isWaitingElsewhere = stop?.finding.kind === 'waiting' && stop.finding.untimed === true;
  return {
    actions,
    unless: (keep) => write(keep).actions,
    wakeAt: earliest(
      ...[timed.wakeAt, wakeAt, seen.turn.wakeAt, ...wakesOf(seen)].filter((at) => at !== undefined && at > now),
    ),
    // What waits for another node, a person or its kubelet gives its place back meanwhile.
    holdsSlot:
      stop !== undefined &&
      seen.walk.proven === undefined &&
      stop.state.name !== 'preflight' &&
      timed.failure === undefined &&
      !isWaitingElsewhere,
    ...turnIn(after, seen.turn.waits),
    // A replacement that was asked for is not a loss that the breaker should wonder at.
    withdraws: judgement === 'withdrawn' && seen.walk.renew !== true,
    ...(after === undefined ? {} : { walked: { before: seen.before, after } }),
  };
}

const turnIn = (walk: Walk | undefined, waits: boolean): Pick<NodePlan, 'rollOut'> =>
  walk !== undefined && ROLL_OUT.holds(walk) ? { rollOut: 'holds' } : waits ? { rollOut: 'waits' } : {};

interface Written {
  readonly after: Walk | undefined;
  readonly actions: readonly Action[];
  readonly wakeAt: number | undefined;
}

/** A state that is passed sooner has one sentence: the one that it began with. */
const SETTLE_MS = 15_000;
const isTrouble = (finding: Finding): boolean =>
  finding.kind === 'waiting' && (finding.trouble === true || finding.telling === true);

/** The same for a sentence that says why the state does not go on. */
const TROUBLE_MS = 5000;

/**
 * The first writes of a walk: marks and taint are one request, and a condition that nothing is said
 * by yet comes with the next state, or once this one has lasted.
 */
function begun(node: NodeObject, { condition, walk }: Desired, marks: readonly Action[]): readonly Action[] {
  const isFirst =
    condition?.status === 'False' &&
    walk?.failed === undefined &&
    conditionOn(node) === undefined &&
    marks.some(({ kind }) => kind === 'patch-node') &&
    marks.some(({ kind }) => kind === 'set-taints');
  return isFirst ? marks.filter(({ kind }) => kind !== 'set-node-condition') : marks;
}

const conditionOn = (node: NodeObject) => node.status?.conditions?.find(({ type }) => type === GPU_VALIDATED);

/**
 * When a new sentence about the same state of a first walk is written, ms since the epoch;
 * `undefined` if at once.
 */
function settlesAt(
  node: NodeObject,
  { condition, walk }: Desired,
  marks: readonly Action[],
  settleMs: number,
): number | undefined {
  const present = conditionOn(node);
  const isOnlySentence =
    marks.length > 0 &&
    marks.every((mark) => mark.kind === 'set-node-condition' || changesOnlySaid(node, mark, walk)) &&
    condition?.status === 'False' &&
    (present === undefined || (present.status === 'False' && present.reason === condition.reason));
  return isOnlySentence && walk !== undefined && walk.failed === undefined
    ? Date.parse(walk.since) + settleMs
    : undefined;
}

/** Times at which something is lost by itself. */
function wakesOf({ walk, input, proof }: Observed): readonly (number | undefined)[] {
  const after = (since: string | undefined, ms: number): number | undefined =>
    since === undefined ? undefined : Date.parse(since) + ms;
  const { interval } = input.policy.spec.validation;
  return [
    after(walk.notReady, input.notReadyGrace),
    after(walk.labelGone, input.policy.spec.labelHold),
    interval > 0 ? after(proof?.at, interval) : undefined,
  ];
}
