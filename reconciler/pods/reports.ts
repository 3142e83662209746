// Users' GPU pods that deserve an Event: rejected by a kubelet, missed by the webhook, bound past
// the gate, or waiting for nodes that are on their way.
import { isEnforcing, type GpuPolicy } from '../../core/gpu-policy.ts';
import { GPU_VALIDATED, INJECTED, POLICY, PROOF } from '../../core/keys.ts';
import { timeless } from '../../core/said.ts';
import { isGpuResource, type Devices } from '../../gate/devices.ts';
import { askedOf, isUsualGpu } from '../../gate/gpu-request.ts';
import { isManaged, isOurs, open, parseProof, policyOf, sinceOf, stateOf, walkOf } from '../../gate/node-proof.ts';
import type { Reason } from '../../gate/reasons.ts';
import { obstacleTo, type Placement } from '../../gate/placement.ts';
import { askOf, nodeFacts, policyNameOf, verdict, type Gate, type Policies } from '../../gate/verdict.ts';
import { hasEnded, type NodeObject, type PodObject } from '../model.ts';

/**
 * A GPU pod that should have been injected and was not, because it was created while the webhook
 * was away. Pods that the webhook leaves alone by its rules are not missed: opted out, in a
 * namespace that is left alone (`left`), or created with `spec.nodeName`.
 */
export function isMissed(
  pod: PodObject,
  policy: GpuPolicy | undefined,
  left: (namespace: string) => boolean,
  devices: Devices,
): boolean {
  if (policy === undefined || !isEnforcing(policy) || left(pod.namespace) || hasEnded(pod) || pod.placed) return false;
  if (
    pod.labels[INJECTED] === 'true' ||
    pod.wants.read.wishes.optedOut ||
    askedOf(pod.wants, policy.spec, devices).kind !== 'gpus'
  )
    return false;
  return Date.parse(pod.created) >= Date.parse(policy.enforcingSince ?? '');
}

/** When the pod last changed as far as its conditions say, ms since the epoch. */
export const changedAt = (pod: PodObject): number =>
  Math.max(...[pod.created, ...pod.conditions.map((c) => c.lastTransitionTime ?? '')].map((at) => Date.parse(at) || 0));

/**
 * Why the gate refuses the node that a pod was bound to by another scheduler or by `spec.nodeName`;
 * `undefined` if it does not, or a claim of the pod is not known yet. On a managed node a pod
 * counts whose GPU resource its policy does not list, such as a MIG profile: neither webhook nor
 * extender looks at it.
 */
export function boundPastGate(
  pod: PodObject,
  node: NodeObject,
  policies: Policies,
  devices: Devices,
): Reason | undefined {
  const facts = nodeFacts(node);
  const ask = askOf(pod.wants, policies, devices);
  if (ask.kind === 'unknown') return undefined;
  const because = verdict(ask, facts);
  if (because !== undefined || !facts.ours) return because;
  const unlisted = unlistedOf(pod, policies);
  return unlisted.length === 0
    ? undefined
    : verdict(askOf(pod.wants, { get: (name) => withResources(policies.get(name), unlisted) }, devices), facts);
}

/** GPU resources that the pod requests and its policy does not list. */
export const unlistedOf = (pod: PodObject, policies: Policies): readonly string[] => {
  const policy = policies.get(policyNameOf(pod.wants));
  return policy === undefined
    ? []
    : Object.keys(pod.gpus).filter((name) => isUsualGpu(name) && !isGpuResource(name, policy.spec.resources));
};

const withResources = (policy: GpuPolicy | undefined, more: readonly string[]): GpuPolicy | undefined =>
  policy && { ...policy, spec: { ...policy.spec, resources: [...policy.spec.resources, ...more] } };

/**
 * The same for a pod that was bound while no replica led, if the node shows that the reason is
 * older than the binding. A node that was held or cordoned, or a policy that was edited, does not
 * show it.
 */
export function boundUnseen(
  pod: PodObject,
  node: NodeObject,
  policies: Policies,
  devices: Devices,
): Reason | undefined {
  const because = boundPastGate(pod, node, policies, devices);
  if (because === undefined) return undefined;
  const since = because.since === 'proof' ? Date.parse(sinceOf(node, because)) : notServingSince(node);
  return since !== undefined && since <= boundAt(pod) ? because : undefined;
}

/** When the pod was bound to its node, ms since the epoch. */
export function boundAt(pod: PodObject): number {
  const scheduled = pod.conditions.find((c) => c.type === 'PodScheduled' && c.status === 'True');
  return Date.parse((pod.placed ? undefined : scheduled?.lastTransitionTime) ?? pod.created);
}

