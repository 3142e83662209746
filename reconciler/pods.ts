// Users' GPU pods: what their readiness condition should say, which were rejected by a kubelet, which came past the gate,
// and what to tell those that wait. Pure.
import { isEnforcing, type GpuPolicy } from '../core/gpu-policy.ts';
import { isGpuResource } from '../core/gpu-request.ts';
import { DEFAULT_POLICY, GPU_VALIDATED, INJECT, INJECTED, NODE_VALIDATED, POLICY } from '../core/keys.ts';
import { isOurs, open, policyOf, serving, stateOf } from '../core/node-proof.ts';
import type { Condition } from './actions.ts';
import type { NodeObject, PodObject } from './model.ts';

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
  if (policy === undefined) return say('True', 'PolicyAbsent', 'the GPUPolicy of this pod is gone');
  if (policy.spec.suspend) return say('True', 'PolicySuspended', `GPUPolicy ${policy.name} is suspended`);
  if (node === undefined) return undefined;
  if (!isOurs(node)) {
    return policy.spec.unmanagedNodes === 'Allow'
      ? say('True', 'NodeNotManaged', 'the node is not opted in; the GPUPolicy allows that')
      : say(
          'False',
          'NodeNotManaged',
          `node ${node.metadata.name} is not opted in: kubectl label node ${node.metadata.name} gpu-gate.dev/managed=true`,
        );
  }
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

/** A GPU pod that should have been injected and was not: created while the webhook was away, or past it. */
export function isMissed(pod: PodObject, policy: GpuPolicy | undefined, excluded: ReadonlySet<string>): boolean {
  if (policy === undefined || !isEnforcing(policy) || excluded.has(pod.namespace) || ended(pod)) return false;
  if (pod.labels[INJECTED] === 'true' || pod.labels[INJECT] === 'false') return false;
  if (!Object.keys(pod.gpus).some((name) => isGpuResource(name, policy.spec.resources))) return false;
  return Date.parse(pod.created) >= Date.parse(policy.enforcingSince ?? '');
}

/** A GPU pod waits for a node: the scheduler has tried and found none. */
export const isUnschedulable = (pod: PodObject): boolean =>
  pod.nodeName === undefined &&
  !pod.deleting &&
  pod.conditions.some((c) => c.type === 'PodScheduled' && c.status === 'False' && c.reason === 'Unschedulable');

/** Does the node have free GPUs for the pod, so that trying again is worth it? */
export function couldFit(pod: PodObject, node: NodeObject, there: readonly PodObject[]): boolean {
  if (!open(node).yes || policyOf(node) !== policyNameOf(pod)) return false;
  return Object.entries(pod.gpus).every(([name, amount]) => {
    const used = there.filter((p) => !ended(p)).reduce((sum, p) => sum + (p.gpus[name] ?? 0), 0);
    return Number(node.status?.allocatable?.[name] ?? 0) - used >= amount;
  });
}

/** One sentence on the nodes of a policy that are on their way or failed; undefined where none is. No times: it is compared by text. */
export function nodesOnTheirWay(nodes: Iterable<NodeObject>, policy: string): string | undefined {
  const parts: string[] = [];
  let more = 0;
  for (const node of nodes) {
    const state = stateOf(node);
    if (!isOurs(node) || policyOf(node) !== policy || state === undefined || open(node).yes) continue;
    if (parts.length === 3) {
      more += 1;
      continue;
    }
    const condition = node.status?.conditions?.find((c) => c.type === GPU_VALIDATED);
    const awaited = (condition?.message ?? '').replace(/, since \S+$/, '').replace(/; tried again after .*$/, '');
    parts.push(
      `node ${node.metadata.name} is ${state === 'failed' ? 'failed' : `in ${state}`}${awaited === '' ? '' : ` (${awaited})`}`,
    );
  }
  if (parts.length === 0) return undefined;
  return `waiting for a GPU node: ${parts.join('; ')}${more === 0 ? '' : `; and ${more} more`}`.slice(0, 1000);
}
