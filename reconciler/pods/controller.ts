// Users' GPU pods: writes what pods.ts decides: readiness conditions, and Events on pods that were rejected, missed, bound past the
// gate, or that wait. Each is counted once, whoever leads: the Event is the memory, and who makes it counts.
import { isEnforcing, type GpuPolicy } from '../../core/gpu-policy.ts';
import type { ObjectRef } from '../actions.ts';
import type { Applier } from '../apply.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import type { NodeObject, PodObject } from '../model.ts';
import {
  boundAt,
  boundPastGate,
  boundUnseen,
  changedAt,
  gateOf,
  isMissed,
  isRejected,
  isUnschedulable,
  nodesOnTheirWay,
  policyNameOf,
  saysAlready,
} from './reports.ts';

/** API servers keep Events for an hour: what is older than this when we take over was told by an earlier leader, and may be forgotten. */
const TOLD_MS = 45 * 60_000;

interface Cache<T> {
  get(key: string): T | undefined;
  values(): Iterable<T>;
}

export interface PodWorkDeps {
  readonly nodes: Cache<NodeObject>;
  readonly policies: Cache<GpuPolicy>;
  readonly pods: Cache<PodObject>;
  readonly namespaces: { get(key: string): NamespaceView | undefined };
  /** GPU pods that no node has yet. */
  readonly unbound: ReadonlyMap<string, PodObject>;
  readonly apply: Applier;
  readonly metrics: ReconcilerMetrics;
  readonly operandNamespace: string;
  /** Namespaces whose pods the webhook never touches. */
  readonly excludedNamespaces: ReadonlySet<string>;
  readonly now: () => number;
}

export interface NamespaceView {
  readonly optedOut: boolean;
}

export interface PodWork {
  /** We lead from now on. Keys of the pods that were bound past the gate while nobody looked: `bound` is to be called for each. */
  takeOver(): readonly string[];
  /** A pod, or its node, has changed. */
  pod(key: string): Promise<void>;
  /** A pod was bound. */
  bound(key: string): Promise<void>;
  /** A pod is gone. */
  forget(uid: string): void;
  /** Pods that wait are told for what. */
  waiting(): Promise<void>;
}

const nodeRef = (node: NodeObject): ObjectRef => ({ kind: 'Node', name: node.metadata.name, uid: node.metadata.uid });
const podRef = (pod: PodObject): ObjectRef => ({ kind: 'Pod', name: pod.name, namespace: pod.namespace, uid: pod.uid });

export function podWorkOf(deps: PodWorkDeps): PodWork {
  const { nodes, policies, pods, namespaces, unbound, apply, metrics, operandNamespace, excludedNamespaces } = deps;
  /** UIDs of pods of which it is decided whether they were missed, and of those whose rejection is told. */
  const judged = new Set<string>();
  const toldRejected = new Set<string>();
  /** UID → the sentence that a waiting pod was last told. */
  const told = new Map<string, string>();
  /** UID → why it should not be where it is: bound before we led. */
  const unseen = new Map<string, string>();
  /** When we took over, ms since the epoch. */
  let since = 0;

  const isNews = (at: number): boolean => at >= since - TOLD_MS;
  const left = (namespace: string): boolean =>
    excludedNamespaces.has(namespace) || namespaces.get(namespace)?.optedOut === true;

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

  async function pod_(key: string): Promise<void> {
    const pod = pods.get(key);
    if (pod === undefined) return;
    const node = pod.nodeName === undefined ? undefined : nodes.get(pod.nodeName);
    const policy = policies.get(policyNameOf(pod));
    const gate = gateOf(pod, node, policy);
    if (gate !== undefined && !saysAlready(pod, gate)) {
      await apply.apply({
        kind: 'set-pod-condition',
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        condition: gate,
      });
    }
    if (node !== undefined && isRejected(pod, node)) await rejected(pod, node);
    // Not only the first time: a permission may come later.
    if (policy?.spec.rejectedPods === 'Delete' && !pod.deleting && isRejected(pod, node)) {
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

  async function rejected(pod: PodObject, node: NodeObject): Promise<void> {
    if (toldRejected.has(pod.uid) || !isNews(changedAt(pod))) return;
    const first = await tellOnce(
      pod,
      'GPUPodRejected',
      `the kubelet of ${node.metadata.name} rejected this pod (${pod.reason}): it was bound before a reboot or a restart of the device plugin; its controller makes a new one`,
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

  /** Was it missed? Decided once, as things are when the pod comes: a namespace that opts in again later misses none of its old pods. */
  async function judge(pod: PodObject, policy: GpuPolicy | undefined): Promise<void> {
    if (judged.has(pod.uid) || policy === undefined || namespaces.get(pod.namespace) === undefined) return;
    if (isNews(Date.parse(pod.created)) && isMissed(pod, policy, left)) {
      const first = await tellOnce(
        pod,
        'GPUPodNotInjected',
        'this GPU pod was created past the webhook (was it down?): it has no runtime class, volumes or readiness gate of gpu-gate; re-create it',
      );
      if (first) metrics.missed.inc();
    }
    judged.add(pod.uid);
  }

  async function bound(key: string): Promise<void> {
    const pod = pods.get(key);
    const node = pod?.nodeName === undefined ? undefined : nodes.get(pod.nodeName);
    if (pod === undefined || node === undefined) return;
    const because = unseen.get(pod.uid) ?? boundPastGate(pod, node, policies.get(policyNameOf(pod)));
    if (because === undefined) return;
    const first = await tellOnce(
      pod,
      'GPUPodPastGate',
      `bound to ${node.metadata.name} by ${pod.placed ? 'spec.nodeName' : pod.schedulerName} though it takes no GPU pods: ${because}`,
    );
    if (first) metrics.pastGate.inc();
    unseen.delete(pod.uid);
  }

  function takeOver(): readonly string[] {
    since = deps.now();
    unseen.clear();
    const keys: string[] = [];
    for (const pod of pods.values()) {
      const node = pod.nodeName === undefined ? undefined : nodes.get(pod.nodeName);
      if (node === undefined || pod.namespace === operandNamespace || !isNews(boundAt(pod))) continue;
      const because = boundUnseen(pod, node, policies.get(policyNameOf(pod)));
      if (because === undefined) continue;
      unseen.set(pod.uid, because);
      keys.push(`${pod.namespace}/${pod.name}`);
    }
    return keys;
  }

  async function waiting(): Promise<void> {
    const texts = new Map<string, string | undefined>();
    for (const pod of unbound.values()) {
      const name = policyNameOf(pod);
      const policy = policies.get(name);
      if (policy === undefined || !isEnforcing(policy) || !isUnschedulable(pod) || pod.namespace === operandNamespace)
        continue;
      if (!texts.has(name)) texts.set(name, nodesOnTheirWay(nodes.values(), name));
      const text = texts.get(name);
      if (text === undefined || told.get(pod.uid) === text) continue;
      told.set(pod.uid, text);
      await apply.apply({
        kind: 'event',
        about: podRef(pod),
        type: 'Normal',
        reason: 'WaitingForGPUNode',
        message: text,
      });
    }
  }

  const forget = (uid: string): void => {
    judged.delete(uid);
    unseen.delete(uid);
    toldRejected.delete(uid);
    told.delete(uid);
  };
  return { takeOver, pod: pod_, bound, waiting, forget };
}
