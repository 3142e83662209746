// The places for first walks (`bringUp.maxConcurrent`): which nodes hold one, and whether another may begin. Pure but for its memory.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { WALK } from '../../core/keys.ts';
import { isManaged, policyOf } from '../../gate/node-proof.ts';
import { parseWalk } from '../walk.ts';
import type { NodeObject } from '../model.ts';

export interface Slots {
  /** Has the node a place of the policy, or is one free for it? */
  free(name: string, policy: GpuPolicy, nodes: Iterable<NodeObject>): boolean;
  /** The node holds a place of that policy, or none; true where one has become free. */
  note(name: string, policy: string | undefined): boolean;
  /** On take-over: those hold a place whose first walk is under way by their own memory. */
  recall(nodes: Iterable<NodeObject>): void;
}

/** `"10%"` of a whole, or a number; at least one. */
export const shareOf = (text: string, whole: number): number => {
  const value = Number.parseFloat(text);
  if (!Number.isFinite(value)) return 1;
  return Math.max(1, Math.floor(text.trim().endsWith('%') ? (value / 100) * whole : value));
};

export function slots(): Slots {
  /** Node → the policy whose place it holds. */
  const holders = new Map<string, string>();
  return {
    free(name, policy, nodes) {
      if (holders.has(name)) return true;
      const managed = [...nodes].filter((node) => isManaged(node) && policyOf(node) === policy.name).length;
      const taken = [...holders.values()].filter((holder) => holder === policy.name).length;
      return taken < shareOf(policy.spec.bringUp.maxConcurrent, managed);
    },
    note(name, policy) {
      const had = holders.has(name);
      if (policy !== undefined) holders.set(name, policy);
      else holders.delete(name);
      return had && policy === undefined;
    },
    recall(nodes) {
      holders.clear();
      for (const node of nodes) {
        const walk = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid);
        const policy = policyOf(node);
        if (walk === undefined || policy === undefined || walk.once) continue;
        if (walk.stage !== 'preflight' && walk.failed === undefined) holders.set(node.metadata.name, policy);
      }
    },
  };
}
