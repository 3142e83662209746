// Who is waited for, who is evicted, and until when.
import { describe, expect, it } from 'vitest';
import { drainOf, EVICT_AGAIN_MS, type DrainInput, type Eviction } from '../../../reconciler/node/drain.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import { keptPod, NOW } from '../../builders/objects.ts';

const pod = (name: string, more: Partial<PodObject> = {}): PodObject =>
  keptPod({ namespace: 'team', name, uid: name, gpus: { 'nvidia.com/gpu': 1 }, ...more });
const optedOut = pod('out');
const users = {
  plain: pod('a'),
  ending: pod('b', { deleting: true }),
  optedOut: { ...optedOut, wants: { ...optedOut.wants, read: { ok: true, wishes: { optedOut: true } } } } as PodObject,
  inOptedOutNamespace: pod('c', { namespace: 'left' }),
  static: pod('d', { controller: { kind: 'Node', uid: 'n' } }),
} as const;
const drain = (more: Partial<DrainInput>) =>
  drainOf({
    users: [users.plain],
    spec: { mode: 'Wait', timeout: 0 },
    since: NOW,
    now: NOW,
    isDriverTouched: true,
    optedOut: new Set(['left']),
    evictions: new Map(),
    ...more,
  });
const names = (pods: readonly PodObject[]): string => pods.map(({ name }) => name).join(' ');

describe('a drain', () => {
  it.each([
    ['of an empty node', { users: [] }, '', ''],
    ['by waiting', {}, 'a', ''],
    ['by waiting where the driver stays', { isDriverTouched: false }, 'a', ''],
    ['of nobody where the driver stays', { spec: { mode: 'None', timeout: 0 }, isDriverTouched: false }, '', ''],
    ['with mode None of a driver', { spec: { mode: 'None', timeout: 0 } }, 'a', ''],
    ['by eviction', { spec: { mode: 'Evict', timeout: 0 }, users: Object.values(users) }, 'a b out c d', 'a'],
  ] as const)('%s', (_, input, awaited, evicted) => {
    const { evict, awaited: all } = drain(input);
    expect([names(all), names(evict)]).toEqual([awaited, evicted]);
  });
  it.each([
    ['just asked', 0, ''],
    ['about to be asked again', EVICT_AGAIN_MS - 1, ''],
    ['long ago', EVICT_AGAIN_MS, 'a'],
  ])('does not ask twice: %s', (_, ago, evicted) => {
    const evictions = new Map([['a', { at: NOW - ago }]]);
    const { evict, wakeAt } = drain({ spec: { mode: 'Evict', timeout: 0 }, evictions });
    expect([names(evict), wakeAt]).toEqual([evicted, evicted === '' ? NOW - ago + EVICT_AGAIN_MS : undefined]);
  });
  it.each([
    ['no limit', 0, 1e9, false, undefined],
    ['within the limit', 60_000, 59_999, false, NOW + 60_000],
    ['at the limit', 60_000, 60_000, true, undefined],
  ])('%s', (_, timeout, after, isExpired, wakeAt) =>
    expect(drain({ spec: { mode: 'Wait', timeout }, now: NOW + after })).toMatchObject({ isExpired, wakeAt }),
  );
  it('looks again at what comes first', () => {
    const evictions = new Map([
      ['a', { at: NOW - 1000 }],
      ['b', { at: NOW - 3000 }],
    ]);
    const users = [pod('a'), pod('b')];
    const wakeAt = (timeout: number) => drain({ users, spec: { mode: 'Evict', timeout }, evictions }).wakeAt;
    expect([wakeAt(0), wakeAt(60_000), wakeAt(1000)]).toEqual([NOW + 2000, NOW + 2000, NOW + 1000]);
  });
  it('of an empty node has no end', () =>
    expect(drain({ users: [], spec: { mode: 'Wait', timeout: 1000 }, now: NOW + 1000 })).toEqual({
      awaited: [],
      isExpired: false,
      evict: [],
      wakeAt: undefined,
      text: '',
    }));
  it('evicts nobody when its time is over', () => {
    const { evict, isExpired } = drain({ spec: { mode: 'Evict', timeout: 1000 }, now: NOW + 1000 });
    expect([isExpired, evict]).toEqual([true, []]);
  });
  it.each([
    [[users.plain], 'Wait', 'waiting for 1 GPU pod to end (team/a)'],
    [Object.values(users).slice(0, 3), 'Wait', 'waiting for 3 GPU pods to end (team/a, team/b, team/out)'],
    [Object.values(users), 'Wait', 'waiting for 5 GPU pods to end (team/a, team/b, team/out, …)'],
    [[users.plain, users.ending], 'Evict', 'evicting 2 GPU pods (team/a, team/b)'],
    [
      [users.plain, users.optedOut],
      'Evict',
      'evicting 1 GPU pod (team/a); waiting for 1 GPU pod to end, never evicted (team/out)',
    ],
  ] as const)('says so: %#', (all, mode, text) =>
    expect(drain({ users: all, spec: { mode, timeout: 0 } }).text).toBe(text),
  );
  it('has the API server’s words on a pod that is held back, and not on one that is going', () => {
    const refused = { at: NOW, refused: 'the budget says no' };
    const spec = { mode: 'Evict', timeout: 0 } as const;
    expect(drain({ spec, evictions: new Map([['a', refused]]) }).text).toContain(
      'the API server refuses to evict team/a: the budget says no',
    );
    const both = [users.plain, pod('e'), pod('f')];
    const evictions = new Map<string, Eviction>([
      ['a', { at: NOW }],
      ['e', refused],
      ['f', { at: NOW, refused: 'another' }],
    ]);
    expect(drain({ spec, users: both, evictions }).text).toBe(
      'evicting 3 GPU pods (team/a, team/e, team/f); the API server refuses to evict team/e: the budget says no',
    );
    expect(drain({ spec, users: [users.ending], evictions: new Map([['b', refused]]) }).text).toBe(
      'evicting 1 GPU pod (team/b)',
    );
  });
});
