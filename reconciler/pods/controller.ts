// Users' GPU pods: writes their readiness conditions, and Events on pods that were rejected,
// missed, or bound past the gate. Each pod is counted once across leaders, because the Event
// records it and only the replica that creates the Event counts the pod.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { askedOf, entriesFor, gpuKindsOf } from '../../gate/gpu-request.ts';
import { namespaceRule } from '../../gate/namespaces.ts';
import type { Reason } from '../../gate/reasons.ts';
import { policyNameOf } from '../../gate/verdict.ts';
import { open } from '../../gate/node-proof.ts';
import type { ObjectRef } from '../actions.ts';
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import type { Handlers, Turns } from '../key.ts';
import type { Rejections } from '../limits/rejections.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import { hasEnded, keyOf, type NodeObject, type PodObject } from '../model.ts';
import { gateOf, saysAlready } from './readiness.ts';
import { boundAt, boundPastGate, boundUnseen, changedAt, isMissed, unlistedOf } from './reports.ts';
import { fateOf, isRejected, wordsOf } from './rejected.ts';

/**
 * API servers expire Events after an hour. On takeover, ignore anything older than this: a previous
 * leader reported it and the Event may already be gone.
 */
const TOLD_MS = 45 * 60_000;
/** How often a pod is looked at again while a claim of it is not known, ms. */
const CLAIM_AGAIN_MS = 10_000;

export interface PodControllerDeps {
  readonly caches: Pick<Caches, 'nodes' | 'policies' | 'pods' | 'namespaces' | 'devices'>;
  readonly apply: Applier;
  readonly turns: Turns;
  readonly rejections: Rejections;
  readonly metrics: ReconcilerMetrics;
  readonly operandNamespace: string;
  /** Namespaces whose pods the webhook never touches. */
  readonly excludedNamespaces: ReadonlySet<string>;
  readonly now: () => number;
}

export interface PodController {
  readonly handlers: Pick<Handlers, 'pod' | 'bound'>;
  /**
   * This replica leads from now on. Keys of the pods that were bound past the gate in between:
   * `bound` is to be called for each.
   */
  takeOver(): readonly string[];
  /** A pod is gone. */
  forget(uid: string): void;
  /** Running pods whose readiness gate is not True. */
  readonly pendingGates: () => number;
}

const unlistedText = (names: readonly string[]): string =>
  names.length === 0
    ? ''
    : `; its GPUPolicy does not list ${names.join(', ')}, so that such pods are not gated: add ${entriesFor(names).join(', ')} to spec.resources, and to the chart's policy.spec.resources`;
const nodeRef = (node: NodeObject): ObjectRef => ({ kind: 'Node', name: node.metadata.name, uid: node.metadata.uid });
const podRef = (pod: PodObject): ObjectRef => ({ kind: 'Pod', name: pod.name, namespace: pod.namespace, uid: pod.uid });

