// GPUPolicies: writes their status as status.ts decides it, keeps their finalizers, and sets the
// gauges that count nodes.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { POLICY_FINALIZER } from '../../core/keys.ts';
import type { Log } from '../../platform/log.ts';
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import { figuresOf } from '../gauges.ts';
import type { Handlers } from '../key.ts';
import type { Breaker } from '../limits/breaker.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import { policyStatus, sameStatus } from './status.ts';

export interface PolicyControllerDeps {
  readonly caches: Pick<Caches, 'policies' | 'fleet' | 'devices' | 'rules'>;
  readonly apply: Applier;
  readonly metrics: ReconcilerMetrics;
  readonly log: Log;
  readonly breaker: Pick<Breaker, 'holds' | 'statusOf' | 'pending'>;
  /** What the API server refuses of a policy's operands; `undefined` if not tried yet. */
  readonly refusals: (policy: GpuPolicy) => readonly string[] | undefined;
  /** Running pods whose readiness gate is not True. */
  readonly pendingGates: () => number;
  readonly webhookResources: readonly string[];
  readonly now: () => number;
}

export function policyController(deps: PolicyControllerDeps): { readonly handlers: Pick<Handlers, 'policies'> } {
  const { apply, breaker, metrics, log, now } = deps;
  const { policies, fleet, devices, rules } = deps.caches;

  /** Brings every policy's status and finalizer up to date. */
  async function handle(): Promise<void> {
    const all = [...policies.values()];
    const figures = figuresOf(fleet, all);
    metrics.nodes.reset();
    for (const { state, policy, count } of figures.nodes) metrics.nodes.set({ state, policy }, count);
    metrics.open.set(figures.open);
    metrics.pendingGates.set(deps.pendingGates());
    metrics.breaker.set(breaker.holds ? 1 : 0);
    for (const policy of all) {
      await report(policy, all);
      await guard(policy);
    }
  }

  async function report(policy: GpuPolicy, all: readonly GpuPolicy[]): Promise<void> {
    const conflicts = all.filter(({ name }) => fleet.count('conflict', policy.name, name) > 0);
    const status = policyStatus(policy, fleet, {
      conflicts: conflicts.map(({ name }) => name).toSorted(),
      refusals: deps.refusals(policy),
      webhookResources: deps.webhookResources,
      devices,
      taintsServed: rules.served,
      breaker: breaker.statusOf(policy.name),
      kept: breaker.pending(policy.name),
      now: now(),
    });
    if (sameStatus(status, policy.status)) return;
    await apply.apply({ kind: 'policy-status', name: policy.name, uid: policy.uid, status, was: policy.status });
    if (policy.enforcingSince === undefined && status.enforcingSince !== undefined)
      log.info('policy enforces from now on', { policy: policy.name });
  }

  /** A policy stays until the release of its nodes has ended. */
  async function guard({ name, uid, finalizers, deleting }: GpuPolicy): Promise<void> {
    const has = fleet.count('of', name) > 0;
    const marked = finalizers.includes(POLICY_FINALIZER);
    if (has && !marked && !deleting)
      await apply.apply({ kind: 'policy-finalizers', name, uid, finalizers: [...finalizers, POLICY_FINALIZER] });
    if (!has && marked) {
      const others = finalizers.filter((finalizer) => finalizer !== POLICY_FINALIZER);
      await apply.apply({ kind: 'policy-finalizers', name, uid, finalizers: others });
    }
  }

  return { handlers: { policies: handle } };
}
