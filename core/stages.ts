// The vocabulary of the walk: its stages, and the values of the label `gpu-gate.dev/state`. Their
// order is the walk's.

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

export const isState = (value: string | undefined): value is State =>
  (STATES as readonly (string | undefined)[]).includes(value);
