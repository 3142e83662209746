import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareVersions, cudaOfDriver, isVersion } from '../../gate/versions.ts';

describe('versions', () => {
  it('compare number by number', () => {
    expect(compareVersions('595.91.07', '595.9')).toBeGreaterThan(0);
    expect(compareVersions('580', '580.0')).toBe(0);
    expect(compareVersions('580', '580.1')).toBeLessThan(0);
    expect(compareVersions('580.1', '580')).toBeGreaterThan(0);
    expect(compareVersions('9', '10')).toBeLessThan(0);
  });
  it('compare as lists of their numbers do', () => {
    const numbers = fc.array(fc.integer({ min: 0, max: 99_999 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(numbers, numbers, (a, b) => {
        const [left, right] = [[...a, 0, 0, 0].slice(0, 4), [...b, 0, 0, 0].slice(0, 4)];
        const first = left.findIndex((number, i) => number !== right[i]);
        const wanted = first < 0 ? 0 : Math.sign((left[first] ?? 0) - (right[first] ?? 0));
        expect(Math.sign(compareVersions(a.join('.'), b.join('.')))).toBe(wanted);
      }),
    );
  });
  it.each(['595', '595.71', '595.71.05', '1.2.3.4'])('%j is one', (text) => expect(isVersion(text)).toBe(true));
  it.each(['', 'v595', '470.82-grid', '595.', '.5', '595.71.05.1.2', '5 95', '１'])('%j is none', (text) =>
    expect(isVersion(text)).toBe(false),
  );
});

describe('the CUDA that a driver brings', () => {
  it.each([
    ['450.80.02', '11.0'],
    ['535.247.01', '12.2'],
    // Between two branches of the table, and newer than all of them.
    ['580.95.05', '13.0'],
    ['585.10', '13.0'],
    ['590.48.01', '13.1'],
    ['595.91.07', '13.2'],
    ['720', '13.2'],
    ['340.108', undefined],
  ])('driver %s: %s', (driver, cuda) => expect(cudaOfDriver(driver)).toBe(cuda));
});
