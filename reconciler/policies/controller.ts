// GPUPolicies: writes their status as policy-status.ts decides it, keeps their finalizers, and sets the gauges that count nodes.
import { selecting, type GpuPolicy } from '../../core/gpu-policy.ts';
import { POLICY_FINALIZER } from '../../core/keys.ts';
import { isManaged, isOurs, open, policyOf, stateOf } from '../../gate/node-proof.ts';
import { STATES } from '../../core/stages.ts';
import type { Log } from '../../platform/log.ts';
import type { Applier } from '../apply.ts';
import type { Breaker } from '../limits/breaker.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import type { NodeObject, PodObject } from '../model.ts';
import { policyStatus, sameStatus } from './status.ts';
import { gateOf, policyNameOf } from '../pods/reports.ts';

export interface PolicyWorkDeps {
  readonly nodes: { get(key: string): NodeObject | undefined; values(): Iterable<NodeObject> };
  readonly policies: { get(key: string): GpuPolicy | undefined; values(): Iterable<GpuPolicy> };
  readonly pods: { values(): Iterable<PodObject> };
  readonly apply: Applier;
  readonly metrics: ReconcilerMetrics;
  readonly log: Log;
  readonly breaker: Breaker;
  /** What the API server refuses of a policy's operands; undefined: not tried yet. */
  readonly refusals: (policy: GpuPolicy) => readonly string[] | undefined;
  readonly webhookResources: readonly string[];
  readonly now: () => number;
}

/** `settle` brings every policy's status and finalizer up to date. */
export function policyWorkOf(deps: PolicyWorkDeps): { settle(): Promise<void> } {
  const { nodes, policies, pods, apply, metrics, log, now } = deps;

  async function settle(): Promise<void> {
    const all = [...policies.values()];
    const every = [...nodes.values()];
    metrics.nodes.reset();
    let openNodes = 0;
    for (const node of every) {
      if (isOurs(node)) metrics.nodes.inc({ state: stateOf(node) ?? 'preflight', policy: policyOf(node) ?? '' });
      if (open(node).yes) openNodes += 1;
    }
    for (const policy of all) for (const state of STATES) metrics.nodes.inc({ state, policy: policy.name }, 0);
    metrics.open.set(openNodes);
    metrics.breaker.set(deps.breaker.anywhere ? 1 : 0);
    metrics.pendingGates.set(
      [...pods.values()].filter(
        (pod) =>
          pod.gated &&
          pod.phase === 'Running' &&
          gateOf(pod, nodes.get(pod.nodeName ?? ''), policies.get(policyNameOf(pod)))?.status === 'False',
      ).length,
    );
    for (const policy of all) {
      const conflicts = new Set<string>();
      for (const node of every) {
        if (!isManaged(node)) continue;
        const both = selecting(node.metadata.labels ?? {}, all).map((p) => p.name);
        if (both.includes(policy.name)) for (const other of both) if (other !== policy.name) conflicts.add(other);
      }
      const status = policyStatus(policy, every, {
        conflicts: [...conflicts].toSorted(),
        refusals: deps.refusals(policy),
        webhookResources: deps.webhookResources,
        now: now(),
      });
      if (!sameStatus(status, policy.status)) {
        const had = policy.enforcingSince;
        await apply.apply({ kind: 'policy-status', name: policy.name, uid: policy.uid, status, was: policy.status });
        if (had === undefined && status.enforcingSince !== undefined)
          log.info('policy enforces from now on', { policy: policy.name });
      }
      const has = every.some((node) => isOurs(node) && policyOf(node) === policy.name);
      const marked = policy.finalizers.includes(POLICY_FINALIZER);
      if (has && !marked && !policy.deleting)
        await apply.apply({
          kind: 'policy-finalizers',
          name: policy.name,
          uid: policy.uid,
          finalizers: [...policy.finalizers, POLICY_FINALIZER],
        });
      if (!has && marked)
        await apply.apply({
          kind: 'policy-finalizers',
          name: policy.name,
          uid: policy.uid,
          finalizers: policy.finalizers.filter((f) => f !== POLICY_FINALIZER),
        });
    }
  }

  return { settle };
}
