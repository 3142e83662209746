import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { printable, printableJson } from '../../core/printable.ts';

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/u;

describe('printable text', () => {
  it.each([
    ['an escape sequence', '\u001B[2J', String.raw`\u001b[2J`],
    ['a C1 control sequence', '\u009B2J', String.raw`\u009b2J`],
    ['a title with a bell', '\u001B]0;x\u0007', String.raw`\u001b]0;x\u0007`],
    ['text written from right to left', 'a\u202Eb', String.raw`a\u202eb`],
    ['a zero-width space', 'a\u200Bb', String.raw`a\u200bb`],
    ['a tag character beyond the basic plane', 'a\u{E0041}b', String.raw`a\udb40\udc41b`],
    ['half of a character', 'a\uD800b', String.raw`a\ud800b`],
    ['lines', 'one\r\n\ttwo\u2028three', 'one two three'],
    ['plain text, which stays', 'Grüße, 漢字 and 👍', 'Grüße, 漢字 and 👍'],
  ])('%s', (_, text, expected) => expect(printable(text)).toBe(expected));

  it('holds nothing invisible and is never longer than asked, whatever came', () => {
    const texts = fc.string({ unit: 'binary', maxLength: 60 });
    fc.assert(
      fc.property(texts, fc.integer({ min: 1, max: 50 }), (text, max) => {
        const shown = printable(text, max);
        // A character that was cut in two would be half of one.
        expect(INVISIBLE.test(shown)).toBe(false);
        expect(shown.length).toBeLessThanOrEqual(max);
      }),
      { numRuns: 2000 },
    );
  });

  it('of a megabyte is read only as far as it is shown', () =>
    expect(printable('\u001B'.repeat(1_000_000), 100)).toHaveLength(100));
});

describe('printable JSON', () => {
  it('reads back as the same value and holds nothing invisible but its indentation', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' })), (value) => {
        const shown = printableJson(value);
        expect(INVISIBLE.test(shown.replaceAll('\n', ''))).toBe(false);
        expect(JSON.parse(shown)).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });
});
