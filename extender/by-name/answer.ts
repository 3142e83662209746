// The answer to a call by names, written as bytes: names are copied as they came, in runs where neighbours share a verdict. The
// same verdicts as filter.ts gives, which stays the plain way for every call that names.ts leaves alone. Pure.
import { NO_SCORE, scoreOf } from '../verbs.ts';
import type { NamedCall } from './scan.ts';
import type { NodeTable } from './table.ts';
import { refusal, type Ask, type NodeFacts } from '../../gate/verdict.ts';

export interface FilterAnswer {
  readonly bytes: Buffer;
  readonly passed: number;
  /** How many by reason. */
  readonly refused: ReadonlyMap<string, number>;
  /** How many would have been refused, were the policy to enforce. */
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
    // Below some dozen bytes a call of copy costs more than a loop.
    if (end - start > 48) from.copy(bytes, this.length, start, end);
    else for (let i = start, to = this.length; i < end; i += 1, to += 1) bytes[to] = from[i] ?? 0;
    this.length = need;
  }

  append(bytes: Buffer): void {
    this.copy(bytes, 0, bytes.length);
  }

  /** Takes the comma after the last element away. */
  get list(): Buffer {
    return this.#bytes.subarray(0, Math.max(0, this.length - 1));
  }
}

const COMMA = Buffer.from(',');
const HEAD = Buffer.from('{"Nodes":null,"NodeNames":[');
const MIDDLE = Buffer.from('],"FailedNodes":{},"FailedAndUnresolvableNodes":{');
const TAIL = Buffer.from('},"Error":""}');

/** Answers calls by names, one after the other, each under a number of its own so that a name given twice shows. */
export class NameAnswers {
  readonly #table: NodeTable;
  #calls = 0;
  #passed = new Bytes();
  #refused = new Bytes();

  constructor(table: NodeTable) {
    this.#table = table;
  }

  /** ExtenderFilterResult; undefined where a name is given twice, which the plain way sorts out. */
  filter(call: NamedCall, ask: Ask): FilterAnswer | undefined {
    const { body, bounds, count } = call;
    const [passed, refused] = this.#empty();
    const reasons = new Map<string, { count: number; readonly text: Buffer }>();
    const gate = ask.kind === 'gate' ? ask : undefined;
    const would = ask.kind === 'pass' ? ask.would : undefined;
    const always = ask.kind === 'refuse' ? ask.because : undefined;
    let passes = 0;
    let wouldRefuse = 0;
    let runFrom = -1;
    let runTo = -1;
    const done = this.#each(call, (facts, i) => {
      const because = gate === undefined ? always : refusal(gate, facts);
      if (would !== undefined && refusal(would, facts) !== undefined) wouldRefuse += 1;
      const from = (bounds[2 * i] ?? 0) - 1;
      const to = (bounds[2 * i + 1] ?? 0) + 1;
      if (because === undefined) {
        passes += 1;
        // Names stand one comma apart: names.ts lets nothing else through.
        if (runTo < 0) runFrom = from;
        runTo = to;
        return;
      }
      if (runTo >= 0) {
        passed.copy(body, runFrom, runTo);
        passed.append(COMMA);
        runTo = -1;
      }
      let reason = reasons.get(because);
      if (reason === undefined) {
        reason = { count: 0, text: Buffer.from(`:${JSON.stringify(because)},`) };
        reasons.set(because, reason);
      }
      reason.count += 1;
      refused.copy(body, from, to);
      refused.append(reason.text);
    });
    if (!done) return undefined;
    if (count > 0 && runTo >= 0) {
      passed.copy(body, runFrom, runTo);
      passed.append(COMMA);
    }
    return {
      bytes: Buffer.concat([HEAD, passed.list, MIDDLE, refused.list, TAIL]),
      passed: passes,
      refused: new Map([...reasons].map(([because, reason]) => [because, reason.count])),
      wouldRefuse,
    };
  }

  /** HostPriorityList; undefined as for `filter`. `now` in ms since the epoch. */
  prioritize(call: NamedCall, ask: Ask, now: number): Buffer | undefined {
    const { body, bounds } = call;
    const [list] = this.#empty();
    const done = this.#each(call, (facts, i) => {
      list.append(HOST);
      list.copy(body, (bounds[2 * i] ?? 0) - 1, (bounds[2 * i + 1] ?? 0) + 1);
      list.append(SCORES[ask.kind === 'gate' ? scoreOf(facts, now) : NO_SCORE] ?? COMMA);
    });
    return done ? Buffer.concat([Buffer.from('['), list.list, Buffer.from(']')]) : undefined;
  }

  #empty(): [Bytes, Bytes] {
    this.#passed.length = 0;
    this.#refused.length = 0;
    return [this.#passed, this.#refused];
  }

  /** Every name with its facts, in the order given; false where one is given twice. */
  #each(call: NamedCall, visit: (facts: NodeFacts | undefined, i: number) => void): boolean {
    const { body, bounds, count } = call;
    this.#calls = (this.#calls % 0x3fffffff) + 1;
    let unknown: Set<string> | undefined;
    for (let i = 0; i < count; i += 1) {
      const from = bounds[2 * i] ?? 0;
      const to = bounds[2 * i + 1] ?? 0;
      const facts = this.#table.find(body, from, to, this.#calls);
      if (facts === 'twice') return false;
      if (facts === undefined) {
        const name = body.toString('latin1', from, to);
        unknown ??= new Set();
        if (unknown.has(name)) return false;
        unknown.add(name);
      }
      visit(facts, i);
    }
    return true;
  }
}

const HOST = Buffer.from('{"Host":');
const SCORES = Array.from({ length: 11 }, (_, score) => Buffer.from(`,"Score":${score}},`));
