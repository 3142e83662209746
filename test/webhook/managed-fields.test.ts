import fc from 'fast-check';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseReview, withoutManagedFields } from '../../webhook/managed-fields.ts';

const GOLDEN = join(import.meta.dirname, '..', 'golden', 'admission');
/** Every list of managed fields emptied: all that may differ. */
const rest = (value: unknown): string =>
  JSON.stringify(value, (key, inner: unknown) => (key === 'managedFields' && Array.isArray(inner) ? [] : inner));
const bytes = (text: string): Buffer => Buffer.from(text);
const parsed = (text: string): unknown => {
  const result = parseReview(bytes(text), () => false);
  return typeof result === 'string' ? result : result.value;
};

const MARKS = [
  '"object":{',
  ',"managedFields":[',
  ']},"spec":{',
  ']',
  '}',
  '"',
  '\\',
  'x,',
  '日本',
  '"managedFields":[',
];
const text = fc.array(fc.constantFrom(...MARKS), { maxLength: 3 }).map((parts) => parts.join(''));
const key = fc.oneof(text, fc.constantFrom('managedFields', 'object', 'spec', 'metadata', '__proto__'));
const { value: anything } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    text,
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(key, tie('value'), { maxKeys: 3 }),
  ),
}));
/**
 * As Go writes one, with anything at all where a client may choose: before the list, in it, after
 * it, and around the object.
 */
const review = fc
  .record({
    extra: anything,
    labels: fc.dictionary(key, text, { maxKeys: 2 }),
    fields: fc.oneof(fc.array(anything, { maxLength: 3 }), fc.constant(undefined)),
    later: fc.oneof(anything, fc.constant(undefined)),
    spec: fc.dictionary(key, anything, { maxKeys: 2 }),
    oldObject: anything,
  })
  .map(({ extra, labels, fields, later, spec, oldObject }) => ({
    kind: 'AdmissionReview',
    request: {
      uid: 'u',
      userInfo: { extra },
      object: { kind: 'Pod', metadata: { name: 'p', labels, managedFields: fields, later }, spec, status: {} },
      oldObject,
    },
  }));

describe('a review without its managed fields', () => {
  it.each(readdirSync(GOLDEN))('%s, as captured from an API server: shorter, and the same but for them', (file) => {
    const golden = JSON.parse(readFileSync(join(GOLDEN, file), 'utf8')) as { review: object };
    const whole = JSON.stringify(golden.review);
    expect(whole).toContain(',"managedFields":[{');
    expect(Buffer.concat(withoutManagedFields(bytes(whole)) ?? []).length).toBeLessThan(whole.length - 300);
    expect(parsed(whole)).not.toEqual(golden.review);
    expect(rest(parsed(whole))).toBe(rest(golden.review));
  });

  it('5,000 generated ones, with the marks in strings, keys and nested lists: the same but for them', () => {
    let left = 0;
    fc.assert(
      fc.property(review, (made) => {
        const whole = JSON.stringify(made);
        if (withoutManagedFields(bytes(whole)) !== undefined) left += 1;
        expect(rest(parsed(whole))).toBe(rest(JSON.parse(whole)));
      }),
      { numRuns: 5000 },
    );
    expect(left).toBeGreaterThan(300);
  });

  it.each([
    [
      'a list that ends within an entry',
      '{"object":{"a":1,"managedFields":[{"x":{"y":[1]},"spec":{"z":1}}]},"spec":{}}',
    ],
    ['a field after the list', '{"object":{"m":{"a":1,"managedFields":[{}],"labels":{"a":"b"},"f":["x"]},"spec":{}}}'],
    ['white space', '{"object":{"m":{"a":1, "managedFields": []}, "spec":{}}}'],
    ['a bracket in a string of the list', '{"object":{"m":{"a":1,"managedFields":[{"f:]":{}}]},"spec":{}}}'],
  ])('%s: the whole is parsed', (_, whole) => expect(parsed(whole)).toEqual(JSON.parse(whole)));

  it.each(['', '{"object":{', '{"object":{"a":1,"managedFields":[]},"spec":{'])('%j is not JSON', (junk) =>
    expect(parsed(junk)).toBe('not-json'),
  );

  it('what nests too deep is not parsed: in what is read at first, or in the whole', () => {
    const seen: string[] = [];
    const tooDeep = (answer: number) => (parts: readonly Buffer[]) => {
      seen.push(parts.map(String).join(''));
      return seen.length === answer;
    };
    const odd = '{"object":{"a":1,"managedFields":[{"x":{"y":[1]},"spec":{"z":1}}]},"spec":{}}';
    expect(parseReview(bytes(odd), tooDeep(1))).toBe('too-deep');
    expect(seen.splice(0)).toEqual(['{"object":{"a":1,"managedFields":[]},"spec":{"z":1}}]},"spec":{}}']);
    expect(parseReview(bytes(odd), tooDeep(2))).toBe('too-deep');
    expect(seen[1]).toBe(odd);
  });
});
