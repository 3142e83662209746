// What controllers read, from plain objects: the same indexes as in the product, and no watch.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { Cache, Caches, NamespaceView } from '../../reconciler/caches.ts';
import { NO_DEVICES, type Devices } from '../../gate/devices.ts';
import { fleet, type Fleet } from '../../reconciler/fleet.ts';
import { keyOf, type DaemonSetView, type NodeObject, type PodObject } from '../../reconciler/model.ts';
import { podIndex } from '../../reconciler/pod-index.ts';

export function fleetOf(nodes: readonly NodeObject[], policies: readonly GpuPolicy[]): Fleet {
  const marks = fleet();
  marks.select(policies, nodes);
  return marks;
}

export interface ClusterParts {
  readonly nodes?: readonly NodeObject[];
  readonly policies?: readonly GpuPolicy[];
  readonly pods?: readonly PodObject[];
  readonly namespaces?: Cache<NamespaceView>;
  readonly daemonSets?: readonly DaemonSetView[];
  readonly devices?: Devices;
}

export const OPERANDS = 'gpu-gate-operands';

export function cachesOf(parts: ClusterParts): Caches {
  const { nodes = [], policies = [], pods = [], daemonSets = [] } = parts;
  const index = podIndex(OPERANDS);
  for (const pod of pods) index.update(undefined, pod);
  return {
    ...index,
    nodes: new Map(nodes.map((node) => [node.metadata.name, node])),
    policies: new Map(policies.map((policy) => [policy.name, policy])),
    pods: new Map(pods.map((pod) => [keyOf(pod), pod])),
    namespaces: parts.namespaces ?? new Map(),
    daemonSets: new Map(daemonSets.map((view) => [`${OPERANDS}/${view.name}`, view])),
    devices: parts.devices ?? NO_DEVICES,
    rules: { served: false, of: () => [], nodes: () => [] },
    poolsOn: () => undefined,
    isAllocated: () => false,
    otherRules: [],
    fleet: fleetOf(nodes, policies),
    troubleOf: () => undefined,
    nodeNameOf: (uid) => nodes.find((node) => node.metadata.uid === uid)?.metadata.name,
    isWatched: () => true,
    isProven: () => false,
    synced: true,
  };
}
