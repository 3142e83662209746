// What the reconciler installs, and under which name each part of the project and NVIDIA know it.
import type { ComponentSpec, GpuPolicy } from './gpu-policy.ts';
import { COMPONENTS, type Component } from './stages.ts';

interface Names {
  /** Key below `spec.components` of a GPUPolicy. */
  readonly policy: keyof GpuPolicy['spec']['components'];
  /** What the GPU Operator calls it in its labels `nvidia.com/gpu.deploy.…`. */
  readonly operator: string;
  /** A node is not validated without it. */
  readonly gates: boolean;
}

export const NAMES: Readonly<Record<Component, Names>> = {
  toolkit: { policy: 'toolkit', operator: 'container-toolkit', gates: true },
  driver: { policy: 'driver', operator: 'driver', gates: true },
  'device-plugin': { policy: 'devicePlugin', operator: 'device-plugin', gates: true },
  'dcgm-exporter': { policy: 'dcgmExporter', operator: 'dcgm-exporter', gates: false },
  'feature-discovery': { policy: 'featureDiscovery', operator: 'gpu-feature-discovery', gates: false },
};

export const specOf = (policy: GpuPolicy, component: Component): ComponentSpec =>
  policy.spec.components[NAMES[component].policy];

/** Does the policy have the reconciler install it? */
export const isDeployed = (spec: ComponentSpec): boolean => spec.mode === 'managed' && spec.enabled;

/** Those that a node must have before it opens, and those that follow. */
export const GATING: readonly Component[] = COMPONENTS.filter((component) => NAMES[component].gates);
export const FOLLOWING: readonly Component[] = COMPONENTS.filter((component) => !NAMES[component].gates);
