import { expect, it } from 'vitest';
import { WALK } from '../../../core/keys.ts';
import { BRING_UP, places as placesOf, shareOf } from '../../../reconciler/limits/places.ts';
import { newWalk, type Walk } from '../../../reconciler/walk.ts';
import { aNode, NOW } from '../../builders/objects.ts';

it.each([
  ['10%', 100, 10],
  ['10%', 5, 1],
  ['3', 100, 3],
  ['0', 100, 1],
  ['', 100, 1],
  ['much', 100, 1],
])('%j of %i nodes: %i at once', (text, whole, share) => expect(shareOf(text, whole)).toBe(share));

const ONE = 1;

it('a place is free until as many are taken as the policy has, and for the node that holds one', () => {
  const places = placesOf(BRING_UP);
  expect(places.free('a', 'default', ONE)).toBe(true);
  places.hold('a', 'default');
  expect([places.free('a', 'default', ONE), places.free('b', 'default', ONE)]).toEqual([true, false]);
  expect(places.release('a')).toBe('default');
  expect(places.free('b', 'default', ONE)).toBe(true);
  expect(places.release('a')).toBeUndefined();
});

it('other policies have places of their own', () => {
  const places = placesOf(BRING_UP);
  places.hold('a', 'other');
  expect(places.free('b', 'default', ONE)).toBe(true);
});

it('a freed place wakes one waiting node, the first that came, and is kept for it', () => {
  const places = placesOf(BRING_UP);
  places.hold('a', 'default');
  for (const name of ['b', 'c', 'd']) places.wait(name, 'default');
  expect(places.invite('default', ONE)).toEqual([]);
  places.release('a');
  expect(places.invite('default', ONE)).toEqual(['b']);
  expect(places.invite('default', ONE)).toEqual([]);
  expect([places.free('b', 'default', ONE), places.free('late', 'default', ONE)]).toEqual([true, false]);
});

it('an invited node that does not take its place passes it on', () => {
  const places = placesOf(BRING_UP);
  for (const name of ['b', 'c']) places.wait(name, 'default');
  expect(places.invite('default', ONE)).toEqual(['b']);
  expect(places.release('b')).toBe('default');
  expect(places.invite('default', ONE)).toEqual(['c']);
});

it('those that wait are invited when places become more', () => {
  const places = placesOf(BRING_UP);
  places.hold('a', 'default');
  for (const name of ['b', 'c', 'd']) places.wait(name, 'default');
  expect(places.invite('default', 3)).toEqual(['b', 'c']);
});

it('on take-over the nodes whose first walk is under way hold a place', () => {
  const walking = (name: string, more: Partial<Walk>) =>
    aNode({ name, annotations: { [WALK]: JSON.stringify({ ...newWalk(`uid-${name}`, 'boot-1', NOW), ...more }) } });
  const failed = { stage: 'driver', reason: 'x', message: 'x', at: 'x', retryAt: 'x', inputs: 'x' } as const;
  for (const [more, free] of [
    [{ stage: 'driver' }, false],
    [{ stage: 'preflight' }, true],
    [{ stage: 'driver', proven: 'boot-0' }, true],
    [{ stage: 'driver', failed }, true],
  ] as const) {
    const places = placesOf(BRING_UP);
    places.recall([walking('a', more)]);
    expect(places.free('b', 'default', ONE), JSON.stringify(more)).toBe(free);
  }
});
