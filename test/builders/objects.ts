// Builders of the objects that tests are about; every one is whole and fine unless a test says
// otherwise.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { parsePolicy } from '../../core/parse-policy.ts';
import type { RawPod } from '../../gate/gpu-request.ts';
import { GPU_VALIDATED, MANAGED, NODE_POLICY, PROOF, STATE } from '../../core/keys.ts';
import type { Action, Condition } from '../../reconciler/actions.ts';
import type { NodeObject, PodObject } from '../../reconciler/model.ts';

export const NOW = Date.parse('2026-11-24T10:00:00Z');

/** An enforcing policy. */
export const aPolicy = (spec: object = {}, more: object = {}): GpuPolicy =>
  parsePolicy({
    metadata: { name: 'default', uid: 'policy-uid', generation: 1, creationTimestamp: '2026-11-01T00:00:00Z' },
    spec,
    status: { enforcingSince: '2026-11-02T00:00:00Z' },
    ...more,
  });

interface PodParts {
  readonly gpus?: string;
  readonly initGpus?: string;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly spec?: object;
  readonly container?: object;
  readonly namespace?: string;
}

/** A raw pod; without `gpus` it asks for none. */
export const aPod = (parts: PodParts = {}): RawPod => ({
  metadata: {
    name: 'pod',
    namespace: parts.namespace ?? 'team',
    uid: 'pod-uid',
    ...(parts.labels === undefined ? {} : { labels: parts.labels }),
    ...(parts.annotations === undefined ? {} : { annotations: parts.annotations }),
  },
  spec: {
    containers: [
      {
        name: 'main',
        ...(parts.gpus === undefined ? {} : { resources: { limits: { 'nvidia.com/gpu': parts.gpus } } }),
        ...parts.container,
      },
    ],
    ...(parts.initGpus === undefined
      ? {}
      : { initContainers: [{ name: 'init', resources: { limits: { 'nvidia.com/gpu': parts.initGpus } } }] }),
    ...parts.spec,
  },
});

interface NodeParts {
  readonly name?: string;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly boot?: string;
  readonly ready?: boolean;
  readonly validated?: boolean;
  readonly cordoned?: boolean;
  readonly gpus?: string;
}

/** An opted-in node with a valid proof: open. */
export const aNode = (parts: NodeParts = {}): NodeObject => ({
  metadata: {
    name: parts.name ?? 'node-a',
    uid: `uid-${parts.name ?? 'node-a'}`,
    resourceVersion: '1',
    labels: {
      [MANAGED]: 'true',
      [STATE]: 'validated',
      'feature.node.kubernetes.io/pci-10de.present': 'true',
      ...parts.labels,
    },
    annotations: {
      [NODE_POLICY]: 'default',
      [PROOF]: JSON.stringify({
        node: `uid-${parts.name ?? 'node-a'}`,
        boot: 'boot-1',
        at: '2026-11-24T09:00:00Z',
        driver: '595.91.07',
        cuda: '13.1',
        components: {},
      }),
      ...parts.annotations,
    },
  },
  spec: { unschedulable: parts.cordoned === true, taints: [] },
  status: {
    nodeInfo: { bootID: parts.boot ?? 'boot-1' },
    allocatable: parts.gpus === '0' ? {} : { 'nvidia.com/gpu': parts.gpus ?? '8' },
    conditions: [
      { type: 'Ready', status: parts.ready === false ? 'False' : 'True' },
      { type: GPU_VALIDATED, status: parts.validated === false ? 'False' : 'True', reason: 'Validated', message: '' },
    ],
  },
});

/** A pod as the reconciler keeps it, on node `n`, in the operand namespace. */
export const keptPod = (parts: Partial<PodObject>): PodObject => ({
  namespace: 'gpu-gate-operands',
  name: 'p',
  uid: 'u',
  created: new Date(NOW).toISOString(),
  deleting: false,
  labels: {},
  wants: {
    validation: false,
    read: { ok: true, wishes: { optedOut: false } },
    claims: [],
    namespace: parts.namespace ?? 'gpu-gate-operands',
    containers:
      parts.gpus === undefined ? [] : [{ index: 0, kind: 'main', amounts: parts.gpus, claims: [], requires: [] }],
  },
  claims: false,
  runtimeClass: '',
  hostPaths: [],
  daemon: false,
  validates: undefined,
  owned: true,
  controller: undefined,
  nodeName: 'n',
  placed: false,
  schedulerName: 'default-scheduler',
  gpus: {},
  gated: false,
  phase: 'Running',
  reason: '',
  message: '',
  conditions: [],
  containers: [],
  initContainers: [],
  ...parts,
});

/**
 * The node as the API server would hold it after one of our writes; `undefined` if the action does
 * not write to a node.
 */
export function afterWrite(node: NodeObject, action: Action): NodeObject | undefined {
  const merged = (
    before: Readonly<Record<string, string>> | undefined,
    patch: Readonly<Record<string, string | null>>,
  ): Record<string, string> =>
    Object.fromEntries(
      Object.entries({ ...before, ...patch }).filter((entry): entry is [string, string] => entry[1] !== null),
    );
  if (action.kind === 'patch-node') {
    const labels = merged(node.metadata.labels, action.labels);
    const annotations = merged(node.metadata.annotations, action.annotations);
    const spec = action.taints === undefined ? node.spec : { ...node.spec, taints: action.taints };
    const marked = {
      ...node,
      metadata: { ...node.metadata, labels, annotations },
      ...(spec === undefined ? {} : { spec }),
    };
    return action.status === undefined ? marked : withCondition(marked, action.status.type, action.status.condition);
  }
  if (action.kind === 'set-taints') return { ...node, spec: { ...node.spec, taints: action.taints } };
  if (action.kind === 'set-node-condition') return withCondition(node, action.type, action.condition);
  return undefined;
}

function withCondition(node: NodeObject, type: string, condition: Condition | undefined): NodeObject {
  const others = (node.status?.conditions ?? []).filter((one) => one.type !== type);
  const conditions = condition === undefined ? others : [...others, condition];
  return { ...node, status: { ...node.status, conditions } };
}

/** The controller of an operand's pod, by the name of its DaemonSet. */
export const ownedBy = (name: string): PodObject['controller'] => ({ kind: 'DaemonSet', uid: `ds-${name}` });

/** What the wrapper around a validation's program leaves in the termination message. */
export const verdict = (passed: boolean, words = ''): string =>
  `${JSON.stringify({ gpuGate: 1, verdict: passed ? 'pass' : 'fail', exit: passed ? 0 : 1, words })}\n`;
