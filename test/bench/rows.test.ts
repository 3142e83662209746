import { describe, expect, it } from 'vitest';
import { blockQuantile, quantile } from '../../bench/rows.ts';

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe('quantiles', () => {
  it('are values of the list, in whatever order it is', () => {
    expect(quantile([3, 1, 2], 0.5)).toBe(2);
    expect(quantile(upTo(1000), 0.99)).toBe(990);
    expect(quantile(upTo(3), 1)).toBe(2);
    expect(quantile([], 0.5)).toBeNaN();
  });
  it('of blocks: a burst spoils its own block, and what is in every block counts', () => {
    const calm = upTo(1000).map((i) => i % 100);
    const burst = calm.map((value, i) => (i >= 500 && i < 600 ? value + 5000 : value));
    expect(blockQuantile(burst, 0.99, 100)).toBe(blockQuantile(calm, 0.99, 100));
    expect(quantile(burst, 0.99)).toBeGreaterThan(5000);
    const often = calm.map((value, i) => (i % 100 >= 98 && i >= 400 ? value + 5000 : value));
    expect(blockQuantile(often, 0.99, 100)).toBe(blockQuantile(calm, 0.99, 100));
    const slow = calm.map((value, i) => (i % 50 === 0 ? value + 5000 : value));
    expect(blockQuantile(slow, 0.99, 100)).toBeGreaterThan(5000);
  });
  it('of fewer values than a block are those of all', () => expect(blockQuantile(upTo(50), 0.5, 100)).toBe(25));
});
