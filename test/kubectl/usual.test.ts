// How long stages take and usually take, and where a node's walk stands.
import { describe, expect, it } from 'vitest';
import { NODE_POLICY, WALK } from '../../core/keys.ts';
import type { Stage } from '../../core/stages.ts';
import { stagesOf, timelineOf, tookOf, usualTimes } from '../../kubectl/usual.ts';
import { aNode } from '../builders/objects.ts';

const took = (name: string, tookMs: unknown, policy = 'default') =>
  aNode({
    name,
    annotations: { [NODE_POLICY]: policy, [WALK]: JSON.stringify({ node: `uid-${name}`, stage: 'done', tookMs }) },
  });

describe('what a node took', () => {
  it.each([
    ['stages', { driver: 180_000, toolkit: 0 }, { driver: 180_000, toolkit: 0 }],
    ['what is not a stage', { sleep: 5 }, {}],
    ['what is not a time', { driver: -1, toolkit: 'x', preflight: null }, {}],
    ['nothing that can be read', 'x', {}],
  ])('is read: %s', (_, tookMs, read) => expect(tookOf(took('a', tookMs))).toEqual(read));
  it('counts only for this Node object', () => {
    const node = took('a', { driver: 1 });
    expect(tookOf({ ...node, metadata: { ...node.metadata, uid: 'another' } })).toEqual({});
  });
  it.each([undefined, '', '{', 'null', '[]'])('is nothing where its memory is %j', (text) =>
    expect(tookOf(aNode({ annotations: text === undefined ? {} : { [WALK]: text } }))).toEqual({}),
  );
});

describe('the usual time', () => {
  it.each([
    ['of one node', [7000], 7000],
    ['is the one in the middle', [9_000_000, 1000, 3000], 3000],
    ['or between the two there', [1000, 4000], 2500],
  ])('%s', (_, times, usual) =>
    expect(usualTimes(times.map((driver, i) => took(`n${i}`, { driver })))).toEqual({ default: { driver: usual } }),
  );
  it('is of nodes of one GPUPolicy', () =>
    expect(usualTimes([took('a', { driver: 1 }), took('b', { driver: 9 }, 'l4')])).toEqual({
      default: { driver: 1 },
      l4: { driver: 9 },
    }));
  it('is not known where no node has passed the stage', () => expect(usualTimes([aNode()])).toEqual({ default: {} }));
});

describe('the walk of a node', () => {
  const stages = stagesOf(aNode());
  const hows = (at: Stage | undefined, hasFailed = false): readonly string[] =>
    timelineOf(stages, at, hasFailed, {}, {}).map(({ how }) => how);
  it('is passed up to where it stands', () => {
    expect(hows('driver')).toEqual(['passed', 'passed', 'now', 'to come', 'to come', 'to come']);
    expect(hows('driver', true)[2]).toBe('failed');
    expect(hows(undefined)).toEqual(stages.map(() => 'passed'));
  });
  it('goes by the device plugin or by the DRA driver', () => {
    const memory = { node: 'uid-node-a', target: { 'dra-driver': { revision: 'r' } } };
    const dra = aNode({ annotations: { [WALK]: JSON.stringify(memory) } });
    expect(stages.slice(4)).toEqual(['device-plugin', 'device-plugin-validation']);
    expect(stagesOf(dra).slice(4)).toEqual(['dra-driver', 'dra-validation']);
  });
  it('has times of what is passed, and usual times of all', () =>
    expect(timelineOf(stages, 'driver', false, { toolkit: 1, driver: 2 }, { driver: 3 }).slice(1, 3)).toEqual([
      { stage: 'toolkit', how: 'passed', tookMs: 1 },
      { stage: 'driver', how: 'now', usualMs: 3 },
    ]));
});
