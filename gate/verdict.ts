// One pod and one node → may it go there, or the reason why not. Pure. Reasons are few and carry no names or times: the
// scheduler counts them by their text. What depends on the node alone is worked out when the node changes, not per call.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { isEnforcing } from '../core/gpu-policy.ts';
import { gpuRequest, wishesOf, type RawPod } from './gpu-request.ts';
import { COMPONENT, DEFAULT_POLICY, MIN_DRIVER, PART_OF, POLICY, PRODUCT } from '../core/keys.ts';
import { isOurs, open, policyOf, stateOf, type NodeView, type Proof } from './node-proof.ts';
import { compareVersions, cudaOfDriver, isVersion } from './versions.ts';
import { cudaOf, meets, type CudaRequirement, type Versions } from './require-cuda.ts';

/** What a verdict needs of a node. */
export interface NodeFacts extends Versions {
  readonly ours: boolean;
  readonly policy: string | undefined;
  /** Why no new GPU pods may come; undefined: open. */
  readonly closed: string | undefined;
  /** Since when nothing of the stack has changed, ms since the epoch; 0 where it is not proven. */
  readonly steadySince: number;
  /** State label; `preflight` before the first, `unmanaged` on a node that is not ours. */
  readonly state: string;
}

export function nodeFacts(node: NodeView): NodeFacts {
  const answer = open(node);
  return {
    ours: isOurs(node),
    policy: policyOf(node),
    closed: answer.yes ? undefined : answer.because,
    ...(answer.yes ? versionsOf(answer.proof) : UNKNOWN_VERSIONS),
    // A component that restarted after the proof was written has been steady since then only.
    steadySince: answer.yes
      ? Math.max(
          ...[answer.proof.at, ...Object.values(answer.proof.components).map(({ started }) => started)].map(
            (at) => Date.parse(at) || 0,
          ),
        )
      : 0,
    state: stateOf(node) ?? (isOurs(node) ? 'preflight' : 'unmanaged'),
  };
}

const UNKNOWN_VERSIONS: Versions = { driver: undefined, cuda: undefined };

/** What cannot be compared is not known. Only where feature discovery runs does the proof name the CUDA; elsewhere it is the driver's own. */
function versionsOf({ driver, cuda }: Proof): Versions {
  const known = driver !== undefined && isVersion(driver) ? driver : undefined;
  return {
    driver: known,
    cuda: cuda !== undefined && isVersion(cuda) ? cuda : known === undefined ? undefined : cudaOfDriver(known),
  };
}

/** Reasons that are not of the node alone. */
export const REASONS = {
  unknown: 'GPU state not known yet',
  unmanaged: 'node not opted in to gpu-gate',
  otherPolicy: 'other GPU policy',
  driverOld: 'GPU driver older than the pod asks',
  driverUnknown: 'GPU driver version not known',
  cuda: 'driver or its CUDA is not what NVIDIA_REQUIRE_CUDA of the pod asks',
  noSuchPolicy: 'the GPUPolicy that the pod names does not exist',
  badPolicy: `the pod's annotation ${POLICY} is malformed`,
  badMinDriver: `the pod's annotation ${MIN_DRIVER} is malformed`,
} as const;

/** A pod that a policy gates. */
export interface Gate {
  readonly kind: 'gate';
  readonly policy: GpuPolicy;
  readonly minDriver: string | undefined;
  /** One per container that requires something; all must hold. */
  readonly cuda: readonly CudaRequirement[];
  /** Parts of NVIDIA_REQUIRE_CUDA that cannot be read, and so are not judged. */
  readonly cudaUnread: readonly string[];
}

/** What a pod asks of nodes. */
export type Ask =
  | {
      readonly kind: 'pass';
      readonly because: 'validation-pod' | 'no-gpu' | 'no-policy' | 'suspended' | 'auditing';
      /** What it would ask, were its policy to enforce. */
      readonly would?: Gate;
    }
  | Gate
  /** `because` is one of few texts; `detail` is for people, and may quote the pod. */
  | { readonly kind: 'refuse'; readonly because: string; readonly detail: string };

/** What this pod asks, once per call. */
export function askOf(
  pod: RawPod,
  policies: { get(name: string): GpuPolicy | undefined },
  operandNamespace: string,
): Ask {
  const { labels, namespace } = pod.metadata ?? {};
  const component = labels?.[COMPONENT];
  if (
    namespace === operandNamespace &&
    labels?.[PART_OF] === PRODUCT &&
    (component === 'driver-validation' || component === 'device-plugin-validation')
  ) {
    return { kind: 'pass', because: 'validation-pod' };
  }
  const read = wishesOf(pod);
  const policy = policies.get(read.wishes.policy ?? DEFAULT_POLICY);
  // Without a policy there is no list of resources; the widest one says whether this is any of our business.
  const resources = policy?.spec.resources ?? ['nvidia.com/*'];
  const request = gpuRequest(pod, resources);
  if (request === undefined) return { kind: 'pass', because: 'no-gpu' };
  if (!read.ok && read.annotation === POLICY)
    return { kind: 'refuse', because: REASONS.badPolicy, detail: read.because };
  if (policy === undefined)
    return read.wishes.policy === undefined
      ? { kind: 'pass', because: 'no-policy' }
      : {
          kind: 'refuse',
          because: REASONS.noSuchPolicy,
          detail: `annotation ${POLICY}: there is no GPUPolicy ${read.wishes.policy}; write one that 'kubectl get gpupolicies' lists`,
        };
  const { requirements, unread } = cudaOf(pod, request);
  const { minDriver } = read.wishes;
  const gate: Gate = { kind: 'gate', policy, minDriver, cuda: requirements, cudaUnread: unread };
  if (policy.spec.suspend) return { kind: 'pass', because: 'suspended' };
  if (!isEnforcing(policy)) return { kind: 'pass', because: 'auditing', would: gate };
  return read.ok ? gate : { kind: 'refuse', because: REASONS.badMinDriver, detail: read.because };
}

/** Why the pod may not go to the node; undefined: it may. */
export function refusal(ask: Gate, node: NodeFacts | undefined): string | undefined {
  if (node === undefined) return REASONS.unknown;
  if (!node.ours && ask.policy.spec.unmanagedNodes !== 'Allow') return REASONS.unmanaged;
  if (node.ours && node.policy !== undefined && node.policy !== ask.policy.name) return REASONS.otherPolicy;
  if (node.ours && node.closed !== undefined) return node.closed;
  if (ask.minDriver !== undefined) {
    // Also on a node that is not ours, where nothing is proven: who asks for a least version does not ask for luck.
    if (node.driver === undefined) return REASONS.driverUnknown;
    if (compareVersions(node.driver, ask.minDriver) < 0) return REASONS.driverOld;
  }
  return meets(ask.cuda, node) ? undefined : REASONS.cuda;
}
