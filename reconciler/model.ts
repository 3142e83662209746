// What the reconciler looks at: Nodes and Pods trimmed to the fields that decisions need, and the
// Snapshot made of them. Trimming happens once, when an object arrives; nothing here is written
// back.
import { isDeepStrictEqual } from 'node:util';
import {
  COMPONENT,
  DEPLOY_PREFIX,
  FIELD_MANAGER,
  GPU_VALIDATED,
  INJECT,
  INJECTED,
  MIRROR,
  NODE_VALIDATED,
  OUR_PREFIX,
  PART_OF,
  PRODUCT,
  RENDERED,
  REVISION,
  VALIDATES,
} from '../core/keys.ts';
import { wantsOf, type PodWants } from '../gate/gpu-request.ts';
import { COMPONENTS, type Component } from '../core/components.ts';
import type { NodeView } from '../gate/node-proof.ts';
import { placementOf, type Placement } from '../gate/placement.ts';
import { useOf, type GpuUse } from '../gate/users.ts';

export interface Taint {
  readonly key: string;
  readonly value?: string;
  readonly effect: string;
  readonly timeAdded?: string;
}

export interface NodeObject extends NodeView {
  readonly metadata: NodeView['metadata'] & { readonly resourceVersion: string; readonly deletionTimestamp?: string };
  readonly spec?: { readonly unschedulable?: boolean; readonly taints?: readonly Taint[] };
  readonly status?: NonNullable<NodeView['status']> & {
    readonly allocatable?: Readonly<Record<string, string>>;
    readonly capacity?: Readonly<Record<string, string>>;
    readonly nodeInfo?: { readonly bootID?: string; readonly kernelVersion?: string };
    /**
     * Names of the container runtime's handlers; absent where the kubelet or the runtime does not
     * tell.
     */
    readonly runtimeHandlers?: readonly string[];
  };
}

interface ContainerState {
  readonly waiting?: { readonly reason?: string; readonly message?: string };
  readonly running?: { readonly startedAt?: string };
  readonly terminated?: {
    readonly exitCode?: number;
    readonly reason?: string;
    readonly message?: string;
    readonly startedAt?: string;
  };
}

export interface ContainerStatus {
  readonly name: string;
  readonly ready: boolean;
  readonly image?: string;
  readonly restartCount: number;
  readonly state?: ContainerState;
  readonly lastState?: ContainerState;
  /** What the kubelet says of the health of devices that the container has. */
  readonly allocatedResourcesStatus?: readonly {
    readonly name?: string;
    readonly resources?: readonly {
      readonly resourceID?: string;
      readonly health?: string;
      readonly message?: string;
    }[];
  }[];
}

export interface PodCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
  readonly lastTransitionTime?: string;
}

export interface PodObject extends GpuUse {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly created: string;
  readonly deleting: boolean;
  readonly labels: Readonly<Record<string, string>>;
  /** What it asks of the gate. */
  readonly wants: PodWants;
  /** Where it may go by its own fields; only while no node is chosen. */
  readonly placement?: Placement;
  /** UID of the Node that owns it: the one that a validation pod proves. */
  readonly validates: string | undefined;
  /** Owned by a controller, such as a ReplicaSet or Job. */
  readonly owned: boolean;
  /** That controller; `undefined` if there is none. */
  readonly controller: { readonly kind: string; readonly uid: string } | undefined;
  readonly nodeName: string | undefined;
  /** Made with `spec.nodeName`, as mirror pods are: neither scheduler nor webhook had a say. */
  readonly placed: boolean;
  readonly schedulerName: string;
  /** Carries our readiness gate. */
  readonly gated: boolean;
  readonly phase: string;
  readonly reason: string;
  readonly message: string;
  readonly conditions: readonly PodCondition[];
  readonly containers: readonly ContainerStatus[];
  readonly initContainers: readonly ContainerStatus[];
}

/** Key of a pod in caches and queues. */
export const keyOf = (pod: { readonly namespace: string; readonly name: string }): string =>
  `${pod.namespace}/${pod.name}`;

const GPU_PREFIX = 'nvidia.com/';

const pick = (from: Readonly<Record<string, string>> | undefined, keys: readonly string[]): Record<string, string> =>
  Object.fromEntries(keys.flatMap((key) => (from?.[key] === undefined ? [] : [[key, from[key]]])));

const NO_PATHS: readonly string[] = [];
const USER_LABELS = [INJECTED, INJECT];
const OPERAND_LABELS = [...USER_LABELS, PART_OF, COMPONENT, REVISION, VALIDATES];
const KEPT_CONDITIONS = new Set(['Ready', 'PodScheduled', 'ContainersReady', NODE_VALIDATED]);

