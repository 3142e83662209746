// What gpu-gate has left on the cluster's objects, and the patches that take it off. Pure.
import {
  DEPLOY_PREFIX,
  GPU_VALIDATED,
  NODE_VALIDATED,
  OUR_PREFIX,
  POLICIES_PATH,
  POLICY_FINALIZER,
  RELEASE,
  STARTUP_TAINT,
} from '../core/keys.ts';
import { SECOND_SCHEDULER } from '../core/own-objects.ts';
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { object } from '../core/raw.ts';
import { wantsOf, type RawPod } from '../gate/gpu-request.ts';
import { isManaged, policyOf, type NodeView } from '../gate/node-proof.ts';
import { driverPathsOf, useOf, usesGpus } from '../gate/users.ts';

interface Taint {
  readonly key: string;
  readonly value?: string;
  readonly effect: string;
}
/** A Node as the API gives it. */
export interface MarkedNode extends NodeView {
  readonly metadata: NodeView['metadata'] & { readonly resourceVersion: string };
  readonly spec?: { readonly unschedulable?: boolean; readonly taints?: readonly Taint[] };
}

/** A Pod as the API gives it, as far as it is looked at here. */
export interface SeenPod extends RawPod {
  readonly metadata: NonNullable<RawPod['metadata']> & {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
  };
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly reason?: string }[];
  };
}

/** An object of the API that is written. */
export interface Write {
  readonly path: string;
  readonly body: object;
}

const isDeploy = (key: string): boolean => key.startsWith(DEPLOY_PREFIX);
const isOther = (key: string): boolean => key.startsWith(OUR_PREFIX) && !isDeploy(key);
const keysOf = (map: Readonly<Record<string, string>> | undefined, is: (key: string) => boolean): readonly string[] =>
  Object.keys(map ?? {}).filter(is);
const nulls = (keys: readonly string[]): object => Object.fromEntries(keys.map((key) => [key, null]));

/** Nodes on which operands of gpu-gate run, by name, with their policy's. */
export const runsOperands = (node: NodeView): boolean => keysOf(node.metadata.labels, isDeploy).length > 0;
export const isOptedIn = isManaged;

/** The operands' pods are let onto a node by these labels, so they go after the operands. */
export function deployLabelsOf(node: MarkedNode): Write | undefined {
  const labels = keysOf(node.metadata.labels, isDeploy);
  if (labels.length === 0) return undefined;
  const { name, uid } = node.metadata;
  return { path: `/api/v1/nodes/${name}`, body: { metadata: { uid, labels: nulls(labels) } } };
}

/** Takes the condition off. */
export function conditionOf(node: MarkedNode): Write | undefined {
  if (node.status?.conditions?.some(({ type }) => type === GPU_VALIDATED) !== true) return undefined;
  const { name, uid } = node.metadata;
  return {
    path: `/api/v1/nodes/${name}/status`,
    body: { metadata: { uid }, status: { conditions: [{ type: GPU_VALIDATED, $patch: 'delete' }] } },
  };
}

/**
 * Takes the taint and every key of ours off, the operators' too, but for the labels of operands.
 * Taints are one list, so this holds for the version that was read alone.
 */
export function marksOf(node: MarkedNode): Write | undefined {
  const { name, uid, resourceVersion } = node.metadata;
  const labels = keysOf(node.metadata.labels, isOther);
  const annotations = keysOf(node.metadata.annotations, isOther);
  const taints = node.spec?.taints ?? [];
  const others = taints.filter(({ key }) => key !== STARTUP_TAINT);
  const isTainted = others.length < taints.length;
  if (labels.length + annotations.length === 0 && !isTainted) return undefined;
  return {
    path: `/api/v1/nodes/${name}`,
    body: {
      metadata: { uid, resourceVersion, labels: nulls(labels), annotations: nulls(annotations) },
      ...(isTainted ? { spec: { taints: others.length === 0 ? null : others } } : {}),
    },
  };
}

