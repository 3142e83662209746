// Which pending pods the scheduler should try again, and by touching which nodes.
import type { NodeObject, PodObject } from '../model.ts';
import { hasEnded } from '../model.ts';
import { amountOf } from '../../core/quantity.ts';
import { isOurs } from '../../gate/node-proof.ts';
import { isMappedGpu, type Devices } from '../../gate/devices.ts';
import { gpuKindsOf } from '../../gate/gpu-request.ts';
import { askOf, nodeFacts, policyNameOf, verdict, type Ask, type Policies } from '../../gate/verdict.ts';

/** A pod that may ask for a GPU waits for a node: the scheduler has tried and found none. */
export const isUnschedulable = (pod: PodObject): boolean =>
  pod.nodeName === undefined &&
  !pod.deleting &&
  (Object.keys(pod.gpus).length > 0 || pod.wants.claims.length > 0 || pod.wants.containers.length > 0) &&
  pod.conditions.some((c) => c.type === 'PodScheduled' && c.status === 'False' && c.reason === 'Unschedulable');

/**
 * Does the gate let the pod onto the node, and has the node free GPUs for it, so that another try
 * is worth it?
 */
export const couldFit = (
  pod: PodObject,
  node: NodeObject,
  there: readonly PodObject[],
  policies: Policies,
  devices: Devices,
): boolean => fits(askOf(pod.wants, policies, devices), pod, node, there, isMappedFor(pod, policies, devices));

/** Does the resource stand for devices of a class? */
const isMappedFor = (pod: PodObject, policies: Policies, devices: Devices): ((resource: string) => boolean) => {
  const kinds = gpuKindsOf(policies.get(policyNameOf(pod.wants)));
  return (resource) => isMappedGpu(resource, kinds, devices);
};

function fits(
  ask: Ask,
  pod: PodObject,
  node: NodeObject,
  there: readonly PodObject[],
  isMapped: (resource: string) => boolean,
): boolean {
  if (node.spec?.unschedulable === true || verdict(ask, nodeFacts(node)) !== undefined) return false;
  return Object.entries(pod.gpus).every(([name, amount]) => {
    const used = there.filter((p) => !hasEnded(p)).reduce((sum, p) => sum + (p.gpus[name] ?? 0), 0);
    const offered = amountOf(node.status?.allocatable?.[name]);
    // Free devices of a class are counted by the scheduler alone.
    if (offered === 0 && isMapped(name)) return true;
    return offered - used >= amount;
  });
}

/** Pods of the same kind ask the same of nodes: what one of them gets, the others get. */
export function kindOf({ wants }: PodObject): string {
  if (wants.claims.length === 0) return JSON.stringify({ ...wants, namespace: '' });
  // Claims of a template have a name each, and ask the same.
  const claims = wants.claims.map(({ entry, claim, template }) => [entry, template ?? claim]);
  return JSON.stringify({ ...wants, claims });
}

/**
 * A small set of nodes to touch so that the scheduler retries every pending pod that now fits
 * somewhere. Prefers managed nodes.
 */
export function nodesToWake(
  waiting: readonly PodObject[],
  nodes: readonly NodeObject[],
  on: (node: string) => readonly PodObject[],
  policies: Policies,
  devices: Devices,
): readonly NodeObject[] {
  const chosen: NodeObject[] = [];
  const alike = new Set<string>();
  for (const pod of waiting) {
    const kind = kindOf(pod);
    if (alike.has(kind)) continue;
    alike.add(kind);
    const ask = askOf(pod.wants, policies, devices);
    const isMapped = isMappedFor(pod, policies, devices);
    const takes = (node: NodeObject): boolean => fits(ask, pod, node, on(node.metadata.name), isMapped);
    if (chosen.some(takes)) continue;
    const node = nodes.find((n) => isOurs(n) && takes(n)) ?? nodes.find(takes);
    if (node !== undefined) chosen.push(node);
  }
  return chosen;
}
