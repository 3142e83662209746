// A node's turn in a roll-out, as values: when it begins, what it waits for, what it takes and when
// it is given up. test/reconciler/roll-out.test.ts plays whole roll-outs.
import { describe, expect, it } from 'vitest';
import { QUIET_MS, turnOf, type TurnInput } from '../../../reconciler/node/roll-out.ts';
import type { Target } from '../../../reconciler/stack.ts';
import { DONE, newWalk, type RollOut, type Walk } from '../../../reconciler/walk.ts';
import { aPolicy, keptPod, NOW } from '../../builders/objects.ts';

const iso = (at: number): string => new Date(at).toISOString();
const HELD: Target = {
  toolkit: { revision: 't1' },
  driver: { revision: 'd1' },
  'device-plugin': { external: 'unwatched' },
};
/**
 * The policy says another driver, and to install the device plugin that another installer brings.
 */
const OTHER: Target = { ...HELD, driver: { revision: 'd2' }, 'device-plugin': { revision: 'p2' } };
/** What a node takes of that in its turn: who installs what stays. */
const MOVED: Target = { ...HELD, driver: { revision: 'd2' } };
/** Only the device plugin changes. */
const PLUGIN = {
  held: { ...HELD, 'device-plugin': { revision: 'p1' } },
  wanted: { ...HELD, 'device-plugin': { revision: 'p2' } },
} as const;
const validated: Walk = { ...newWalk('n', 'b', NOW - 1e7), stage: DONE, proven: 'b' };
const failure = { stage: 'driver', reason: 'CrashLoop', message: 'm', at: iso(NOW), retryAt: iso(NOW), inputs: 'i' };
const free = { isFree: true, isStopped: false, isRendered: true };
const user = keptPod({ namespace: 'team', name: 'a', uid: 'a', gpus: { 'nvidia.com/gpu': 1 } });
const inUse = { users: [user], isInUse: true };
const withDrain = (drain: object) => ({ policy: aPolicy({ upgrade: { drain } }) });

type Parts = Partial<Omit<TurnInput, 'walk'>> & { readonly walk?: Partial<Walk> };
const inputOf = ({ walk = {}, ...more }: Parts): TurnInput => ({
  walk: { ...validated, ...walk },
  held: HELD,
  wanted: OTHER,
  policy: aPolicy(),
  users: [],
  isInUse: false,
  others: free,
  now: NOW,
  watchedSince: NOW - 1e7,
  isAsked: false,
  optedOut: new Set(),
  evictions: new Map(),
  ...more,
});
const turn = (parts: Parts = {}) => turnOf(inputOf(parts));
const draining = (more: Partial<RollOut> = {}): { rollOut: RollOut } => ({
  rollOut: { phase: 'drain', since: iso(NOW - QUIET_MS), ...more },
});
const replacing = (more: Partial<RollOut> = {}): { rollOut: RollOut } => draining({ phase: 'replace', ...more });
/** What a reader of the node sees of the turn, in one line. */
const said = (parts: Parts): string => {
  const { rollOut, takes, waits, wakeAt, skipped } = turn(parts);
  return [
    rollOut === undefined ? 'none' : rollOut.phase + (rollOut.spare === true ? ', spare' : ''),
    ...(takes === undefined ? [] : [takes === OTHER ? 'takes all' : 'takes the revisions']),
    ...(waits ? ['waits for a place'] : []),
    ...(skipped === undefined ? [] : ['skipped']),
    ...(wakeAt === undefined ? [] : [`looks again in ${(wakeAt - NOW) / 1000} s`]),
  ].join('; ');
};

/** As a node remembers it that was not drained in time. */
const skipped = turn({
  walk: draining({ since: iso(NOW - 60_000) }),
  ...inUse,
  ...withDrain({ mode: 'Wait', timeoutSeconds: 30 }),
}).skipped;
const late = withDrain({ mode: 'Wait', timeoutSeconds: 30 });

