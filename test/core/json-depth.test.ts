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
        expect(nestsDeeper(bytes, depth)).toBe(false);
        if (depth > 0) expect(nestsDeeper(bytes, depth - 1)).toBe(true);
      },
    ),
  ));

it.each([
  ['brackets', Buffer.alloc(1_000_000, '['), true],
  ['objects', Buffer.from('{"a":'.repeat(100_000)), true],
  ['a string without an end', Buffer.from(`"${'['.repeat(1000)}`), false],
  ['a backslash at the end', Buffer.from('"a\\'), false],
  ['a long flat list', Buffer.from(`[${'[],'.repeat(100_000)}1]`), false],
])('takes %s as it is', (_, bytes, deep) => expect(nestsDeeper(bytes, 100)).toBe(deep));
