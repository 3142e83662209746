// The components of a GPU stack in one table: what each is called in pods, in a GPUPolicy and by
// the GPU Operator.
import type { Allocation, ComponentSpec, GpuPolicy } from './gpu-policy.ts';

interface Names {
  /** Value of the pod label `app.kubernetes.io/component`. */
  readonly pod: string;
  /** Key below `spec.components` of a GPUPolicy. */
  readonly policy: keyof GpuPolicy['spec']['components'];
  /** Suffix of the GPU Operator's node label `nvidia.com/gpu.deploy.<suffix>`. */
  readonly operator: string;
}

const TABLE = {
  toolkit: { pod: 'container-toolkit', policy: 'toolkit', operator: 'container-toolkit' },
  driver: { pod: 'driver', policy: 'driver', operator: 'driver' },
  'device-plugin': { pod: 'device-plugin', policy: 'devicePlugin', operator: 'device-plugin' },
  'dra-driver': { pod: 'dra-driver', policy: 'draDriver', operator: 'dra-driver' },
  'dcgm-exporter': { pod: 'dcgm-exporter', policy: 'dcgmExporter', operator: 'dcgm-exporter' },
  'feature-discovery': { pod: 'feature-discovery', policy: 'featureDiscovery', operator: 'gpu-feature-discovery' },
} as const satisfies Record<string, Names>;

/** What is deployed as a DaemonSet. */
export type Component = keyof typeof TABLE;
export const namesOf = (component: Component): Names => TABLE[component];

/** All components in the order of deployment; the reverse is the order of removal. */
export const COMPONENTS = Object.keys(TABLE) as readonly Component[];

/** `app.kubernetes.io/component` of operand and validation pods. */
export const POD_COMPONENT = {
  toolkit: TABLE.toolkit.pod,
  driver: TABLE.driver.pod,
  'device-plugin': TABLE['device-plugin'].pod,
  'dra-driver': TABLE['dra-driver'].pod,
  'dcgm-exporter': TABLE['dcgm-exporter'].pod,
  'feature-discovery': TABLE['feature-discovery'].pod,
  'driver-validation': 'driver-validation',
  'device-plugin-validation': 'device-plugin-validation',
  'dra-validation': 'dra-validation',
} as const;
export type PodComponent = keyof typeof POD_COMPONENT;

export const specOf = (policy: GpuPolicy, component: Component): ComponentSpec =>
  policy.spec.components[TABLE[component].policy];

/** The component by which GPUs reach pods, for each way. A node has one of them. */
export const ALLOCATORS = {
  DevicePlugin: 'device-plugin',
  DRA: 'dra-driver',
} as const satisfies Record<Allocation, Component>;
const ALLOCATOR_NAMES: readonly Component[] = Object.values(ALLOCATORS);
export const isAllocator = (component: string): boolean => (ALLOCATOR_NAMES as readonly string[]).includes(component);

/** Is the component part of the policy's stack? Of the allocators it has one. */
export const isPartOf = (component: Component, policy: GpuPolicy): boolean =>
  !isAllocator(component) || ALLOCATORS[policy.spec.allocation] === component;

/** Does the policy have gpu-gate deploy the component? */
export function isDeployed(component: Component, policy: GpuPolicy): boolean {
  const { mode, enabled } = specOf(policy, component);
  return mode === 'managed' && enabled && isPartOf(component, policy);
}

/** Components that gate nothing: they come after the proof and follow the policy at once. */
export const FOLLOWING: readonly Component[] = ['dcgm-exporter', 'feature-discovery'];
/** Components without which a node is not validated. */
export const GATING: readonly Component[] = COMPONENTS.filter((component) => !FOLLOWING.includes(component));
