// How much of a node's GPU stack a proof shows.

/**
 * `driver`: CUDA computes on all GPUs through the container runtime, so pods that run there are
 * fine. `full`: so does a pod that asked Kubernetes for a GPU, so new pods may come.
 */
export const LEVELS = ['driver', 'full'] as const;
export type Level = (typeof LEVELS)[number];

export const isLevel = (value: unknown): value is Level => (LEVELS as readonly unknown[]).includes(value);

/** What the annotation `gpu-gate.dev/prove` holds: another value each time it is asked for. */
export const proveValue = (level: Level, now: number): string => `${level}-${Math.floor(now / 1000)}`;

/** The level that such a value asks for; a value of any other form asks for all. */
export const levelAsked = (value: string): Level =>
  LEVELS.find((level) => value === level || value.startsWith(`${level}-`)) ?? 'full';
