// What a raw pod asks for: GPUs by container, its policy, its driver. Parsed once, at the border; malformed input is a value.
import { INJECT, MIN_DRIVER, POLICY } from '../core/keys.ts';
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

/** Raw JSON of a pod, as it came in; fields that are not named here are kept by never re-serialising it. */
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
  };
  readonly status?: { readonly phase?: string };
}

/** Is this a GPU resource of the policy? `resources` holds exact names, and `nvidia.com/mig-*` for every MIG profile. */
export const isGpuResource = (name: string, resources: readonly string[]): boolean =>
  resources.some((wanted) => (wanted.endsWith('*') ? name.startsWith(wanted.slice(0, -1)) : name === wanted));

/** Kubernetes quantities of extended resources are whole numbers, possibly written `2`, `"2"`, `2k`, `1e1`; above zero is all that matters. */
export const isPositiveQuantity = (value: unknown): boolean => {
  const match = /^\+?(\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+|[numkMGTPE]i?)?$/.exec(String(value).trim());
  return match?.[1] !== undefined && Number(match[1]) > 0;
};

const asksGpu = (container: RawContainer, resources: readonly string[]): boolean =>
  [container.resources?.limits, container.resources?.requests].some(
    (list) =>
      typeof list === 'object' &&
      list !== null &&
      Object.keys(list).some((name) => isGpuResource(name, resources) && isPositiveQuantity(list[name])),
  );

/** Which containers ask for a GPU, as indices into the raw lists. */
export interface GpuRequest {
  readonly containers: readonly number[];
  readonly initContainers: readonly number[];
}

const indices = (list: readonly RawContainer[] | undefined, resources: readonly string[]): number[] =>
  Array.isArray(list)
    ? list.flatMap((c: RawContainer, i) => (c !== null && typeof c === 'object' && asksGpu(c, resources) ? [i] : []))
    : [];

/** The GPU request of a pod, or undefined where it asks for none. */
export function gpuRequest(pod: RawPod, resources: readonly string[]): GpuRequest | undefined {
  const request = {
    containers: indices(pod.spec?.containers, resources),
    initContainers: indices(pod.spec?.initContainers, resources),
  };
  return request.containers.length + request.initContainers.length === 0 ? undefined : request;
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
      /** What could be read all the same: which policy judges the pod does not hang on its other annotation. */
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
    optedOut: pod.metadata?.labels?.[INJECT] === 'false',
  };
  if (!policyOk) {
    return {
      ok: false,
      annotation: POLICY,
      because: `annotation ${POLICY}: ${quoted(policy)} is no name of a GPUPolicy; write one that 'kubectl get gpupolicies' lists`,
      wishes,
    };
  }
  if (!minDriverOk) {
    return {
      ok: false,
      annotation: MIN_DRIVER,
      because: `annotation ${MIN_DRIVER}: ${quoted(minDriver)} is no driver version; write one such as "580" or "595.71.05"`,
      wishes,
    };
  }
  return { ok: true, wishes };
}

const quoted = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
