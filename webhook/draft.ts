// What a decision collects: additions to the raw pod, and what is said of them. Pure.

export interface AddOperation {
  readonly op: 'add';
  readonly path: string;
  readonly value: unknown;
}

export interface Skipped {
  readonly what: string;
  readonly because: string;
}

/** The order of rules is the order of the patch. */
export interface Draft {
  readonly operations: AddOperation[];
  /** The parts of the policy that these operations add. */
  readonly injected: string[];
  /**
   * The parts that the pod carries once they are applied, whoever put them there: told from the pod's content alone, so that a second
   * call, a copied pod and a forged record all come to the same list.
   */
  readonly carried: string[];
  readonly skipped: Skipped[];
  readonly warnings: string[];
}

export const emptyDraft = (): Draft => ({ operations: [], injected: [], carried: [], skipped: [], warnings: [] });

/** `how`: by an operation of this draft, or without one. */
export function carries(draft: Draft, what: string, how: 'added' | 'already'): void {
  if (!draft.carried.includes(what)) draft.carried.push(what);
  if (how === 'added' && !draft.injected.includes(what)) draft.injected.push(what);
}

export function skip(draft: Draft, what: string, because: string, warning?: string): void {
  draft.skipped.push({ what, because });
  if (warning !== undefined) draft.warnings.push(`gpu-gate: ${warning}`);
}

/** Kubernetes asks for warnings below 120 characters: the variable part of one gives way, never the advice. */
export const cut = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length - 1)}…`;

export const add = (path: string, value: unknown): AddOperation => ({ op: 'add', path, value });

/** Adds to a list, which is made where there is none (null counts as none). */
export const append = (
  path: string,
  present: readonly unknown[] | null | undefined,
  values: readonly unknown[],
): AddOperation[] => (Array.isArray(present) ? values.map((value) => add(`${path}/-`, value)) : [add(path, values)]);

/** Adds a key to a map, which is made where there is none. */
export const put = (
  path: string,
  present: Readonly<Record<string, string>> | null | undefined,
  key: string,
  value: string,
): AddOperation[] =>
  typeof present === 'object' && present !== null
    ? [add(`${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, value)]
    : [add(path, { [key]: value })];
