import fc from 'fast-check';
import { expect, it } from 'vitest';
import { nestsDeeper } from '../../core/json-depth.ts';

const depthOf = (value: unknown): number =>
  typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;

it('knows the depth of any JSON, whatever its strings hold', () =>
  fc.assert(
    fc.property(
      fc.jsonValue({ maxDepth: 5, stringUnit: fc.constantFrom('"', '\\', '[', '{', ']', 'a', '\u2028') }),
      (value) => {
        const bytes = Buffer.from(JSON.stringify(value));
        const depth = depthOf(value);
        expect(nestsDeeper([bytes], depth)).toBe(false);
        if (depth > 0) expect(nestsDeeper([bytes], depth - 1)).toBe(true);
      },
    ),
  ));

it('takes parts for the one text that they make, wherever it was cut', () =>
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom('"', '\\', '[', '{', ']', '}', 'a'), { maxLength: 30 }),
      fc.array(fc.nat(30), { maxLength: 3 }),
      fc.nat(3),
      (letters, cuts, limit) => {
        const whole = Buffer.from(letters.join(''));
        const places = [0, ...cuts.toSorted((a, b) => a - b), whole.length];
        const parts = places.slice(1).map((place, i) => whole.subarray(places[i], place));
        expect(nestsDeeper(parts, limit)).toBe(nestsDeeper([whole], limit));
      },
    ),
  ));

it.each([
  ['brackets', Buffer.alloc(1_000_000, '['), true],
  ['objects', Buffer.from('{"a":'.repeat(100_000)), true],
  ['a string without an end', Buffer.from(`"${'['.repeat(1000)}`), false],
  ['a backslash at the end', Buffer.from('"a\\'), false],
  ['a long flat list', Buffer.from(`[${'[],'.repeat(100_000)}1]`), false],
])('takes %s as it is', (_, bytes, deep) => expect(nestsDeeper([bytes], 100)).toBe(deep));
