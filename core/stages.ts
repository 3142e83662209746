// The vocabulary of the walk: stages, components and what `gpu-gate.dev/state` may say. Order is meaning here.

/** The ordered stages of a walk; each must be done before the next begins. */
export const STAGES = [
  'preflight',
  'toolkit',
  'driver',
  'driver-validation',
  'device-plugin',
  'device-plugin-validation',
] as const;
export type Stage = (typeof STAGES)[number];

/** Values of the node label `gpu-gate.dev/state`. */
export const STATES = [...STAGES, 'validated', 'draining', 'failed', 'removing'] as const;
export type State = (typeof STATES)[number];

/** What is deployed as DaemonSets, in the order of deployment; the reverse is the order of removal. */
export const COMPONENTS = ['toolkit', 'driver', 'device-plugin', 'dcgm-exporter', 'feature-discovery'] as const;
export type Component = (typeof COMPONENTS)[number];

/** `app.kubernetes.io/component` values of operand and validation pods. */
export const POD_COMPONENT = {
  toolkit: 'container-toolkit',
  driver: 'driver',
  'device-plugin': 'device-plugin',
  'dcgm-exporter': 'dcgm-exporter',
  'feature-discovery': 'feature-discovery',
  'driver-validation': 'driver-validation',
  'device-plugin-validation': 'device-plugin-validation',
} as const satisfies Record<Component | 'driver-validation' | 'device-plugin-validation', string>;
export type PodComponent = keyof typeof POD_COMPONENT;

export const isState = (value: string | undefined): value is State =>
  (STATES as readonly (string | undefined)[]).includes(value);
