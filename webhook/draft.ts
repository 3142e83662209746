// What a decision collects: additions to the pod, and what is reported about them. Every list is
// bounded here, so that no author of a pod can make an answer, a record or a log grow with what he
// wrote. Pure.
import type { AddOperation } from './patch.ts';

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
   * The parts that the pod carries once the operations are applied. Read from
   * the pod's content alone, so that a second call, a copied pod and a forged record all give the
   * same list.
   */
  readonly carried: string[];
  readonly skipped: Skipped[];
  readonly warnings: string[];
  /** How many entries did not fit into `skipped` and `warnings`. */
  readonly more: { skipped: number; warnings: number };
}

/** Entries of a list that are kept; the rest is counted in one line. */
const MAX_WARNINGS = 9;
const MAX_SKIPPED = 30;
/**
 * Characters of a record's entry. Usual names are shorter.
 */
const MAX_ENTRY = 160;

export const emptyDraft = (): Draft => ({
  operations: [],
  injected: [],
  carried: [],
  skipped: [],
  warnings: [],
  more: { skipped: 0, warnings: 0 },
});

/** `how`: 'added' if this draft adds it, 'already' if the pod had it. */
export function carries(draft: Draft, what: string, how: 'added' | 'already'): void {
  if (!draft.carried.includes(what)) draft.carried.push(what);
  if (how === 'added' && !draft.injected.includes(what)) draft.injected.push(what);
}

/** Records what is left out and why, and warns the author if `warning` is given. */
export function skip(draft: Draft, what: string, because: string, warning?: string): void {
  if (draft.skipped.length < MAX_SKIPPED)
    draft.skipped.push({ what: cut(what, MAX_ENTRY), because: cut(because, MAX_ENTRY) });
  else draft.more.skipped += 1;
  if (warning !== undefined) warn(draft, warning);
}

export function warn(draft: Draft, warning: string): void {
  if (draft.warnings.length < MAX_WARNINGS) draft.warnings.push(`gpu-gate: ${warning}`);
  else draft.more.warnings += 1;
}

/** What was left out, the entries beyond the limit as a count. */
export const skippedOf = ({ skipped, more }: Draft): readonly Skipped[] =>
  more.skipped === 0 ? skipped : [...skipped, { what: `${more.skipped} more`, because: 'the list is cut here' }];

/** The warnings, those beyond the limit as a count. */
export const warningsOf = ({ warnings, more }: Draft): readonly string[] =>
  more.warnings === 0
    ? warnings
    : [
        ...warnings,
        `gpu-gate: ${more.warnings} more warnings; annotation gpu-gate.dev/injection lists what was left out`,
      ];

/** Kubernetes wants warnings below 120 characters: the variable part is cut, never the advice. */
export const cut = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length - 1)}…`;
