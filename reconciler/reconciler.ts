// The reconciler's shell: watches fill the caches, every change queues the keys it concerns, one handler per kind of key plans
// from the caches and applies. No decision is taken here that plan.ts, pods.ts or policy-status.ts could take.
import { parsePolicy, selecting, type GpuPolicy } from '../core/gpu-policy.ts';
import { COMPONENT, MANAGED, PART_OF, POLICIES_PATH, PRODUCT, PROOF, RENDERED, WAKE, WALK } from '../core/keys.ts';
import { isOurs, open, policyOf, stateOf } from '../core/node-proof.ts';
import { COMPONENTS, POD_COMPONENT, type Component } from '../core/stages.ts';
import type { Kube } from '../platform/kube.ts';
import type { Leadership } from '../platform/lease.ts';
import type { Log } from '../platform/log.ts';
import { reflector } from '../platform/reflector.ts';
import type { Action } from './actions.ts';
import { NotLeading, applier } from './apply.ts';
import { circuitBreaker, SETTLE_MS } from './breaker.ts';
import { parseWalk } from './memory.ts';
import type { ReconcilerMetrics } from './metrics.ts';
import { trimNode, trimPod, type NodeObject, type PodObject } from './model.ts';
import { renderOperand, type Rendered } from './operands/operand.ts';
import { deployedOn } from './marks.ts';
import { isDeployed, specOf, type NodePlan } from './pass.ts';
import { planNode } from './plan.ts';
import { couldFit, isUnschedulable } from './pods.ts';
import { policyWorkOf } from './policy-work.ts';
import { podWorkOf } from './pod-work.ts';
import { workQueue } from './queue.ts';

export interface ReconcilerDeps {
  readonly kube: Kube;
  readonly log: Log;
  readonly metrics: ReconcilerMetrics;
  readonly leadership: Leadership;
  readonly operandNamespace: string;
  /** Namespaces whose pods the webhook never touches, ours among them. */
  readonly excludedNamespaces: ReadonlySet<string>;
  /** ms */
  readonly notReadyGrace: number;
  readonly now: () => number;
  /** How long after a node opened the scheduler is told once more, ms. */
  readonly wakeAfter: readonly number[];
}

export interface Reconciler {
  run(signal: AbortSignal): Promise<void>;
  readonly synced: boolean;
  /** Age of each watch's last contact, ms. */
  watchAges(): Readonly<Record<string, number>>;
}

interface DaemonSetView {
  readonly name: string;
  readonly generation: number;
  readonly rendered: string;
  readonly component: string;
  readonly ours: boolean;
}

interface RawDaemonSet {
  readonly metadata: {
    readonly name: string;
    readonly generation?: number;
    readonly labels?: Record<string, string>;
    readonly annotations?: Record<string, string>;
  };
}

const trimDaemonSet = (raw: RawDaemonSet): DaemonSetView => ({
  name: raw.metadata.name,
  generation: raw.metadata.generation ?? 0,
  rendered: raw.metadata.annotations?.[RENDERED] ?? '',
  component: raw.metadata.labels?.[COMPONENT] ?? '',
  ours: raw.metadata.labels?.[PART_OF] === PRODUCT,
});

const keyOf = (pod: PodObject): string => `${pod.namespace}/${pod.name}`;
const isManaged = (node: NodeObject): boolean => node.metadata.labels?.[MANAGED] === 'true';

/** `"10%"` of a whole, or a number; at least one. */
const shareOf = (text: string, whole: number): number => {
  const value = Number.parseFloat(text);
  if (!Number.isFinite(value)) return 1;
  return Math.max(1, Math.floor(text.trim().endsWith('%') ? (value / 100) * whole : value));
};

