// The reconciler's shell: watches fill the caches, every change queues the keys it concerns, one handler per kind of key plans
// from the caches and applies. What is decided is decided in plan.ts, pods.ts, policy-status.ts, operand-plan.ts and slots.ts.
import { selecting, type GpuPolicy } from '../core/gpu-policy.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { INJECT, POLICIES_PATH, PROOF, WAKE, WALK } from '../core/keys.ts';
import { isOurs, newestProof, open, stateOf } from '../gate/node-proof.ts';
import { COMPONENTS } from '../core/stages.ts';
import type { Kube } from '../platform/kube.ts';
import type { Leadership } from '../platform/lease.ts';
import type { Log } from '../platform/log.ts';
import { reflector } from '../platform/reflector.ts';
import type { Action } from './actions.ts';
import { NotLeading, applier } from './apply.ts';
import { circuitBreaker, SETTLE_MS } from './limits/breaker.ts';
import { parseWalk } from './walk.ts';
import { forgetCluster, type ReconcilerMetrics } from './metrics.ts';
import { trimNode, trimPod, type NodeObject, type PodObject } from './model.ts';
import { carryOut } from './node/writes.ts';
import { trimDaemonSet, type DaemonSetView } from './operands/wanted.ts';
import { operandWorkOf } from './operands/controller.ts';
import { specOf, type NodePlan } from './node/pass.ts';
import { planNode } from './node/plan.ts';
import { couldFit, isUnschedulable, nodesToWake, policyNameOf } from './pods/reports.ts';
import { policyWorkOf } from './policies/controller.ts';
import { podWorkOf, type NamespaceView } from './pods/controller.ts';
import { workQueue } from '../platform/queue.ts';
import { slots } from './limits/slots.ts';

export interface ReconcilerDeps {
  readonly kube: Kube;
  readonly log: Log;
  readonly metrics: ReconcilerMetrics;
  readonly leadership: Leadership;
  readonly operandNamespace: string;
  /** Namespaces whose pods the webhook never touches, ours among them. */
  readonly excludedNamespaces: ReadonlySet<string>;
  /** Resources that the webhook configuration calls us for. */
  readonly webhookResources: readonly string[];
  /** ms */
  readonly notReadyGrace: number;
  readonly now: () => number;
  /** How long after a node opened, or a policy changed, the scheduler is told once more, ms. */
  readonly wakeAfter: readonly number[];
}

export interface Reconciler {
  run(signal: AbortSignal): Promise<void>;
  readonly synced: boolean;
  /** Age of each watch's last contact, ms. */
  watchAges(): Readonly<Record<string, number>>;
}

