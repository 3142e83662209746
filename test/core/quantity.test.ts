import { describe, expect, it } from 'vitest';
import { amountOf, readQuantity } from '../../core/quantity.ts';

const MAX = 2n ** 63n - 1n;

describe('a quantity', () => {
  it.each<[unknown, bigint]>([
    ['0', 0n],
    ['1', 1n],
    [2, 2n],
    ['+3', 3n],
    ['-3', -3n],
    ['1k', 1000n],
    ['1Ki', 1024n],
    ['2M', 2_000_000n],
    ['1Mi', 1_048_576n],
    ['1.5k', 1500n],
    ['1e3', 1000n],
    ['1E3', 1000n],
    ['1E', 10n ** 18n],
    ['1Ei', 2n ** 60n],
    ['12e-1', 2n],
    ['100m', 1n],
    ['1n', 1n],
    ['-1u', -1n],
    ['0.1Ki', 103n],
    ['.5', 1n],
    ['5.', 5n],
    ['0e9', 0n],
    ['0.0Ki', 0n],
    ['1e-400', 1n],
    ['8Ei', MAX],
    ['1e999999999999', MAX],
    ['-1e99', -MAX],
    [1e21, MAX],
  ])('%j is %s', (text, amount) => expect(readQuantity(text)).toBe(amount));
  it.each([
    '',
    'x',
    '1x',
    '1ki',
    '1e',
    '1 ',
    ' 1',
    '--1',
    '1.1.1',
    '1e3Ki',
    '0x10',
    '1_000',
    null,
    undefined,
    {},
    [],
    true,
  ])('%j is not one', (value) => {
    expect(readQuantity(value)).toBeUndefined();
    expect(amountOf(value)).toBe(0);
  });
  it('that is longer than any that means something is not read', () =>
    expect(readQuantity('1'.repeat(1_000_000))).toBeUndefined());
  it('is a number to count with', () => expect(amountOf('1k')).toBe(1000));
});
