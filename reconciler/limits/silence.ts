// Silence of many kubelets at once is an overloaded control plane, not broken GPUs: their proofs
// are kept. Pure but for its memory.
import type { GpuPolicy } from '../../core/gpu-policy.ts';

/** So few silent nodes are believed whatever share they are. */
const MINIMUM = 3;

export interface Silence {
  /** Notes how many nodes of the policy are silent now, out of how many. */
  note(policy: GpuPolicy, silent: number, managed: number, now: number): void;
  /**
   * Does the silence of a node say nothing about it? It holds for one more grace time after the
   * silence has ended, because nodes are heard again one by one.
   */
  excuses(policy: string, graceMs: number, now: number): boolean;
  /**
   * On take-over: nodes that are silent now were silent while nobody led, and have a grace time to
   * be heard.
   */
  recall(policies: Iterable<GpuPolicy>, now: number): void;
}

export function silence(): Silence {
  /** Policy → when many of its nodes were silent last, ms since the epoch. */
  const last = new Map<string, number>();
  return {
    note({ name, spec }, silent, managed, now) {
      if (silent >= MINIMUM && silent > (Number.parseFloat(spec.silence) / 100) * managed) last.set(name, now);
    },
    excuses: (policy, graceMs, now) => now - (last.get(policy) ?? -Infinity) < graceMs,
    recall(policies, now) {
      last.clear();
      for (const { name } of policies) last.set(name, now);
    },
  };
}
