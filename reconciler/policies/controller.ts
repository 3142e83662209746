// GPUPolicies: writes their status as status.ts decides it, keeps their finalizers, and sets the
// gauges that count nodes.
import type { GpuPolicy, PolicyStatus } from '../../core/gpu-policy.ts';
import { POLICY_FINALIZER, WALK } from '../../core/keys.ts';
import type { Log } from '../../platform/log.ts';
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import { figuresOf } from '../gauges.ts';
import type { Handlers, Turns } from '../key.ts';
import type { Breaker } from '../limits/breaker.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import { modesOf, stackIdOf, wantedTarget, type Revisions } from '../stack.ts';
import { parseWalk } from '../walk.ts';
import { changesAt } from '../roll-out-gate.ts';
import { rollOutFigures, rollOutGate, type RollOutFacts } from './roll-out.ts';
import { policyStatus, sameStatus } from './status.ts';

export interface PolicyControllerDeps {
  readonly caches: Pick<Caches, 'policies' | 'nodes' | 'fleet' | 'devices' | 'rules'>;
  readonly apply: Applier;
  readonly turns: Turns;
  readonly metrics: ReconcilerMetrics;
  readonly log: Log;
  readonly breaker: Pick<Breaker, 'holds' | 'statusOf' | 'pending'>;
  /** What the API server refuses of a policy's operands; `undefined` if not tried yet. */
  readonly refusals: (policy: GpuPolicy) => readonly string[] | undefined;
  /** Newest revision of each component that the policy deploys. */
  readonly revisionsOf: (policy: GpuPolicy) => Revisions;
  /** Running pods whose readiness gate is not True. */
  readonly pendingGates: () => number;
  readonly webhookResources: readonly string[];
  readonly now: () => number;
}

export function policyController(deps: PolicyControllerDeps): { readonly handlers: Pick<Handlers, 'policies'> } {
  const { apply, turns, breaker, metrics, log, now } = deps;
  const { policies, nodes, fleet, devices, rules } = deps.caches;

  /** Brings every policy's status and finalizer up to date. */
  async function handle(): Promise<void> {
    const all = [...policies.values()];
    const figures = figuresOf(fleet, all);
    metrics.nodes.reset();
    for (const { state, policy, count } of figures.nodes) metrics.nodes.set({ state, policy }, count);
    metrics.open.set(figures.open);
    metrics.pendingGates.set(deps.pendingGates());
    metrics.breaker.set(breaker.holds ? 1 : 0);
    metrics.devices.reset();
    for (const node of fleet.names('devices')) showDevices(node);
    metrics.rollOutNodes.reset();
    metrics.rollOutStopped.reset();
    for (const policy of all) {
      await report(policy, all);
      await guard(policy);
    }
  }

  async function report(policy: GpuPolicy, all: readonly GpuPolicy[]): Promise<void> {
    const conflicts = all.filter(({ name }) => fleet.count('conflict', policy.name, name) > 0);
    const facts = rollOutOf(policy);
    show(policy, facts);
    const status = policyStatus(policy, fleet, {
      conflicts: conflicts.map(({ name }) => name).toSorted(),
      refusals: deps.refusals(policy),
      webhookResources: deps.webhookResources,
      devices,
      taintsServed: rules.served,
      breaker: breaker.statusOf(policy.name),
      kept: breaker.pending(policy.name),
      rollOut: facts,
      now: now(),
    });
    lookAgain(policy, status, facts);
    if (sameStatus(status, policy.status)) return;
    await apply.apply({ kind: 'policy-status', name: policy.name, uid: policy.uid, status, was: policy.status });
    const stop = stopOf(status);
    if (stop !== undefined && stop !== stopOf(policy.status)) {
      log.error('roll-out stopped', { policy: policy.name, because: stop });
      const about = { kind: 'GPUPolicy', name: policy.name, uid: policy.uid } as const;
      await apply.apply({ kind: 'event', about, type: 'Warning', reason: 'RollOutStopped', message: stop });
    }
    const wait = waitOf(status);
    if (wait !== undefined && wait.reason !== waitOf(policy.status)?.reason) {
      log.info('roll-out waits', { policy: policy.name, because: wait.message });
      const about = { kind: 'GPUPolicy', name: policy.name, uid: policy.uid } as const;
      await apply.apply({ kind: 'event', about, type: 'Normal', reason: 'RollOutWaits', message: wait.message });
    }
    if (policy.enforcingSince === undefined && status.enforcingSince !== undefined)
      log.info('policy enforces from now on', { policy: policy.name });
  }

  /** What a window or a canary waits for comes by itself. */
  function lookAgain(policy: GpuPolicy, { conditions }: PolicyStatus, facts: RollOutFacts): void {
    const isRolling = conditions?.some(({ type, status }) => type === 'RollingOut' && status === 'True') === true;
    if (!isRolling) return;
    const { window, canary } = rollOutGate(policy, fleet, facts);
    for (const at of [changesAt(window), canary.kind === 'waiting' ? canary.until : undefined])
      if (at !== undefined) turns.addAfter({ kind: 'policies', name: '' }, Math.max(20, at - now()));
  }

  /** What the policy says, and the nodes that failed on it. */
  function rollOutOf(policy: GpuPolicy): RollOutFacts {
    const stopping = [...fleet.names('stopping', policy.name)].toSorted().flatMap((node) => {
      const { uid, annotations } = nodes.get(node)?.metadata ?? {};
      const failed = parseWalk(annotations?.[WALK], uid ?? '')?.rollOut?.failed;
      return failed === undefined ? [] : [{ node, ...failed }];
    });
    const wanted = wantedTarget(policy, deps.revisionsOf(policy));
    return { stackId: stackIdOf(wanted), modes: modesOf(wanted), stopping, now: now() };
  }

  function show({ name }: GpuPolicy, facts: RollOutFacts): void {
    const { upToDate, rolling, leftOut, waiting } = rollOutFigures(name, fleet, facts);
    const phases = { 'up-to-date': upToDate, rolling, waiting, 'left-out': leftOut };
    for (const [phase, count] of Object.entries(phases)) metrics.rollOutNodes.set({ policy: name, phase }, count);
    for (const { node, stage, reason } of facts.stopping)
      metrics.rollOutStopped.set({ policy: name, node, reason: `${stage}: ${reason}` }, 1);
  }

  function showDevices(node: string): void {
    const { uid, annotations } = nodes.get(node)?.metadata ?? {};
    const { leftOut = {}, tainted = {} } = parseWalk(annotations?.[WALK], uid ?? '') ?? {};
    for (const device of Object.keys(leftOut)) metrics.devices.set({ node, device, by: 'gpu-gate' }, 1);
    for (const device of Object.keys(tainted)) metrics.devices.set({ node, device, by: 'others' }, 1);
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

/**
 * What a roll-out waits for that a person plans by: its reason, and the sentence up to the figures.
 */
function waitOf({ conditions = [] }: PolicyStatus): { readonly reason: string; readonly message: string } | undefined {
  const waits = ['WaitingForWindow', 'WindowUnreadable', 'CanaryWaits', 'CanaryAwaitsApproval'];
  const found = conditions.find(({ type, reason }) => type === 'RollingOut' && waits.includes(reason));
  return found === undefined ? undefined : { reason: found.reason, message: found.message.split('; ')[0] ?? '' };
}

/** Which node stopped the roll-out, and why: the condition's sentence up to the figures. */
const stopOf = ({ conditions = [] }: PolicyStatus): string | undefined => {
  const stopped = conditions.find(({ type, reason }) => type === 'RollingOut' && reason === 'Stopped');
  return stopped?.message.split('; ')[0];
};