export function reconciler(deps: ReconcilerDeps): Reconciler {
  const { kube, log, metrics, leadership, now } = deps;
  const apply = applier({ kube, metrics, leads: () => leadership.held, now, instance: leadership.identity });

  const podsByNode = new Map<string, Map<string, PodObject>>();
  const unbound = new Map<string, PodObject>();
  const validationPods = new Map<string, PodObject>();
  const nodeNames = new Map<string, string>();
  /** resourceVersion of our last write: an older cached Node has yet to catch up. */
  const written = new Map<string, bigint>();
  /** Nodes that hold one of their policy's places for first walks. */
  const slots = new Map<string, string>();
  const appliedGeneration = new Map<string, number>();
  let stopped: AbortSignal = AbortSignal.abort();
  let add: (key: string) => void = () => undefined;
  let addAfter: (key: string, ms: number) => void = () => undefined;
  let depth: () => number = () => 0;

  const nodes = reflector<NodeObject>({
    kube,
    log,
    path: '/api/v1/nodes',
    trim: trimNode,
    onChange: (key, before, after) => nodeChanged(key, before, after),
  });
  const policies = reflector<GpuPolicy>({
    kube,
    log,
    path: POLICIES_PATH,
    optional: true,
    trim: (raw) => parsePolicy(raw),
    onChange: () => policiesChanged(),
  });
  const isEvidence = (labels: Readonly<Record<string, string>>): boolean =>
    [...policies.values()].some((policy) =>
      COMPONENTS.some((component) => {
        const wanted = specOf(policy, component).podSelector?.matchLabels;
        return wanted !== undefined && Object.entries(wanted).every(([key, value]) => labels[key] === value);
      }),
    );
  const pods = reflector<PodObject>({
    kube,
    log,
    path: '/api/v1/pods',
    trim: (raw) => trimPod(raw, deps.operandNamespace, isEvidence),
    onChange: (_, before, after) => podChanged(before, after),
  });
  const daemonSets = reflector<DaemonSetView>({
    kube,
    log,
    path: `/apis/apps/v1/namespaces/${deps.operandNamespace}/daemonsets`,
    trim: (raw: RawDaemonSet) => trimDaemonSet(raw),
    onChange: () => addAfter('operands', 50),
  });
  const breaker = circuitBreaker({ nodes, now, log });
  const shared = { nodes, policies, pods, unbound, apply, metrics, log, now };
  const podWork = podWorkOf({
    ...shared,
    operandNamespace: deps.operandNamespace,
    excludedNamespaces: deps.excludedNamespaces,
  });
  const policyWork = policyWorkOf({ ...shared, breaker });
  const watches = { nodes, pods, policies, daemonsets: daemonSets };
  const synced = (): boolean => Object.values(watches).every((watch) => watch.synced);

  // ---- what a change concerns

  function nodeChanged(name: string, before: NodeObject | undefined, after: NodeObject | undefined): void {
    if (after === undefined) {
      if (before !== undefined) nodeNames.delete(before.metadata.uid);
      written.delete(name);
      slots.delete(name);
    } else nodeNames.set(after.metadata.uid, name);
    if (before !== undefined && after !== undefined && !isOurs(before) && !isOurs(after) && policyCount() === 0) return;
    add(`node:${name}`);
    for (const pod of podsByNode.get(name)?.values() ?? []) if (pod.gated) add(`pod:${keyOf(pod)}`);
    if (after !== undefined && open(after).yes && (before === undefined || !open(before).yes)) {
      for (const ms of deps.wakeAfter) addAfter(`wake-${ms}:${name}`, ms);
    }
    addAfter('operands', 50);
    addAfter('waiting', unbound.size > 100 ? 10_000 : 500);
    addAfter('policies', 300);
  }

  function podChanged(before: PodObject | undefined, after: PodObject | undefined): void {
    const pod = after ?? before;
    if (pod === undefined) return;
    const key = keyOf(pod);
    if (before?.nodeName !== undefined) podsByNode.get(before.nodeName)?.delete(key);
    unbound.delete(key);
    const isValidation = pod.namespace === deps.operandNamespace && pod.validates !== undefined;
    if (isValidation) validationPods.delete(pod.name);
    if (after !== undefined) {
      if (isValidation) validationPods.set(pod.name, after);
      if (after.nodeName === undefined) unbound.set(key, after);
      else {
        const there = podsByNode.get(after.nodeName) ?? new Map<string, PodObject>();
        podsByNode.set(after.nodeName, there.set(key, after));
      }
    } else {
      podWork.forget(pod.uid);
    }
    const nodeName = pod.nodeName ?? (pod.validates === undefined ? undefined : nodeNames.get(pod.validates));
    if (nodeName !== undefined) add(`node:${nodeName}`);
    if (after === undefined || pod.namespace === deps.operandNamespace) return;
    add(`pod:${key}`);
    // Bound now, or made with `spec.nodeName`; what the first list brings was bound before.
    const isNew = before === undefined ? pods.synced : before.nodeName === undefined;
    if (isNew && after.nodeName !== undefined) add(`bound:${key}`);
    if (isUnschedulable(after)) addAfter('waiting', unbound.size > 100 ? 10_000 : 500);
  }

  let selectors = '[]';
  function policiesChanged(): void {
    const wanted = JSON.stringify(
      [...policies.values()].flatMap((policy) => COMPONENTS.map((c) => specOf(policy, c).podSelector ?? null)),
    );
    // Pods that were none of our business may be evidence now.
    if (wanted !== selectors && pods.synced) pods.relist();
    selectors = wanted;
    add('policies');
    add('operands');
    for (const node of nodes.values()) if (isOurs(node)) add(`node:${node.metadata.name}`);
    for (const pod of pods.values()) if (pod.gated) add(`pod:${keyOf(pod)}`);
    addAfter('waiting', 500);
  }

  const policyCount = (): number => policies.size;

  // ---- what a policy deploys

  const rendered = new WeakMap<GpuPolicy, readonly Rendered[]>();
  const operandsOf = (policy: GpuPolicy): readonly Rendered[] => {
    const known = rendered.get(policy);
    if (known !== undefined) return known;
    const fresh = COMPONENTS.filter((component) => isDeployed(specOf(policy, component))).map((component) =>
      renderOperand(component, policy, { namespace: deps.operandNamespace }),
    );
    rendered.set(policy, fresh);
    return fresh;
  };
  const revisionsOf = (policy: GpuPolicy | undefined): Partial<Record<Component, string>> =>
    policy === undefined
      ? {}
      : Object.fromEntries(operandsOf(policy).map(({ component, revision }) => [component, revision]));

  async function handleOperands(): Promise<void> {
    const wanted = new Map<string, Rendered>();
    const all = [...policies.values()];
    const named = new Set<string>();
    const used = new Set<string>();
    for (const node of nodes.values()) {
      if (!isOurs(node)) continue;
      for (const [component, revision] of Object.entries(deployedOn(node)))
        named.add(`${POD_COMPONENT[component as Component]}-${revision}`);
      const policy = selecting(node.metadata.labels ?? {}, all)[0];
      if (isManaged(node) && policy !== undefined) used.add(policy.name);
    }
    for (const policy of all) {
      if (!used.has(policy.name) || policy.deleting) continue;
      for (const operand of operandsOf(policy)) wanted.set(operand.daemonSet.metadata.name, operand);
    }
    for (const [name, operand] of wanted) {
      const present = daemonSets.get(`${deps.operandNamespace}/${name}`);
      const applied = appliedGeneration.get(name);
      if (present !== undefined && present.generation === applied && present.rendered === operand.digest) continue;
      const outcome = await apply.apply({ kind: 'apply-daemonset', manifest: operand.daemonSet });
      if (outcome.kind === 'stale')
        throw new Error(
          `DaemonSet ${name} was not applied: namespace ${deps.operandNamespace} is missing or going away`,
        );
      appliedGeneration.set(name, outcome.generation ?? 0);
      if (present !== undefined && outcome.generation !== present.generation) {
        log.info('operand was changed by somebody else and put back', { daemonset: name });
        for (const policy of all) {
          if (!operandsOf(policy).some((o) => o.daemonSet.metadata.name === name)) continue;
          await apply.apply({
            kind: 'event',
            about: { kind: 'GPUPolicy', name: policy.name, uid: policy.uid },
            type: 'Warning',
            reason: 'OperandPutBack',
            message: `DaemonSet ${name} was changed by hand and put back: change the GPUPolicy instead`,
          });
        }
      }
    }
    for (const present of daemonSets.values()) {
      if (!present.ours || wanted.has(present.name) || named.has(present.name)) continue;
      appliedGeneration.delete(present.name);
      await apply.apply({ kind: 'delete-daemonset', namespace: deps.operandNamespace, name: present.name });
    }
  }

  // ---- nodes

  const slotFree = (name: string, policy: GpuPolicy): boolean => {
    if (slots.has(name)) return true;
    const managed = [...nodes.values()].filter((node) => isManaged(node) && policyOf(node) === policy.name).length;
    return (
      [...slots.values()].filter((holder) => holder === policy.name).length <
      shareOf(policy.spec.bringUp.maxConcurrent, managed)
    );
  };

  async function handleNode(name: string): Promise<void> {
    const node = nodes.get(name);
    if (node === undefined) return;
    if (BigInt(node.metadata.resourceVersion) < (written.get(name) ?? 0n)) return;
    const [policy, ...others] = selecting(node.metadata.labels ?? {}, [...policies.values()]);
    const input = {
      node,
      pods: [...(podsByNode.get(name)?.values() ?? [])],
      validationPods: validationsOf(node),
      policy,
      conflicts: others.map((other) => other.name),
      revisions: revisionsOf(policy),
      slotFree: policy !== undefined && slotFree(name, policy),
      keep: policy !== undefined && breaker.holds(policy) ? ('circuit breaker' as const) : undefined,
      operandNamespace: deps.operandNamespace,
      notReadyGrace: deps.notReadyGrace,
      now: now(),
    };
    let plan: NodePlan = planNode(input);
    if (plan.withdraws && policy !== undefined) {
      const keep = breaker.judge(policy, name);
      if (keep === undefined) metrics.withdrawals.inc();
      else plan = planNode({ ...input, keep });
      if (keep === 'loss being judged') addAfter(`node:${name}`, SETTLE_MS);
    } else breaker.calm(name);
    if (plan.holdsSlot) noteSlot(name, policy, true);
    await carryOut(node, plan.actions);
    // Only now that it is written: else the next one could be seen on its way before this one has ended.
    if (!plan.holdsSlot) noteSlot(name, policy, false);
    if (plan.wakeAt !== undefined) addAfter(`node:${name}`, Math.max(20, plan.wakeAt - now()));
  }

  const validationsOf = (node: NodeObject): ReadonlyMap<string, PodObject> => {
    const found = new Map<string, PodObject>();
    for (const pod of validationPods.values())
      if (pod.validates === node.metadata.uid || pod.nodeName === node.metadata.name) found.set(pod.name, pod);
    return found;
  };

  const noteSlot = (name: string, policy: GpuPolicy | undefined, holds: boolean): void => {
    const had = slots.has(name);
    if (holds && policy !== undefined) slots.set(name, policy.name);
    else slots.delete(name);
    if (had && !slots.has(name))
      for (const node of nodes.values())
        if (stateOf(node) === 'preflight' || stateOf(node) === 'failed') add(`node:${node.metadata.name}`);
  };

  /** Applies in order; what changed meanwhile ends the list, and the node is looked at again. */
  async function carryOut(node: NodeObject, actions: readonly Action[]): Promise<void> {
    const { name } = node.metadata;
    const taints = JSON.stringify(node.spec?.taints ?? []);
    let latest: { resourceVersion?: string; taints?: string } = {};
    for (const action of actions) {
      // Our own write before this one has moved the version on; the list that the taints were planned from must still stand.
      const moved = action.kind === 'set-taints' && latest.resourceVersion !== undefined;
      if (moved && latest.taints !== taints) {
        addAfter(`node:${name}`, 50);
        return;
      }
      const outcome = await apply.apply(moved ? { ...action, resourceVersion: latest.resourceVersion ?? '' } : action);
      if (outcome.kind === 'stale') {
        if (action.kind === 'create-pod' || action.kind === 'delete-pod' || action.kind === 'event') continue;
        addAfter(`node:${name}`, 50);
        return;
      }
      if (
        (action.kind === 'patch-node' || action.kind === 'set-taints' || action.kind === 'set-node-condition') &&
        outcome.resourceVersion !== undefined
      ) {
        latest = { resourceVersion: outcome.resourceVersion, taints: JSON.stringify(outcome.taints ?? []) };
        written.set(name, BigInt(outcome.resourceVersion));
        if (action.kind === 'patch-node') observeWalk(node, action.annotations[WALK]);
      }
    }
  }

  /** Figures of the walk, taken from the difference of its memory before and after a write. */
  const observeWalk = (node: NodeObject, after: string | null | undefined): void => {
    if (after === undefined || after === null) return;
    const before = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid);
    const walk = parseWalk(after, node.metadata.uid);
    if (walk === undefined) return;
    if (before !== undefined && before.stage !== 'done' && before.stage !== walk.stage && before.boot === walk.boot) {
      metrics.stageSeconds.observe({ stage: before.stage }, (now() - Date.parse(before.since)) / 1000);
    }
    if (walk.failed !== undefined && walk.failed.at !== before?.failed?.at) {
      metrics.failures.inc({ stage: walk.failed.stage, reason: walk.failed.reason });
      log.info('stage failed', {
        node: node.metadata.name,
        stage: walk.failed.stage,
        reason: walk.failed.reason,
        message: walk.failed.message,
      });
    }
    if (walk.stage === 'done' && before?.stage !== 'done') {
      metrics.lastValidation.set(Math.round(now() / 1000));
      log.info('node validated', { node: node.metadata.name });
    }
  };

  async function handleWake(name: string): Promise<void> {
    const node = nodes.get(name);
    if (node === undefined || !open(node).yes) return;
    const there = [...(podsByNode.get(name)?.values() ?? [])];
    if (![...unbound.values()].some((pod) => isUnschedulable(pod) && couldFit(pod, node, there))) return;
    metrics.wakes.inc();
    await carryOut(node, [
      {
        kind: 'patch-node',
        node: name,
        uid: node.metadata.uid,
        labels: {},
        annotations: { [WAKE]: new Date(now()).toISOString() },
      },
    ]);
  }

  // ---- the loop

  async function handle(key: string): Promise<void> {
    metrics.queueDepth.set(depth());
    if (!leadership.held || !synced() || stopped.aborted) return;
    const at = key.indexOf(':');
    const [kind, name] = at < 0 ? [key, ''] : [key.slice(0, at), key.slice(at + 1)];
    switch (kind) {
      case 'node':
        return handleNode(name);
      case 'pod':
        return podWork.pod(name);
      case 'bound':
        return podWork.bound(name);
      case 'waiting':
        return podWork.waiting();
      case 'policies':
        return policyWork.settle();
      case 'operands':
        return handleOperands();
      default:
        return handleWake(name);
    }
  }

  /** On start and on take-over: proofs are checked before anything else. */
  const everything = (): void => {
    slots.clear();
    for (const node of nodes.values()) {
      const walk = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid);
      const policy = policyOf(node);
      if (
        walk !== undefined &&
        policy !== undefined &&
        !walk.once &&
        walk.stage !== 'preflight' &&
        walk.failed === undefined
      )
        slots.set(node.metadata.name, policy);
    }
    const ours = [...nodes.values()].filter(isOurs);
    const proven = (node: NodeObject): number => (node.metadata.annotations?.[PROOF] === undefined ? 1 : 0);
    for (const node of ours.toSorted((a, b) => proven(a) - proven(b))) add(`node:${node.metadata.name}`);
    add('operands');
    add('policies');
    for (const pod of pods.values()) add(`pod:${keyOf(pod)}`);
    for (const node of ours) if (open(node).yes) add(`wake-start:${node.metadata.name}`);
    addAfter('waiting', 500);
  };

  return {
    get synced() {
      return synced();
    },
    watchAges: () =>
      Object.fromEntries(Object.entries(watches).map(([kind, watch]) => [kind, now() - watch.lastContact()])),
    async run(signal) {
      stopped = signal;
      const queue = workQueue({
        workers: 16,
        handle,
        signal,
        failed: (key, error) => {
          if (error instanceof NotLeading) return;
          metrics.errors.inc({ kind: key.split(':')[0] ?? key });
          log.error('reconciling failed, trying again', { key, error });
        },
      });
      add = (key) => queue.add(key);
      depth = () => queue.depth;
      addAfter = (key, ms) => queue.addAfter(key, ms);
      leadership.onChange((held) => {
        metrics.leader.set(held ? 1 : 0);
        if (held) everything();
      });
      nodes.start(signal);
      policies.start(signal);
      daemonSets.start(signal);
      // Which pods are evidence is said by the policies, so that these must be known first.
      await policies.whenSynced();
      pods.start(signal);
      await Promise.all(Object.values(watches).map((watch) => watch.whenSynced()));
      everything();
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    },
  };
}
