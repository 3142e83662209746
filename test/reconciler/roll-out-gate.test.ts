// When nodes may close for a roll-out: tables over windows and canaries.
import { describe, expect, it } from 'vitest';
import type { GpuPolicy, RollOutStatus } from '../../core/gpu-policy.ts';
import { APPROVE } from '../../core/keys.ts';
import {
  canaryOf,
  changesAt,
  isPassed,
  mostInTurn,
  rollOutMemory,
  timeIn,
  windowAt,
} from '../../reconciler/roll-out-gate.ts';
import { aPolicy } from '../builders/objects.ts';

const at = (text: string): number => Date.parse(text);
const HOUR = 3_600_000;

describe('a maintenance window', () => {
  it('is open at any time where the policy has none', () => {
    expect(windowAt(undefined, 0)).toEqual({ kind: 'open', until: undefined });
    expect(changesAt(windowAt(undefined, 0))).toBeUndefined();
  });
  const saturdays = { schedule: '0 2 * * SAT', duration: 4 * HOUR, timeZone: 'Europe/Berlin' };
  it.each([
    ['2026-11-28T00:59:59.999Z', 'shut', '2026-11-28T01:00:00Z'],
    ['2026-11-28T01:00:00.000Z', 'open', '2026-11-28T05:00:00Z'],
    ['2026-11-28T01:00:00.500Z', 'open', '2026-11-28T05:00:00Z'],
    ['2026-11-28T04:59:59.999Z', 'open', '2026-11-28T05:00:00Z'],
    ['2026-11-28T05:00:00.000Z', 'shut', '2026-12-05T01:00:00Z'],
    // Summer: two hours before UTC.
    ['2026-07-04T00:30:00.000Z', 'open', '2026-07-04T04:00:00Z'],
  ] as const)('at %s is %s until %s', (now, kind, change) => {
    const state = windowAt(saturdays, at(now));
    expect([state.kind, changesAt(state)]).toEqual([kind, at(change)]);
  });
  it('that opens again before it ends is open until the end of the last one', () => {
    const state = windowAt({ schedule: '*/10 * * * *', duration: HOUR, timeZone: 'UTC' }, at('2026-11-28T01:05:00Z'));
    expect(state).toEqual({ kind: 'open', until: at('2026-11-28T02:00:00Z') });
  });
  it('that no day meets never opens', () => {
    const state = windowAt({ schedule: '0 2 30 2 *', duration: HOUR, timeZone: 'UTC' }, at('2026-11-28T01:05:00Z'));
    expect([state, changesAt(state)]).toEqual([{ kind: 'shut', opensAt: undefined }, undefined]);
  });
  it.each([
    ['61 * * * *', 'UTC', 'spec.upgrade.window.schedule "61 * * * *" is not a cron schedule of five fields'],
    ['* * * * * *', 'UTC', 'is not a cron schedule of five fields'],
    ['', 'UTC', 'spec.upgrade.window.schedule "" is not a cron schedule'],
    ['0 2 * * *', 'Mars/Olympus', 'spec.upgrade.window.timeZone "Mars/Olympus" is not a time zone: write an IANA name'],
    ['0 2 * * *', '', 'spec.upgrade.window.timeZone "" is not a time zone'],
  ])('%j in %j cannot be read, in one sentence', (schedule, timeZone, because) => {
    const state = windowAt({ schedule, duration: HOUR, timeZone }, 0);
    expect(state).toMatchObject({ kind: 'unreadable', because: expect.stringContaining(because) });
    expect(changesAt(state)).toBeUndefined();
  });
  it('is written in the time of its zone', () => {
    expect(timeIn('Europe/Berlin', at('2026-11-28T01:00:00Z'))).toBe('2026-11-28 02:00 Europe/Berlin');
  });
});

const policy = (canary: object, rollOut?: RollOutStatus, approved = ''): GpuPolicy =>
  aPolicy(
    { upgrade: { canary } },
    {
      metadata: { name: 'default', annotations: approved === '' ? {} : { [APPROVE]: approved } },
      status: rollOut === undefined ? {} : { rollOut },
    },
  );
const NOW = at('2026-11-28T12:00:00Z');
const EARLIER = '2026-11-28T11:30:00.000Z';

