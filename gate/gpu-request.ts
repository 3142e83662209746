// What a pod asks for: GPUs by container, its policy, its driver, its CUDA. Read once, at the
// border; malformed input is a value.
import { COMPONENT, MIN_DRIVER, PART_OF, POLICY, PRODUCT } from '../core/keys.ts';
import { amountOf } from '../core/quantity.ts';
import { list, object, type Raw } from '../core/raw.ts';
import type { GpuPolicy } from '../core/gpu-policy.ts';
import {
  foundClaim,
  IMPLICIT_CLASS,
  isGpuResource,
  isMappedGpu,
  wantedClaims,
  type Devices,
  type FoundClaim,
  type GpuKinds,
  type WantedClaim,
} from './devices.ts';
import { optsOut } from './namespaces.ts';
import { requireVariables, type RequireVariable } from './require-cuda.ts';
import { isVersion } from './versions.ts';

/** Raw JSON of a container, as far as the gate looks at it. */
export interface RawContainer {
  readonly name?: string;
  readonly env?: readonly { readonly name?: string; readonly value?: string }[];
  readonly resources?: {
    readonly limits?: Readonly<Record<string, unknown>>;
    readonly requests?: Readonly<Record<string, unknown>>;
    readonly claims?: readonly object[];
  };
  readonly volumeMounts?: readonly {
    readonly name?: string;
    readonly mountPath?: string;
    readonly subPath?: string;
    readonly subPathExpr?: string;
    readonly readOnly?: boolean;
  }[];
  readonly volumeDevices?: readonly { readonly name?: string; readonly devicePath?: string }[];
  readonly envFrom?: readonly object[];
}

/**
 * Raw JSON of a pod, as it came in; fields that are not named here are kept, because it is never
 * re-serialised.
 */
export interface RawPod {
  readonly metadata?: {
    readonly name?: string;
    readonly generateName?: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly { readonly kind?: string; readonly controller?: boolean }[];
  };
  readonly spec?: {
    readonly containers?: readonly RawContainer[];
    readonly initContainers?: readonly RawContainer[];
    readonly nodeName?: string;
    readonly nodeSelector?: Readonly<Record<string, string>>;
    readonly runtimeClassName?: string;
    readonly hostUsers?: boolean;
    readonly schedulerName?: string;
    readonly volumes?: readonly { readonly name?: string; readonly hostPath?: { readonly path?: string } }[];
    readonly readinessGates?: readonly { readonly conditionType?: string }[];
    readonly tolerations?: readonly unknown[];
    readonly affinity?: object;
    readonly resourceClaims?: readonly object[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly resourceClaimStatuses?: readonly object[];
    readonly extendedResourceClaimStatus?: object;
  };
}

/** Every GPU resource that a GPUPolicy may name stands below this prefix. */
const GPU_PREFIX = 'nvidia.com/';

/** A resource that may be a GPU's, by its name alone. */
const isGpuLike = (name: string): boolean => name.startsWith(GPU_PREFIX) || name.startsWith(IMPLICIT_CLASS);

/** As Kubernetes decides it: a DeviceClass may map any of them. */
const isExtended = (name: string): boolean =>
  name.includes('/') && (!name.includes('kubernetes.io/') || name.startsWith(IMPLICIT_CLASS));

/** What counts as a GPU where no policy says it. */
const WITHOUT_POLICY: GpuKinds = {
  resources: ['nvidia.com/*'],
  deviceClasses: ['gpu.nvidia.com', 'mig.nvidia.com'],
  deviceDrivers: ['gpu.nvidia.com'],
};

/** What the policy counts as GPUs; the widest list shows whether a pod without one asks at all. */
export const gpuKindsOf = (policy: GpuPolicy | undefined): GpuKinds => policy?.spec ?? WITHOUT_POLICY;

/** What NVIDIA's device plugin offers unless it is configured to rename it. */
const USUAL_GPUS: readonly string[] = ['nvidia.com/gpu', 'nvidia.com/gpu.shared', 'nvidia.com/mig-*'];

/** Is this a GPU resource by its name, whatever a policy lists? */
export const isUsualGpu = (name: string): boolean => isGpuResource(name, USUAL_GPUS);

/** What to write in a policy's list so that it holds these resources. */
export const entriesFor = (names: readonly string[]): readonly string[] => [
  ...new Set(names.map((name) => (name.startsWith('nvidia.com/mig-') ? 'nvidia.com/mig-*' : name))),
];

/** A container that asks for an extended resource or a claim, which may be a GPU's. */
export interface GpuContainer {
  /** Index into the pod's own list. */
  readonly index: number;
  /** Sidecars are init containers that go on running. */
  readonly kind: 'main' | 'init' | 'sidecar';
  /** Amounts above zero by extended resource. */
  readonly amounts: Readonly<Record<string, number>>;
  /** Entries of the pod's `resourceClaims` that it uses. */
  readonly claims: readonly string[];
  readonly requires: readonly RequireVariable[];
}

/** Amounts of a container; a resource that has no limit counts by its request. */
function amountsOf(container: Raw): Readonly<Record<string, number>> {
  const { limits, requests } = object(container['resources']);
  const amounts: Record<string, number> = {};
  for (const [name, value] of Object.entries({ ...object(requests), ...object(limits) })) {
    const amount = isExtended(name) ? amountOf(value) : 0;
    if (amount > 0) amounts[name] = amount;
  }
  return amounts;
}

const gpuContainers = (containers: unknown, init: boolean): readonly GpuContainer[] =>
  list<unknown>(containers).flatMap((value, index): GpuContainer[] => {
    const container = object(value);
    const amounts = amountsOf(container);
    const claims = list<unknown>(object(container['resources'])['claims']).map((one) => String(object(one)['name']));
    if (claims.length === 0 && Object.keys(amounts).length === 0) return [];
    const kind = !init ? 'main' : container['restartPolicy'] === 'Always' ? 'sidecar' : 'init';
    return [{ index, kind, amounts, claims, requires: requireVariables(container['env']) }];
  });

const containersOf = (spec: RawPod['spec']): readonly GpuContainer[] => [
  ...gpuContainers(spec?.containers, false),
  ...gpuContainers(spec?.initContainers, true),
];

/**
 * The first of these resources that some container requests, GPU or not; `undefined` if none does.
 */
export function requestedAmong(spec: RawPod['spec'], resources: readonly string[]): string | undefined {
  for (const { resources: own } of [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])])
    for (const [name, value] of Object.entries({ ...own?.requests, ...own?.limits }))
      if (isGpuResource(name, resources) && amountOf(value) > 0) return name;
  return undefined;
}

