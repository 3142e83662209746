// The circuit breaker: where more proofs than can be believed are about to be withdrawn at once,
// with no reboot behind it, they are kept and their nodes closed, until a person releases it or the
// losses have gone. Pure but for its memory.
import type { BreakerStatus, GpuPolicy } from '../../core/gpu-policy.ts';
import { BREAKER_RELEASE, CLOSED } from '../../core/keys.ts';
import { policyOf } from '../../gate/node-proof.ts';
import type { NodeObject } from '../model.ts';

/** Withdrawals within this time count together, ms. */
const WINDOW_MS = 600_000;
/** So many are believed whatever share they are. */
const MINIMUM = 3;
/**
 * Settle time, ms: long enough for a correlated failure to appear on every node before the first
 * proof is withdrawn.
 */
export const SETTLE_MS = 1000;

export const BREAKER = 'circuit breaker';
/** Why a proof about to be withdrawn stays for now; also the reason that the closed node shows. */
export type Keep = typeof BREAKER | 'loss being judged';

export interface Verdict {
  /**
   * `undefined` if the proof is to be withdrawn. With 'loss being judged', ask again after
   * `SETTLE_MS`.
   */
  readonly keep: Keep | undefined;
  /** What this very loss made of the breaker. */
  readonly became?: 'tripped' | 'released';
}

export interface Breaker {
  /**
   * The proof of a node is about to be withdrawn. `proofs`: nodes of the policy that have one, this
   * node among them.
   */
  judge(policy: GpuPolicy, node: string, proofs: number, now: number): Verdict;
  /**
   * The node is not about to lose its proof; `proven` where it has one. Returns true if that ended
   * the breaker's time.
   */
  calm(node: string, proven: boolean): boolean;
  /** The node is gone. Returns true if that ended the breaker's time. */
  forget(node: string): boolean;
  /** Does it hold for any policy? */
  readonly holds: boolean;
  /**
   * What the policy's status keeps for the next leader; `undefined` if there is nothing to keep.
   */
  statusOf(policy: string): BreakerStatus | undefined;
  /** How many nodes of the policy are about to lose their proof. */
  pending(policy: string): number;
  /** On take-over: goes on from the policies' status and the nodes that were closed for it. */
  recall(policies: Iterable<GpuPolicy>, nodes: Iterable<NodeObject>, now: number): void;
}

/** What is remembered of a policy. */
interface Memory {
  /** Nodes about to lose their proof → since when. */
  readonly pending: Map<string, number>;
  /** Nodes that lost their proof → when, the oldest first. */
  readonly withdrawn: Map<string, number>;
  /** Of these, the ones that have a proof again. */
  readonly back: Set<string>;
  /** Of these, the ones that are about to lose it once more. */
  readonly again: Set<string>;
  /** When it tripped, and the release annotation then: another value releases it. */
  tripped: { readonly at: number; readonly release: string } | undefined;
  /** When a person last released it. */
  released: number;
}

const releaseOf = (policy: GpuPolicy): string => policy.annotations[BREAKER_RELEASE] ?? '';

