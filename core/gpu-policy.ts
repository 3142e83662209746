// The GPUPolicy: its types, whether it enforces, which nodes it selects. core/parse-policy.ts reads
// it.

export type Mode = 'managed' | 'external';

/** How GPUs reach pods. */
export type Allocation = 'DevicePlugin' | 'DRA';

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
  /** External components only: these pods are watched as evidence. */
  readonly podSelector?: Selector;
}

/**
 * Pods of another installer. The namespace is part of it, because labels can be copied by anyone.
 */
export interface Selector {
  readonly namespace: string;
  readonly matchLabels: Readonly<Record<string, string>>;
  /**
   * Kind of the controller that owns the pods, such as `DaemonSet`; `undefined` if it may be any.
   */
  readonly ownerKind?: string;
}

export interface ToolkitSpec extends ComponentSpec {
  /** Folder on the host that the toolkit installs into; `undefined` means /usr/local/nvidia. */
  readonly installDir?: string;
  readonly runtime: 'containerd' | 'crio';
  readonly configPath?: string;
  readonly socketPath?: string;
}

export interface DevicePluginSpec extends ComponentSpec {
  /**
   * ConfigMap in the operands' namespace whose `config.yaml` the plugin reads, such as one for
   * time-slicing.
   */
  readonly config?: string;
}
export interface DriverSpec extends ComponentSpec {
  /** k8s-driver-manager, the init container that unloads an earlier driver. */
  readonly manager: { readonly image?: string; readonly version?: string };
  /**
   * Systems of nodes that the image fits beside the one in its tag, such as `rocky9` for an image
   * made for `rhel9`.
   */
  readonly alsoFor: readonly string[];
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
  /**
   * What a pod whose GPUs come by claim alone gets. `GateOnly`: scheduler, readiness gate,
   * tolerations; its devices come by CDI. `Full`: the runtime class and driver volumes as well.
   */
  readonly claimPods: 'GateOnly' | 'Full';
  /**
   * Resources that another scheduler gives out, by name or with `*` at the end: pods that request
   * one keep their scheduler.
   */
  readonly othersResources: readonly string[];
}

/** Those of HAMi, whose scheduler must have such a pod. */
export const HAMI_RESOURCES: readonly string[] = [
  'nvidia.com/gpumem',
  'nvidia.com/gpumem-percentage',
  'nvidia.com/gpucores',
  'nvidia.com/priority',
];

