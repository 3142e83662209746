import { expect, it } from 'vitest';
import { silence } from '../../../reconciler/limits/silence.ts';
import { aPolicy } from '../../builders/objects.ts';

const GRACE = 60_000;

it.each([
  [2, 5, false],
  [3, 5, true],
  [3, 30, false],
  [4, 30, true],
  [100, 1000, false],
  [101, 1000, true],
])('%i silent nodes of %i are the control plane: %j', (silent, managed, excused) => {
  const all = silence();
  all.note(aPolicy(), silent, managed, 0);
  expect(all.excuses('default', GRACE, 1)).toBe(excused);
});

it('the share is the policy’s, and one policy says nothing about another', () => {
  const all = silence();
  all.note(aPolicy({ silence: '50%' }), 50, 100, 0);
  expect(all.excuses('default', GRACE, 1)).toBe(false);
  all.note(aPolicy({ silence: '50%' }), 51, 100, 0);
  expect([all.excuses('default', GRACE, 1), all.excuses('other', GRACE, 1)]).toEqual([true, false]);
});

it('nodes that do not report yet when most do get another grace time', () => {
  const all = silence();
  all.note(aPolicy(), 40, 100, 0);
  all.note(aPolicy(), 1, 100, 1000);
  expect([GRACE - 1, GRACE].map((now) => all.excuses('default', GRACE, now))).toEqual([true, false]);
});

it('on take-over a silent node has a grace time', () => {
  const all = silence();
  all.recall([aPolicy()], 5000);
  expect([5000, 5000 + GRACE].map((now) => all.excuses('default', GRACE, now))).toEqual([true, false]);
});