export const hasEnded = (pod: Pick<PodObject, 'phase'>): boolean => pod.phase === 'Succeeded' || pod.phase === 'Failed';
export interface ManagedFields {
  readonly manager?: string;
  readonly subresource?: string;
  readonly fieldsV1?: Readonly<Record<string, unknown>>;
}

/** A DaemonSet of the operand namespace, as far as it is looked at. */
export interface DaemonSetView {
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
  /** Digest of the rendering that it was applied from. */
  readonly rendered: string;
  readonly ours: boolean;
  /** Another manager has fields in its spec. */
  readonly foreign: boolean;
}

export interface RawDaemonSet {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly generation?: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly managedFields?: readonly ManagedFields[];
  };
}

/**
 * Defaults of the API server have no owner, so any other manager that owns a field of the spec is a
 * manual edit.
 */
export const hasForeignFields = (entries: readonly ManagedFields[] = []): boolean =>
  entries.some(
    ({ manager, subresource, fieldsV1 }) =>
      manager !== FIELD_MANAGER && subresource === undefined && fieldsV1?.['f:spec'] !== undefined,
  );

export const trimDaemonSet = ({ metadata }: RawDaemonSet): DaemonSetView => ({
  name: metadata.name,
  uid: metadata.uid,
  generation: metadata.generation ?? 0,
  rendered: metadata.annotations?.[RENDERED] ?? '',
  ours: metadata.labels?.[PART_OF] === PRODUCT,
  foreign: hasForeignFields(metadata.managedFields),
});

/** What a kubelet or a controller reports of a pod, or of a DaemonSet, in the operand namespace. */
export interface Trouble {
  /** UID of the object. */
  readonly about: string;
  readonly kind: 'Pod' | 'DaemonSet';
  readonly name: string;
  readonly message: string;
  /** ms since the epoch */
  readonly at: number;
}

/** Reasons of Events that say why a pod does not come, or does not start. */
const TROUBLES = new Set(['FailedCreate', 'FailedMount', 'FailedAttachVolume', 'FailedCreatePodSandBox']);

export interface RawEvent {
  readonly involvedObject?: { readonly kind?: string; readonly name?: string; readonly uid?: string };
  readonly reason?: string;
  readonly message?: string;
  readonly lastTimestamp?: string | null;
  readonly eventTime?: string | null;
  readonly metadata?: { readonly creationTimestamp?: string };
}

/** Raw Event → what it reports; `undefined` if it explains nothing. */
export function trimEvent(raw: RawEvent): Trouble | undefined {
  const { kind, name = '', uid } = raw.involvedObject ?? {};
  if ((kind !== 'Pod' && kind !== 'DaemonSet') || uid === undefined || !TROUBLES.has(raw.reason ?? ''))
    return undefined;
  const at = Date.parse(raw.lastTimestamp ?? raw.eventTime ?? raw.metadata?.creationTimestamp ?? '');
  const message = `${raw.reason}: ${(raw.message ?? '').trim().slice(0, 400)}`;
  return { about: uid, kind, name, message, at: Number.isNaN(at) ? 0 : at };
}

/** Revisions that the Node's deploy labels name. */
export const deployedOn = (node: NodeObject): Partial<Record<Component, string>> =>
  Object.fromEntries(
    COMPONENTS.flatMap((component) => {
      const revision = node.metadata.labels?.[DEPLOY_PREFIX + component];
      return revision === undefined ? [] : [[component, revision]];
    }),
  );

/* oxlint-disable typescript/no-explicit-any, typescript/no-unsafe-assignment, typescript/no-unsafe-member-access, typescript/no-unsafe-argument, typescript/no-unsafe-call, typescript/no-unsafe-return -- raw JSON of the API server, narrowed here once */

/** Is there anything by which the pod may use GPUs, whatever a policy says? */
const mayUse = ({ gpus, claims, runtimeClass, hostPaths }: GpuUse): boolean =>
  Object.keys(gpus).length > 0 || claims || runtimeClass !== '' || hostPaths.length > 0;

/**
 * A scheduler binds by a subresource, which owns no field: who owns `spec.nodeName` wrote it when
 * the pod was made.
 */
const isPlaced = (raw: any): boolean =>
  raw.metadata.annotations?.[MIRROR] !== undefined ||
  (raw.metadata.managedFields ?? []).some((entry: any) => entry.fieldsV1?.['f:spec']?.['f:nodeName'] !== undefined);

/**
 * Raw Pod → what we keep; `undefined` for a pod that neither uses GPUs in any way nor is injected,
 * an operand or evidence. `driverPaths` are those of all policies.
 */