export function podController(deps: PodControllerDeps): PodController {
  const { apply, turns, rejections, metrics, operandNamespace, excludedNamespaces } = deps;
  const { nodes, policies, pods, namespaces, devices } = deps.caches;
  /**
   * UIDs of pods already checked for a missed webhook call, and of pods whose rejection is already
   * reported.
   */
  const judged = new Set<string>();
  const toldRejected = new Set<string>();
  /** UIDs of running pods whose readiness gate is not True. */
  const pending = new Set<string>();
  /** UID → why it should not be where it is: bound before we led. */
  const unseen = new Map<string, Reason>();
  /** When we took over, ms since the epoch. */
  let since = 0;

  const setPending = (uid: string, is: boolean): void => {
    if (pending.has(uid) === is) return;
    if (is) pending.add(uid);
    else pending.delete(uid);
    turns.addAfter({ kind: 'policies', name: '' }, 300);
  };
  const isNews = (at: number): boolean => at >= since - TOLD_MS;
  /** Is it not known yet whether the pod asks for a GPU? */
  const awaitsClaim = (pod: PodObject, policy: GpuPolicy | undefined): boolean =>
    !hasEnded(pod) && askedOf(pod.wants, gpuKindsOf(policy), devices).kind === 'unknown';
  const left = (namespace: string): boolean =>
    namespaceRule(namespace, namespaces.get(namespace)?.optedOut === true, excludedNamespaces) !== 'inject';

  /** Tells it in the pod's life once; true where nobody had. */
  async function tellOnce(pod: PodObject, reason: string, message: string): Promise<boolean> {
    const outcome = await apply.apply({
      kind: 'event',
      about: podRef(pod),
      type: 'Warning',
      reason,
      message,
      once: true,
    });
    return outcome.kind === 'done' && outcome.known !== true;
  }

  async function handle(key: string): Promise<void> {
    const pod = pods.get(key);
    if (pod === undefined) return;
    const node = pod.nodeName === undefined ? undefined : nodes.get(pod.nodeName);
    const policy = policies.get(policyNameOf(pod.wants));
    const gate = gateOf(pod, node, policy);
    setPending(pod.uid, pod.phase === 'Running' && gate?.status === 'False');
    if (gate !== undefined && !saysAlready(pod, gate)) {
      await apply.apply({
        kind: 'set-pod-condition',
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        condition: gate,
      });
    }
    if (node !== undefined && isRejected(pod, node)) await rejected(pod, node, policy);
    // Not only the first time: a permission may come later.
    // A pod without a controller is its author's to delete.
    if (policy?.spec.rejectedPods === 'Delete' && pod.owned && !pod.deleting && isRejected(pod, node)) {
      await apply.apply({
        kind: 'delete-pod',
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        because: 'rejected by the kubelet',
      });
    }
    await judge(pod, policy);
  }

  async function rejected(pod: PodObject, node: NodeObject, policy: GpuPolicy | undefined): Promise<void> {
    if (toldRejected.has(pod.uid) || !isNews(changedAt(pod))) return;
    const { name } = node.metadata;
    // Pods that a closed node rejects were bound before it closed, as after a reboot.
    if (policy !== undefined && open(node).yes) {
      const seen = { uid: pod.uid, words: wordsOf(pod), at: changedAt(pod) };
      if (rejections.add(name, seen, policy.spec.rejections)) turns.add({ kind: 'node', name });
    }
    const first = await tellOnce(
      pod,
      'GPUPodRejected',
      `the kubelet of ${name} rejected this pod (${pod.reason}): ${wordsOf(pod)}; ${fateOf(pod.controller?.kind)}`,
    );
    toldRejected.add(pod.uid);
    if (!first) return;
    metrics.rejected.inc({ reason: pod.reason.startsWith('OutOf') ? 'OutOfGPU' : pod.reason });
    await apply.apply({
      kind: 'event',
      about: nodeRef(node),
      type: 'Warning',
      reason: 'GPUPodRejected',
      message: `${pod.namespace}/${pod.name} was rejected by the kubelet (${pod.reason})`,
    });
  }

  /**
   * Was it missed? Decided once, as things are when the pod comes: a namespace that opts in again
   * later misses none of its old pods.
   */
  async function judge(pod: PodObject, policy: GpuPolicy | undefined): Promise<void> {
    if (judged.has(pod.uid) || policy === undefined || namespaces.get(pod.namespace) === undefined) return;
    if (awaitsClaim(pod, policy)) return turns.addAfter({ kind: 'pod', name: keyOf(pod) }, CLAIM_AGAIN_MS);
    if (isNews(Date.parse(pod.created)) && isMissed(pod, policy, left, devices)) {
      const first = await tellOnce(
        pod,
        'GPUPodNotInjected',
        'this GPU pod was created without going through the webhook, because no replica answered or because another webhook that is called later added its GPU request: it has no runtime class, volumes or readiness gate of gpu-gate; re-create it',
      );
      if (first) metrics.missed.inc();
    }
    judged.add(pod.uid);
  }

  async function bound(key: string): Promise<void> {
    const pod = pods.get(key);
    const node = pod?.nodeName === undefined ? undefined : nodes.get(pod.nodeName);
    if (pod === undefined || node === undefined) return;
    if (awaitsClaim(pod, policies.get(policyNameOf(pod.wants))))
      return turns.addAfter({ kind: 'bound', name: key }, CLAIM_AGAIN_MS);
    const because = unseen.get(pod.uid) ?? boundPastGate(pod, node, policies, devices);
    if (because === undefined) return;
    const first = await tellOnce(
      pod,
      'GPUPodPastGate',
      `bound to ${node.metadata.name} by ${pod.placed ? 'spec.nodeName' : pod.schedulerName}, although the gate refuses this node: ${because.sentence}${unlistedText(unlistedOf(pod, policies))}`,
    );
    if (first) metrics.pastGate.inc();
    unseen.delete(pod.uid);
  }

  function takeOver(): readonly string[] {
    since = deps.now();
    unseen.clear();
    pending.clear();
    const keys: string[] = [];
    for (const pod of pods.values()) {
      const node = pod.nodeName === undefined ? undefined : nodes.get(pod.nodeName);
      if (node === undefined || pod.namespace === operandNamespace || !isNews(boundAt(pod))) continue;
      const because = boundUnseen(pod, node, policies, devices);
      if (because === undefined) continue;
      unseen.set(pod.uid, because);
      keys.push(keyOf(pod));
    }
    return keys;
  }

  const forget = (uid: string): void => {
    judged.delete(uid);
    unseen.delete(uid);
    toldRejected.delete(uid);
    setPending(uid, false);
  };
  return { handlers: { pod: handle, bound }, takeOver, forget, pendingGates: () => pending.size };
}
