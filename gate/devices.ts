// Dynamic Resource Allocation, as far as the gate looks at it: which DeviceClasses, claims and
// templates mean GPUs of a policy. No CEL is read: a class counts by its name, or by a driver that
// its own configuration names.
import { list, object, text } from '../core/raw.ts';

/** Prefix of the extended resource that every DeviceClass has without naming one. */
export const IMPLICIT_CLASS = 'deviceclass.resource.kubernetes.io/';

/** A DeviceClass. */
export interface ClassFacts {
  /** The extended resource that it maps; empty if none. */
  readonly resource: string;
  /** Drivers that its configuration is for. */
  readonly drivers: readonly string[];
}

export interface AllocatedDevice {
  readonly driver: string;
  readonly pool: string;
  readonly device: string;
}

/** A ResourceClaim, or the template of claims. */
export interface ClaimFacts {
  /** DeviceClasses of its requests, those of `firstAvailable` too. */
  readonly classes: readonly string[];
  /** Drivers that its configuration is for, and those of the devices that it was given. */
  readonly drivers: readonly string[];
  /** Empty if it is not allocated. */
  readonly devices: readonly AllocatedDevice[];
  /** The only node that can use its devices; `undefined` if it is not allocated, or several can. */
  readonly node: string | undefined;
}

/** What is known of the cluster's devices, from memory. */
export interface Devices {
  readonly classes: {
    get(name: string): ClassFacts | undefined;
    entries(): Iterable<readonly [string, ClassFacts]>;
  };
  /** By `namespace/name`. */
  readonly claims: { get(key: string): ClaimFacts | undefined };
  /** By `namespace/name`. */
  readonly templates: {
    get(key: string): ClaimFacts | undefined;
    entries(): Iterable<readonly [string, ClaimFacts]>;
  };
}

/** A cluster that serves no resource.k8s.io. */
export const NO_DEVICES: Devices = { classes: new Map(), claims: new Map(), templates: new Map() };

/** What a policy counts as GPUs. */
export interface GpuKinds {
  /** Exact names of extended resources, and `nvidia.com/mig-*`. */
  readonly resources: readonly string[];
  readonly deviceClasses: readonly string[];
  readonly deviceDrivers: readonly string[];
}

const driversIn = (config: unknown): readonly string[] =>
  list<unknown>(config).flatMap((one) => {
    const driver = text(object(object(one)['opaque'])['driver'], '');
    return driver === '' ? [] : [driver];
  });

const unique = (values: readonly string[]): readonly string[] => [...new Set(values)];

/** Raw DeviceClass → what is kept. */
export function classFacts(raw: unknown): ClassFacts {
  const spec = object(object(raw)['spec']);
  return { resource: text(spec['extendedResourceName'], ''), drivers: unique(driversIn(spec['config'])) };
}

function requestedClasses(requests: unknown): readonly string[] {
  return list<unknown>(requests).flatMap((request) => {
    const { exactly, firstAvailable } = object(request);
    return [exactly, ...list<unknown>(firstAvailable)].flatMap((one) => {
      const name = text(object(one)['deviceClassName'], '');
      return name === '' ? [] : [name];
    });
  });
}

const factsOf = (devices: unknown, allocation: unknown): ClaimFacts => {
  const { requests, config } = object(devices);
  const allocated = list<unknown>(object(object(allocation)['devices'])['results']).map((result): AllocatedDevice => {
    const { driver, pool, device } = object(result);
    return { driver: text(driver, ''), pool: text(pool, ''), device: text(device, '') };
  });
  return {
    classes: unique(requestedClasses(requests)),
    drivers: unique([...driversIn(config), ...allocated.map(({ driver }) => driver)]),
    devices: allocated,
    node: onlyNode(object(allocation)['nodeSelector']),
  };
};

/** As the scheduler writes it for devices of one node. */
function onlyNode(selector: unknown): string | undefined {
  const terms = list<unknown>(object(selector)['nodeSelectorTerms']);
  const fields = list<unknown>(object(terms[0])['matchFields']);
  if (terms.length !== 1 || fields.length !== 1) return undefined;
  const { key, operator, values } = object(fields[0]);
  const names = list<unknown>(values);
  return key === 'metadata.name' && operator === 'In' && names.length === 1 ? text(names[0], '') : undefined;
}

/** Raw ResourceClaim → what is kept. */
export const claimFacts = (raw: unknown): ClaimFacts => {
  const { spec, status } = object(raw);
  return factsOf(object(spec)['devices'], object(status)['allocation']);
};

/** Raw ResourceClaimTemplate → what is kept of the claims that are made from it. */
export const templateFacts = (raw: unknown): ClaimFacts =>
  factsOf(object(object(object(raw)['spec'])['spec'])['devices'], undefined);

