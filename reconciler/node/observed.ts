// What is known of a node now: the objects that the caches hold, and what the node itself
// remembers.
import type { ClaimFacts } from '../../gate/devices.ts';
import { usesGpus } from '../../gate/users.ts';
import { hasEnded } from '../model.ts';
import type { Allocation, GpuPolicy } from '../../core/gpu-policy.ts';
import { COMPONENT, PROOF, PROVE, RETRY, WALK } from '../../core/keys.ts';
import { levelAsked } from '../../core/levels.ts';
import { POD_COMPONENT, type Component } from '../../core/components.ts';
import { parseProof, type Proof } from '../../gate/node-proof.ts';
import type { Rejection } from '../limits/rejections.ts';
import type { NodeObject, PodObject } from '../model.ts';
import { newWalk, parseWalk, rebooted, type Accepted, type Choice, type Walk } from '../walk.ts';
import { deployedOn } from '../model.ts';
import type { OtherRule } from '../devices/rules.ts';
import type { Pool } from '../slices.ts';
import { allocationOf, wantedTarget, type Target } from '../stack.ts';
import { noteDevices } from './devices.ts';
import { noteLosses } from './losses.ts';
import type { Eviction } from './drain.ts';
import { NO_PLACE, turnOf, type Others, type Turn } from './roll-out.ts';
import { heldTarget, targetOf, UNWATCHED } from './target.ts';

export interface NodeInput {
  readonly node: NodeObject;
  /** Every kept pod on the node. */
  readonly pods: readonly PodObject[];
  /** Validation pods of the operand namespace by name, unbound ones too. */
  readonly validationPods: ReadonlyMap<string, PodObject>;
  /** UID by name of each DaemonSet of ours: whatever another controller made is not evidence. */
  readonly daemonSets: ReadonlyMap<string, string>;
  readonly policy: GpuPolicy | undefined;
  /** Names of the other policies that select the node too. */
  readonly conflicts: readonly string[];
  /** Newest revision of each component that the policy deploys. */
  readonly revisions: Readonly<Partial<Record<Component, string>>>;
  /** May this node begin its first walk? */
  readonly slotFree: boolean;
  readonly operandNamespace: string;
  /** How long a node may be not Ready before its proof goes, ms. */
  readonly notReadyGrace: number;
  readonly now: number;
  /**
   * Since when this leader looks at the cluster, by the same clock as `now`: no limit runs longer
   * than that.
   */
  readonly watchedSince: number;
  /** Many nodes are silent at once, so that the silence of this one says nothing about its GPUs. */
  readonly isOverloaded?: boolean;
  /** The kubelet rejects GPU pods again and again. */
  readonly rejection?: Rejection | undefined;
  /**
   * Why a pod does not come or does not start: by the UID of a pod or DaemonSet, or by the name of
   * a pod that was refused.
   */
  readonly troubles?: ReadonlyMap<string, string>;
  /** How the roll-out of its policy stands; absent where it has no place. */
  readonly rollOut?: Others;
  /** Namespaces whose pods are never evicted. */
  readonly optedOut?: ReadonlySet<string>;
  /** What DRA drivers publish of the node; `undefined` where the API server does not serve it. */
  readonly pools?: readonly Pool[] | undefined;
  /** By `namespace/name`. */
  readonly claimOf?: (key: string) => ClaimFacts | undefined;
  /** DeviceTaintRules of other people. */
  readonly otherRules?: Iterable<OtherRule>;
  /** Devices that rules of gpu-gate leave out now; `undefined` where it has none. */
  readonly ruledOut?: ReadonlySet<string> | undefined;
  /** Is the device allocated to a claim? */
  readonly isAllocated?: (driver: string, pool: string, device: string) => boolean;
  /** Name of the ResourceClaimTemplate for validation pods, once it is there. */
  readonly claimTemplate?: string | undefined;
  /** What became of the last try to evict a pod, by its UID. */
  readonly evictions?: ReadonlyMap<string, Eviction>;
}

export type WithPolicy = NodeInput & { readonly policy: GpuPolicy };

