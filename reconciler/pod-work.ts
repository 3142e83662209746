// Users' GPU pods: writes what pods.ts decides: readiness conditions, and Events on pods that were rejected, missed, bound past the
// gate, or that wait. Counts each once.
import { isEnforcing, type GpuPolicy } from '../core/gpu-policy.ts';
import { isOurs, open } from '../core/node-proof.ts';
import type { ObjectRef } from './actions.ts';
import type { Applier } from './apply.ts';
import type { ReconcilerMetrics } from './metrics.ts';
import type { NodeObject, PodObject } from './model.ts';
import { gateOf, isMissed, isRejected, isUnschedulable, nodesOnTheirWay, policyNameOf, saysAlready } from './pods.ts';

interface Cache<T> {
  get(key: string): T | undefined;
  values(): Iterable<T>;
}

export interface PodWorkDeps {
  readonly nodes: Cache<NodeObject>;
  readonly policies: Cache<GpuPolicy>;
  readonly pods: Cache<PodObject>;
  /** GPU pods that no node has yet. */
  readonly unbound: ReadonlyMap<string, PodObject>;
  readonly apply: Applier;
  readonly metrics: ReconcilerMetrics;
  readonly operandNamespace: string;
  /** Namespaces whose pods the webhook never touches. */
  readonly excludedNamespaces: ReadonlySet<string>;
}

export interface PodWork {
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
  const { nodes, policies, pods, unbound, apply, metrics, operandNamespace, excludedNamespaces } = deps;
  /** UIDs of pods that are counted and told. */
  const counted = new Set<string>();
  /** UID → the sentence that a waiting pod was last told. */
  const told = new Map<string, string>();

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
    if (node !== undefined && isRejected(pod, node) && !counted.has(pod.uid)) {
      counted.add(pod.uid);
      metrics.rejected.inc({ reason: pod.reason.startsWith('OutOf') ? 'OutOfGPU' : pod.reason });
      const message = `the kubelet of ${node.metadata.name} rejected this pod (${pod.reason}): it was bound before a reboot or a restart of the device plugin; its controller makes a new one`;
      await apply.apply({ kind: 'event', about: podRef(pod), type: 'Warning', reason: 'GPUPodRejected', message });
      await apply.apply({
        kind: 'event',
        about: nodeRef(node),
        type: 'Warning',
        reason: 'GPUPodRejected',
        message: `${pod.namespace}/${pod.name} was rejected by the kubelet (${pod.reason})`,
      });
    }
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
    if (!counted.has(pod.uid) && isMissed(pod, policy, excludedNamespaces)) {
      counted.add(pod.uid);
      metrics.missed.inc();
      await apply.apply({
        kind: 'event',
        about: podRef(pod),
        type: 'Warning',
        reason: 'GPUPodNotInjected',
        message:
          'this GPU pod was created past the webhook (was it down?): it has no runtime class, volumes or readiness gate of gpu-gate; re-create it',
      });
    }
  }

  async function bound(key: string): Promise<void> {
    const pod = pods.get(key);
    const node = pod?.nodeName === undefined ? undefined : nodes.get(pod.nodeName);
    const policy = pod === undefined ? undefined : policies.get(policyNameOf(pod));
    if (
      pod === undefined ||
      node === undefined ||
      policy === undefined ||
      !isEnforcing(policy) ||
      !isOurs(node) ||
      Object.keys(pod.gpus).length === 0
    )
      return;
    const answer = open(node);
    if (answer.yes) return;
    metrics.pastGate.inc();
    await apply.apply({
      kind: 'event',
      about: podRef(pod),
      type: 'Warning',
      reason: 'GPUPodPastGate',
      message: `bound to ${node.metadata.name} by ${pod.schedulerName} though it takes no GPU pods: ${answer.because}`,
    });
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
    counted.delete(uid);
    told.delete(uid);
  };
  return { pod: pod_, bound, waiting, forget };
}
