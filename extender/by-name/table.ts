// What is known of every node, found by the bytes of its name as they stand in a request: making
// strings of 15,000 names only to look them up would be most of a call's work. Flat arrays of
// numbers, because following 15,000 pointers costs more than comparing the names.
import type { NodeFacts } from '../../gate/verdict.ts';

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

/**
 * Numbers of one slot, side by side: index of the node plus one (0 is empty), hash, where its name
 * begins in the pool, its length, the last call that asked.
 */
const WIDTH = 5;
const INDEX = 0;
const HASH = 1;
const AT = 2;
const LENGTH = 3;
const ASKED = 4;

/**
 * A map from node names to facts with one more way to look up. Open addressing, at most half full.
 */
export class NodeTable {
  #names: string[] = [];
  #facts: (NodeFacts | undefined)[] = [];
  #indices = new Map<string, number>();
  #slots = new Int32Array(64 * WIDTH);
  #pool = new Uint8Array(1024);
  #used = 0;
  /** How many of the names still have facts. */
  #present = 0;

  get(name: string): NodeFacts | undefined {
    const index = this.#indices.get(name);
    return index === undefined ? undefined : this.#facts[index];
  }

  /** `undefined` facts mean that the node is gone. */
  set(name: string, facts: NodeFacts | undefined): void {
    const index = this.#indices.get(name);
    const before = index === undefined ? undefined : this.#facts[index];
    if (index !== undefined) this.#facts[index] = facts;
    else if (facts !== undefined) this.#add(name, facts);
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
   * Facts of the node whose name is `bytes[from, to)`; `'twice'` if this call, a number above 0,
   * has asked for it already.
   */
  find(bytes: Uint8Array, from: number, to: number, call: number): NodeFacts | 'twice' | undefined {
    const hash = hashOf(bytes, from, to);
    const slots = this.#slots;
    const mask = slots.length / WIDTH - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const at = slot * WIDTH;
      const index = slots[at + INDEX] ?? 0;
      if (index === 0) return undefined;
      if (
        slots[at + HASH] !== hash ||
        slots[at + LENGTH] !== to - from ||
        !same(this.#pool, slots[at + AT] ?? 0, bytes, from, to)
      )
        continue;
      const facts = this.#facts[index - 1];
      if (facts === undefined) return undefined;
      if (slots[at + ASKED] === call) return 'twice';
      slots[at + ASKED] = call;
      return facts;
    }
  }

  #add(name: string, facts: NodeFacts): void {
    const bytes = Buffer.from(name);
    if (this.#used + bytes.length > this.#pool.length) {
      const larger = new Uint8Array(Math.max(this.#pool.length * 2, this.#used + bytes.length));
      larger.set(this.#pool);
      this.#pool = larger;
    }
    this.#pool.set(bytes, this.#used);
    this.#indices.set(name, this.#names.length);
    this.#names.push(name);
    this.#facts.push(facts);
    if (this.#names.length * 2 * WIDTH > this.#slots.length) {
      const before = this.#slots;
      this.#slots = new Int32Array(before.length * 2);
      for (let at = 0; at < before.length; at += WIDTH)
        if (before[at] !== 0) this.#place(before.subarray(at, at + WIDTH));
    }
    this.#place([this.#names.length, hashOf(bytes, 0, bytes.length), this.#used, bytes.length, 0]);
    this.#used += bytes.length;
  }

  #place(slot: ArrayLike<number>): void {
    const mask = this.#slots.length / WIDTH - 1;
    let at = (slot[HASH] ?? 0) & mask;
    while (this.#slots[at * WIDTH + INDEX] !== 0) at = (at + 1) & mask;
    this.#slots.set(slot, at * WIDTH);
  }

  #rebuild(): void {
    const known = this.#names.flatMap((node, i): [string, NodeFacts][] => {
      const present = this.#facts[i];
      return present === undefined ? [] : [[node, present]];
    });
    this.#names = [];
    this.#facts = [];
    this.#indices = new Map();
    this.#slots = new Int32Array(64 * WIDTH);
    this.#pool = new Uint8Array(1024);
    this.#used = 0;
    for (const [name, facts] of known) this.#add(name, facts);
  }
}
