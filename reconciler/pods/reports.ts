// Users' GPU pods: what their readiness condition should say, which were rejected by a kubelet, which came past the gate,
// and what to tell those that wait. Pure.
import { isEnforcing, type GpuPolicy } from '../../core/gpu-policy.ts';
import { isGpuResource } from '../../gate/gpu-request.ts';
import { DEFAULT_POLICY, GPU_VALIDATED, INJECT, INJECTED, NODE_VALIDATED, POLICY, PROOF } from '../../core/keys.ts';
import { isManaged, isOurs, open, parseProof, policyOf, serving, stateOf } from '../../gate/node-proof.ts';
import type { Condition } from '../actions.ts';
import type { NodeObject, PodObject } from '../model.ts';

/**
 * Name of the policy that a pod is under: what the webhook goes by, which refuses a pod that names none. Not what the record says:
 * an author could write one that names no policy, and have the gate opened.
 */
export const policyNameOf = (pod: PodObject): string => pod.annotations[POLICY] ?? DEFAULT_POLICY;

const ended = (pod: PodObject): boolean => pod.phase === 'Succeeded' || pod.phase === 'Failed';

/** What the pod's readiness gate should say; undefined where it has none, or nothing is to be said yet. */
export function gateOf(
  pod: PodObject,
  node: NodeObject | undefined,
  policy: GpuPolicy | undefined,
): Condition | undefined {
  if (!pod.gated || pod.nodeName === undefined || pod.deleting || ended(pod)) return undefined;
  const say = (status: 'True' | 'False', reason: string, message: string): Condition => ({
    type: NODE_VALIDATED,
    status,
    reason,
    message,
  });
  if (policy?.spec.suspend === true) return say('True', 'PolicySuspended', `GPUPolicy ${policy.name} is suspended`);
  if (node === undefined) return undefined;
  if (!isOurs(node)) {
    if (policy === undefined) return say('True', 'PolicyAbsent', 'the GPUPolicy of this pod is gone');
    return policy.spec.unmanagedNodes === 'Allow'
      ? say('True', 'NodeNotManaged', 'the node is not opted in; the GPUPolicy allows that')
      : say(
          'False',
          'NodeNotManaged',
          `node ${node.metadata.name} is not opted in: kubectl label node ${node.metadata.name} gpu-gate.dev/managed=true`,
        );
  }
  // Also with no policy of that name: the annotation is the author's to edit, the node's proof is not.
  const answer = serving(node);
  return answer.yes
    ? say('True', 'NodeValidated', `GPU stack validated at ${answer.proof.at}`)
    : say('False', 'NodeNotValidated', answer.because);
}

/** Does the present condition already say it? */
export const saysAlready = (pod: PodObject, wanted: Condition): boolean =>
  pod.conditions.some(
    (c) =>
      c.type === wanted.type &&
      c.status === wanted.status &&
      c.reason === wanted.reason &&
      c.message === wanted.message,
  );

