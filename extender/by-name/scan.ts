// Reads a call by names without parsing the names: everything before the list is parsed as JSON,
// the list is walked as bytes. Declines whatever a scheduler would not write (escapes, bytes beyond
// ASCII, a list that is not the last member), so that this file need not know all of JSON.
import type { RawPod } from '../../gate/gpu-request.ts';

const KEY = Buffer.from('"NodeNames":');
const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const BEGIN = 0x7b;
const END = 0x7d;

const isSpace = (byte: number | undefined): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/**
 * A call by names, its names still bytes: name `i` is `body[bounds[2i], bounds[2i + 1])`, quotes
 * not included.
 */
export interface NamedCall {
  readonly pod: RawPod;
  readonly body: Buffer;
  readonly bounds: Int32Array;
  readonly count: number;
}

/** Reads bodies one after the other. */
export class NameScanner {
  /** One buffer for all calls: a call is answered before the next is looked at. */
  #bounds = new Int32Array(2048);

  /** The call, or `undefined` if it is declined. Its `bounds` are good until the next scan. */
  scan(body: Buffer): NamedCall | undefined {
    const key = body.lastIndexOf(KEY);
    if (key < 0 || !isMember(body, key)) return undefined;
    const count = this.#list(body, key + KEY.length);
    if (count < 0) return undefined;
    let head: unknown;
    try {
      // With the list cut out the rest is an object only if the list was a member of the outermost
      // one.
      head = JSON.parse(`${body.toString('utf8', 0, key)}"NodeNames":[]}`);
    } catch {
      return undefined;
    }
    const pod = (head as Record<string, unknown>)['Pod'];
    if (typeof pod !== 'object' || pod === null || Array.isArray(pod)) return undefined;
    return { pod, body, bounds: this.#bounds, count };
  }

  /**
   * Fills the bounds from the list at `from`, which the object's end must follow. Returns how many
   * names, or -1.
   */
  #list(body: Buffer, from: number): number {
    if (body[from] !== OPEN) return -1;
    let bounds = this.#bounds;
    let at = from + 1;
    let count = 0;
    if (body[at] === CLOSE) return isEnd(body, at + 1) ? 0 : -1;
    for (;;) {
      if (body[at] !== QUOTE) return -1;
      at += 1;
      const start = at;
      let byte = body[at] ?? 0;
      while (byte !== QUOTE) {
        // Escapes, control characters, anything beyond ASCII, the end of the body.
        if (byte === BACKSLASH || byte < 0x20 || byte > 0x7e) return -1;
        at += 1;
        byte = body[at] ?? 0;
      }
      if (2 * count + 2 > bounds.length) {
        bounds = new Int32Array(bounds.length * 2);
        bounds.set(this.#bounds);
        this.#bounds = bounds;
      }
      bounds[2 * count] = start;
      bounds[2 * count + 1] = at;
      count += 1;
      at += 1;
      if (body[at] === CLOSE) return isEnd(body, at + 1) ? count : -1;
      if (body[at] !== COMMA) return -1;
      at += 1;
    }
  }
}

/**
 * A quote that begins a member stands after a brace or a comma; one within a string after a
 * backslash.
 */
function isMember(body: Buffer, at: number): boolean {
  let before = at - 1;
  while (before >= 0 && isSpace(body[before])) before -= 1;
  return body[before] === COMMA || body[before] === BEGIN;
}

/** Is there nothing but the object's end? */
function isEnd(body: Buffer, from: number): boolean {
  let at = from;
  while (isSpace(body[at])) at += 1;
  if (body[at] !== END) return false;
  at += 1;
  while (at < body.length && isSpace(body[at])) at += 1;
  return at === body.length;
}
