// A cluster's DRA objects, as the API has them and as the gate keeps them.
import { claimFacts, classFacts, templateFacts, type Devices } from '../../gate/devices.ts';

const devicesOf = (deviceClassName: string): object => ({
  requests: [{ name: 'gpu', exactly: { deviceClassName } }],
});

/** A claim of that class; allocated on a node if one is given. */
export const rawClaim = (deviceClassName: string, node?: string, driver = 'gpu.nvidia.com'): object => ({
  spec: { devices: devicesOf(deviceClassName) },
  status:
    node === undefined
      ? {}
      : {
          allocation: {
            devices: { results: [{ request: 'gpu', driver, pool: node, device: 'gpu-3' }] },
            nodeSelector: {
              nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: [node] }] }],
            },
          },
        },
});

const rawTemplate = (deviceClassName: string): object => ({
  spec: { spec: { devices: devicesOf(deviceClassName) } },
});

/** Kept from raw objects; claims and templates by `namespace/name`. */
export const devices = (raw: {
  readonly classes?: Readonly<Record<string, object>>;
  readonly claims?: Readonly<Record<string, object>>;
  readonly templates?: Readonly<Record<string, object>>;
}): Devices => ({
  classes: new Map(Object.entries(raw.classes ?? {}).map(([name, one]) => [name, classFacts(one)])),
  claims: new Map(Object.entries(raw.claims ?? {}).map(([name, one]) => [name, claimFacts(one)])),
  templates: new Map(Object.entries(raw.templates ?? {}).map(([name, one]) => [name, templateFacts(one)])),
});

/** What most tests about claims look at; its claims are in the namespace `team`. */
export const DEVICES = devices({
  classes: {
    'gpu.nvidia.com': { spec: { extendedResourceName: 'example.com/gpu' } },
    'by-driver': { spec: { config: [{ opaque: { driver: 'gpu.nvidia.com', parameters: {} } }] } },
    fpga: { spec: { extendedResourceName: 'example.com/fpga' } },
  },
  claims: {
    'team/gpu': rawClaim('gpu.nvidia.com'),
    'team/here': rawClaim('gpu.nvidia.com', 'node-a'),
    'team/there': rawClaim('gpu.nvidia.com', 'node-b'),
    'team/fpga': rawClaim('fpga'),
    'team/own-class': rawClaim('own', 'node-a'),
  },
  templates: { 'team/gpu': rawTemplate('gpu.nvidia.com'), 'team/fpga': rawTemplate('fpga') },
});

/** A part of a raw pod's spec: one claim that its one container uses. */
export const claiming = (how: object): object => ({
  resourceClaims: [{ name: 'device', ...how }],
  containers: [{ name: 'main', resources: { claims: [{ name: 'device' }] } }],
});
