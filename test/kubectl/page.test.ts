// What the status page makes of reports, and what it is sent.
import { describe, expect, it } from 'vitest';
import type { Fleet, NodeReport } from '../../kubectl/fleet.ts';
import {
  chosen,
  columnsOf,
  gpusOf,
  headline,
  inSight,
  NOTHING,
  squareAt,
  squareOf,
  squareSize,
  stateCounts,
  toneOf,
  updated,
  whatOf,
  type Known,
} from '../../kubectl/page/model.ts';
import { updateOf } from '../../kubectl/updates.ts';

const aNode = (name: string, more: Partial<NodeReport> = {}): NodeReport => ({
  name,
  policy: 'default',
  state: 'validated',
  open: true,
  reason: '',
  message: '',
  since: '',
  tookMs: {},
  gpus: [],
  next: '',
  ...more,
});
const aFleet = (nodes: readonly NodeReport[], more: Partial<Fleet> = {}): Fleet => ({
  ...NOTHING.rest,
  nodes,
  ...more,
});
const shownAfter = (...fleets: readonly Fleet[]): Known => {
  let before: Fleet | undefined;
  let known = NOTHING;
  for (const fleet of fleets) {
    known = updated(known, updateOf(before, fleet, 'now'));
    before = fleet;
  }
  return known;
};
const FAILED = aNode('c', { state: 'failed', open: false, reason: 'GPU stack failed: driver', message: 'insmod' });
const DRIVER = aNode('a', { state: 'driver', open: false, reason: 'GPU stack not validated: driver' });

describe('updates', () => {
  it('the first has everything, the next what differs', () => {
    const before = aFleet([aNode('a'), aNode('b'), aNode('c')]);
    const after = aFleet([aNode('a'), aNode('b', { open: false }), aNode('d')], { problems: ['p'] });
    expect(updateOf(undefined, before, 'now').nodes).toHaveLength(3);
    expect(updateOf(before, after, 'now')).toMatchObject({
      nodes: [{ name: 'b', open: false }, { name: 'd' }],
      gone: ['c'],
      rest: { problems: ['p'] },
    });
  });
  it('the first of a stream counts alone: what was shown before is forgotten', () =>
    expect([
      ...updated(shownAfter(aFleet([aNode('a')])), updateOf(undefined, aFleet([aNode('b')]), 'now')).nodes.keys(),
    ]).toEqual(['b']));
  it('put together they are the last report', () => {
    const last = aFleet([aNode('b', { open: false }), aNode('d')], { problems: ['p'] });
    const known = shownAfter(aFleet([aNode('a'), aNode('b')]), aFleet([aNode('b')]), last, last);
    expect([...known.nodes.values()]).toEqual(last.nodes);
    expect(known.rest.problems).toEqual(['p']);
  });
});

describe('nodes', () => {
  const nodes = [aNode('n10'), aNode('n9', { state: 'unmanaged', open: false }), aNode('n2'), FAILED, DRIVER];
  const names = (search: string, states: readonly NodeReport['state'][] = []): readonly string[] =>
    chosen(nodes, { search, states: new Set(states) }).map(({ name }) => name);
  it('failed ones first, then those on their way, then by number', () =>
    expect(names('')).toEqual(['c', 'a', 'n2', 'n10', 'n9']));
  it.each([
    ['a name', 'N1', ['n10']],
    ['a reason', 'stack failed', ['c']],
    ['words of the message in any order', 'insmod c', ['c']],
    ['nothing that is there', 'xyz', []],
  ])('are found by %s', (_, search, found) => expect(names(search)).toEqual(found));
  it('are chosen by states, and by words among them', () => {
    expect(names('', ['failed', 'driver'])).toEqual(['c', 'a']);
    expect(names('insmod', ['driver'])).toEqual([]);
  });
  it('have a tone: closed ones are not good', () =>
    expect(
      [aNode('x'), aNode('x', { open: false }), FAILED, aNode('x', { state: 'unmanaged', open: false })].map(toneOf),
    ).toEqual(['good', 'busy', 'bad', 'quiet']));
  it('say what is awaited, else why they are not open', () =>
    expect([aNode('x', { message: 'all is well' }), FAILED, DRIVER].map(whatOf)).toEqual([
      '',
      'insmod',
      'GPU stack not validated: driver',
    ]));
  it('count GPUs of all resources', () =>
    expect(
      gpusOf(
        aNode('x', {
          gpus: [
            { resource: 'a', offered: 4, used: 1 },
            { resource: 'b', offered: 2, used: 2 },
          ],
        }),
      ),
    ).toEqual({ used: 3, offered: 6 }));
});

it('the headline counts problems, open nodes and pods', () => {
  const pod = { namespace: 'n', name: 'p', since: '', reason: '', next: '' };
  expect(headline(shownAfter(aFleet([])))).toBe('no problem, 0 of 0 GPU nodes open, 0 pods wait');
  const known = shownAfter(
    aFleet([aNode('a'), FAILED, aNode('u', { state: 'unmanaged', open: false })], { problems: ['p'], waiting: [pod] }),
  );
  expect(headline(known)).toBe('1 problem, 1 of 2 GPU nodes open, 1 pod waits');
});

it('states are counted in the order of the walk', () =>
  expect(stateCounts({ unmanaged: 1, validated: 2, driver: 3 }).map(({ state }) => state)).toEqual([
    'driver',
    'validated',
    'unmanaged',
  ]));

describe('rows in sight', () => {
  it.each([
    ['at the top', 5000, 0, 340, { from: 0, to: 20 }],
    ['in the middle', 5000, 3400, 340, { from: 90, to: 120 }],
    ['at the end', 100, 3060, 340, { from: 80, to: 100 }],
    ['of few', 3, 0, 340, { from: 0, to: 3 }],
    ['of fewer than were scrolled to', 3, 3400, 340, { from: 3, to: 3 }],
  ])('%s', (_, count, scrolled, height, rows) => expect(inSight(count, 34, scrolled, height)).toEqual(rows));
});

describe('the overview', () => {
  it.each([
    [3, 900, 11],
    [5000, 900, 5],
    [100_000, 900, 3],
    [3, 0, 11],
  ])('%i nodes in %i pixels: squares of %i', (count, width, size) => expect(squareSize(count, width)).toBe(size));
  it('finds the square at a point, and none beside them', () => {
    const columns = columnsOf(900, 11);
    const { x, y } = squareAt(100, columns);
    expect(squareOf(x * 11 + 5, y * 11 + 5, 11, columns, 200)).toBe(100);
    expect(squareOf(x * 11 + 5, y * 11 + 5, 11, columns, 100)).toBeUndefined();
    expect(squareOf(895, 5, 11, columns, 200)).toBeUndefined();
    expect(squareOf(-1, 5, 11, columns, 200)).toBeUndefined();
  });
});
