// What a pod's readiness gate says: True while its node is serving.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { NODE_VALIDATED } from '../../core/keys.ts';
import { isOurs, serving } from '../../gate/node-proof.ts';
import { namingRefusedTo } from '../../gate/verdict.ts';
import type { Condition } from '../actions.ts';
import { hasEnded, type NodeObject, type PodObject } from '../model.ts';

/**
 * What the pod's readiness gate should say; `undefined` if it has none, or nothing is known yet.
 */
export function gateOf(
  pod: PodObject,
  node: NodeObject | undefined,
  policy: GpuPolicy | undefined,
): Condition | undefined {
  if (!pod.gated || pod.nodeName === undefined || pod.deleting || hasEnded(pod)) return undefined;
  const say = (status: 'True' | 'False', reason: string, message: string): Condition => ({
    type: NODE_VALIDATED,
    status,
    reason,
    message,
  });
  const refused = policy === undefined ? undefined : namingRefusedTo(pod.wants, policy);
  if (policy?.spec.suspend === true && refused === undefined)
    return say('True', 'PolicySuspended', `GPUPolicy ${policy.name} is suspended`);
  if (node === undefined) return undefined;
  if (!isOurs(node)) {
    if (refused !== undefined) return say('False', 'PolicyNotAllowed', refused);
    if (policy === undefined)
      return say('True', 'PolicyAbsent', 'the GPUPolicy of this pod is gone, so nothing keeps it from being Ready');
    return policy.spec.unmanagedNodes === 'Allow'
      ? say('True', 'NodeNotManaged', 'the node is not opted in; the GPUPolicy allows that')
      : say(
          'False',
          'NodeNotManaged',
          `node ${node.metadata.name} is not opted in: kubectl label node ${node.metadata.name} gpu-gate.dev/managed=true`,
        );
  }
  // Also with no policy of that name: the annotation is the author's to edit, the node's proof is
  // not.
  const answer = serving(node);
  return answer.yes
    ? say('True', 'NodeValidated', `GPU stack validated at ${answer.proof.at}`)
    : say('False', 'NodeNotValidated', answer.because.sentence);
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
