// The GPUPolicy: its type, its defaults, what it means to enforce. The CRD (deploy/chart/crds) carries the same defaults for
// people to see; these here serve objects that were stored before a field existed.
import { DEFAULT_POLICY } from './keys.ts';

export type Mode = 'managed' | 'external';

export interface EnvVar {
  readonly name: string;
  readonly value: string;
}

export interface ComponentSpec {
  readonly mode: Mode;
  readonly enabled: boolean;
  readonly image?: string;
  readonly version?: string;
  readonly env: readonly EnvVar[];
  readonly args: readonly string[];
  readonly resources?: object;
  readonly imagePullSecrets: readonly string[];
  readonly imagePullPolicy?: string;
  /** External components only: pods with these labels are watched as evidence. */
  readonly podSelector?: { readonly matchLabels: Readonly<Record<string, string>> };
}

export interface ToolkitSpec extends ComponentSpec {
  readonly runtime: 'containerd' | 'crio';
  readonly configPath?: string;
  readonly socketPath?: string;
}

export interface DriverSpec extends ComponentSpec {
  /** k8s-driver-manager, the init container that unloads an earlier driver. */
  readonly manager: { readonly image?: string; readonly version?: string };
}

export interface DriverVolume {
  readonly name: string;
  readonly hostPath: string;
  readonly mountPath: string;
  readonly type: string;
  readonly readOnly: boolean;
}

/** As Kubernetes writes a toleration. */
export interface InjectedToleration {
  readonly key?: string;
  readonly operator?: 'Equal' | 'Exists';
  readonly value?: string;
  readonly effect?: 'NoSchedule' | 'PreferNoSchedule' | 'NoExecute';
  readonly tolerationSeconds?: number;
}

export type PodSecurityLevel = 'privileged' | 'baseline' | 'restricted';

export interface InjectionSpec {
  /** Empty: no runtime class is injected. */
  readonly runtimeClassName: string;
  readonly readinessGate: boolean;
  /** Empty: the pod's scheduler is left as it is. */
  readonly schedulerName: string;
  readonly alsoOnUnmanaged: boolean;
  readonly podSecurityDefault: PodSecurityLevel;
  readonly driverVolumes: readonly DriverVolume[];
  readonly driverVolumesPreset: 'None' | 'GKE' | 'DriverContainer' | 'Host';
  readonly env: readonly EnvVar[];
  /** Under the policy's class, containers that request no GPU get NVIDIA_VISIBLE_DEVICES=void. */
  readonly hideUnrequestedGpus: boolean;
  readonly tolerations: readonly InjectedToleration[];
}

/** Durations are milliseconds here; the API writes them as `5m`, `30s`. */
export interface ValidationSpec {
  readonly image: string;
  readonly imagePullSecrets: readonly string[];
  readonly imagePullPolicy?: string;
  /** Replaces the image's own command; empty: the stock image's vectorAdd. */
  readonly command: readonly string[];
  readonly timeouts: Readonly<
    Record<'toolkit' | 'driver' | 'driverValidation' | 'devicePlugin' | 'devicePluginValidation', number>
  >;
  readonly backoff: { readonly initial: number; readonly max: number };
  /** 0: never validate again while idle. */
  readonly interval: number;
}

/** Where the stack lives on the host; only real-node tests and unusual hosts change it. */
export interface HostPathsSpec {
  readonly root: string;
  readonly driverRoot: string;
  readonly kubeletRoot: string;
  readonly run: string;
}

export interface GpuPolicySpec {
  readonly nodeSelector: Readonly<Record<string, string>>;
  readonly suspend: boolean;
  /** Namespaces whose pods may name this policy; empty: all. */
  readonly allowedNamespaces: readonly string[];
  readonly unmanagedNodes: 'Auto' | 'Deny' | 'Allow';
  readonly resources: readonly string[];
  readonly components: {
    readonly toolkit: ToolkitSpec;
    readonly driver: DriverSpec;
    readonly devicePlugin: ComponentSpec;
    readonly dcgmExporter: ComponentSpec;
    readonly featureDiscovery: ComponentSpec;
  };
  readonly hostPaths: HostPathsSpec;
  readonly validation: ValidationSpec;
  readonly injection: InjectionSpec;
  readonly startupTaint: 'BringUp' | 'Off';
  readonly rejectedPods: 'Report' | 'Delete';
  readonly bringUp: { readonly maxConcurrent: string };
  readonly labelHold: number;
  /** `"50%"`: share of the proofs above which a simultaneous withdrawal is not believed. */
  readonly breaker: string;
}

