import { describe, expect, it } from 'vitest';
import { compareVersions, cudaOfDriver, isVersion } from '../../core/versions.ts';

describe('versions', () => {
  it('compare number by number', () => {
    expect(compareVersions('595.91.07', '595.9')).toBeGreaterThan(0);
    expect(compareVersions('580', '580.0')).toBe(0);
    expect(compareVersions('9', '10')).toBeLessThan(0);
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
