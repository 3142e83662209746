// One pod and one node → may it go there, or the reason why not. Pure. Reasons are few and carry no names or times: the
// scheduler counts them by their text. What depends on the node alone is worked out when the node changes, not per call.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { isEnforcing } from '../core/gpu-policy.ts';
import { compareVersions, gpuRequest, wishesOf, type RawPod } from '../core/gpu-request.ts';
import { COMPONENT, DEFAULT_POLICY, PART_OF, PRODUCT } from '../core/keys.ts';
import { isOurs, open, policyOf, stateOf, type NodeView } from '../core/node-proof.ts';

/** What a verdict needs of a node. */
export interface NodeFacts {
  readonly ours: boolean;
  readonly policy: string | undefined;
  /** Why no new GPU pods may come; undefined: open. */
  readonly closed: string | undefined;
  readonly driver: string | undefined;
  readonly cuda: string | undefined;
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
    driver: answer.yes ? answer.proof.driver : undefined,
    cuda: answer.yes ? answer.proof.cuda : undefined,
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

/** Reasons that are not of the node alone. */
export const REASONS = {
  unknown: 'GPU state not known yet',
  unmanaged: 'node not opted in to gpu-gate',
  otherPolicy: 'other GPU policy',
  driverOld: 'GPU driver older than the pod asks',
  driverUnknown: 'GPU driver version not known',
  cuda: 'driver or its CUDA is not what NVIDIA_REQUIRE_CUDA of the pod asks',
  noSuchPolicy: 'the GPUPolicy that the pod names does not exist',
} as const;

/** A pod that a policy gates. */
export interface Gate {
  readonly kind: 'gate';
  readonly policy: GpuPolicy;
  readonly minDriver: string | undefined;
  /** One per container that requires something; all must hold. */
  readonly cuda: readonly CudaRequirement[];
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
  | { readonly kind: 'refuse'; readonly because: string };

/** NVIDIA_REQUIRE_CUDA of one container: one of its alternatives must hold. */
export type CudaRequirement = readonly CudaClause[];

/** One alternative of NVIDIA_REQUIRE_CUDA: all of its limits must hold. */
export type CudaClause = readonly {
  readonly what: 'cuda' | 'driver';
  readonly operator: string;
  readonly version: string;
}[];

/** Reads NVIDIA_REQUIRE_CUDA as the container toolkit documents it: a space is OR, a comma AND. Conditions on anything but cuda and driver (brand, arch) are left to the toolkit. */
export function parseRequireCuda(text: string): CudaRequirement {
  return text
    .split(/\s+/)
    .filter((part) => part !== '')
    .map((part) =>
      part.split(',').flatMap((limit) => {
        const match = /^(cuda|driver)(>=|<=|!=|=|>|<)(\d+(?:\.\d+)*)$/.exec(limit);
        return match === null
          ? []
          : [{ what: match[1] as 'cuda' | 'driver', operator: match[2] ?? '', version: match[3] ?? '' }];
      }),
    );
}

const holds = (comparison: number, operator: string): boolean => {
  switch (operator) {
    case '>=':
      return comparison >= 0;
    case '<=':
      return comparison <= 0;
    case '>':
      return comparison > 0;
    case '<':
      return comparison < 0;
    case '=':
      return comparison === 0;
    default:
      return comparison !== 0;
  }
};

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
  const policy = policies.get((read.ok ? read.wishes.policy : undefined) ?? DEFAULT_POLICY);
  // Without a policy there is no list of resources; the widest one says whether this is any of our business.
  const resources = policy?.spec.resources ?? ['nvidia.com/*'];
  if (gpuRequest(pod, resources) === undefined) return { kind: 'pass', because: 'no-gpu' };
  if (!read.ok) return { kind: 'refuse', because: read.because };
  if (policy === undefined)
    return read.wishes.policy === undefined
      ? { kind: 'pass', because: 'no-policy' }
      : { kind: 'refuse', because: REASONS.noSuchPolicy };
  const gate: Gate = { kind: 'gate', policy, minDriver: read.wishes.minDriver, cuda: cudaOf(pod, resources) };
  if (policy.spec.suspend) return { kind: 'pass', because: 'suspended' };
  return isEnforcing(policy) ? gate : { kind: 'pass', because: 'auditing', would: gate };
}

/** What the GPU containers require by their own environment. What an image carries inside nobody can see before it runs. */
function cudaOf(pod: RawPod, resources: readonly string[]): CudaRequirement[] {
  const request = gpuRequest(pod, resources);
  const containers = [
    ...(request?.containers ?? []).map((i) => pod.spec?.containers?.[i]),
    ...(request?.initContainers ?? []).map((i) => pod.spec?.initContainers?.[i]),
  ];
  return containers.flatMap((container) => {
    const value = (name: string): string =>
      (Array.isArray(container?.env) ? container.env : []).findLast((variable) => variable?.name === name)?.value ?? '';
    if (/^(true|t|1)$/i.test(value('NVIDIA_DISABLE_REQUIRE'))) return [];
    const requirement = parseRequireCuda(value('NVIDIA_REQUIRE_CUDA'));
    return requirement.length === 0 ? [] : [requirement];
  });
}

/** Why the pod may not go to the node; undefined: it may. */
export function refusal(ask: Gate, node: NodeFacts | undefined): string | undefined {
  if (node === undefined) return REASONS.unknown;
  if (!node.ours) return ask.policy.spec.unmanagedNodes === 'Allow' ? undefined : REASONS.unmanaged;
  if (node.policy !== undefined && node.policy !== ask.policy.name) return REASONS.otherPolicy;
  if (node.closed !== undefined) return node.closed;
  if (ask.minDriver !== undefined) {
    if (node.driver === undefined) return REASONS.driverUnknown;
    if (compareVersions(node.driver, ask.minDriver) < 0) return REASONS.driverOld;
  }
  return ask.cuda.every((requirement) => requirement.some((clause) => clause.every((limit) => meets(limit, node))))
    ? undefined
    : REASONS.cuda;
}

/** A version that the proof does not know cannot be held against the pod: the toolkit checks it again at start. */
const meets = (limit: CudaClause[number], node: NodeFacts): boolean => {
  const version = limit.what === 'cuda' ? node.cuda : node.driver;
  return version === undefined || holds(compareVersions(version, limit.version), limit.operator);
};