/** Since when a managed node has certainly not been serving, ms since the epoch. */
function notServingSince(node: NodeObject): number | undefined {
  const transition = (type: string, ...statuses: string[]): number | undefined => {
    const found = node.status?.conditions?.find((c) => c.type === type && statuses.includes(c.status));
    return found?.lastTransitionTime === undefined ? undefined : Date.parse(found.lastTransitionTime);
  };
  if (!isOurs(node)) return undefined;
  const boot = parseProof(node.metadata.annotations?.[PROOF])?.boot;
  // Ready again after a reboot that the proof does not know: not serving since then.
  if (boot !== undefined && boot !== node.status?.nodeInfo?.bootID) return transition('Ready', 'True');
  return transition(GPU_VALIDATED, 'False', 'Unknown');
}

/** The nodes that are looked at for a pod that waits. */
export interface Candidates {
  /** Nodes of the pod's policy that are on their way. */
  readonly onTheirWay: Iterable<NodeObject>;
  /** Its other nodes. Looked at only where none of those is for the pod. */
  readonly others: Iterable<NodeObject>;
  /** How many are on their way. Those that are not needed are not looked at. */
  readonly count: number;
  /** Opted-in nodes of other policies. */
  readonly elsewhere: number;
}

/** How many nodes a report names. */
const NAMED = 3;

/**
 * One sentence on the nodes that are on their way and that the pod could use, or on what keeps it
 * off all of them; `undefined` if an open node is for it. Without times, because it is compared by
 * text.
 */
export function nodesOnTheirWay(
  ask: Gate,
  placement: Placement | undefined,
  { onTheirWay, others, count, elsewhere }: Candidates,
): string | undefined {
  const { name } = ask.policy;
  const isOfPolicy = (node: NodeObject): boolean => isManaged(node) && policyOf(node) === name;
  const parts: string[] = [];
  const kept = new Map<string, Kept>();
  /** Is the node open, and for this pod? */
  const look = (node: NodeObject): boolean => {
    const answer = open(node);
    const obstacle = placement === undefined ? undefined : obstacleTo(placement, node);
    const because = answer.yes ? verdict(ask, nodeFacts(node))?.sentence : undefined;
    if (obstacle !== undefined) note(kept, obstacle.text, node, obstacle.advice);
    else if (because !== undefined) note(kept, because, node, '');
    else if (answer.yes) return true;
    else if (stateOf(node) === undefined) return false;
    else parts.push(`node ${node.metadata.name} ${situation(node, answer.because)}`);
    return false;
  };
  let hasOpen = false;
  let looked = 0;
  for (const node of onTheirWay) {
    looked += 1;
    if (isOfPolicy(node) && look(node)) hasOpen = true;
    if (parts.length === NAMED) break;
  }
  if (parts.length === 0 && !hasOpen)
    for (const node of others) {
      if (!isOfPolicy(node)) continue;
      hasOpen = look(node);
      if (hasOpen) break;
    }
  const groups = [...kept.values()];
  const counted = count > looked ? `; and up to ${count - looked} more` : '';
  if (parts.length > 0)
    // By name: nodes come in the order in which they set out.
    return `waiting for a GPU node: ${parts.toSorted().join('; ')}${counted}${groups.length === 0 ? '' : `; others are not for this pod: ${groups.map(keptText).join('; ')}`}`.slice(
      0,
      1000,
    );
  if (hasOpen) return undefined;
  if (groups.length > 0) {
    const advice = groups.map((group) => group.advice).find((text) => text !== '');
    return `no GPU node of GPUPolicy ${name} is for this pod: ${groups.map(keptText).join('; ')}${advice === undefined ? '' : `; ${advice}`}`.slice(
      0,
      1000,
    );
  }
  return elsewhere === 0
    ? undefined
    : `no opted-in node is of GPUPolicy ${name}, ${elsewhere} of other policies: name another one by the annotation ${POLICY} in the pod's template, if it may run there`;
}

/** Nodes that the same thing keeps the pod off. */
interface Kept {
  readonly because: string;
  readonly first: string;
  readonly count: number;
  readonly advice: string;
}

function note(kept: Map<string, Kept>, because: string, { metadata: { name } }: NodeObject, advice: string): void {
  const { first = name, count = 0 } = kept.get(because) ?? {};
  kept.set(because, { because, first, count: count + 1, advice });
}

const keptText = ({ because, first, count }: Kept): string =>
  count === 1 ? `${because} (node ${first})` : `${because} (${count} nodes, such as ${first})`;

function situation(node: NodeObject, because: Reason): string {
  const state = stateOf(node) ?? '';
  // The stack is proven, so what the walk awaits is not the reason.
  if (state === 'validated') return `takes no new GPU pods (${because.sentence})`;
  const said = walkOf(node)?.said;
  const awaited = said === undefined ? '' : timeless(said);
  return `${state === 'failed' ? 'has failed' : `is in ${state}`}${awaited === '' ? '' : ` (${awaited})`}`;
}
