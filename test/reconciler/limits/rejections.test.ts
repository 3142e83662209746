import { expect, it } from 'vitest';
import { rejections } from '../../../reconciler/limits/rejections.ts';

const LIMIT = { count: 3, within: 60_000 };
const aPod = (uid: string, at: number) => ({ uid, words: `GPU is lost (${uid})`, at });

it('so many pods within the time reach the limit, with the kubelet’s words on the last one', () => {
  const all = rejections();
  expect(['a', 'b'].map((uid, i) => all.add('n', aPod(uid, i * 1000), LIMIT))).toEqual([false, false]);
  expect(all.reached('n')).toBeUndefined();
  expect(all.add('n', aPod('c', 2000), LIMIT)).toBe(true);
  expect(all.reached('n')).toEqual({ count: 3, words: 'GPU is lost (c)', at: 2000 });
  expect(all.reached('other')).toBeUndefined();
});

it('a pod that is seen again counts once', () => {
  const all = rejections();
  for (let i = 0; i < 5; i += 1) expect(all.add('n', aPod('a', i), LIMIT)).toBe(false);
});

it('pods that were rejected too long ago do not count', () => {
  const all = rejections();
  for (const [i, uid] of ['a', 'b', 'c', 'd'].entries()) expect(all.add('n', aPod(uid, i * 40_000), LIMIT)).toBe(false);
});

it('after the limit was reached, as many pods are needed again', () => {
  const all = rejections();
  const add = (uid: string): boolean => all.add('n', aPod(uid, 0), LIMIT);
  expect(['a', 'b', 'c', 'd', 'e', 'f'].map(add)).toEqual([false, false, true, false, false, true]);
  expect(add('a')).toBe(false);
});

it('a node that is gone is forgotten', () => {
  const all = rejections();
  for (const uid of ['a', 'b', 'c']) all.add('n', aPod(uid, 0), LIMIT);
  all.forget('n');
  expect(all.reached('n')).toBeUndefined();
  expect(all.add('n', aPod('d', 0), LIMIT)).toBe(false);
});