export interface Observed {
  readonly input: WithPolicy;
  /** The boot ID that the kubelet published last; empty if it never did. */
  readonly boot: string;
  /** The proof, if it is of this node and this boot. */
  readonly proof: Proof | undefined;
  /** What the node remembered before this look. */
  readonly before: Walk;
  /** The same with reboot, losses and target noted. */
  readonly walk: Walk;
  readonly deployed: Readonly<Partial<Record<Component, string>>>;
  /** How GPUs reach pods here, by what the node is to run. */
  readonly allocation: Allocation;
  /** Users' pods that hold GPUs on the node now. */
  readonly users: readonly PodObject[];
  readonly turn: Turn;
  /** Users hold a driver that is still there: nothing is taken from under them. */
  readonly isInUse: boolean;
}

export const iso = (now: number): string => new Date(now).toISOString();

/**
 * Validation pods are owned by their Node, so that they go with it; unbound ones are found by that
 * owner.
 */
export const isOfNode = (pod: PodObject, node: NodeObject): boolean =>
  pod.nodeName === node.metadata.name || pod.validates === node.metadata.uid;

/** Users' pods that use GPUs of the node now; gate/users.ts says what using them is. */
export const gpuUsers = ({
  pods,
  operandNamespace,
  policy,
}: Pick<NodeInput, 'pods' | 'operandNamespace' | 'policy'>): readonly PodObject[] =>
  pods.filter((pod) => pod.namespace !== operandNamespace && !hasEnded(pod) && usesGpus(pod, policy));

/** The proof that stands on the Node, if it is of this Node object, whatever its boot. */
const proofOn = (node: NodeObject): Proof | undefined => {
  const written = parseProof(node.metadata.annotations?.[PROOF]);
  return written?.node === node.metadata.uid ? written : undefined;
};

/** What the node remembers of itself; where its memory was lost, what the proof says of it. */
export function remembered(node: NodeObject, now: number): Walk {
  const known = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid);
  if (known !== undefined) return sane(known, now);
  const proof = proofOn(node);
  const published = node.status?.nodeInfo?.bootID ?? '';
  // With no boot ID in the status, the last one that is known: see `observe`.
  const boot = published === '' ? (proof?.boot ?? '') : published;
  // Rounds of a walk that was forgotten must not be taken for rounds of this one.
  const fresh = { ...newWalk(node.metadata.uid, boot, now), epoch: Math.floor(now / 1000) };
  const retry = node.metadata.annotations?.[RETRY];
  const prove = node.metadata.annotations?.[PROVE];
  return {
    ...fresh,
    // A value that was there before the walk began asks for nothing.
    ...(retry === undefined ? {} : { retry }),
    ...(prove === undefined ? {} : { prove }),
    ...(proof === undefined ? {} : recalled(proof)),
    ...(proof === undefined || proof.boot === boot ? {} : { booted: iso(now) }),
  };
}

const recalled = (proof: Proof): Pick<Walk, 'proven' | 'evidence' | 'target'> & Partial<Walk> => ({
  proven: proof.boot,
  evidence: Object.fromEntries(
    Object.entries(proof.components).map(([name, evidence]): [string, Accepted] => [
      name,
      { ...evidence, boot: proof.boot, proven: true },
    ]),
  ),
  target: Object.fromEntries(
    Object.entries(proof.components).map(([name, { revision }]): [string, Choice] => [
      name,
      revision === UNWATCHED.revision ? { external: 'unwatched' } : { revision },
    ]),
  ),
  ...(proof.driver === undefined ? {} : { driver: proof.driver }),
});

export function observe(input: WithPolicy): Observed {
  const { node, now } = input;
  const before = remembered(node, now);
  // One status without a boot ID is not a reboot: the node is what it was until another ID comes.
  const published = node.status?.nodeInfo?.bootID ?? '';
  const boot = published === '' ? before.boot : published;
  const written = proofOn(node);
  const users = gpuUsers(input);
  const deployed = deployedOn(node);
  const continued =
    before.boot === boot ? before : before.boot === '' ? { ...before, boot } : rebooted(before, boot, now);
  const held = heldTarget(continued, deployed);
  const wanted = wantedTarget(input.policy, input.revisions);
  const isInUse = users.length > 0 && !isDriverGone(input, continued, held);
  const retry = node.metadata.annotations?.[RETRY];
  const turn = turnOf({
    walk: continued,
    held,
    wanted,
    policy: input.policy,
    users,
    isInUse,
    others: input.rollOut ?? NO_PLACE,
    now,
    watchedSince: input.watchedSince,
    isAsked: retry !== undefined && retry !== continued.retry,
    optedOut: input.optedOut ?? NO_NAMES,
    evictions: input.evictions ?? NO_EVICTIONS,
  });
  const { target, proof } = targetOf({
    walk: continued,
    proof: written?.boot === boot && boot !== '' ? written : undefined,
    wanted,
    held,
    takes: turn.takes,
  });
  const isAsked = retry !== undefined && retry !== continued.retry;
  const noted = noteLosses({ ...inTurn(continued, turn), target }, input, proof, users.length === 0);
  const walk = provedAgain(noteDevices(noted, input, isAsked), node.metadata.annotations?.[PROVE]);
  const allocation = allocationOf(target) ?? input.policy.spec.allocation;
  return { input, boot, proof, before, walk, deployed, allocation, users, turn, isInUse };
}