/** Was the pod thrown out by a kubelet that had no GPU for it, as happens to bound pods after a reboot? Its controller makes another one. */
export const isRejected = (pod: PodObject, node: NodeObject | undefined): boolean =>
  node !== undefined &&
  isOurs(node) &&
  pod.owned &&
  pod.phase === 'Failed' &&
  (pod.reason === 'UnexpectedAdmissionError' || /^OutOf.*nvidia\.com\//.test(pod.reason));

const asksGpus = (pod: PodObject, policy: GpuPolicy): boolean =>
  Object.keys(pod.gpus).some((name) => isGpuResource(name, policy.spec.resources));

/**
 * A GPU pod that should have been injected and was not: created while the webhook was away. Those that the webhook leaves alone by
 * its rules are not missed: opted out, in a namespace that is (`left`), or made with `spec.nodeName`.
 */
export function isMissed(pod: PodObject, policy: GpuPolicy | undefined, left: (namespace: string) => boolean): boolean {
  if (policy === undefined || !isEnforcing(policy) || left(pod.namespace) || ended(pod) || pod.placed) return false;
  if (pod.labels[INJECTED] === 'true' || pod.labels[INJECT] === 'false' || !asksGpus(pod, policy)) return false;
  return Date.parse(pod.created) >= Date.parse(policy.enforcingSince ?? '');
}

/** When the pod last changed as far as it tells, ms since the epoch. */
export const changedAt = (pod: PodObject): number =>
  Math.max(...[pod.created, ...pod.conditions.map((c) => c.lastTransitionTime ?? '')].map((at) => Date.parse(at) || 0));

/** A GPU pod waits for a node: the scheduler has tried and found none. */
export const isUnschedulable = (pod: PodObject): boolean =>
  pod.nodeName === undefined &&
  !pod.deleting &&
  pod.conditions.some((c) => c.type === 'PodScheduled' && c.status === 'False' && c.reason === 'Unschedulable');

/** Why the gate keeps the pod off the node, as the extender would judge it now; undefined: it lets the pod through. */
function keptOff(pod: PodObject, node: NodeObject, policy: GpuPolicy | undefined): string | undefined {
  // Without a policy nothing is gated, but a pod that names one waits for it.
  if (policy === undefined) return pod.annotations[POLICY] === undefined ? undefined : 'its GPUPolicy does not exist';
  if (!isEnforcing(policy)) return undefined;
  if (!isOurs(node)) return policy.spec.unmanagedNodes === 'Allow' ? undefined : 'the node is not opted in';
  const owner = policyOf(node);
  if (owner !== undefined && owner !== policy.name) return 'the node is of another GPUPolicy';
  const answer = open(node);
  return answer.yes ? undefined : answer.because;
}

/** Does the gate let the pod onto the node, and has the node free GPUs for it, so that trying again is worth it? */
export function couldFit(
  pod: PodObject,
  node: NodeObject,
  there: readonly PodObject[],
  policy: GpuPolicy | undefined,
): boolean {
  if (node.spec?.unschedulable === true || keptOff(pod, node, policy) !== undefined) return false;
  return Object.entries(pod.gpus).every(([name, amount]) => {
    const used = there.filter((p) => !ended(p)).reduce((sum, p) => sum + (p.gpus[name] ?? 0), 0);
    return Number(node.status?.allocatable?.[name] ?? 0) - used >= amount;
  });
}

/** Nodes whose change makes the scheduler try again every waiting pod that the gate lets through somewhere; few, and ours if there is a choice. */
export function nodesToWake(
  waiting: readonly PodObject[],
  nodes: readonly NodeObject[],
  on: (node: string) => readonly PodObject[],
  policyOfPod: (pod: PodObject) => GpuPolicy | undefined,
): readonly NodeObject[] {
  const chosen: NodeObject[] = [];
  const alike = new Set<string>();
  for (const pod of waiting) {
    const kind = JSON.stringify([policyNameOf(pod), pod.annotations[POLICY], pod.gpus]);
    if (alike.has(kind)) continue;
    alike.add(kind);
    const fits = (node: NodeObject): boolean => couldFit(pod, node, on(node.metadata.name), policyOfPod(pod));
    if (chosen.some(fits)) continue;
    const node = nodes.find((n) => isOurs(n) && fits(n)) ?? nodes.find(fits);
    if (node !== undefined) chosen.push(node);
  }
  return chosen;
}

/** A GPU pod that was bound to this node though the gate keeps it off: by another scheduler, or by `spec.nodeName`. */
export const boundPastGate = (pod: PodObject, node: NodeObject, policy: GpuPolicy | undefined): string | undefined =>
  policy === undefined || !isEnforcing(policy) || !asksGpus(pod, policy) ? undefined : keptOff(pod, node, policy);

/**
 * The same for a pod that was bound while nobody looked: only where the node shows that it was shut before the pod came. A node that
 * was held or cordoned, or a policy that was edited, does not show since when.
 */
export function boundUnseen(pod: PodObject, node: NodeObject, policy: GpuPolicy | undefined): string | undefined {
  const because = boundPastGate(pod, node, policy);
  if (because === undefined) return undefined;
  const since = shutSince(node);
  return since !== undefined && since <= boundAt(pod) ? because : undefined;
}

/** When the pod came to its node, ms since the epoch. */
export function boundAt(pod: PodObject): number {
  const scheduled = pod.conditions.find((c) => c.type === 'PodScheduled' && c.status === 'True');
  return Date.parse((pod.placed ? undefined : scheduled?.lastTransitionTime) ?? pod.created);
}

/** Since when a node of ours is surely not serving, ms since the epoch. */
function shutSince(node: NodeObject): number | undefined {
  const transition = (type: string, ...statuses: string[]): number | undefined => {
    const found = node.status?.conditions?.find((c) => c.type === type && statuses.includes(c.status));
    return found?.lastTransitionTime === undefined ? undefined : Date.parse(found.lastTransitionTime);
  };
  if (!isOurs(node)) return undefined;
  const boot = parseProof(node.metadata.annotations?.[PROOF])?.boot;
  // Ready again after a reboot that the proof does not know: it has not been serving since.
  if (boot !== undefined && boot !== node.status?.nodeInfo?.bootID) return transition('Ready', 'True');
  return transition(GPU_VALIDATED, 'False', 'Unknown');
}

/** Times would make each text a new one. */
const untimed = (text: string): string =>
  (text.split('; tried again after ', 1)[0] ?? '').replace(
    /[,;]? ?\b(since|at|after|until) \d{4}-\d\d-\d\dT[\d:.]+Z/g,
    '',
  );

/** One sentence on the nodes of a policy that are on their way, failed or shut; undefined where none is. No times: it is compared by text. */
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
    parts.push(`node ${node.metadata.name} ${situation(node, answer.because)}`);
  }
  if (parts.length === 0) return undefined;
  return `waiting for a GPU node: ${parts.join('; ')}${more === 0 ? '' : `; and ${more} more`}`.slice(0, 1000);
}

/** What the condition says is awaited is of no use where the stack is proven: then the reason is another one. */
function situation(node: NodeObject, because: string): string {
  const state = stateOf(node) ?? '';
  if (state === 'validated') return `takes no new GPU pods (${untimed(because)})`;
  const condition = node.status?.conditions?.find((c) => c.type === GPU_VALIDATED);
  const awaited = untimed(condition?.message ?? '');
  return `is ${state === 'failed' ? 'failed' : `in ${state}`}${awaited === '' ? '' : ` (${awaited})`}`;
}
