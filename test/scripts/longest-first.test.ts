import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { shuffled, SLOW, slowFirst } from '../../scripts/longest-first.ts';

it('slow files come first, in their order; the others stay as they are', () => {
  const files = ['/t/b.test.ts', '/t/node/gate.test.ts', '/t/a.test.ts', '/t/node/rollout.test.ts'];
  expect(slowFirst(files, (file) => file)).toEqual([
    '/t/node/rollout.test.ts',
    '/t/node/gate.test.ts',
    '/t/b.test.ts',
    '/t/a.test.ts',
  ]);
});

it.each(SLOW)('%s is a file', (name) =>
  expect(existsSync(join(import.meta.dirname, '..', 'control-plane', `${name}.test.ts`))).toBe(true),
);

it('a seed is an order: the same again, and another one for another seed', () => {
  const files = ['a', 'b', 'c', 'd', 'e', 'f'];
  const of = (seed: number): readonly string[] => shuffled(files, (file) => file, seed);
  expect(of(1)).toEqual(of(1));
  expect(of(1).toSorted()).toEqual(files);
  expect(new Set([1, 2, 3].map((seed) => of(seed).join(' '))).size).toBe(3);
});
