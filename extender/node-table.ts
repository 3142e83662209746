// What is known of every node, found by the bytes of its name as they stand in a request: the list of names is the work of a
// call, and turning 15,000 of them into strings only to look them up would be most of it. Pure: a data structure.
import type { NodeFacts } from './verdict.ts';

interface Entry {
  readonly name: string;
  readonly hash: number;
  /** Of its name's bytes in the pool. */
  readonly at: number;
  readonly length: number;
  facts: NodeFacts | undefined;
  /** Number of the last call that asked for it: shows a name that is given twice. */
  askedIn: number;
}

/** FNV-1a over bytes, 32 bits. */
const hashOf = (bytes: Uint8Array, from: number, to: number): number => {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i += 1) hash = Math.imul(hash ^ (bytes[i] ?? 0), 0x01000193);
  return hash >>> 0;
};

/** A map from node names to facts with one more way to look up. Open addressing, at most half full. */
export class NodeTable {
  #entries: Entry[] = [];
  #byName = new Map<string, Entry>();
  /** Index of an entry plus one, 0: empty. */
  #slots = new Int32Array(64);
  #pool = new Uint8Array(1024);
  #used = 0;

  get(name: string): NodeFacts | undefined {
    return this.#byName.get(name)?.facts;
  }

  /** undefined: the node is gone. */
  set(name: string, facts: NodeFacts | undefined): void {
    const present = this.#byName.get(name);
    if (present !== undefined) present.facts = facts;
    else if (facts !== undefined) this.#add(name, facts);
    // A cluster that scales up and down must not fill the memory with names of nodes that were.
    if (facts === undefined && this.#entries.length > 64) {
      const known = this.#entries.filter((entry) => entry.facts !== undefined);
      if (known.length < this.#entries.length / 2) this.#rebuild(known);
    }
  }

  *facts(): Generator<NodeFacts> {
    for (const { facts } of this.#entries) if (facts !== undefined) yield facts;
  }

  /** Facts of the node whose name is `bytes[from, to)`; `'twice'` where this call has asked for it before. */
  find(bytes: Uint8Array, from: number, to: number, call: number): NodeFacts | 'twice' | undefined {
    const hash = hashOf(bytes, from, to);
    const mask = this.#slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const index = this.#slots[slot] ?? 0;
      if (index === 0) return undefined;
      const entry = this.#entries[index - 1];
      if (entry?.hash !== hash || entry.length !== to - from || !this.#same(entry.at, bytes, from, to)) continue;
      if (entry.facts === undefined) return undefined;
      if (entry.askedIn === call) return 'twice';
      entry.askedIn = call;
      return entry.facts;
    }
  }

  #same(at: number, bytes: Uint8Array, from: number, to: number): boolean {
    for (let i = from; i < to; i += 1) if (this.#pool[at + i - from] !== bytes[i]) return false;
    return true;
  }

  #add(name: string, facts: NodeFacts): void {
    const bytes = Buffer.from(name);
    if (this.#used + bytes.length > this.#pool.length) {
      const larger = new Uint8Array(Math.max(this.#pool.length * 2, this.#used + bytes.length));
      larger.set(this.#pool);
      this.#pool = larger;
    }
    this.#pool.set(bytes, this.#used);
    const hash = hashOf(bytes, 0, bytes.length);
    const entry: Entry = { name, hash, at: this.#used, length: bytes.length, facts, askedIn: -1 };
    this.#used += bytes.length;
    this.#entries.push(entry);
    this.#byName.set(name, entry);
    if (this.#entries.length * 2 > this.#slots.length) {
      this.#slots = new Int32Array(this.#slots.length * 2);
      for (const [index, { hash: old }] of this.#entries.entries()) this.#place(old, index);
    } else this.#place(hash, this.#entries.length - 1);
  }

  #place(hash: number, index: number): void {
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = index + 1;
  }

  #rebuild(known: readonly Entry[]): void {
    this.#entries = [];
    this.#byName = new Map();
    this.#slots = new Int32Array(64);
    this.#pool = new Uint8Array(1024);
    this.#used = 0;
    for (const { name, facts } of known) if (facts !== undefined) this.#add(name, facts);
  }
}
