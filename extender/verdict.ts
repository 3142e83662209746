// One pod and one node → may it go there, or the reason why not. Pure. Reasons are few and carry no names or times: the
// scheduler counts them by their text. What depends on the node alone is worked out when the node changes, not per call.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { isEnforcing } from '../core/gpu-policy.ts';
import { compareVersions, gpuRequest, wishesOf, type RawPod } from '../core/gpu-request.ts';
import { COMPONENT, DEFAULT_POLICY, PART_OF, PRODUCT } from '../core/keys.ts';
import { isOurs, open, policyOf, type NodeView } from '../core/node-proof.ts';

/** What a verdict needs of a node. */
export interface NodeFacts {
  readonly ours: boolean;
  readonly policy: string | undefined;
  /** Why no new GPU pods may come; undefined: open. */
  readonly closed: string | undefined;
  readonly driver: string | undefined;
  readonly cuda: string | undefined;
  /** When it was proven, ms since the epoch; 0 where it is not. */
  readonly provenAt: number;
}

export function nodeFacts(node: NodeView): NodeFacts {
  const answer = open(node);
  return {
    ours: isOurs(node),
    policy: policyOf(node),
    closed: answer.yes ? undefined : answer.because,
    driver: answer.yes ? answer.proof.driver : undefined,
    cuda: answer.yes ? answer.proof.cuda : undefined,
    provenAt: answer.yes ? Date.parse(answer.proof.at) || 0 : 0,
  };
}

const REASONS = {
  unknown: 'GPU state not known yet',
  unmanaged: 'node not opted in to gpu-gate',
  otherPolicy: 'other GPU policy',
  driverOld: 'GPU driver older than the pod asks',
  driverUnknown: 'GPU driver version not known',
  cudaOld: 'CUDA older than the pod asks',
} as const;

/** What a pod asks of nodes. */
export type Ask =
  /** Every node passes, for the reason given; `policy`: what it would have asked, were that policy to enforce. */
  | { readonly kind: 'pass'; readonly because: 'validation-pod' | 'no-gpu' | 'no-policy' | 'suspended' | 'auditing' }
  | {
      readonly kind: 'gate';
      readonly policy: GpuPolicy;
      readonly minDriver: string | undefined;
      readonly cuda: readonly CudaClause[];
    }
  | { readonly kind: 'refuse'; readonly because: string };

/** One alternative of NVIDIA_REQUIRE_CUDA: all of its limits must hold. */
export type CudaClause = readonly {
  readonly what: 'cuda' | 'driver';
  readonly operator: string;
  readonly version: string;
}[];

/** Reads NVIDIA_REQUIRE_CUDA as the container toolkit documents it: a space is OR, a comma AND. Conditions on anything but cuda and driver are left to the toolkit. */
export function parseRequireCuda(text: string): readonly CudaClause[] {
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
  if (!read.ok) return { kind: 'refuse', because: read.because };
  const policy = policies.get(read.wishes.policy ?? DEFAULT_POLICY);
  if (gpuRequest(pod, policy?.spec.resources ?? ['nvidia.com/*']) === undefined)
    return { kind: 'pass', because: 'no-gpu' };
  if (policy === undefined) return { kind: 'pass', because: 'no-policy' };
  if (policy.spec.suspend) return { kind: 'pass', because: 'suspended' };
  if (!isEnforcing(policy)) return { kind: 'pass', because: 'auditing' };
  const containers = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])];
  const required = containers.flatMap(
    (container) =>
      container.env
        ?.filter((variable) => variable.name === 'NVIDIA_REQUIRE_CUDA')
        .map((variable) => variable.value ?? '') ?? [],
  );
  return { kind: 'gate', policy, minDriver: read.wishes.minDriver, cuda: required.flatMap(parseRequireCuda) };
}

/** Why the pod may not go to the node; undefined: it may. */
export function refusal(ask: Extract<Ask, { kind: 'gate' }>, node: NodeFacts | undefined): string | undefined {
  if (node === undefined) return REASONS.unknown;
  if (!node.ours) return ask.policy.spec.unmanagedNodes === 'Allow' ? undefined : REASONS.unmanaged;
  if (node.policy !== undefined && node.policy !== ask.policy.name) return REASONS.otherPolicy;
  if (node.closed !== undefined) return node.closed;
  if (ask.minDriver !== undefined) {
    if (node.driver === undefined) return REASONS.driverUnknown;
    if (compareVersions(node.driver, ask.minDriver) < 0) return REASONS.driverOld;
  }
  return ask.cuda.length > 0 && !ask.cuda.some((clause) => clause.every((limit) => meets(limit, node)))
    ? REASONS.cudaOld
    : undefined;
}

/** A version that the proof does not know cannot be held against the pod: the toolkit checks it again at start. */
const meets = (limit: CudaClause[number], node: NodeFacts): boolean => {
  const version = limit.what === 'cuda' ? node.cuda : node.driver;
  return version === undefined || holds(compareVersions(version, limit.version), limit.operator);
};