const hasEnded = ({ status }: SeenPod): boolean => status?.phase === 'Succeeded' || status?.phase === 'Failed';

const RELEASED = 'GateReleased';

/** Opens the pod's readiness gate for ever: nobody closes it again. */
export function gateOf(pod: SeenPod, now: number): Write | undefined {
  const isGated = pod.spec?.readinessGates?.some(({ conditionType }) => conditionType === NODE_VALIDATED) === true;
  const present = pod.status?.conditions?.find(({ type }) => type === NODE_VALIDATED);
  if (!isGated || hasEnded(pod) || (present?.status === 'True' && present.reason === RELEASED)) return undefined;
  const { namespace, name, uid } = pod.metadata;
  const condition = {
    type: NODE_VALIDATED,
    status: 'True',
    reason: RELEASED,
    message: 'gpu-gate was taken out of the cluster',
    ...(present?.status === 'True' ? {} : { lastTransitionTime: new Date(now).toISOString().replace(/\.\d+Z$/, 'Z') }),
  };
  return {
    path: `/api/v1/namespaces/${namespace}/pods/${name}/status`,
    body: { metadata: { uid }, status: { conditions: [condition] } },
  };
}

const releaseOf = (raw: unknown): unknown => object(object(object(raw)['metadata'])['annotations'])[RELEASE];

/** Has an operator said on this GPUPolicy that running pods may lose operands? */
export const isForced = (raw: unknown): boolean => releaseOf(raw) === 'force';

/** Takes our finalizer off a GPUPolicy, and the word of the operator, which was for this time. */
export function finalizerOf(raw: unknown): Write | undefined {
  const policy = parsePolicy(raw);
  if (!policy.finalizers.includes(POLICY_FINALIZER) && releaseOf(raw) === undefined) return undefined;
  const others = policy.finalizers.filter((finalizer) => finalizer !== POLICY_FINALIZER);
  return {
    path: `${POLICIES_PATH}/${policy.name}`,
    body: {
      metadata: {
        uid: policy.uid,
        finalizers: others.length === 0 ? null : others,
        annotations: { [RELEASE]: null },
      },
    },
  };
}

/** Does the pod use a GPU of a node where operands of gpu-gate run? */
export function needsOperands(
  pod: SeenPod,
  nodes: ReadonlyMap<string, NodeView>,
  policies: ReadonlyMap<string, GpuPolicy>,
  operandNamespace: string,
): boolean {
  const node = nodes.get(pod.spec?.nodeName ?? '');
  if (node === undefined || hasEnded(pod) || pod.metadata.namespace === operandNamespace) return false;
  const policy = policies.get(policyOf(node) ?? '');
  // A node whose marks are gone may be of any policy.
  const may = policy === undefined ? [...policies.values(), undefined] : [policy];
  const wants = wantsOf(pod, operandNamespace);
  return may.some((one) => usesGpus(useOf(pod, wants, one === undefined ? [] : driverPathsOf(one)), one));
}

/** Does it wait for the scheduler that ends with the chart? */
export const waitsForOurScheduler = (pod: SeenPod): boolean =>
  pod.spec?.schedulerName === SECOND_SCHEDULER && pod.spec.nodeName === undefined && !hasEnded(pod);

/**
 * Did helm make this Job? What `helm template` prints has the hooks in it, and who applies that
 * does not want gpu-gate to leave.
 */
export const isMadeByHelm = (job: {
  readonly metadata: { readonly managedFields?: readonly { readonly manager?: string }[] };
}): boolean => (job.metadata.managedFields ?? []).some(({ manager }) => manager?.includes('helm') === true);

/** Names for a sentence: the first few, and how many more there are. */
export function some(names: readonly string[], most = 10): string {
  const shown = names.slice(0, most).join(', ');
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}

export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

export const nameOf = ({ metadata: { namespace, name } }: SeenPod): string => `${namespace}/${name}`;