describe('a canary', () => {
  it.each([
    ['none', policy({}), 0, 'over'],
    ['one that nodes are missing of', policy({ first: 2 }), 1, 'moving'],
    ['one that waits for a person', policy({ first: 2 }), 2, 'waiting'],
    ['one approved', policy({ first: 2 }, undefined, 's2'), 0, 'over'],
    ['an approval of another stack', policy({ first: 2 }, undefined, 's1'), 2, 'waiting'],
    ['a stack that all nodes ran', policy({ first: 2 }, { ran: ['s2', 's1'] }), 0, 'over'],
    [
      'one whose time is over',
      policy({ first: 2, wait: '30m' }, { canary: { stack: 's2', since: EARLIER } }),
      2,
      'over',
    ],
    [
      'one whose time runs',
      policy({ first: 2, wait: '31m' }, { canary: { stack: 's2', since: EARLIER } }),
      2,
      'waiting',
    ],
    [
      'the time of another stack',
      policy({ first: 2, wait: '30m' }, { canary: { stack: 's1', since: EARLIER } }),
      2,
      'waiting',
    ],
    [
      'one that lost a node',
      policy({ first: 2, wait: '30m' }, { canary: { stack: 's2', since: EARLIER } }),
      1,
      'moving',
    ],
    [
      'one that lost a node after its time',
      policy({ first: 2, wait: '30m' }, { canary: { stack: 's2', since: EARLIER, passed: true } }),
      1,
      'over',
    ],
    [
      'a date that cannot be read',
      policy({ first: 2, wait: '30m' }, { canary: { stack: 's2', since: 'x' } }),
      2,
      'waiting',
    ],
    [
      'a clock that was ahead',
      policy({ first: 2, wait: '30m' }, { canary: { stack: 's2', since: '2027-01-01T00:00:00Z' } }),
      2,
      'waiting',
    ],
  ])('%s', (_, edited, validated, kind) => {
    const state = canaryOf(edited, 's2', { validated, settled: 5 }, NOW);
    expect(state.kind).toBe(kind);
    // No time begins later than now.
    if (state.kind === 'waiting') expect(state.since).toBeLessThanOrEqual(NOW);
  });
  it('of more nodes than there are is all of them', () => {
    expect(canaryOf(policy({ first: 9 }), 's2', { validated: 1, settled: 3 }, NOW)).toMatchObject({ first: 3 });
  });
  it.each([
    [{}, 0, 4],
    [{ first: 2 }, 0, 2],
    [{ first: 2 }, 1, 1],
    [{ first: 2 }, 2, 0],
    [{ first: 2 }, 3, 0],
    [{ first: 9 }, 0, 4],
  ])('%j with %i nodes on the new stack lets %i more begin, of 4', (canary, onIt, most) => {
    expect(mostInTurn(policy(canary), 's2', onIt, 4)).toBe(most);
  });
  it('lets all begin once it is over', () => {
    expect(mostInTurn(policy({ first: 2 }, undefined, 's2'), 's2', 2, 4)).toBe(4);
  });
});

describe('what a policy remembers of its roll-outs', () => {
  const waiting = { kind: 'waiting', first: 2, since: at(EARLIER), until: undefined } as const;
  const moving = { kind: 'moving', first: 2, validated: 1 } as const;
  const over = { kind: 'over' } as const;
  const canary = { stack: 's2', since: EARLIER };
  it.each([
    ['nothing before the first node', undefined, over, false, undefined],
    ['a stack that all nodes run', undefined, over, true, { ran: ['s2'] }],
    ['each once, the newest last', { ran: ['s2', 's1'] }, over, true, { ran: ['s1', 's2'] }],
    ['five of them', { ran: ['a', 'b', 'c', 'd', 'e'] }, over, true, { ran: ['b', 'c', 'd', 'e', 's2'] }],
    ['since when a canary is validated', { ran: ['s1'] }, waiting, false, { ran: ['s1'], canary }],
    ['no longer once it is not', { ran: ['s1'], canary }, moving, false, { ran: ['s1'] }],
    [
      'that its time is over',
      { ran: ['s1'], canary },
      over,
      false,
      { ran: ['s1'], canary: { ...canary, passed: true } },
    ],
    ['not after all nodes run it', { ran: ['s1'], canary }, over, true, { ran: ['s1', 's2'] }],
    [
      'not where another stack is wanted',
      { ran: ['s1'], canary: { stack: 's3', since: EARLIER } },
      over,
      false,
      { ran: ['s1'] },
    ],
  ] as const)('%s', (_, before, state, isDone, after) => {
    const edited = policy({ first: 2 }, before);
    expect(rollOutMemory(edited, 's2', state, isDone)).toEqual(after);
    if (after !== undefined && 'ran' in after)
      expect(isPassed(policy({ first: 2 }, after), 's1')).toBe(after.ran.includes('s1' as never));
  });
});
