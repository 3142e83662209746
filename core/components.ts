// Components of the GPU stack as a policy names them. Pure.
import type { ComponentSpec, GpuPolicy } from './gpu-policy.ts';
import type { Component } from './stages.ts';

const KEY_OF: Readonly<Record<Component, keyof GpuPolicy['spec']['components']>> = {
  toolkit: 'toolkit',
  driver: 'driver',
  'device-plugin': 'devicePlugin',
  'dcgm-exporter': 'dcgmExporter',
  'feature-discovery': 'featureDiscovery',
};

export const specOf = (policy: GpuPolicy, component: Component): ComponentSpec =>
  policy.spec.components[KEY_OF[component]];

/** Does gpu-gate install it? */
export const isDeployed = (spec: ComponentSpec): boolean => spec.mode === 'managed' && spec.enabled;
