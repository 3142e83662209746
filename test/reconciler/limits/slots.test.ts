import { expect, it } from 'vitest';
import { WALK } from '../../../core/keys.ts';
import { newWalk, type Walk } from '../../../reconciler/walk.ts';
import { shareOf, slots } from '../../../reconciler/limits/slots.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';

it.each([
  ['10%', 100, 10],
  ['10%', 5, 1],
  ['3', 100, 3],
  ['0', 100, 1],
  ['', 100, 1],
  ['much', 100, 1],
])('%j of %i nodes: %i at once', (text, whole, share) => expect(shareOf(text, whole)).toBe(share));

it('a place is free until as many are taken as the policy has, and for who has one', () => {
  const policy = aPolicy({ bringUp: { maxConcurrent: '1' } });
  const nodes = [aNode({ name: 'a' }), aNode({ name: 'b' })];
  const places = slots();
  expect(places.free('a', policy, nodes)).toBe(true);
  expect(places.note('a', 'default')).toBe(false);
  expect([places.free('a', policy, nodes), places.free('b', policy, nodes)]).toEqual([true, false]);
  expect(places.note('a', undefined)).toBe(true);
  expect(places.free('b', policy, nodes)).toBe(true);
  expect(places.note('a', undefined)).toBe(false);
});

it('other policies have places of their own', () => {
  const places = slots();
  places.note('a', 'other');
  expect(places.free('b', aPolicy({ bringUp: { maxConcurrent: '1' } }), [])).toBe(true);
});

it('on take-over those hold a place whose first walk is under way', () => {
  const walking = (name: string, more: Partial<Walk>) =>
    aNode({ name, annotations: { [WALK]: JSON.stringify({ ...newWalk(`uid-${name}`, 'boot-1', NOW), ...more }) } });
  const failed = { stage: 'driver', reason: 'x', message: 'x', at: 'x', retryAt: 'x', inputs: 'x' } as const;
  const policy = aPolicy({ bringUp: { maxConcurrent: '1' } });
  for (const [more, free] of [
    [{ stage: 'driver' }, false],
    [{ stage: 'preflight' }, true],
    [{ stage: 'driver', once: true }, true],
    [{ stage: 'driver', failed }, true],
  ] as const) {
    const places = slots();
    places.recall([walking('a', more)]);
    expect(places.free('b', policy, []), JSON.stringify(more)).toBe(free);
  }
});
