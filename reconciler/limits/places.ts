// The places for first walks (`bringUp.maxConcurrent`) and for roll-outs
// (`upgrade.maxUnavailable`): which nodes hold one, which wait, and who is next. Pure but for its
// memory.
import { WALK } from '../../core/keys.ts';
import { policyOf } from '../../gate/node-proof.ts';
import type { NodeObject } from '../model.ts';
import { parseWalk, type Walk } from '../walk.ts';

/** What the places are for. */
export interface Purpose {
  /** Does a node hold one by its own memory? */
  readonly holds: (walk: Walk) => boolean;
}

/** First walks. A walk that failed, or waits for what is not up to the node, holds no place. */
export const BRING_UP: Purpose = {
  holds: ({ proven, stage, failed, untimed }) =>
    proven === undefined && stage !== 'preflight' && failed === undefined && untimed !== true,
};
export const ROLL_OUT: Purpose = {
  // One that failed stops all others, so that nothing waits for its place.
  holds: ({ rollOut }) => rollOut !== undefined && rollOut.spare !== true && rollOut.failed === undefined,
};

export interface Places {
  /**
   * Does the node hold a place, is one kept for it, or is one free? `most`: how many places the
   * policy has.
   */
  free(name: string, policy: string, most: number): boolean;
  hold(name: string, policy: string): void;
  /**
   * The node needs no place. Returns the policy whose place it gave back; `undefined` if it had
   * none.
   */
  release(name: string): string | undefined;
  /**
   * The node has no use for a place now, passes on what it was invited to, and is invited when
   * there is one. It keeps its turn if it waits already.
   */
  wait(name: string, policy: string): void;
  /**
   * Invites those who wait, first come first served, to the places that are free: call them again.
   */
  invite(policy: string, most: number): readonly string[];
  /** On take-over: nodes that are under way by their own memory hold a place. */
  recall(nodes: Iterable<NodeObject>): void;
}

/** `"10%"` of a whole, or a number; at least one. */
export const shareOf = (text: string, whole: number): number => {
  const value = Number.parseFloat(text);
  if (!Number.isFinite(value)) return 1;
  return Math.max(1, Math.floor(text.trim().endsWith('%') ? (value / 100) * whole : value));
};

/** The names of each policy, and each name in one policy at most. */
class Members {
  readonly #of = new Map<string, string>();
  readonly #names = new Map<string, Set<string>>();
  policyOf = (name: string): string | undefined => this.#of.get(name);
  of = (policy: string): ReadonlySet<string> => this.#names.get(policy) ?? new Set();
  add(name: string, policy: string): void {
    if (this.#of.get(name) === policy) return;
    this.delete(name);
    this.#of.set(name, policy);
    const names = this.#names.get(policy);
    if (names === undefined) this.#names.set(policy, new Set([name]));
    else names.add(name);
  }
  delete(name: string): string | undefined {
    const policy = this.#of.get(name);
    if (policy !== undefined) this.#names.get(policy)?.delete(name);
    this.#of.delete(name);
    return policy;
  }
  clear(): void {
    this.#of.clear();
    this.#names.clear();
  }
}

export function places({ holds }: Purpose): Places {
  const holders = new Members();
  /** A place is kept for these until they have had their turn. */
  const invited = new Members();
  const waiting = new Members();
  const left = (policy: string, most: number): number => most - holders.of(policy).size - invited.of(policy).size;

  return {
    free: (name, policy, most) =>
      holders.policyOf(name) !== undefined || invited.policyOf(name) === policy || left(policy, most) > 0,
    hold(name, policy) {
      invited.delete(name);
      waiting.delete(name);
      holders.add(name, policy);
    },
    release(name) {
      waiting.delete(name);
      const kept = invited.delete(name);
      return holders.delete(name) ?? kept;
    },
    wait(name, policy) {
      invited.delete(name);
      waiting.add(name, policy);
    },
    invite(policy, most) {
      const names: string[] = [];
      for (const name of waiting.of(policy)) {
        if (left(policy, most) <= 0) break;
        waiting.delete(name);
        invited.add(name, policy);
        names.push(name);
      }
      return names;
    },
    recall(nodes) {
      for (const members of [holders, invited, waiting]) members.clear();
      for (const node of nodes) {
        const walk = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid);
        const policy = policyOf(node);
        if (walk !== undefined && policy !== undefined && holds(walk)) holders.add(node.metadata.name, policy);
      }
    },
  };
}
