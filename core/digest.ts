// Short digests of values: names of revisions, rounds and Events.
import { createHash } from 'node:crypto';

/** The first `length` hexadecimal digits of the SHA-256 of a text. */
export const digestOf = (text: string, length: number): string =>
  createHash('sha256').update(text).digest('hex').slice(0, length);

/** The value with the keys of every object sorted, so that equal values have equal JSON. */
export const canonical = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, canonical(inner)]),
  );
};
