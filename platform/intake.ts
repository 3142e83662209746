// How much of what callers send and wait for may be in this process at a time: calls, and the bytes
// of their bodies and answers. Servers share one intake, so that no port can use up the memory of
// all.
import type { IncomingMessage } from 'node:http';

export interface IntakeLimits {
  readonly calls: number;
  readonly bytes: number;
  /** Counts what was turned away. */
  readonly refused?: (because: 'calls' | 'bytes') => void;
}

/** One call's share. */
export interface Place {
  /**
   * The call holds this many bytes from now on. If all calls together hold too many, the largest
   * are given up.
   */
  hold(bytes: number): void;
  /** How the call is given up from now on. */
  onGivenUp(giveUp: () => void): void;
  /** The call is over; it holds nothing. */
  end(): void;
}

export interface Intake {
  /** A place for a call, or `undefined` if there are too many. */
  admit(giveUp: () => void): Place | undefined;
  readonly calls: number;
  readonly bytes: number;
}

interface Held {
  bytes: number;
  giveUp: () => void;
}

export function intake(limits: IntakeLimits): Intake {
  const places = new Set<Held>();
  let bytes = 0;
  const release = (held: Held): void => {
    if (places.delete(held)) bytes -= held.bytes;
  };
  /** Small calls survive beside large ones, whichever came first. */
  const largest = (): Held | undefined => {
    let found: Held | undefined;
    for (const held of places) if (found === undefined || held.bytes > found.bytes) found = held;
    return found;
  };
  return {
    admit(giveUp) {
      if (places.size >= limits.calls) {
        limits.refused?.('calls');
        return undefined;
      }
      const held: Held = { bytes: 0, giveUp };
      places.add(held);
      return {
        hold(now) {
          if (!places.has(held)) return;
          bytes += now - held.bytes;
          held.bytes = now;
          while (bytes > limits.bytes) {
            const given = largest();
            if (given === undefined) return;
            release(given);
            limits.refused?.('bytes');
            given.giveUp();
          }
        },
        onGivenUp: (next) => void (held.giveUp = next),
        end: () => release(held),
      };
    },
    get calls() {
      return places.size;
    },
    get bytes() {
      return bytes;
    },
  };
}

/**
 * Where a call carries its place: the server sets it, what reads and answers the call uses it. A
 * WeakMap would keep every call of the last seconds alive through each collection of young objects,
 * because its values refer to their calls.
 */
const PLACE = Symbol('place');
type Placed = IncomingMessage & { [PLACE]?: Place };
export const setPlace = (request: Placed, place: Place): void => void (request[PLACE] = place);
/** `undefined` if the call came through a server without an intake. */
export const placeOf = (request: Placed): Place | undefined => request[PLACE];

/** Limit of this process's memory in bytes: its container's, else the machine's. */
export const memoryLimit = (constrained: number, total: number): number =>
  constrained > 0 && constrained < total ? constrained : total;