/** Which containers ask for a GPU, as indices into the raw lists. */
export interface GpuRequest {
  readonly containers: readonly number[];
  readonly initContainers: readonly number[];
}

/** What a pod asks for, by one policy. */
export type Asked =
  | { readonly kind: 'nothing' }
  /** A claim, or its template, is not known yet, and nothing else asks for a GPU. */
  | { readonly kind: 'unknown'; readonly claim: WantedClaim }
  | {
      readonly kind: 'gpus';
      /** Those that ask for a GPU, in whatever shape. */
      readonly containers: readonly GpuContainer[];
      /** Those that ask for a resource that the policy lists, as a device plugin serves it. */
      readonly byResource: readonly GpuContainer[];
      /** Claims for GPUs. */
      readonly claims: readonly FoundClaim[];
    };

const NOTHING: Asked = { kind: 'nothing' };

/** The pod's claims, looked up as the policy counts GPUs. */
export const claimsOf = (wants: PodRequest, policy: GpuPolicy | undefined, devices: Devices): readonly FoundClaim[] =>
  wants.claims.map((wanted) => foundClaim(wanted, wants.namespace, gpuKindsOf(policy), devices));

/** What the pod asks for: the one function that knows every shape of a request for GPUs. */
export function askedOf(wants: PodRequest, kinds: GpuKinds, devices: Devices): Asked {
  const found = wants.claims.map((wanted) => foundClaim(wanted, wants.namespace, kinds, devices));
  const claims = found.filter(({ gpu }) => gpu === true);
  const byResource = wants.containers.filter(({ amounts }) =>
    Object.keys(amounts).some((name) => isGpuResource(name, kinds.resources)),
  );
  const containers = wants.containers.filter(
    (container) =>
      byResource.includes(container) ||
      container.claims.some((name) => claims.some(({ wanted }) => wanted.entry === name)) ||
      Object.keys(container.amounts).some((name) => isMappedGpu(name, kinds, devices)),
  );
  // A claim of the pod that no container uses is allocated all the same.
  if (containers.length > 0 || claims.length > 0) return { kind: 'gpus', containers, byResource, claims };
  const unknown = found.find(({ gpu }) => gpu === undefined);
  return unknown === undefined ? NOTHING : { kind: 'unknown', claim: unknown.wanted };
}

/** Containers as indices into the pod's raw lists. */
export function indicesOf(containers: readonly GpuContainer[]): GpuRequest {
  const indices = (main: boolean): number[] =>
    containers.filter(({ kind }) => (kind === 'main') === main).map(({ index }) => index);
  return { containers: indices(true), initContainers: indices(false) };
}

