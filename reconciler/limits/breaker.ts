// The circuit breaker: where more proofs than can be believed are about to be withdrawn at once, with no reboot behind it, they
// are kept and their nodes closed, until a person releases it or the losses have gone. Pure but for its memory.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { BREAKER_RELEASE } from '../../core/keys.ts';

/** Withdrawals within this time count together, ms. */
const WINDOW_MS = 600_000;
/** So many are believed whatever share they are. */
const MINIMUM = 3;
/** Settle time, ms: long enough for a correlated failure to appear on every node before the first proof is withdrawn. */
export const SETTLE_MS = 1000;

/** Why a proof about to be withdrawn stays for now; also the reason that the closed node shows. */
export type Keep = 'circuit breaker' | 'loss being judged';

export interface Verdict {
  /** `undefined` if the proof is to be withdrawn. With 'loss being judged', ask again after `SETTLE_MS`. */
  readonly keep: Keep | undefined;
  /** The breaker tripped by this very loss. */
  readonly tripped: boolean;
}

export interface Breaker {
  /** The proof of a node is about to be withdrawn. `proofs`: nodes of the policy that have one, this node among them. */
  judge(policy: GpuPolicy, node: string, proofs: number, now: number): Verdict;
  /** The node is not about to lose its proof; `proven` where it has one. */
  calm(node: string, proven: boolean): void;
  /** The node is gone. */
  forget(node: string): void;
  /** Does it hold for any policy? */
  readonly holds: boolean;
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
  /** The release annotation when it tripped: another value releases it. */
  tripped: string | undefined;
  /** When a person last released it. */
  released: number;
}

const releaseOf = (policy: GpuPolicy): string => policy.annotations[BREAKER_RELEASE] ?? '';

export function circuitBreaker(): Breaker {
  const memories = new Map<string, Memory>();
  const policyOf = new Map<string, string>();

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
    return { keep: undefined, tripped: false };
  };
  const forgetOld = ({ withdrawn, back, again }: Memory, now: number): void => {
    for (const [node, at] of withdrawn) {
      if (now - at <= WINDOW_MS) return;
      for (const names of [withdrawn, back, again]) names.delete(node);
    }
  };
  /** A loss that has gone before its proof was withdrawn counts no longer; when none is left, the breaker's time is over. */
  const settle = (node: string): Memory | undefined => {
    const memory = memories.get(policyOf.get(node) ?? '');
    if (memory === undefined) return undefined;
    memory.pending.delete(node);
    memory.again.delete(node);
    if (memory.pending.size === 0) memory.tripped = undefined;
    return memory;
  };

  return {
    judge(policy, node, proofs, now) {
      const memory = memoryOf(policy.name);
      policyOf.set(node, policy.name);
      forgetOld(memory, now);
      const began = memory.pending.get(node) ?? now;
      memory.pending.set(node, began);
      if (memory.withdrawn.has(node)) memory.again.add(node);
      if (memory.tripped === releaseOf(policy)) return { keep: 'circuit breaker', tripped: false };
      // Released: what is lost in this wave is believed.
      if (memory.tripped !== undefined) memory.released = now;
      memory.tripped = undefined;
      if (now - memory.released < WINDOW_MS) return withdraw(memory, node, now);
      const { pending, withdrawn, back, again } = memory;
      const whole = proofs + withdrawn.size - back.size;
      // In a pool so small it can never trip, and nothing is waited for.
      if (whole < MINIMUM) return withdraw(memory, node, now);
      const recent = withdrawn.size + pending.size - again.size;
      if (recent >= MINIMUM && recent > (Number.parseFloat(policy.spec.breaker) / 100) * whole) {
        memory.tripped = releaseOf(policy);
        return { keep: 'circuit breaker', tripped: true };
      }
      return now - began < SETTLE_MS ? { keep: 'loss being judged', tripped: false } : withdraw(memory, node, now);
    },
    calm(node, proven) {
      const memory = settle(node);
      if (memory?.withdrawn.has(node) === true && proven) memory.back.add(node);
    },
    forget(node) {
      const memory = settle(node);
      memory?.withdrawn.delete(node);
      memory?.back.delete(node);
      policyOf.delete(node);
    },
    get holds() {
      return [...memories.values()].some(({ tripped }) => tripped !== undefined);
    },
  };
}