const keyOf = (pod: PodObject): string => `${pod.namespace}/${pod.name}`;
export function reconciler(deps: ReconcilerDeps): Reconciler {
  const { kube, log, metrics, leadership, now } = deps;
  const apply = applier({
    kube,
    metrics,
    leads: () => leadership.held,
    now,
    instance: leadership.identity,
    conditionNow: ({ namespace, name }, type) => {
      const conditions =
        namespace === undefined ? nodes.get(name)?.status?.conditions : pods.get(`${namespace}/${name}`)?.conditions;
      return conditions?.find((condition) => condition.type === type)?.status;
    },
  });

  const podsByNode = new Map<string, Map<string, PodObject>>();
  const unbound = new Map<string, PodObject>();
  const validationPods = new Map<string, PodObject>();
  const nodeNames = new Map<string, string>();
  /** resourceVersion of our last write: an older cached Node has yet to catch up. */
  const written = new Map<string, bigint>();
  const places = slots();
  let stopped: AbortSignal = AbortSignal.abort();
  let add: (key: string) => void = () => undefined;
  let addAfter: (key: string, ms: number) => void = () => undefined;

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
    onChange: (_, before, after) => policiesChanged(before, after),
  });
  const namespaces = reflector<NamespaceView>({
    kube,
    log,
    path: '/api/v1/namespaces',
    trim: (raw: { metadata: { labels?: Record<string, string> } }) => ({
      optedOut: raw.metadata.labels?.[INJECT] === 'false',
    }),
    onChange: (name, before) => {
      // Its pods may have come first: what the namespace says was not known then.
      if (before !== undefined || !pods.synced) return;
      for (const pod of pods.values()) if (pod.namespace === name) add(`pod:${keyOf(pod)}`);
    },
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
    trim: trimDaemonSet,
    onChange: () => addAfter('operands', 50),
  });
  const breaker = circuitBreaker({ nodes, now, log });
  const shared = { nodes, policies, pods, namespaces, unbound, apply, metrics, log, now };
  const { operandNamespace, excludedNamespaces, webhookResources } = deps;
  const podWork = podWorkOf({ ...shared, operandNamespace, excludedNamespaces });
  const operandWork = operandWorkOf({
    ...shared,
    daemonSets,
    operandNamespace,
    changed: () => add('policies'),
    again: (ms) => addAfter('operands', ms),
  });
  const policyWork = policyWorkOf({
    ...shared,
    breaker,
    webhookResources,
    refusals: (policy) => operandWork.refusals(policy),
  });
  const watches = { nodes, pods, policies, namespaces, daemonsets: daemonSets };
  const synced = (): boolean => Object.values(watches).every((watch) => watch.synced);

  // ---- what a change concerns

  function nodeChanged(name: string, before: NodeObject | undefined, after: NodeObject | undefined): void {
    if (after === undefined) {
      if (before !== undefined) nodeNames.delete(before.metadata.uid);
      written.delete(name);
      place(name, undefined);
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
  function policiesChanged(before: GpuPolicy | undefined, after: GpuPolicy | undefined): void {
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
    // No object that the scheduler looks at has changed, and yet a pod that waits may go now: suspended, allowed, or the policy gone.
    if (before?.generation !== after?.generation || before?.uid !== after?.uid)
      for (const ms of deps.wakeAfter) addAfter(`wakeable:${ms}`, ms);
  }

  const policyCount = (): number => policies.size;

  // ---- nodes

  /** The node holds a place for its first walk, or none; those that wait for one are told. */
  const place = (name: string, policy: string | undefined): void => {
    if (!places.note(name, policy)) return;
    for (const node of nodes.values())
      if (stateOf(node) === 'preflight' || stateOf(node) === 'failed') add(`node:${node.metadata.name}`);
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
      revisions: operandWork.revisionsOf(policy),
      slotFree: policy !== undefined && places.free(name, policy, nodes.values()),
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
    if (plan.holdsSlot) place(name, policy?.name);
    await write(node, plan.actions);
    // Only now that it is written: else the next one could be seen on its way before this one has ended.
    if (!plan.holdsSlot) place(name, undefined);
    if (plan.wakeAt !== undefined) addAfter(`node:${name}`, Math.max(20, plan.wakeAt - now()));
  }

  const validationsOf = (node: NodeObject): ReadonlyMap<string, PodObject> => {
    const found = new Map<string, PodObject>();
    for (const pod of validationPods.values())
      if (pod.validates === node.metadata.uid || pod.nodeName === node.metadata.name) found.set(pod.name, pod);
    return found;
  };

  async function write(node: NodeObject, actions: readonly Action[]): Promise<void> {
    const { name } = node.metadata;
    const end = await carryOut(node, actions, {
      apply,
      wrote(action, resourceVersion) {
        written.set(name, BigInt(resourceVersion));
        if (action.kind === 'patch-node') observeWalk(node, action.annotations[WALK]);
      },
    });
    if (end === 'stale') addAfter(`node:${name}`, 50);
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

  const on = (name: string): readonly PodObject[] => [...(podsByNode.get(name)?.values() ?? [])];
  const policyOfPod = (pod: PodObject): GpuPolicy | undefined => policies.get(policyNameOf(pod));
  const unschedulable = (): readonly PodObject[] => [...unbound.values()].filter(isUnschedulable);

  /** A change of the Node makes the scheduler try again those that it was refused for. */
  async function wake(node: NodeObject): Promise<void> {
    const { name, uid } = node.metadata;
    const say = (value: string | null): Action => ({
      kind: 'patch-node',
      node: name,
      uid,
      labels: {},
      annotations: { [WAKE]: value },
    });
    metrics.wakes.inc();
    // A node that is not ours keeps no mark of ours: going again is a change too.
    await write(node, [say(new Date(now()).toISOString()), ...(isOurs(node) ? [] : [say(null)])]);
  }

  async function handleWake(name: string): Promise<void> {
    const node = nodes.get(name);
    if (node === undefined || !open(node).yes) return;
    if (unschedulable().some((pod) => couldFit(pod, node, on(name), policyOfPod(pod)))) await wake(node);
  }

  async function handleWakeable(): Promise<void> {
    const waiting = unschedulable();
    if (waiting.length === 0) return;
    for (const node of nodesToWake(waiting, [...nodes.values()], on, policyOfPod)) await wake(node);
  }

  // ---- the loop

  async function handle(key: string): Promise<void> {
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
        return operandWork.settle();
      case 'wakeable':
        return handleWakeable();
      default:
        return handleWake(name);
    }
  }

  /** On start and on take-over: proofs are checked before anything else. */
  const everything = (): void => {
    // First, while the nodes still say how they were when nobody looked.
    for (const key of podWork.takeOver()) add(`bound:${key}`);
    places.recall(nodes.values());
    metrics.lastValidation.set(Math.round(newestProof(nodes.values()) / 1000));
    const ours = [...nodes.values()].filter(isOurs);
    const proven = (node: NodeObject): number => (node.metadata.annotations?.[PROOF] === undefined ? 1 : 0);
    for (const node of ours.toSorted((a, b) => proven(a) - proven(b))) add(`node:${node.metadata.name}`);
    add('operands');
    add('policies');
    for (const pod of pods.values()) add(`pod:${keyOf(pod)}`);
    add('wakeable:0');
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
      metrics.readDepth(() => queue.depth);
      addAfter = (key, ms) => queue.addAfter(key, ms);
      leadership.onChange((held) => {
        metrics.leader.set(held ? 1 : 0);
        if (held) everything();
        else forgetCluster(metrics);
      });
      nodes.start(signal);
      policies.start(signal);
      daemonSets.start(signal);
      namespaces.start(signal);
      // Which pods are evidence is said by the policies, so that these must be known first.
      await policies.whenSynced();
      pods.start(signal);
      await Promise.all(Object.values(watches).map((watch) => watch.whenSynced()));
      everything();
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    },
  };
}
