// A GPUPolicy as the API serves it → ours. The CRD (deploy/chart/crds) carries the same defaults
// for people to see; these here serve objects that were stored before a field existed.
import {
  HAMI_RESOURCES,
  type Allocation,
  type ComponentSpec,
  type DriverVolume,
  type EnvVar,
  type InjectedToleration,
  type GpuPolicy,
  type Mode,
  type PodSecurityLevel,
  type PolicyStatus,
  type WindowSpec,
} from './gpu-policy.ts';
import { DEFAULT_POLICY } from './keys.ts';
import { flag, list, object, text } from './raw.ts';

/** A number of things or a share of them: the API takes both `5` and `"5"`. */
const share = (value: unknown, otherwise: string): string =>
  typeof value === 'number' ? String(value) : text<string>(value, otherwise);
const optional = <K extends string>(key: K, value: unknown): Partial<Record<K, string>> =>
  typeof value === 'string' && value !== '' ? ({ [key]: value } as Record<K, string>) : {};

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Milliseconds of a Go-style duration such as `1h30m`, `90s`, `500ms`, `0s`; `undefined` if it is
 * not one.
 */
export function parseDuration(value: string): number | undefined {
  if (value === '0') return 0;
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(value)) return undefined;
  return [...value.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/gy)].reduce(
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
      : {
          podSelector: {
            namespace: text<string>(selector['namespace'], ''),
            matchLabels: object(selector['matchLabels']) as Record<string, string>,
            ...optional('ownerKind', selector['ownerKind']),
          },
        }),
  };
};

const minutes = (n: number): number => n * 60_000;

const driverVolume = (value: unknown): DriverVolume => {
  const raw = object(value);
  return {
    name: text<string>(raw['name'], ''),
    hostPath: text<string>(raw['hostPath'], ''),
    mountPath: text<string>(raw['mountPath'], ''),
    type: text<string>(raw['type'], 'Directory'),
    readOnly: flag(raw['readOnly'], true),
  };
};

const maintenanceWindow = (value: unknown): WindowSpec => {
  const raw = object(value);
  return {
    schedule: text<string>(raw['schedule'], ''),
    duration: duration(raw['duration'], 0),
    timeZone: text<string>(raw['timeZone'], ''),
  };
};

/** A GPUPolicy as the API serves it → ours, every default filled in. */
export function parsePolicy(raw: unknown): GpuPolicy {
  const { metadata, spec, status } = object(raw);
  const meta = object(metadata);
  const s = object(spec);
  const components = object(s['components']);
  const toolkit = object(components['toolkit']);
  const driver = object(components['driver']);
  const devicePlugin = object(components['devicePlugin']);
  const manager = object(driver['manager']);
  const validation = object(s['validation']);
  const validationResources = object(validation['resources']);
  const timeouts = object(validation['timeouts']);
  const backoff = object(validation['backoff']);
  const injection = object(s['injection']);
  const hostPaths = object(s['hostPaths']);
  const rejections = object(s['rejections']);
  const upgrade = object(s['upgrade']);
  const drain = object(upgrade['drain']);
  const canary = object(upgrade['canary']);
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
      allocation: text<Allocation>(s['allocation'], 'DevicePlugin'),
      resources: resources.length === 0 ? ['nvidia.com/gpu', 'nvidia.com/gpu.shared'] : resources,
      deviceClasses: Array.isArray(s['deviceClasses'])
        ? list<string>(s['deviceClasses'])
        : ['gpu.nvidia.com', 'mig.nvidia.com'],
      deviceDrivers: Array.isArray(s['deviceDrivers']) ? list<string>(s['deviceDrivers']) : ['gpu.nvidia.com'],
      deviceTaints: text<'Auto' | 'On' | 'Off'>(s['deviceTaints'], 'Auto'),
      withdrawnPods: text<'Keep' | 'Evict'>(s['withdrawnPods'], 'Keep'),
      components: {
        toolkit: {
          ...component(toolkit, true),
          runtime: text<'containerd' | 'crio'>(toolkit['runtime'], 'containerd'),
          ...optional('configPath', toolkit['configPath']),
          ...optional('socketPath', toolkit['socketPath']),
          ...optional('installDir', toolkit['installDir']),
        },
        driver: {
          ...component(driver, true),
          alsoFor: list<string>(driver['alsoFor']),
          manager: { ...optional('image', manager['image']), ...optional('version', manager['version']) },
        },
        devicePlugin: {
          ...component(devicePlugin, true),
          ...optional('config', devicePlugin['config']),
        },
        draDriver: component(components['draDriver'], true),
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
        resources: {
          requests: object(validationResources['requests']) as Record<string, string | number>,
          limits: object(validationResources['limits']) as Record<string, string | number>,
        },
        timeouts: {
          toolkit: duration(timeouts['toolkit'], minutes(5)),
          driver: duration(timeouts['driver'], minutes(30)),
          driverValidation: duration(timeouts['driverValidation'], minutes(5)),
          devicePlugin: duration(timeouts['devicePlugin'], minutes(5)),
          devicePluginValidation: duration(timeouts['devicePluginValidation'], minutes(5)),
          draDriver: duration(timeouts['draDriver'], minutes(5)),
          draValidation: duration(timeouts['draValidation'], minutes(5)),
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
        driverVolumes: list<unknown>(injection['driverVolumes']).map(driverVolume),
        driverVolumesPreset: text<'None' | 'GKE' | 'DriverContainer' | 'Host'>(
          injection['driverVolumesPreset'],
          'None',
        ),
        env: list<EnvVar>(injection['env']),
        hideUnrequestedGpus: flag(injection['hideUnrequestedGpus'], true),
        tolerations: list<InjectedToleration>(injection['tolerations']),
        claimPods: text<'GateOnly' | 'Full'>(injection['claimPods'], 'GateOnly'),
        othersResources:
          injection['othersResources'] === undefined ? HAMI_RESOURCES : list<string>(injection['othersResources']),
      },
      startupTaint: text<'BringUp' | 'Off'>(s['startupTaint'], 'BringUp'),
      rejectedPods: text<'Report' | 'Delete'>(s['rejectedPods'], 'Report'),
      bringUp: { maxConcurrent: share(object(s['bringUp'])['maxConcurrent'], '10%') },
      upgrade: {
        maxUnavailable: share(upgrade['maxUnavailable'], '1'),
        paused: flag(upgrade['paused'], false),
        drain: {
          mode: text<'Wait' | 'Evict' | 'None'>(drain['mode'], 'Wait'),
          timeout: (typeof drain['timeoutSeconds'] === 'number' ? drain['timeoutSeconds'] : 0) * 1000,
        },
        canary: {
          first: typeof canary['first'] === 'number' ? canary['first'] : 0,
          wait: duration(canary['wait'], 0),
        },
        ...(upgrade['window'] === undefined ? {} : { window: maintenanceWindow(upgrade['window']) }),
      },
      labelHold: duration(s['labelHold'], minutes(5)),
      breaker: text<string>(s['breaker'], '50%'),
      silence: text<string>(s['silence'], '10%'),
      rejections: {
        count: typeof rejections['count'] === 'number' ? rejections['count'] : 5,
        within: duration(rejections['within'], minutes(1)),
      },
    },
  };
}
