// Every reason for which the gate refuses a node, as a value. The sentence is what users read in
// FailedScheduling and what the scheduler counts by, so it carries no name and no time.
import { MIN_DRIVER, POLICY } from '../core/keys.ts';
import { STAGES, STATES, type Stage, type State } from '../core/stages.ts';

export type ReasonKind =
  | 'unknown'
  | 'not-opted-in'
  | 'other-policy'
  | 'not-validated'
  | 'failed'
  | 'replaced'
  | 'rebooted'
  | 'not-ready'
  | 'closed'
  | 'held'
  | 'cordoned'
  | 'driver-old'
  | 'driver-unknown'
  | 'cuda'
  | 'no-such-policy'
  | 'policy-not-allowed'
  | 'bad-policy'
  | 'bad-min-driver'
  | 'claim-unknown';

export interface Reason {
  readonly kind: ReasonKind;
  /** What users read. */
  readonly sentence: string;
  /** Value of the metric label `reason`; few over all nodes. */
  readonly label: string;
  /** Where the node says since when: its condition Ready, its walk, its proof, or nowhere. */
  readonly since: 'ready' | 'walk' | 'proof' | 'none';
}

const reason = (kind: ReasonKind, sentence: string, since: Reason['since'] = 'none', label = sentence): Reason => ({
  kind,
  sentence,
  label,
  since,
});

/** Reasons that are the same for every node. */
export const REASONS = {
  unknown: reason('unknown', 'GPU state not known yet'),
  notOptedIn: reason('not-opted-in', 'node not opted in to gpu-gate'),
  otherPolicy: reason('other-policy', 'other GPU policy'),
  replaced: reason('replaced', 'GPU proof is of another node object'),
  rebooted: reason('rebooted', 'node rebooted since validation'),
  notReady: reason('not-ready', 'node not Ready', 'ready'),
  held: reason('held', 'GPU node held by an operator'),
  cordoned: reason('cordoned', 'node cordoned'),
  driverOld: reason('driver-old', 'GPU driver older than the pod requires', 'proof'),
  driverUnknown: reason('driver-unknown', 'GPU driver version not known', 'proof'),
  cuda: reason('cuda', "driver/CUDA version does not satisfy the pod's NVIDIA_REQUIRE_CUDA", 'proof'),
  noSuchPolicy: reason('no-such-policy', 'the GPUPolicy that the pod names does not exist'),
  policyNotAllowed: reason('policy-not-allowed', 'the pod may not name its GPUPolicy in this namespace'),
  badPolicy: reason('bad-policy', `the pod's annotation ${POLICY} is malformed`),
  claimUnknown: reason('claim-unknown', 'a resource claim of the pod is not known yet'),
  badMinDriver: reason('bad-min-driver', `the pod's annotation ${MIN_DRIVER} is malformed`),
} as const;

const notStarted = reason('not-validated', 'GPU stack not validated: walk not started', 'walk');
const NOT_VALIDATED = Object.fromEntries(
  STATES.map((state) => [
    state,
    state === 'validated' ? notStarted : reason('not-validated', `GPU stack not validated: ${state}`, 'walk'),
  ]),
) as Readonly<Record<State, Reason>>;
/** The node is on its way; `state` is that of its label. */
export const notValidated = (state: State | undefined): Reason =>
  state === undefined ? notStarted : NOT_VALIDATED[state];

const FAILED = Object.fromEntries(
  STAGES.map((stage) => [stage, reason('failed', `GPU stack failed: ${stage}`, 'walk')]),
) as Readonly<Record<Stage, Reason>>;
const failedSomewhere = reason('failed', 'GPU stack failed: see node condition GPUValidated', 'walk');
/** A stage of the walk failed; `undefined` if the node does not say which. */
export const stackFailed = (stage: Stage | undefined): Reason =>
  stage === undefined ? failedSomewhere : FAILED[stage];

/**
 * A serving node that takes no new pods. The reconciler's own words may be many, so that the label
 * leaves them out.
 */
export const nodeClosed = (why: string): Reason =>
  reason('closed', `GPU node closed: ${why}`, 'walk', 'GPU node closed');

const allocatedHere = new WeakMap<Reason, Reason>();
/** The node is refused to a pod that can go nowhere but to the node of its allocated claim. */
export function onAllocated(because: Reason): Reason {
  const known = allocatedHere.get(because);
  if (known !== undefined) return known;
  const fresh = { ...because, sentence: `the pod waits for the node of its allocated GPU claim: ${because.sentence}` };
  allocatedHere.set(because, fresh);
  return fresh;
}

/**
 * All reasons there are, an example of each that has a parameter; the reference of messages is made
 * from it.
 */
export const ALL_REASONS: readonly Reason[] = [
  ...Object.values(REASONS),
  notStarted,
  ...new Set(Object.values(NOT_VALIDATED).filter((one) => one !== notStarted)),
  ...Object.values(FAILED),
  failedSomewhere,
  nodeClosed('WHY'),
  onAllocated(notValidated('driver')),
];