export interface GpuPolicy {
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
  /** RFC 3339; the older of two policies has a node that both select. */
  readonly created: string;
  readonly deleting: boolean;
  readonly finalizers: readonly string[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly spec: GpuPolicySpec;
  /** RFC 3339, once the policy enforces: for good, see design section 4. */
  readonly enforcingSince?: string;
  readonly status: PolicyStatus;
}

export interface PolicyStatus {
  readonly observedGeneration?: number;
  readonly enforcingSince?: string;
  readonly nodes?: Readonly<Record<string, number>>;
  readonly conditions?: readonly PolicyCondition[];
}

export interface PolicyCondition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

type Raw = Readonly<Record<string, unknown>>;
const object = (value: unknown): Raw =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Raw) : {};
const list = <T>(value: unknown): readonly T[] => (Array.isArray(value) ? (value as T[]) : []);
const text = <T extends string>(value: unknown, otherwise: T): T =>
  typeof value === 'string' ? (value as T) : otherwise;
/** A number of things or a share of them: the API takes both `5` and `"5"`. */
const share = (value: unknown, otherwise: string): string =>
  typeof value === 'number' ? String(value) : text<string>(value, otherwise);
const flag = (value: unknown, otherwise: boolean): boolean => (typeof value === 'boolean' ? value : otherwise);
const optional = <K extends string>(key: K, value: unknown): Partial<Record<K, string>> =>
  typeof value === 'string' && value !== '' ? ({ [key]: value } as Record<K, string>) : {};

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a Go-style duration such as `1h30m`, `90s`, `500ms`, `0s`; undefined where it is none. */
export function parseDuration(value: string): number | undefined {
  if (value === '0') return 0;
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(value)) return undefined;
  return [...value.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)].reduce(
    (sum, [, amount, unit]) => sum + Number(amount) * (UNITS[unit ?? ''] ?? 0),
    0,
  );
}

const duration = (value: unknown, otherwise: number): number =>
  typeof value === 'string' ? (parseDuration(value) ?? otherwise) : otherwise;

const component = (raw: unknown, enabled: boolean): ComponentSpec => {
  const value = object(raw);
  const selector = object(value['podSelector']);
  return {
    mode: text<Mode>(value['mode'], 'managed'),
    enabled: flag(value['enabled'], enabled),
    ...optional('image', value['image']),
    ...optional('version', value['version']),
    env: list<EnvVar>(value['env']),
    args: list<string>(value['args']),
    ...(value['resources'] === undefined ? {} : { resources: object(value['resources']) }),
    imagePullSecrets: list<string>(value['imagePullSecrets']),
    ...optional('imagePullPolicy', value['imagePullPolicy']),
    ...(value['podSelector'] === undefined
      ? {}
      : { podSelector: { matchLabels: object(selector['matchLabels']) as Record<string, string> } }),
  };
};

const minutes = (n: number): number => n * 60_000;

const driverVolume = (raw: DriverVolume): DriverVolume => ({
  name: raw.name,
  hostPath: raw.hostPath,
  mountPath: raw.mountPath,
  type: text<string>(raw.type, 'Directory'),
  readOnly: flag(raw.readOnly, true),
});