describe('a turn begins', () => {
  it.each<[what: string, parts: Parts, expected: string]>([
    ['where a place is free', {}, 'drain; looks again in 3 s'],
    ['not where nothing changes', { wanted: HELD }, 'none'],
    ['nor is a place waited for then', { wanted: HELD, others: { ...free, isFree: false } }, 'none'],
    [
      'not without a place',
      { others: { ...free, isFree: false, changesAt: NOW + 9000 } },
      'none; waits for a place; looks again in 9 s',
    ],
    ['not while the policy is paused', { policy: aPolicy({ upgrade: { paused: true } }) }, 'none; waits for a place'],
    ['not after another node failed', { others: { ...free, isStopped: true } }, 'none; waits for a place'],
    ['not before it is rendered', { others: { ...free, isRendered: false } }, 'none; waits for a place'],
    ['not outside the maintenance window', { others: { ...free, isShut: true } }, 'none; waits for a place'],
    ['in the maintenance window', { others: { ...free, isShut: false } }, 'drain; looks again in 3 s'],
    ['not while the node is out of sight', { walk: { notReady: iso(NOW) } }, 'none'],
    [
      'nor does a node that is out of sight wait for a place',
      { walk: { notReady: iso(NOW) }, others: { ...free, isFree: false } },
      'none',
    ],
    ['not on the way of a walk', { walk: { stage: 'driver' } }, 'none'],
    ['not while a person’s move is under way', { walk: { renew: true } }, 'none; takes all'],
    [
      'not for a person’s move before it is rendered',
      { walk: { renew: true }, others: { ...free, isRendered: false } },
      'none',
    ],
    ['not for a person’s move under users', { walk: { renew: true }, ...inUse }, 'none'],
    [
      'not on a first walk, which takes all',
      { walk: { proven: undefined as never, stage: 'driver' } },
      'none; takes all',
    ],
    [
      'not on a first walk that failed',
      { walk: { proven: undefined as never, stage: 'driver', streak: 1, failed: failure } },
      'none; takes all',
    ],
    ['not on a first walk under users', { walk: { proven: undefined as never, stage: 'driver' }, ...inUse }, 'none'],
    [
      'at once and without a place on a node that failed',
      { walk: { stage: 'driver', failed: failure }, others: { ...free, isFree: false } },
      'replace, spare; takes all',
    ],
    ['so on one that is tried again', { walk: { stage: 'driver', streak: 1 } }, 'replace, spare; takes all'],
    [
      'for a failed node when it is rendered',
      { walk: { stage: 'driver', failed: failure }, others: { ...free, isRendered: false } },
      'none; looks again in 5 s',
    ],
    [
      'as on any other where the walk came to its end after a failure',
      { walk: { failed: failure, streak: 1 }, others: { ...free, isFree: false } },
      'none; waits for a place',
    ],
  ])('%s', (_, parts, expected) => expect(said(parts)).toBe(expected));
});

describe('a move that the node was not drained for in time', () => {
  it.each<[what: string, parts: Parts, expected: string]>([
    ['is not tried again by itself', late, 'none; skipped'],
    ['is tried again at a person’s word', { ...late, isAsked: true }, 'drain; looks again in 3 s'],
    [
      'is tried again where the policy says another stack',
      { ...late, wanted: { ...OTHER, driver: { revision: 'd3' } } },
      'drain; looks again in 3 s',
    ],
    [
      'is tried again where pods leave in another way',
      withDrain({ mode: 'Evict', timeoutSeconds: 30 }),
      'drain; looks again in 3 s',
    ],
    ['is forgotten where the node has that stack', { ...late, held: OTHER }, 'none'],
    ['is forgotten on a first walk', { ...late, walk: { proven: undefined as never } }, 'none; takes all'],
  ])('%s', (_, parts, expected) => {
    expect(skipped).toMatchObject({ at: iso(NOW), text: 'waiting for 1 GPU pod to end (team/a)' });
    expect(said({ ...parts, walk: { ...parts.walk, ...(skipped === undefined ? {} : { skipped }) } })).toBe(expected);
  });
});

