// The vocabulary of the walk: its stages, and the values of the label `gpu-gate.dev/state`. Their
// order is the walk's.

/**
 * The ordered stages of a walk; each must be done before the next begins. A node goes through those
 * of the device plugin or those of the DRA driver.
 */
export const STAGES = [
  'preflight',
  'toolkit',
  'driver',
  'driver-validation',
  'device-plugin',
  'device-plugin-validation',
  'dra-driver',
  'dra-validation',
] as const;
export type Stage = (typeof STAGES)[number];

/** Values of the node label `gpu-gate.dev/state`. */
export const STATES = [...STAGES, 'validated', 'draining', 'failed', 'removing'] as const;
export type State = (typeof STATES)[number];

export const isState = (value: string | undefined): value is State =>
  (STATES as readonly (string | undefined)[]).includes(value);
