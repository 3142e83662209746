// Pods that a kubelet has rejected: for want of a GPU or of something else, and what becomes of
// them. Pure.
import { isOurs } from '../../gate/node-proof.ts';
import type { NodeObject, PodObject } from '../model.ts';

const GPU_PREFIX = 'nvidia.com/';

/**
 * Resources that the kubelet's message names, such as `rdma/hca` in "devices unavailable for
 * rdma/hca. Requested: 1".
 */
const resourcesIn = (message: string): readonly string[] =>
  [...message.matchAll(/\b(?:for|devices) ([a-z0-9][a-z0-9.-]*\/[\w-][\w.-]*)/g)].map(([, name = '']) =>
    name.replace(/\.$/, ''),
  );

/**
 * Did the kubelet of a managed node reject the pod for want of a GPU, as happens to bound pods
 * after a reboot?
 */
export function isRejected(pod: PodObject, node: NodeObject | undefined): boolean {
  if (node === undefined || !isOurs(node) || pod.phase !== 'Failed') return false;
  if (pod.reason.startsWith('OutOf')) return pod.reason.includes(GPU_PREFIX);
  if (pod.reason !== 'UnexpectedAdmissionError') return false;
  const named = resourcesIn(pod.message);
  return named.length === 0 || named.some((name) => name.startsWith(GPU_PREFIX));
}

/** The kubelet's own words, without the frame that is in all of them. */
export const wordsOf = (pod: PodObject): string =>
  (pod.message === '' ? pod.reason : pod.message)
    .replace(/^Pod was rejected: /, '')
    .replace(/, which is unexpected$/, '')
    .slice(0, 300);

/** What becomes of a rejected pod, by the controller that owns it. */
export function fateOf(controller: string | undefined): string {
  switch (controller) {
    case undefined:
      return 'no controller owns it, so it has failed for good: create it again';
    case 'Job':
      return 'its Job creates another one only if its backoffLimit and podFailurePolicy allow that';
    default:
      return `its ${controller} creates another one`;
  }
}