/** A GPUPolicy as the API serves it → ours, every default filled in. */
export function parsePolicy(raw: unknown): GpuPolicy {
  const { metadata, spec, status } = object(raw);
  const meta = object(metadata);
  const s = object(spec);
  const components = object(s['components']);
  const toolkit = object(components['toolkit']);
  const driver = object(components['driver']);
  const manager = object(driver['manager']);
  const validation = object(s['validation']);
  const timeouts = object(validation['timeouts']);
  const backoff = object(validation['backoff']);
  const injection = object(s['injection']);
  const hostPaths = object(s['hostPaths']);
  const policyStatus = object(status) as PolicyStatus;
  const resources = list<string>(s['resources']);
  return {
    name: text<string>(meta['name'], DEFAULT_POLICY),
    uid: text<string>(meta['uid'], ''),
    generation: typeof meta['generation'] === 'number' ? meta['generation'] : 0,
    created: text<string>(meta['creationTimestamp'], ''),
    deleting: meta['deletionTimestamp'] !== undefined,
    finalizers: list<string>(meta['finalizers']),
    annotations: object(meta['annotations']) as Record<string, string>,
    ...(policyStatus.enforcingSince === undefined ? {} : { enforcingSince: policyStatus.enforcingSince }),
    status: policyStatus,
    spec: {
      nodeSelector: object(s['nodeSelector']) as Record<string, string>,
      suspend: flag(s['suspend'], false),
      allowedNamespaces: list<string>(s['allowedNamespaces']),
      unmanagedNodes: text<'Auto' | 'Deny' | 'Allow'>(s['unmanagedNodes'], 'Auto'),
      resources: resources.length === 0 ? ['nvidia.com/gpu', 'nvidia.com/gpu.shared'] : resources,
      components: {
        toolkit: {
          ...component(toolkit, true),
          runtime: text<'containerd' | 'crio'>(toolkit['runtime'], 'containerd'),
          ...optional('configPath', toolkit['configPath']),
          ...optional('socketPath', toolkit['socketPath']),
        },
        driver: {
          ...component(driver, true),
          manager: { ...optional('image', manager['image']), ...optional('version', manager['version']) },
        },
        devicePlugin: component(components['devicePlugin'], true),
        dcgmExporter: component(components['dcgmExporter'], true),
        featureDiscovery: component(components['featureDiscovery'], false),
      },
      hostPaths: {
        root: text<string>(hostPaths['root'], '/'),
        driverRoot: text<string>(hostPaths['driverRoot'], '/run/nvidia/driver'),
        kubeletRoot: text<string>(hostPaths['kubeletRoot'], '/var/lib/kubelet'),
        run: text<string>(hostPaths['run'], '/run/nvidia'),
      },
      validation: {
        image: text<string>(validation['image'], 'nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0-ubuntu22.04'),
        imagePullSecrets: list<string>(validation['imagePullSecrets']),
        ...optional('imagePullPolicy', validation['imagePullPolicy']),
        command: list<string>(validation['command']),
        timeouts: {
          toolkit: duration(timeouts['toolkit'], minutes(5)),
          driver: duration(timeouts['driver'], minutes(30)),
          driverValidation: duration(timeouts['driverValidation'], minutes(5)),
          devicePlugin: duration(timeouts['devicePlugin'], minutes(5)),
          devicePluginValidation: duration(timeouts['devicePluginValidation'], minutes(5)),
        },
        backoff: { initial: duration(backoff['initial'], 10_000), max: duration(backoff['max'], minutes(10)) },
        interval: duration(validation['interval'], 0),
      },
      injection: {
        runtimeClassName: text<string>(injection['runtimeClassName'], 'nvidia'),
        readinessGate: flag(injection['readinessGate'], true),
        schedulerName: text<string>(injection['schedulerName'], ''),
        alsoOnUnmanaged: flag(injection['alsoOnUnmanaged'], false),
        podSecurityDefault: text<PodSecurityLevel>(injection['podSecurityDefault'], 'privileged'),
        driverVolumes: list<DriverVolume>(injection['driverVolumes']).map(driverVolume),
        driverVolumesPreset: text<'None' | 'GKE' | 'DriverContainer' | 'Host'>(
          injection['driverVolumesPreset'],
          'None',
        ),
        env: list<EnvVar>(injection['env']),
        hideUnrequestedGpus: flag(injection['hideUnrequestedGpus'], true),
        tolerations: list<InjectedToleration>(injection['tolerations']),
      },
      startupTaint: text<'BringUp' | 'Off'>(s['startupTaint'], 'BringUp'),
      rejectedPods: text<'Report' | 'Delete'>(s['rejectedPods'], 'Report'),
      bringUp: { maxConcurrent: share(object(s['bringUp'])['maxConcurrent'], '10%') },
      labelHold: duration(s['labelHold'], minutes(5)),
      breaker: text<string>(s['breaker'], '50%'),
    },
  };
}

/** Does the policy inject and refuse now? */
export const isEnforcing = (policy: GpuPolicy): boolean => !policy.spec.suspend && policy.enforcingSince !== undefined;

/** Does the policy's selector meet these labels of a node? */
export const selects = (policy: GpuPolicy, labels: Readonly<Record<string, string>>): boolean =>
  Object.entries(policy.spec.nodeSelector).every(([key, value]) => labels[key] === value);

/** Among all policies the oldest whose selector the node's labels meet (ties by name); undefined where none does. */
export function policyFor(
  labels: Readonly<Record<string, string>>,
  policies: readonly GpuPolicy[],
): GpuPolicy | undefined {
  return selecting(labels, policies)[0];
}

/** All policies that select a node, the one that has it first. */
export const selecting = (
  labels: Readonly<Record<string, string>>,
  policies: readonly GpuPolicy[],
): readonly GpuPolicy[] =>
  policies
    .filter((policy) => selects(policy, labels))
    .toSorted((a, b) => a.created.localeCompare(b.created) || a.name.localeCompare(b.name));
