// Which product files are pure. Lint holds them to it, and their coverage is measured.

/**
 * A file with one of these names does I/O, keeps time or holds state. Every other product file is
 * pure.
 */
export const SHELLS = [
  'routes',
  'controller',
  'reconciler',
  'caches',
  'apply',
  'keeper',
  '*-chain',
  'store',
  'probe',
  'canary',
  'follower',
  'clock',
  'issue',
  'command',
  'metrics',
];
export const COMPONENTS = ['webhook', 'extender', 'explain', 'reconciler', 'certs', 'kubectl'];
/** Every folder with pure files. */
export const PURE_FOLDERS = ['core', 'gate', ...COMPONENTS];

/** Percentage of the pure files' branches that unit tests cover at least. */
export const COVERED = 95;

/** One glob for several names. */
export const anyOf = (names: readonly string[]): string => `{${names.join(',')}}`;