const NO_NAMES: ReadonlySet<string> = new Set();
const NO_EVICTIONS: ReadonlyMap<string, Eviction> = new Map();

/** The walk with its turn in a roll-out. What is replaced is what a person asked for. */
function inTurn(walk: Walk, { rollOut, skipped }: Turn): Walk {
  const { rollOut: _, skipped: __, leaving: ___, ...rest } = walk;
  return {
    ...rest,
    ...(rollOut === undefined ? {} : { rollOut }),
    ...(skipped === undefined ? {} : { skipped }),
    ...(rollOut?.phase === 'replace' ? { renew: true as const } : {}),
  };
}

/**
 * At a person's word the validations of a level run again, in pods of other names; what the proof
 * says stands meanwhile. Operands are not touched: that is what a retry is for.
 */
function provedAgain(walk: Walk, asked: string | undefined): Walk {
  if (asked === undefined || asked === walk.prove) return walk;
  const { failed, ...rest } = walk;
  const { 'driver-validation': _, ...others } = walk.passed;
  return {
    ...rest,
    ...(failed === undefined || failed.stage.endsWith('-validation') ? {} : { failed }),
    prove: asked,
    attempt: walk.attempt + 1,
    passed: levelAsked(asked) === 'driver' ? others : {},
  };
}

/**
 * Has our driver been taken off for a replacement? A pod that came too late for the node's closing
 * holds nothing then.
 */
const isDriverGone = (input: NodeInput, walk: Walk, held: Target): boolean =>
  walk.renew === true &&
  held['driver'] !== undefined &&
  'revision' in held['driver'] &&
  deployedOn(input.node).driver === undefined &&
  componentPods(input, 'driver').length === 0;

/** Times since when something lasts, beside that of the stage. */
const SINCE = ['booted', 'notReady', 'labelGone', 'unselected', 'leaving'] as const;

/**
 * Times that lie ahead are of a clock that has been put back since: what they began has begun now.
 */
function sane(walk: Walk, now: number): Walk {
  const capped = (time: string): string => (Date.parse(time) > now ? iso(now) : time);
  return {
    ...walk,
    since: capped(walk.since),
    ...Object.fromEntries(SINCE.flatMap((key) => (walk[key] === undefined ? [] : [[key, capped(walk[key])] as const]))),
    ...(walk.rollOut === undefined ? {} : { rollOut: { ...walk.rollOut, since: capped(walk.rollOut.since) } }),
  };
}

/** Does the component come from a DaemonSet of ours on this node? */
export const isManagedHere = ({ walk }: Pick<Observed, 'walk'>, component: Component): boolean => {
  const choice = walk.target[component];
  return choice !== undefined && 'revision' in choice;
};

/**
 * The pods of that component that a DaemonSet made in the operand namespace, of whatever revision,
 * on their way out or not.
 */
export const componentPods = (
  input: Pick<NodeInput, 'pods' | 'operandNamespace'>,
  component: Component,
): readonly PodObject[] =>
  input.pods.filter(
    (pod) =>
      pod.namespace === input.operandNamespace &&
      pod.controller?.kind === 'DaemonSet' &&
      pod.labels[COMPONENT] === POD_COMPONENT[component],
  );

/**
 * The pod that is evidence for a managed component: made by our DaemonSet of this revision, and not
 * on its way out.
 */
export const operandPod = (input: NodeInput, component: Component, revision: string): PodObject | undefined => {
  const uid = input.daemonSets.get(`${POD_COMPONENT[component]}-${revision}`);
  return uid === undefined
    ? undefined
    : componentPods(input, component).find((pod) => pod.controller?.uid === uid && !pod.deleting);
};
