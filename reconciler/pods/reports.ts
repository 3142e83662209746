// Users' GPU pods that deserve an Event: rejected by a kubelet, missed by the webhook, bound past
// the gate, or waiting for nodes that are on their way.
import { isEnforcing, type GpuPolicy } from '../../core/gpu-policy.ts';
import { GPU_VALIDATED, INJECTED, PROOF } from '../../core/keys.ts';
import { timeless } from '../../core/said.ts';
import type { State } from '../../core/stages.ts';
import type { Devices } from '../../gate/devices.ts';
import { askedOf } from '../../gate/gpu-request.ts';
import { isManaged, isOurs, open, parseProof, policyOf, sinceOf, stateOf, walkOf } from '../../gate/node-proof.ts';
import type { Reason } from '../../gate/reasons.ts';
import { askOf, nodeFacts, verdict, type Policies } from '../../gate/verdict.ts';
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
 * `undefined` if it does not, or a claim of the pod is not known yet.
 */
export const boundPastGate = (
  pod: PodObject,
  node: NodeObject,
  policies: Policies,
  devices: Devices,
): Reason | undefined => {
  const ask = askOf(pod.wants, policies, devices);
  return ask.kind === 'unknown' ? undefined : verdict(ask, nodeFacts(node));
};

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

/**
 * One sentence on the nodes of a policy that are not open; `undefined` if all are. Without times,
 * because it is compared by text. `unlisted` more such nodes are counted only.
 */
export function nodesOnTheirWay(nodes: Iterable<NodeObject>, policy: string, unlisted = 0): string | undefined {
  const parts: string[] = [];
  let more = unlisted;
  for (const node of nodes) {
    const state = stateOf(node);
    if (!isManaged(node) || policyOf(node) !== policy || state === undefined) continue;
    const answer = open(node);
    if (answer.yes) continue;
    if (parts.length === 3) {
      more += 1;
      continue;
    }
    parts.push(`node ${node.metadata.name} ${situation(node, state, answer.because)}`);
  }
  if (parts.length === 0) return undefined;
  return `waiting for a GPU node: ${parts.join('; ')}${more === 0 ? '' : `; and ${more} more`}`.slice(0, 1000);
}

function situation(node: NodeObject, state: State, because: Reason): string {
  // The stack is proven, so what the walk awaits is not the reason.
  if (state === 'validated') return `takes no new GPU pods (${because.sentence})`;
  const said = walkOf(node)?.said;
  const awaited = said === undefined ? '' : timeless(said);
  return `is ${state === 'failed' ? 'failed' : `in ${state}`}${awaited === '' ? '' : ` (${awaited})`}`;
}