describe('while pods leave, the turn', () => {
  it.each<[what: string, parts: Parts, expected: string]>([
    ['goes on when the node is empty', { walk: draining() }, 'replace; takes the revisions'],
    [
      'waits for pods that were placed just before',
      { walk: draining({ since: iso(NOW - QUIET_MS + 1000) }) },
      'drain; looks again in 1 s',
    ],
    [
      'does not wait for such pods on a node that failed meanwhile',
      { walk: { ...draining({ since: iso(NOW) }), stage: 'driver', failed: failure } },
      'replace; takes the revisions',
    ],
    ['nor on one that had failed', { walk: draining({ since: iso(NOW), spare: true }) }, 'replace, spare; takes all'],
    ['waits for pods', { walk: draining(), ...inUse }, 'drain'],
    [
      'looks again when the window changes',
      { walk: draining(), ...inUse, others: { ...free, changesAt: NOW + 9000 } },
      'drain; looks again in 9 s',
    ],
    [
      'looks again when its time is over, if that is earlier',
      { walk: draining(), ...inUse, ...late, others: { ...free, changesAt: NOW + 90_000 } },
      'drain; looks again in 27 s',
    ],
    ['is over in time', { walk: draining({ since: iso(NOW - 30_000) }), ...inUse, ...late }, 'none; skipped'],
    [
      'has its whole time under a leader who has just begun to look',
      { walk: draining({ since: iso(NOW - 30_000) }), ...inUse, ...late, watchedSince: NOW - 1000 },
      'drain; looks again in 29 s',
    ],
    ['ends where nothing is to change any more', { walk: draining(), wanted: HELD }, 'none'],
    ['ends where the node goes out of sight', { walk: { ...draining(), notReady: iso(NOW) } }, 'none'],
    ['ends where the policy is paused', { walk: draining(), policy: aPolicy({ upgrade: { paused: true } }) }, 'none'],
    [
      'of a node that had failed goes on out of sight',
      { walk: { ...draining({ spare: true }), notReady: iso(NOW) } },
      'replace, spare; takes all',
    ],
    [
      'of a node that had failed goes on after others failed',
      { walk: draining({ spare: true }), others: { ...free, isStopped: true } },
      'replace, spare; takes all',
    ],
  ])('%s', (_, parts, expected) => expect(said(parts)).toBe(expected));
  it('says what is still to change where it ends', () =>
    expect(turn({ walk: { ...draining(), notReady: iso(NOW) } })).toMatchObject({ changed: ['driver'], waits: false }));
  it('takes the revisions of what is ours before and after, and leaves the rest', () =>
    expect(turn({ walk: draining() }).takes).toEqual(MOVED));
});

describe('while the stack is replaced, the turn', () => {
  it.each<[what: string, parts: Parts, expected: string]>([
    ['takes what the policy says', { walk: replacing() }, 'replace; takes the revisions'],
    ['of a node that had failed takes all of it', { walk: replacing({ spare: true }) }, 'replace, spare; takes all'],
    [
      'keeps what it has before it is rendered',
      { walk: replacing(), others: { ...free, isRendered: false } },
      'replace',
    ],
    ['keeps what users hold', { walk: replacing(), ...inUse }, 'replace'],
    [
      'keeps a driver that users hold with drain None',
      { walk: replacing(), ...inUse, ...withDrain({ mode: 'None' }) },
      'replace',
    ],
    ['keeps a plugin beside users with drain Wait', { walk: replacing(), ...inUse, ...PLUGIN }, 'replace'],
    [
      'replaces a plugin beside users with drain None',
      { walk: replacing(), ...inUse, ...PLUGIN, ...withDrain({ mode: 'None' }) },
      'replace; takes the revisions',
    ],
    [
      'does so when that is rendered',
      {
        walk: replacing(),
        ...inUse,
        ...PLUGIN,
        ...withDrain({ mode: 'None' }),
        others: { ...free, isRendered: false },
      },
      'replace',
    ],
  ])('%s', (_, parts, expected) => expect(said(parts)).toBe(expected));

  const failed = { stage: 'driver', reason: 'CrashLoop', message: 'm' };
  it.each<[what: string, parts: Parts, rollOut: RollOut]>([
    [
      'forgets a failure on a stack that it leaves',
      { walk: replacing({ failed }) },
      replacing({ spare: true }).rollOut,
    ],
    [
      'remembers the failure while it cannot leave',
      { walk: replacing({ failed }), ...inUse },
      replacing({ failed }).rollOut,
    ],
    [
      'remembers the failure on what the policy says',
      { walk: replacing({ failed }), wanted: HELD },
      replacing({ failed }).rollOut,
    ],
    ['takes a place where nothing failed', { walk: replacing() }, replacing().rollOut],
  ])('%s', (_, parts, rollOut) => expect(turn(parts).rollOut).toEqual(rollOut));

  it('has pods leave that came meanwhile, as the policy says', () => {
    const parts = { walk: replacing(), ...inUse };
    expect(turn(parts).drain).toMatchObject({ evict: [], text: 'waiting for 1 GPU pod to end (team/a)' });
    expect(turn({ ...parts, ...withDrain({ mode: 'Evict' }) }).drain).toMatchObject({
      evict: [user],
      text: 'evicting 1 GPU pod (team/a)',
    });
    const evictions = new Map([['a', { at: NOW - 1000 }]]);
    expect(said({ ...parts, evictions, ...withDrain({ mode: 'Evict' }) })).toBe('replace; looks again in 4 s');
  });
  it.each<[what: string, parts: Parts]>([
    ['nobody is there', {}],
    ['users hold nothing of the driver', { users: [user] }],
  ])('has no drain where %s', (_, parts) =>
    expect(turn({ walk: replacing(), ...parts })).not.toHaveProperty('drain.text'),
  );
});
