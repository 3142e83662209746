// Which pending pods the scheduler should try again, and by touching which nodes.
import type { NodeObject, PodObject } from '../model.ts';
import { hasEnded } from '../model.ts';
import { amountOf } from '../../core/quantity.ts';
import { isOurs } from '../../gate/node-proof.ts';
import { askOf, nodeFacts, verdict, type Ask, type Policies } from '../../gate/verdict.ts';

/** A GPU pod waits for a node: the scheduler has tried and found none. */
export const isUnschedulable = (pod: PodObject): boolean =>
  pod.nodeName === undefined &&
  !pod.deleting &&
  Object.keys(pod.gpus).length > 0 &&
  pod.conditions.some((c) => c.type === 'PodScheduled' && c.status === 'False' && c.reason === 'Unschedulable');

/**
 * Does the gate let the pod onto the node, and has the node free GPUs for it, so that another try
 * is worth it?
 */
export const couldFit = (pod: PodObject, node: NodeObject, there: readonly PodObject[], policies: Policies): boolean =>
  fits(askOf(pod.wants, policies), pod, node, there);

function fits(ask: Ask, pod: PodObject, node: NodeObject, there: readonly PodObject[]): boolean {
  if (node.spec?.unschedulable === true || verdict(ask, nodeFacts(node)) !== undefined) return false;
  return Object.entries(pod.gpus).every(([name, amount]) => {
    const used = there.filter((p) => !hasEnded(p)).reduce((sum, p) => sum + (p.gpus[name] ?? 0), 0);
    return amountOf(node.status?.allocatable?.[name]) - used >= amount;
  });
}

/** Pods of the same kind ask the same of nodes: what one of them gets, the others get. */
export const kindOf = (pod: PodObject): string => JSON.stringify(pod.wants);

/**
 * A small set of nodes to touch so that the scheduler retries every pending pod that now fits
 * somewhere. Prefers managed nodes.
 */
export function nodesToWake(
  waiting: readonly PodObject[],
  nodes: readonly NodeObject[],
  on: (node: string) => readonly PodObject[],
  policies: Policies,
): readonly NodeObject[] {
  const chosen: NodeObject[] = [];
  const alike = new Set<string>();
  for (const pod of waiting) {
    const kind = kindOf(pod);
    if (alike.has(kind)) continue;
    alike.add(kind);
    const ask = askOf(pod.wants, policies);
    const takes = (node: NodeObject): boolean => fits(ask, pod, node, on(node.metadata.name));
    if (chosen.some(takes)) continue;
    const node = nodes.find((n) => isOurs(n) && takes(n)) ?? nodes.find(takes);
    if (node !== undefined) chosen.push(node);
  }
  return chosen;
}