/** What a pod requests, whatever a policy counts as GPUs. */
export interface PodRequest {
  readonly containers: readonly GpuContainer[];
  readonly claims: readonly WantedClaim[];
  /** Of the pod, and so of its claims. */
  readonly namespace: string;
}

/** What a pod that is created in that namespace requests. */
export const requestOf = (pod: RawPod, namespace: string): PodRequest => ({
  containers: containersOf(pod.spec),
  claims: wantedClaims(pod.spec, pod.status),
  namespace,
});

/**
 * All that the gate needs to know of a pod, read once; a verdict needs nothing else, whatever
 * becomes of the policies and of the claims.
 */
export interface PodWants extends PodRequest {
  /** It is a validation pod of gpu-gate: of its labels, in the operand namespace. */
  readonly validation: boolean;
  readonly read: ReadWishes;
  /** Its namespace, where it names a policy: a policy may be for some namespaces only. */
  readonly namedIn?: string;
}

const VALIDATIONS: readonly string[] = ['driver-validation', 'device-plugin-validation', 'dra-validation'];

export function wantsOf(pod: RawPod, operandNamespace: string): PodWants {
  const { labels, namespace } = pod.metadata ?? {};
  const component = labels?.[COMPONENT];
  const read = wishesOf(pod);
  return {
    validation:
      namespace === operandNamespace && labels?.[PART_OF] === PRODUCT && VALIDATIONS.includes(component ?? ''),
    read,
    ...(read.wishes.policy === undefined ? {} : { namedIn: namespace ?? '' }),
    ...requestOf(pod, namespace ?? ''),
  };
}

/**
 * GPUs that the pod occupies on its node, by resource, as the scheduler adds them up: main
 * containers and sidecars run together, an init container beside the sidecars that were started
 * before it.
 */
export function occupied({ containers }: Pick<PodWants, 'containers'>): Readonly<Record<string, number>> {
  const together: Record<string, number> = {};
  const largest: Record<string, number> = {};
  const main = containers.filter(({ kind }) => kind === 'main');
  for (const { kind, amounts } of [...containers.filter((one) => one.kind !== 'main'), ...main]) {
    for (const [name, amount] of Object.entries(amounts)) {
      if (!isGpuLike(name)) continue;
      const beside = together[name] ?? 0;
      if (kind === 'init') largest[name] = Math.max(largest[name] ?? 0, beside + amount);
      else together[name] = beside + amount;
    }
  }
  return Object.fromEntries(
    Object.keys({ ...together, ...largest }).map((name) => [name, Math.max(together[name] ?? 0, largest[name] ?? 0)]),
  );
}

/** The pod's own wishes, from its annotations and labels. */
export interface Wishes {
  /** Name of the policy, where the author names one. */
  readonly policy?: string;
  readonly minDriver?: string;
  readonly optedOut: boolean;
}

const NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

export type ReadWishes =
  | { readonly ok: true; readonly wishes: Wishes }
  | {
      readonly ok: false;
      /** One sentence on what is malformed and what to write instead. */
      readonly because: string;
      /** Which annotation it is. */
      readonly annotation: typeof POLICY | typeof MIN_DRIVER;
      /**
       * The annotations that did parse. A malformed min-driver must not change which policy
       * applies.
       */
      readonly wishes: Wishes;
    };

/** The author's wishes, each read by itself. */
export function wishesOf(pod: RawPod): ReadWishes {
  const annotations = pod.metadata?.annotations ?? {};
  const policy = annotations[POLICY];
  const minDriver = annotations[MIN_DRIVER];
  const policyOk = policy === undefined || NAME.test(policy);
  const minDriverOk = minDriver === undefined || isVersion(minDriver);
  const wishes: Wishes = {
    ...(policy === undefined || !policyOk ? {} : { policy }),
    ...(minDriver === undefined || !minDriverOk ? {} : { minDriver }),
    optedOut: optsOut(pod.metadata?.labels),
  };
  if (!policyOk) {
    return {
      ok: false,
      annotation: POLICY,
      because: `annotation ${POLICY}: ${quoted(policy)} is not the name of a GPUPolicy; write one that 'kubectl get gpupolicies' lists`,
      wishes,
    };
  }
  if (!minDriverOk) {
    return {
      ok: false,
      annotation: MIN_DRIVER,
      because: `annotation ${MIN_DRIVER}: ${quoted(minDriver)} is not a driver version; write one such as "580" or "595.71.05"`,
      wishes,
    };
  }
  return { ok: true, wishes };
}

const quoted = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