export function trimPod(
  raw: any,
  operandNamespace: string,
  evidence: (namespace: string, labels: Readonly<Record<string, string>>) => boolean,
  driverPaths: Iterable<string> = NO_PATHS,
): PodObject | undefined {
  const labels: Record<string, string> = raw.metadata.labels ?? {};
  const wants = wantsOf(raw, operandNamespace);
  const owners: readonly any[] = raw.metadata.ownerReferences ?? [];
  const use = useOf(raw, wants, driverPaths);
  const operand = raw.metadata.namespace === operandNamespace && labels[PART_OF] === PRODUCT;
  const owner = owners.find((one) => one.controller === true);
  const controller = owner === undefined ? undefined : { kind: owner.kind, uid: owner.uid };
  const isEvidence = evidence(raw.metadata.namespace, labels);
  // A DeviceClass may map any extended resource.
  const asks = wants.containers.length > 0;
  if (!operand && !isEvidence && labels[INJECTED] !== 'true' && !asks && !mayUse(use)) return undefined;
  return {
    namespace: raw.metadata.namespace,
    name: raw.metadata.name,
    uid: raw.metadata.uid,
    created: raw.metadata.creationTimestamp,
    deleting: raw.metadata.deletionTimestamp !== undefined,
    wants,
    labels: isEvidence ? labels : pick(labels, operand ? OPERAND_LABELS : USER_LABELS),
    validates: owners.find((one) => one.kind === 'Node')?.uid,
    owned: controller !== undefined,
    controller,
    nodeName: raw.spec.nodeName,
    ...(raw.spec.nodeName === undefined ? { placement: placementOf(raw.spec, use.gpus) } : {}),
    placed: isPlaced(raw),
    schedulerName: raw.spec.schedulerName ?? 'default-scheduler',
    ...use,
    gated: (raw.spec.readinessGates ?? []).some((gate: any) => gate.conditionType === NODE_VALIDATED),
    phase: raw.status?.phase ?? 'Pending',
    reason: raw.status?.reason ?? '',
    message: raw.status?.message ?? '',
    conditions: (raw.status?.conditions ?? []).filter((c: any) => KEPT_CONDITIONS.has(c.type)),
    containers: raw.status?.containerStatuses ?? [],
    initContainers: raw.status?.initContainerStatuses ?? [],
  };
}

const gpuAmounts = (raw: any): Record<string, string> =>
  Object.fromEntries(Object.entries<string>(raw ?? {}).filter(([name]) => name.startsWith(GPU_PREFIX)));

const NODE_CONDITIONS = new Set(['Ready', GPU_VALIDATED]);

/**
 * Raw Node → what we keep: our annotations and the conditions that we read. Heartbeats are left
 * out, so that they are not changes.
 */
export function trimNode(raw: any): NodeObject {
  return {
    metadata: {
      name: raw.metadata.name,
      uid: raw.metadata.uid,
      resourceVersion: raw.metadata.resourceVersion,
      labels: raw.metadata.labels ?? {},
      annotations: Object.fromEntries(
        Object.entries<string>(raw.metadata.annotations ?? {}).filter(([key]) => key.startsWith(OUR_PREFIX)),
      ),
      ...(raw.metadata.deletionTimestamp === undefined ? {} : { deletionTimestamp: raw.metadata.deletionTimestamp }),
    },
    spec: { unschedulable: raw.spec?.unschedulable === true, taints: raw.spec?.taints ?? [] },
    status: {
      nodeInfo: pick(raw.status?.nodeInfo, ['bootID', 'kernelVersion']),
      ...(raw.status?.runtimeHandlers === undefined
        ? {}
        : { runtimeHandlers: raw.status.runtimeHandlers.map((handler: { name?: string }) => handler.name ?? '') }),
      conditions: (raw.status?.conditions ?? [])
        .filter((c: any) => NODE_CONDITIONS.has(c.type))
        .map(({ type, status, reason, message, lastTransitionTime }: any) => ({
          type,
          status,
          reason,
          message,
          lastTransitionTime,
        })),
      allocatable: gpuAmounts(raw.status?.allocatable),
      capacity: gpuAmounts(raw.status?.capacity),
    },
  };
}
/* oxlint-enable */

/** Do they differ in nothing but their version? */
export const isSameNode = (a: NodeObject, b: NodeObject): boolean =>
  isDeepStrictEqual(
    { ...a, metadata: { ...a.metadata, resourceVersion: '' } },
    { ...b, metadata: { ...b.metadata, resourceVersion: '' } },
  );
