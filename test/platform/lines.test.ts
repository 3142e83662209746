import fc from 'fast-check';
import { expect, it } from 'vitest';
import { lines } from '../../platform/lines.ts';

/** The text in pieces of these lengths. */
async function* pieces(text: string, lengths: readonly number[]): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  let at = 0;
  for (const length of [...lengths, bytes.length]) {
    yield bytes.subarray(at, at + length);
    at += length;
  }
}
const read = (text: string, lengths: readonly number[] = []): Promise<string[]> =>
  Array.fromAsync(lines(pieces(text, lengths)));

it.each([
  ['a line separator of Unicode', '{"a":"x\u2028y"}\n{"b":1}\n', ['{"a":"x\u2028y"}', '{"b":1}']],
  ['a carriage return', 'a\rb\n', ['a\rb']],
  ['an empty line', 'a\n\nb\n', ['a', '', 'b']],
  ['a last line without an end', 'a\nb', ['a', 'b']],
  ['nothing', '', []],
])('keeps %s', async (_, text, expected) => expect(await read(text)).toEqual(expected));

it('gives the same lines however the bytes come', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: 'binary', maxLength: 20 }).map((line) => line.replaceAll('\n', ' ').toWellFormed())),
      fc.array(fc.integer({ min: 1, max: 7 }), { maxLength: 200 }),
      async (wanted, lengths) => {
        expect(await read(wanted.map((line) => `${line}\n`).join(''), lengths)).toEqual(wanted);
      },
    ),
  ));

it('an error of the stream is the reader’s', async () => {
  const broken = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from('a\nb');
    throw new Error('cut');
  };
  const seen: string[] = [];
  await expect(async () => {
    for await (const line of lines(broken())) seen.push(line);
  }).rejects.toThrow('cut');
  expect(seen).toEqual(['a']);
});
