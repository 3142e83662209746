// The circuit breaker: more proofs about to be withdrawn at once than can be believed, with no reboot behind it, are kept, and
// their nodes closed, until a person lets it go on.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { BREAKER_RELEASE, PROOF } from '../../core/keys.ts';
import { policyOf } from '../../gate/node-proof.ts';
import type { Log } from '../../platform/log.ts';
import type { NodeObject } from '../model.ts';

/** Withdrawals this near to each other count together, ms. */
const WINDOW_MS = 600_000;
/** So many are believed whatever share they are. */
const LEAST = 3;
/** How long a node about to lose its proof is only closed, ms: a loss that hits many nodes at once is seen on all of them before the first pays. */
export const SETTLE_MS = 1000;

/** Why a proof about to be withdrawn stays for now; also the reason that the closed node shows. */
export type Keep = 'circuit breaker' | 'loss being judged';

export interface Breaker {
  /** Does it hold for the policy now? */
  holds(policy: GpuPolicy): boolean;
  /** Notes that the proof of a node is about to be withdrawn; says why it must not be, or not yet. Ask again after `SETTLE_MS`. */
  judge(policy: GpuPolicy, node: string): Keep | undefined;
  /** The node is not about to lose its proof, or no longer. */
  calm(node: string): void;
  /** Does it hold for any policy? */
  readonly anywhere: boolean;
}

export function circuitBreaker(deps: {
  readonly nodes: { get(name: string): NodeObject | undefined; values(): Iterable<NodeObject> };
  readonly now: () => number;
  readonly log: Log;
}): Breaker {
  const withdrawals = new Map<string, number>();
  /** Nodes being judged → since when, ms since the epoch. */
  const judged = new Map<string, number>();
  /** Policy → its release annotation when it tripped: another value lets it go on. */
  const tripped = new Map<string, string>();
  /** When a person last let a policy's withdrawals go on, ms since the epoch. */
  const released = new Map<string, number>();
  const releaseOf = (policy: GpuPolicy): string => policy.annotations[BREAKER_RELEASE] ?? '';
  const isOf = (policy: GpuPolicy, node: NodeObject | undefined): boolean =>
    node !== undefined && policyOf(node) === policy.name;
  const isProven = (node: NodeObject | undefined): boolean => node?.metadata.annotations?.[PROOF] !== undefined;

  return {
    holds: (policy) => tripped.get(policy.name) === releaseOf(policy),
    get anywhere() {
      return tripped.size > 0;
    },
    calm: (node) => void judged.delete(node),
    judge(policy, node) {
      const since = tripped.get(policy.name);
      if (since === releaseOf(policy)) return 'circuit breaker';
      const at = deps.now();
      // Let go on: what is lost in this wave is believed.
      if (since !== undefined) released.set(policy.name, at);
      tripped.delete(policy.name);
      if (at - (released.get(policy.name) ?? -Infinity) < WINDOW_MS) return undefined;
      for (const [name, time] of withdrawals) if (at - time > WINDOW_MS) withdrawals.delete(name);
      withdrawals.set(node, at);
      const recent = [...withdrawals.keys()].map((name) => deps.nodes.get(name)).filter((n) => isOf(policy, n));
      const proofs = [...deps.nodes.values()].filter((n) => isOf(policy, n) && isProven(n)).length;
      const gone = recent.filter((n) => !isProven(n)).length;
      const share = (Number.parseFloat(policy.spec.breaker) / 100) * (proofs + gone);
      if (recent.length < LEAST || recent.length <= share) {
        // Too few nodes for it ever to trip: nothing to wait for.
        if (proofs + gone < LEAST) return undefined;
        const began = judged.get(node) ?? at;
        judged.set(node, began);
        return at - began < SETTLE_MS ? 'loss being judged' : undefined;
      }
      tripped.set(policy.name, releaseOf(policy));
      deps.log.error('circuit breaker tripped: proofs are kept, nodes closed', {
        policy: policy.name,
        withdrawals: recent.length,
        proofs,
      });
      return 'circuit breaker';
    },
  };
}
