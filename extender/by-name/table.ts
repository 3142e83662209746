// What is known of every node, found by the bytes of its name as they stand in a request: making
// strings of 15,000 names only to look them up would be most of a call's work. Flat arrays of
// numbers, because following 15,000 pointers costs more than comparing the names.
import type { Judged, NodeFacts } from '../../gate/verdict.ts';

/** FNV-1a over bytes, cut to 30 bits: a small integer in V8. */
const hashOf = (bytes: Uint8Array, from: number, to: number): number => {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i += 1) hash = Math.imul(hash ^ (bytes[i] ?? 0), 0x01000193);
  return (hash ^ (hash >>> 15)) & 0x3fffffff;
};

const same = (pool: Uint8Array, at: number, bytes: Uint8Array, from: number, to: number): boolean => {
  for (let i = from, j = at; i < to; i += 1, j += 1) if (pool[j] !== bytes[i]) return false;
  return true;
};

/** What `find` returns for a name of no node, and for one that the call has asked for already. */
export const ABSENT = -1;
export const TWICE = -2;

/** Numbers of one slot: index of the node plus one (0 is empty), hash of its name. */
const WIDTH = 2;
const HASH = 1;

const judgedOf = ({ ours, policy, closed, driver, cuda, stack }: NodeFacts): Judged => ({
  ours,
  policy,
  closed,
  driver,
  cuda,
  stack,
});

/**
 * A map from node names to facts with one more way to look up. Open addressing, at most half full.
 * Nodes are of few kinds, as far as a verdict looks, and a call is judged by kind: 15,000 objects
 * would not stay in a processor's cache, a few arrays of numbers do.
 */
export class NodeTable {
  #names: string[] = [];
  #facts: (NodeFacts | undefined)[] = [];
  #indices = new Map<string, number>();
  /** What nodes of a kind have in common, and the kind by the text of that. */
  #kinds: Judged[] = [];
  #kindIndices = new Map<string, number>();
  #slots = new Int32Array(64 * WIDTH);
  /** The bytes of all names, each from its `starts` to that of the next index. */
  #pool = new Uint8Array(1024);
  #starts = new Int32Array(65);
  /** By index: kind, and the last call that asked. */
  #kind = new Int32Array(64);
  #asked = new Int32Array(64);
  /** How many of the names still have facts. */
  #present = 0;

  get(name: string): NodeFacts | undefined {
    const index = this.#indices.get(name);
    return index === undefined ? undefined : this.#facts[index];
  }

  /** `undefined` facts mean that the node is gone. */
  set(name: string, facts: NodeFacts | undefined): void {
    let index = this.#indices.get(name);
    const before = index === undefined ? undefined : this.#facts[index];
    if (index === undefined && facts !== undefined) index = this.#add(name);
    if (index !== undefined) {
      this.#facts[index] = facts;
      this.#kind[index] = facts === undefined ? ABSENT : this.#kindOf(facts);
    }
    this.#present += Number(facts !== undefined) - Number(before !== undefined);
    // A cluster that scales up and down must not fill the memory with names of former nodes.
    // Rebuild only when half of them are gone: a relist may remove thousands one by one, and
    // copying the table for each would be quadratic.
    if (this.#names.length > 64 && this.#present < this.#names.length / 2) this.#rebuild();
  }

  *facts(): Generator<NodeFacts> {
    for (const facts of this.#facts) if (facts !== undefined) yield facts;
  }

  /**
   * Index of the node whose name is `bytes[from, to)`, or `ABSENT`; `TWICE` if this call, a number
   * above 0, has asked for it already.
   */
  find(bytes: Uint8Array, from: number, to: number, call: number): number {
    const hash = hashOf(bytes, from, to);
    const slots = this.#slots;
    const mask = slots.length / WIDTH - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const index = (slots[slot * WIDTH] ?? 0) - 1;
      if (index < 0) return ABSENT;
      if (slots[slot * WIDTH + HASH] !== hash) continue;
      const start = this.#starts[index] ?? 0;
      if ((this.#starts[index + 1] ?? 0) - start !== to - from || !same(this.#pool, start, bytes, from, to)) continue;
      if ((this.#kind[index] ?? ABSENT) === ABSENT) return ABSENT;
      if (this.#asked[index] === call) return TWICE;
      this.#asked[index] = call;
      return index;
    }
  }

  /** How many kinds there are: kinds are numbers below it. */
  get kinds(): number {
    return this.#kinds.length;
  }

  kindAt(index: number): number {
    return this.#kind[index] ?? ABSENT;
  }

  /** What its nodes have in common; `undefined` if the number is not a kind. */
  ofKind(kind: number): Judged | undefined {
    return this.#kinds[kind];
  }

  factsAt(index: number): NodeFacts | undefined {
    return this.#facts[index];
  }

  #kindOf(facts: NodeFacts): number {
    const judged = judgedOf(facts);
    const key = JSON.stringify(judged);
    let kind = this.#kindIndices.get(key);
    if (kind === undefined) {
      kind = this.#kinds.length;
      this.#kinds.push(judged);
      this.#kindIndices.set(key, kind);
    }
    return kind;
  }

  /** Returns the index of a name that has none yet. */
  #add(name: string): number {
    const bytes = Buffer.from(name);
    const index = this.#names.length;
    const start = this.#starts[index] ?? 0;
    if (start + bytes.length > this.#pool.length)
      this.#pool = grown(this.#pool, Uint8Array, Math.max(this.#pool.length * 2, start + bytes.length));
    this.#pool.set(bytes, start);
    if (index === this.#kind.length) {
      this.#starts = grown(this.#starts, Int32Array, index * 2 + 1);
      this.#kind = grown(this.#kind, Int32Array, index * 2);
      this.#asked = grown(this.#asked, Int32Array, index * 2);
    }
    this.#starts[index + 1] = start + bytes.length;
    this.#indices.set(name, index);
    this.#names.push(name);
    if (this.#names.length * 2 * WIDTH > this.#slots.length) {
      const before = this.#slots;
      this.#slots = new Int32Array(before.length * 2);
      for (let at = 0; at < before.length; at += WIDTH)
        if (before[at] !== 0) this.#place(before[at] ?? 0, before[at + HASH] ?? 0);
    }
    this.#place(index + 1, hashOf(bytes, 0, bytes.length));
    return index;
  }

  #place(entry: number, hash: number): void {
    const mask = this.#slots.length / WIDTH - 1;
    let slot = hash & mask;
    while (this.#slots[slot * WIDTH] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot * WIDTH] = entry;
    this.#slots[slot * WIDTH + HASH] = hash;
  }

  /** Keeps the names that have facts, and the kinds that these are of. */
  #rebuild(): void {
    const known = this.#names.flatMap((node, i): [string, NodeFacts][] => {
      const present = this.#facts[i];
      return present === undefined ? [] : [[node, present]];
    });
    this.#names = [];
    this.#facts = [];
    this.#indices = new Map();
    this.#kinds = [];
    this.#kindIndices = new Map();
    this.#slots = new Int32Array(64 * WIDTH);
    this.#pool = new Uint8Array(1024);
    this.#starts = new Int32Array(65);
    this.#kind = new Int32Array(64);
    this.#asked = new Int32Array(64);
    for (const [name, facts] of known) {
      const index = this.#add(name);
      this.#facts[index] = facts;
      this.#kind[index] = this.#kindOf(facts);
    }
  }
}

const grown = <T extends Uint8Array | Int32Array>(from: T, Type: new (length: number) => T, length: number): T => {
  const larger = new Type(length);
  larger.set(from);
  return larger;
};