export function circuitBreaker(): Breaker {
  const memories = new Map<string, Memory>();
  /** Node → the policy in whose memory it is. */
  const ownerOf = new Map<string, string>();

  const memoryOf = (policy: string): Memory => {
    const known = memories.get(policy);
    if (known !== undefined) return known;
    const sets = { back: new Set<string>(), again: new Set<string>() };
    const memory: Memory = {
      ...sets,
      pending: new Map(),
      withdrawn: new Map(),
      tripped: undefined,
      released: -Infinity,
    };
    memories.set(policy, memory);
    return memory;
  };
  const withdraw = (memory: Memory, node: string, now: number): Verdict => {
    for (const names of [memory.pending, memory.back, memory.again, memory.withdrawn]) names.delete(node);
    memory.withdrawn.set(node, now);
    return { keep: undefined };
  };
  const forgetOld = ({ withdrawn, back, again }: Memory, now: number): void => {
    for (const [node, at] of withdrawn) {
      if (now - at <= WINDOW_MS) return;
      for (const names of [withdrawn, back, again]) names.delete(node);
    }
  };
  /**
   * A loss that has gone before its proof was withdrawn counts no longer; when none is left, the
   * breaker's time is over.
   */
  const settle = (node: string): { readonly memory: Memory; readonly isOver: boolean } | undefined => {
    const memory = memories.get(ownerOf.get(node) ?? '');
    if (memory === undefined) return undefined;
    memory.pending.delete(node);
    memory.again.delete(node);
    const isOver = memory.pending.size === 0 && memory.tripped !== undefined;
    if (isOver) memory.tripped = undefined;
    return { memory, isOver };
  };

  return {
    judge(policy, node, proofs, now) {
      const memory = memoryOf(policy.name);
      ownerOf.set(node, policy.name);
      forgetOld(memory, now);
      const began = memory.pending.get(node) ?? now;
      memory.pending.set(node, began);
      if (memory.withdrawn.has(node)) memory.again.add(node);
      if (memory.tripped?.release === releaseOf(policy)) return { keep: BREAKER };
      // Released: what is lost in this wave is believed.
      const isReleased = memory.tripped !== undefined;
      if (isReleased) memory.released = now;
      memory.tripped = undefined;
      if (now - memory.released < WINDOW_MS)
        return { ...withdraw(memory, node, now), ...(isReleased ? { became: 'released' as const } : {}) };
      const { pending, withdrawn, back, again } = memory;
      const whole = proofs + withdrawn.size - back.size;
      // In a pool so small it can never trip, and nothing is waited for.
      if (whole < MINIMUM) return withdraw(memory, node, now);
      const recent = withdrawn.size + pending.size - again.size;
      if (recent >= MINIMUM && recent > (Number.parseFloat(policy.spec.breaker) / 100) * whole) {
        memory.tripped = { at: now, release: releaseOf(policy) };
        return { keep: BREAKER, became: 'tripped' };
      }
      return now - began < SETTLE_MS ? { keep: 'loss being judged' } : withdraw(memory, node, now);
    },
    calm(node, proven) {
      const settled = settle(node);
      if (settled?.memory.withdrawn.has(node) === true && proven) settled.memory.back.add(node);
      return settled?.isOver === true;
    },
    forget(node) {
      const settled = settle(node);
      settled?.memory.withdrawn.delete(node);
      settled?.memory.back.delete(node);
      ownerOf.delete(node);
      return settled?.isOver === true;
    },
    get holds() {
      return [...memories.values()].some(({ tripped }) => tripped !== undefined);
    },
    pending: (policy) => memories.get(policy)?.pending.size ?? 0,
    statusOf(policy) {
      const memory = memories.get(policy);
      if (memory === undefined) return undefined;
      const { tripped, released } = memory;
      if (tripped === undefined && released === -Infinity) return undefined;
      return {
        ...(tripped === undefined ? {} : { trippedAt: iso(tripped.at), release: tripped.release }),
        ...(released === -Infinity ? {} : { releasedAt: iso(released) }),
      };
    },
    recall(policies, nodes, now) {
      memories.clear();
      ownerOf.clear();
      for (const { name, status } of policies) {
        const { trippedAt, release, releasedAt } = status.breaker ?? {};
        const memory = memoryOf(name);
        memory.released = timeOf(releasedAt, -Infinity);
        if (trippedAt !== undefined) memory.tripped = { at: timeOf(trippedAt, now), release: release ?? '' };
      }
      for (const node of nodes) {
        const { name, annotations } = node.metadata;
        const policy = policyOf(node);
        if (policy === undefined || annotations?.[CLOSED] !== BREAKER) continue;
        ownerOf.set(name, policy);
        memoryOf(policy).pending.set(name, now);
      }
      for (const memory of memories.values()) if (memory.pending.size === 0) memory.tripped = undefined;
    },
  };
}

const timeOf = (text: string | undefined, otherwise: number): number => {
  const at = Date.parse(text ?? '');
  return Number.isNaN(at) ? otherwise : at;
};
const iso = (at: number): string => new Date(at).toISOString();
