// What a DRA driver and its user put into a cluster: ResourceSlices of simulated nodes, classes,
// templates and claims, written by hand.
import { isNotFound, MERGE_PATCH, type Kube } from '../../platform/kube.ts';

const API = '/apis/resource.k8s.io/v1';
const apiVersion = 'resource.k8s.io/v1';
export const GPU_DRIVER = 'gpu.nvidia.com';

/** A slice of GPUs as NVIDIA's driver publishes it: the pool is named after the node. */
interface SliceParts {
  readonly driver?: string;
  readonly devices?: number;
  readonly generation?: number;
  /** How many slices the pool is said to have. */
  readonly count?: number;
  /** Taints by the name of the device. */
  readonly taints?: Readonly<Record<string, readonly object[]>>;
}

const sliceName = (node: string, driver = GPU_DRIVER): string => `${node}-${driver}`;
const sliceOf = (
  node: string,
  { driver = GPU_DRIVER, devices = 8, generation = 1, count = 1, taints = {} }: SliceParts,
): object => ({
  driver,
  nodeName: node,
  pool: { name: node, generation, resourceSliceCount: count },
  devices: Array.from({ length: devices }, (_, i) => {
    const name = `gpu-${i}`;
    const attributes = { type: { string: 'gpu' } };
    return { name, attributes, ...(taints[name] === undefined ? {} : { taints: taints[name] }) };
  }),
});

/** The slice of a node, where there is none yet. */
export const publishSlice = (kube: Kube, node: string, parts: SliceParts = {}): Promise<unknown> =>
  kube.request('POST', `${API}/resourceslices`, {
    body: {
      apiVersion,
      kind: 'ResourceSlice',
      metadata: { name: sliceName(node, parts.driver) },
      spec: sliceOf(node, parts),
    },
  });

/** The slice of a node as it is now, whatever was there before. */
export async function republishSlice(kube: Kube, node: string, parts: SliceParts): Promise<void> {
  const path = `${API}/resourceslices/${sliceName(node, parts.driver)}`;
  try {
    await kube.request('PATCH', path, { contentType: MERGE_PATCH, body: { spec: sliceOf(node, parts) } });
  } catch (error) {
    if (!isNotFound(error)) throw error;
    await publishSlice(kube, node, parts);
  }
}

export async function withdrawSlice(kube: Kube, node: string, driver?: string): Promise<void> {
  try {
    await kube.request('DELETE', `${API}/resourceslices/${sliceName(node, driver)}`);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

/** A class of all devices of a driver; maps an extended resource if one is given. */
export const createClass = (
  kube: Kube,
  name: string,
  driver: string,
  extendedResourceName?: string,
): Promise<unknown> =>
  kube.request('POST', `${API}/deviceclasses`, {
    body: {
      apiVersion,
      kind: 'DeviceClass',
      metadata: { name },
      spec: {
        selectors: [{ cel: { expression: `device.driver == '${driver}'` } }],
        ...(extendedResourceName === undefined ? {} : { extendedResourceName }),
      },
    },
  });

export const exactly = (deviceClassName: string, more: object = {}): object => ({
  devices: { requests: [{ name: 'device', exactly: { deviceClassName, ...more } }] },
});
export const firstOf = (...classes: readonly string[]): object => ({
  devices: {
    requests: [
      {
        name: 'device',
        firstAvailable: classes.map((deviceClassName, i) => ({ name: `choice-${i}`, deviceClassName })),
      },
    ],
  },
});

export const createTemplate = (
  kube: Kube,
  name: string,
  spec: object,
  namespace = 'default',
  labels: Readonly<Record<string, string>> = {},
): Promise<unknown> =>
  kube.request('POST', `${API}/namespaces/${namespace}/resourceclaimtemplates`, {
    body: { apiVersion, kind: 'ResourceClaimTemplate', metadata: { name, labels }, spec: { spec } },
  });

export const createClaim = (kube: Kube, name: string, spec: object, namespace = 'default'): Promise<unknown> =>
  kube.request('POST', `${API}/namespaces/${namespace}/resourceclaims`, {
    body: { apiVersion, kind: 'ResourceClaim', metadata: { name }, spec },
  });

/** A pod whose one container asks as `container` and `spec` say. */
export const createPod = (
  kube: Kube,
  name: string,
  container: object,
  spec: object = {},
  labels: object = {},
): Promise<unknown> =>
  kube.request('POST', '/api/v1/namespaces/default/pods', {
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, labels },
      spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'c', image: 'x', ...container }], ...spec },
    },
  });

/** A pod with one claim, by `resourceClaimName` or `resourceClaimTemplateName`. */
export const createClaimPod = (
  kube: Kube,
  name: string,
  how: object,
  spec: object = {},
  labels: object = {},
): Promise<unknown> =>
  createPod(
    kube,
    name,
    { resources: { claims: [{ name: 'device' }] } },
    { resourceClaims: [{ name: 'device', ...how }], ...spec },
    labels,
  );

/** Names of the devices that a claim has. */
export async function devicesOf(kube: Kube, claim: string, namespace = 'default'): Promise<readonly string[]> {
  const { status } = await kube.request<{
    status?: { allocation?: { devices?: { results?: { device: string }[] } } };
  }>('GET', `${API}/namespaces/${namespace}/resourceclaims/${claim}`);
  return (status?.allocation?.devices?.results ?? []).map(({ device }) => device);
}