/** An entry of a pod's `spec.resourceClaims`. */
export interface WantedClaim {
  /** Name by which containers refer to it; empty for the claim of an extended resource. */
  readonly entry: string;
  /** Name of the claim; `undefined` if Kubernetes has not made it yet. */
  readonly claim: string | undefined;
  /** Name of its template; `undefined` if it has none. */
  readonly template: string | undefined;
}

const named = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);

/** The claims of a raw pod, with the names that Kubernetes gave them. */
export function wantedClaims(spec: unknown, status: unknown): readonly WantedClaim[] {
  const { resourceClaims } = object(spec);
  const { resourceClaimStatuses, extendedResourceClaimStatus } = object(status);
  const mapped = named(object(extendedResourceClaimStatus)['resourceClaimName']);
  if (resourceClaims === undefined && mapped === undefined) return NO_CLAIMS;
  const made = new Map(
    list<unknown>(resourceClaimStatuses).map((one) => [object(one)['name'], named(object(one)['resourceClaimName'])]),
  );
  const claims = list<unknown>(resourceClaims).map((value): WantedClaim => {
    const { name, resourceClaimName, resourceClaimTemplateName } = object(value);
    return {
      entry: text(name, ''),
      claim: named(resourceClaimName) ?? made.get(name),
      template: named(resourceClaimTemplateName),
    };
  });
  return mapped === undefined ? claims : [...claims, { entry: '', claim: mapped, template: undefined }];
}
const NO_CLAIMS: readonly WantedClaim[] = [];

/**
 * Is this a GPU resource of the policy? `resources` holds exact names, and `nvidia.com/mig-*` for
 * every MIG profile.
 */
export const isGpuResource = (name: string, resources: readonly string[]): boolean =>
  resources.some((wanted) => (wanted.endsWith('*') ? name.startsWith(wanted.slice(0, -1)) : name === wanted));

const isGpuClass = (name: string, kinds: GpuKinds, { classes }: Devices): boolean =>
  kinds.deviceClasses.includes(name) ||
  classes.get(name)?.drivers.some((driver) => kinds.deviceDrivers.includes(driver)) === true;

/** Does the extended resource stand for a DeviceClass of the policy? */
export function isMappedGpu(resource: string, kinds: GpuKinds, devices: Devices): boolean {
  if (resource.startsWith(IMPLICIT_CLASS)) return isGpuClass(resource.slice(IMPLICIT_CLASS.length), kinds, devices);
  for (const [name, facts] of devices.classes.entries())
    if (facts.resource === resource && isGpuClass(name, kinds, devices)) return true;
  return false;
}

/** The extended resources that classes of the policy map. */
export const mappedResources = (kinds: GpuKinds, devices: Devices): readonly string[] =>
  [...devices.classes.entries()].flatMap(([name, { resource }]) =>
    resource !== '' && isGpuClass(name, kinds, devices) ? [resource] : [],
  );

/** A claim of a pod, looked up. */
export interface FoundClaim {
  readonly wanted: WantedClaim;
  /** Of the claim, or of its template until the claim is known; `undefined` if neither is known. */
  readonly facts: ClaimFacts | undefined;
  /** Is it for a GPU of the policy? `undefined` if it is not known. */
  readonly gpu: boolean | undefined;
}

/** Looks a claim of a pod in that namespace up. */
export function foundClaim(wanted: WantedClaim, namespace: string, kinds: GpuKinds, devices: Devices): FoundClaim {
  const { claim, template } = wanted;
  const facts =
    (claim === undefined ? undefined : devices.claims.get(`${namespace}/${claim}`)) ??
    (template === undefined ? undefined : devices.templates.get(`${namespace}/${template}`));
  return { wanted, facts, gpu: facts === undefined ? undefined : isGpuClaim(facts, kinds, devices) };
}

const isGpuClaim = ({ classes, drivers }: ClaimFacts, kinds: GpuKinds, devices: Devices): boolean =>
  classes.some((name) => isGpuClass(name, kinds, devices)) ||
  drivers.some((driver) => kinds.deviceDrivers.includes(driver));

/** Where the API has them, and what is kept of each. */
export const DEVICE_WATCHES = {
  classes: { path: '/apis/resource.k8s.io/v1/deviceclasses', trim: classFacts },
  claims: { path: '/apis/resource.k8s.io/v1/resourceclaims', trim: claimFacts },
  templates: { path: '/apis/resource.k8s.io/v1/resourceclaimtemplates', trim: templateFacts },
} as const;

/** What a process that gates pods says once on a cluster without these kinds. */
export const CLAIMS_NOT_SERVED =
  'the API server does not serve resource.k8s.io/v1, so no pod can ask for a GPU by a claim that gpu-gate sees; GPUs of device plugins are gated as usual';
