import { expect, it } from 'vitest';
import { canonical, digestOf } from '../../core/digest.ts';

it('a digest is the beginning of the SHA-256', () => expect(digestOf('abc', 8)).toBe('ba7816bf'));
it('equal values have equal canonical JSON, however their keys are ordered', () => {
  const [a, b] = [
    { x: [{ p: 1, q: null }], y: 'z' },
    { y: 'z', x: [{ q: null, p: 1 }] },
  ];
  expect(JSON.stringify(canonical(a))).toBe(JSON.stringify(canonical(b)));
  expect(JSON.stringify(canonical({ b: 1, a: [2, 1] }))).toBe('{"a":[2,1],"b":1}');
});
