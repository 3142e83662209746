// The answer to a call by names, written as bytes: names are copied as they came, in runs of
// neighbours that share a verdict. Gives the verdicts of verbs.ts, which answers what this
// declines.
import { NO_SCORE, scoreOf } from '../verbs.ts';
import type { NamedCall } from './scan.ts';
import { ABSENT, TWICE, type NodeTable } from './table.ts';
import { verdict, wouldRefuse, type Ask, type Judged } from '../../gate/verdict.ts';
import type { Reason } from '../../gate/reasons.ts';

export interface FilterAnswer {
  readonly bytes: Buffer;
  readonly passed: number;
  /** How many by the reason's metric label. */
  readonly refused: ReadonlyMap<string, number>;
  /** How many nodes would have been refused if the policy enforced. */
  readonly wouldRefuse: number;
}

/** Bytes that grow. */
class Bytes {
  #bytes = Buffer.allocUnsafe(64 * 1024);
  length = 0;

  copy(from: Buffer, start: number, end: number): void {
    const need = this.length + end - start;
    if (need > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, need));
      larger.set(this.#bytes.subarray(0, this.length));
      this.#bytes = larger;
    }
    const bytes = this.#bytes;
    // For a few dozen bytes a loop costs less than a call of copy.
    if (end - start > 48) from.copy(bytes, this.length, start, end);
    else for (let i = start, to = this.length; i < end; i += 1, to += 1) bytes[to] = from[i] ?? 0;
    this.length = need;
  }

  append(bytes: Buffer): void {
    this.copy(bytes, 0, bytes.length);
  }

  /** The bytes without the comma after the last element. */
  get list(): Buffer {
    return this.#bytes.subarray(0, Math.max(0, this.length - 1));
  }
}

const COMMA = Buffer.from(',');
const HEAD = Buffer.from('{"Nodes":null,"NodeNames":[');
const MIDDLE = Buffer.from('],"FailedNodes":{},"FailedAndUnresolvableNodes":{');
const TAIL = Buffer.from('},"Error":""}');

/** What a call says of one kind of node, and of how many. */
interface Judgement {
  readonly because: Reason | undefined;
  /** The reason as it stands behind a name; `undefined` if the node passes. */
  readonly text: Buffer | undefined;
  readonly would: boolean;
  count: number;
}
const judge = (ask: Ask, node: Judged | undefined): Judgement => {
  const because = verdict(ask, node);
  return {
    because,
    text: because && Buffer.from(`:${JSON.stringify(because.sentence)},`),
    would: wouldRefuse(ask, node),
    count: 0,
  };
};
const sums = (judgements: readonly (Judgement | undefined)[]): Omit<FilterAnswer, 'bytes'> => {
  let passed = 0;
  let would = 0;
  const refused = new Map<string, number>();
  for (const judgement of judgements) {
    if (judgement === undefined) continue;
    const { because, count } = judgement;
    if (because === undefined) passed += count;
    else refused.set(because.label, (refused.get(because.label) ?? 0) + count);
    if (judgement.would) would += count;
  }
  return { passed, refused, wouldRefuse: would };
};

/**
 * Answers calls by names one after the other. Each has a number of its own, by which a name given
 * twice is seen.
 */
export class NameAnswers {
  #calls = 0;
  #passed = new Bytes();
  #refused = new Bytes();

  /** ExtenderFilterResult; `undefined` if a name is given twice, which verbs.ts sorts out. */
  filter(call: NamedCall, ask: Ask, table: NodeTable): FilterAnswer | undefined {
    const { body, bounds, count } = call;
    const [passed, refused] = this.#empty();
    // Names of no node are one more kind.
    const unknown = table.kinds;
    const judgements: (Judgement | undefined)[] = Array.from({ length: unknown + 1 });
    let runFrom = -1;
    let runTo = -1;
    const done = this.#each(call, table, (index, i) => {
      const kind = index === ABSENT ? unknown : table.kindAt(index);
      const judgement = (judgements[kind] ??= judge(ask, table.ofKind(kind)));
      judgement.count += 1;
      const from = (bounds[2 * i] ?? 0) - 1;
      const to = (bounds[2 * i + 1] ?? 0) + 1;
      if (judgement.text === undefined) {
        // Names stand one comma apart: scan.ts lets nothing else through.
        if (runTo < 0) runFrom = from;
        runTo = to;
        return;
      }
      if (runTo >= 0) {
        passed.copy(body, runFrom, runTo);
        passed.append(COMMA);
        runTo = -1;
      }
      refused.copy(body, from, to);
      refused.append(judgement.text);
    });
    if (!done) return undefined;
    if (count > 0 && runTo >= 0) {
      passed.copy(body, runFrom, runTo);
      passed.append(COMMA);
    }
    return { bytes: Buffer.concat([HEAD, passed.list, MIDDLE, refused.list, TAIL]), ...sums(judgements) };
  }

  /** HostPriorityList; `undefined` as for `filter`. `now` in ms since the epoch. */
  prioritize(call: NamedCall, ask: Ask, table: NodeTable, now: number): Buffer | undefined {
    const { body, bounds } = call;
    const [list] = this.#empty();
    const done = this.#each(call, table, (index, i) => {
      list.append(HOST);
      list.copy(body, (bounds[2 * i] ?? 0) - 1, (bounds[2 * i + 1] ?? 0) + 1);
      const score = ask.kind === 'gate' ? scoreOf(table.factsAt(index), now) : NO_SCORE;
      list.append(SCORES[score] ?? COMMA);
    });
    return done ? Buffer.concat([Buffer.from('['), list.list, Buffer.from(']')]) : undefined;
  }

  #empty(): [Bytes, Bytes] {
    this.#passed.length = 0;
    this.#refused.length = 0;
    return [this.#passed, this.#refused];
  }

  /**
   * Visits every name with its node's index, or `ABSENT`, in the order given; false if one is given
   * twice.
   */
  #each(call: NamedCall, table: NodeTable, visit: (index: number, i: number) => void): boolean {
    const { body, bounds, count } = call;
    this.#calls = (this.#calls % 0x3fffffff) + 1;
    let unknown: Set<string> | undefined;
    for (let i = 0; i < count; i += 1) {
      const from = bounds[2 * i] ?? 0;
      const to = bounds[2 * i + 1] ?? 0;
      const index = table.find(body, from, to, this.#calls);
      if (index === TWICE) return false;
      if (index === ABSENT) {
        const name = body.toString('latin1', from, to);
        unknown ??= new Set();
        if (unknown.has(name)) return false;
        unknown.add(name);
      }
      visit(index, i);
    }
    return true;
  }
}

const HOST = Buffer.from('{"Host":');
const SCORES = Array.from({ length: 11 }, (_, score) => Buffer.from(`,"Score":${score}},`));