/** Durations are milliseconds here; the API writes them as `5m`, `30s`. */
export interface ValidationSpec {
  readonly image: string;
  readonly imagePullSecrets: readonly string[];
  readonly imagePullPolicy?: string;
  /** Replaces the image's own command; empty: the stock image's vectorAdd. */
  readonly command: readonly string[];
  /** Of the validation pods' container, as Kubernetes writes them; ours where they are silent. */
  readonly resources: Readonly<Record<'requests' | 'limits', Readonly<Record<string, string | number>>>>;
  readonly timeouts: Readonly<
    Record<
      | 'toolkit'
      | 'driver'
      | 'driverValidation'
      | 'devicePlugin'
      | 'devicePluginValidation'
      | 'draDriver'
      | 'draValidation',
      number
    >
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

/** How users' pods leave a node before its stack changes. */
export interface DrainSpec {
  readonly mode: 'Wait' | 'Evict' | 'None';
  /** How long the node stays closed for it, ms; 0: as long as it takes. */
  readonly timeout: number;
}

/** A maintenance window that comes again and again. */
export interface WindowSpec {
  /** Cron, five fields: when it opens. */
  readonly schedule: string;
  /** ms */
  readonly duration: number;
  /** IANA name, such as `Europe/Berlin`. */
  readonly timeZone: string;
}

/** The nodes that take another stack before all others. */
export interface CanarySpec {
  /** 0: no canary. */
  readonly first: number;
  /** How long the others wait once the first are validated, ms; 0: until a person approves. */
  readonly wait: number;
}

/** How validated nodes move to what the policy says. */
export interface UpgradeSpec {
  /** `"10%"` or a number: nodes that are closed for a roll-out at once. */
  readonly maxUnavailable: string;
  readonly paused: boolean;
  readonly drain: DrainSpec;
  readonly canary: CanarySpec;
  /** When nodes may close for a roll-out; `undefined` if at any time. */
  readonly window?: WindowSpec;
}

export interface GpuPolicySpec {
  readonly nodeSelector: Readonly<Record<string, string>>;
  readonly suspend: boolean;
  /** Namespaces whose pods may name this policy; empty: all. */
  readonly allowedNamespaces: readonly string[];
  readonly unmanagedNodes: 'Auto' | 'Deny' | 'Allow';
  readonly allocation: Allocation;
  readonly resources: readonly string[];
  /** DeviceClasses whose claims are for GPUs. */
  readonly deviceClasses: readonly string[];
  /** DRA drivers of GPUs, whose devices are tainted while a node is not open. */
  readonly deviceDrivers: readonly string[];
  readonly deviceTaints: 'Auto' | 'On' | 'Off';
  /** What becomes of pods with claims where a proof was withdrawn. */
  readonly withdrawnPods: 'Keep' | 'Evict';
  readonly components: {
    readonly toolkit: ToolkitSpec;
    readonly driver: DriverSpec;
    readonly devicePlugin: DevicePluginSpec;
    readonly draDriver: ComponentSpec;
    readonly dcgmExporter: ComponentSpec;
    readonly featureDiscovery: ComponentSpec;
  };
  readonly hostPaths: HostPathsSpec;
  readonly validation: ValidationSpec;
  readonly injection: InjectionSpec;
  readonly startupTaint: 'BringUp' | 'Off';
  readonly rejectedPods: 'Report' | 'Delete';
  readonly bringUp: { readonly maxConcurrent: string };
  readonly upgrade: UpgradeSpec;
  readonly labelHold: number;
  /** `"50%"`: share of the proofs above which a simultaneous withdrawal is not believed. */
  readonly breaker: string;
  /**
   * `"10%"`: share of the nodes above which silent kubelets say something about the control plane,
   * and nothing about GPUs.
   */
  readonly silence: string;
  /**
   * So many GPU pods rejected by one kubelet for want of a GPU, within so many ms, close the node.
   */
  readonly rejections: { readonly count: number; readonly within: number };
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
  /** RFC 3339, once the policy enforces: and it stays so for good. */
  readonly enforcingSince?: string;
  readonly status: PolicyStatus;
}

export interface PolicyStatus {
  readonly observedGeneration?: number;
  readonly enforcingSince?: string;
  readonly nodes?: Readonly<Record<string, number>>;
  /** The circuit breaker's memory, for the next leader. Absent if it never tripped. */
  readonly breaker?: BreakerStatus;
  /** The roll-out's memory, for the next leader. */
  readonly rollOut?: RollOutStatus;
  readonly conditions?: readonly PolicyCondition[];
}

/** Stacks are named by their digest, as an approval names one. */
export interface RollOutStatus {
  /** Stacks that all nodes ran, the newest last. */
  readonly ran?: readonly string[];
  /** The canary that is validated. */
  readonly canary?: {
    readonly stack: string;
    /** RFC 3339, since when all its nodes are validated. */
    readonly since: string;
    /** Its time is over. */
    readonly passed?: true;
  };
}

export interface BreakerStatus {
  /** RFC 3339, since when it keeps proofs; absent if it does not. */
  readonly trippedAt?: string;
  /** Value of the release annotation when it tripped: another value releases it. */
  readonly release?: string;
  /** RFC 3339, when it was last released: losses of that wave are believed. */
  readonly releasedAt?: string;
}

export interface PolicyCondition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/** Does the policy inject and refuse now? */
export const isEnforcing = (policy: GpuPolicy): boolean => !policy.spec.suspend && policy.enforcingSince !== undefined;

/** Does the policy's selector meet these labels of a node? */
const selects = (policy: GpuPolicy, labels: Readonly<Record<string, string>>): boolean =>
  Object.entries(policy.spec.nodeSelector).every(([key, value]) => labels[key] === value);

/**
 * Among all policies the oldest whose selector the node's labels meet (ties by name); `undefined`
 * if none does.
 */
export function policyFor(
  labels: Readonly<Record<string, string>>,
  policies: readonly GpuPolicy[],
): GpuPolicy | undefined {
  return selecting(labels, policies)[0];
}

/**
 * All policies that select a node, the one that has it first. One that is being deleted yields to
 * the others.
 */
export const selecting = (
  labels: Readonly<Record<string, string>>,
  policies: readonly GpuPolicy[],
): readonly GpuPolicy[] =>
  policies
    .filter((policy) => selects(policy, labels))
    .toSorted(
      (a, b) =>
        Number(a.deleting) - Number(b.deleting) || a.created.localeCompare(b.created) || a.name.localeCompare(b.name),
    );
