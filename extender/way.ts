// How a call of the scheduler is answered from the bytes of its body: by-name/way.ts takes the
// calls that schedulers write, plain.ts every call.
import type { Ask } from '../gate/verdict.ts';
import type { NodeTable } from './by-name/table.ts';
import type { View } from './verbs.ts';

/** What is known, nodes by the bytes of their names too. */
export interface TableView extends View {
  readonly nodes: NodeTable;
}

/** What the metrics count of a filter call. */
export interface Tally {
  readonly ask: Ask;
  readonly nodes: number;
  readonly passed: number;
  /** How many nodes by the reason's metric label. */
  readonly refused: ReadonlyMap<string, number>;
  /** How many nodes would have been refused if the policy enforced. */
  readonly wouldRefuse: number;
}

/** The answer, or one sentence on why there is none. */
export type Answered =
  | { readonly ok: true; readonly body: string | Buffer; readonly tally?: Tally }
  | {
      readonly ok: false;
      readonly because: string;
      /** The call is fine, but nothing can be answered yet. */
      readonly withheld?: true;
    };

/**
 * A pod whose claim is not known yet gets an Error, which makes the scheduler try it again after a
 * second. A refusal would leave it waiting for an event that may not come.
 */
export const withheld = (ask: Ask): Answered | undefined =>
  ask.kind === 'unknown' ? { ok: false, because: ask.detail, withheld: true } : undefined;

/** Each verb returns `undefined` if the way declines the call. */
export interface Way {
  filter(body: Buffer, view: TableView): Answered | undefined;
  /** `now` in ms since the epoch. */
  prioritize(body: Buffer, view: TableView, now: number): Answered | undefined;
}
