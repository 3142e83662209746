// The time of a state, as values: when a failure is over, what another try restarts, and how long
// it may take.
import { describe, expect, it } from 'vitest';
import { RETRY } from '../../../core/keys.ts';
import type { Climb } from '../../../reconciler/node/climb.ts';
import { clocked, earliest } from '../../../reconciler/node/clock.ts';
import { failed, waiting, type Finding } from '../../../reconciler/node/findings.ts';
import { observe, type NodeInput, type Observed, type WithPolicy } from '../../../reconciler/node/observed.ts';
import { WALK_STATES } from '../../../reconciler/node/states/list.ts';
import type { Walk } from '../../../reconciler/walk.ts';
import { aPolicy, keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const base = observe(new World().validated().input() as WithPolicy);
const { now } = base.input;
const iso = (ms: number): string => new Date(ms).toISOString();
const user = keptPod({ namespace: 'team', name: 'a', uid: 'a', gpus: { 'nvidia.com/gpu': 1 } });
type Unfinished = Exclude<Finding, { readonly kind: 'done' }>;
const hangs = waiting('PodNotReady', 'waiting for driver-pod to be Ready') as Unfinished;
const missing = waiting('PodMissing', 'waiting for the driver pod to be created') as Unfinished;
const crashes = failed('CrashLoop', 'it crashes') as Unfinished;
const healthy: Unfinished = { ...waiting('NoAllocatableGPUs', 'waiting for GPUs'), healthy: true } as Unfinished;
const disproved: Unfinished = { kind: 'failed', reason: 'VectorAdd', message: 'no device', disproves: true };

interface Parts {
  readonly stage?: string;
  readonly finding?: Unfinished;
  readonly walk?: Partial<Walk>;
  readonly input?: Partial<NodeInput>;
  readonly seen?: Partial<Observed>;
  /** The value of the retry annotation. */
  readonly asks?: string;
}
function timed({ stage = 'driver', finding = hangs, walk = {}, input = {}, seen = {}, asks }: Parts) {
  const state = WALK_STATES.find(({ name }) => name === stage);
  if (state === undefined) throw new Error(stage);
  const { node } = base.input;
  const annotations = { ...node.metadata.annotations, ...(asks === undefined ? {} : { [RETRY]: asks }) };
  const observed: Observed = {
    ...base,
    ...seen,
    walk: { ...base.walk, stage, since: iso(now), ...walk },
    input: { ...base.input, node: { ...node, metadata: { ...node.metadata, annotations } }, ...input } as WithPolicy,
  };
  const climb: Climb = {
    stop: { state, finding },
    deploy: base.deployed,
    evidence: {},
    passed: {},
    proven: new Set(),
    upholds: false,
    pods: [],
  };
  return clocked(observed, climb);
}
/** A failure as the plan would have written it just now, of inputs that have not changed. */
const failure = (stage = 'driver', reason?: string) => {
  const { failure: found } = timed({ stage, finding: crashes });
  if (found === undefined) throw new Error('it has not failed');
  return { ...found, ...(reason === undefined ? {} : { reason }), message: 'it failed' };
};
const due = (stage = 'driver', reason?: string): Partial<Walk> => ({
  failed: { ...failure(stage, reason), retryAt: iso(now) },
});
const unproven = { proof: undefined };
const noPlace = { slotFree: false };
const first = { proven: undefined as never };

describe('a failed state is tried again', () => {
  it.each<[what: string, parts: Parts, isTried: boolean]>([
    ['when its time has come', { walk: due() }, true],
    ['not before', { walk: { failed: failure() } }, false],
    ['before that, where its inputs have changed', { walk: { failed: { ...failure(), inputs: 'other' } } }, true],
    ['before that, at a person’s word', { walk: { failed: failure() }, asks: '1' }, true],
    ['not at a word that was obeyed', { walk: { failed: failure(), retry: '1' }, asks: '1' }, false],
    ['without a place, where the node was proven', { walk: due(), input: noPlace }, true],
    ['not without a place on a first walk', { walk: { ...due(), ...first }, input: noPlace }, false],
    ['with a place on a first walk', { walk: { ...due(), ...first } }, true],
  ])('%s', (_, parts, isTried) => {
    const { failure: found, message, walk } = timed(parts);
    expect([found === undefined, message]).toEqual(isTried ? [true, 'trying again'] : [false, 'it failed']);
    expect(walk.attempt).toBe(base.walk.attempt + (isTried ? 1 : 0));
  });
  it('looks for a place each minute on a first walk without one', () => {
    const wakeAt = (retryAt: number): number =>
      (timed({ walk: { failed: { ...failure(), retryAt: iso(retryAt) }, ...first }, input: noPlace }).wakeAt ?? 0) -
      now;
    expect([wakeAt(now - 1000), wakeAt(now + 90_000)]).toEqual([60_000, 90_000]);
  });
  it('of preflight needs no place, and is judged by what is seen now', () => {
    const parts: Parts = { stage: 'preflight', walk: { ...due('preflight'), ...first }, input: noPlace };
    expect(timed({ ...parts, finding: crashes })).toMatchObject({
      failure: { reason: 'CrashLoop' },
      message: 'it crashes',
    });
    expect(timed({ ...parts, finding: hangs })).toMatchObject({ failure: undefined, message: 'trying again' });
  });
  it.each<[what: string, parts: Parts, streak: number]>([
    ['grows by its time alone', { walk: { ...due(), streak: 2 } }, 3],
    ['begins again where inputs have changed', { walk: { failed: { ...failure(), inputs: 'other' }, streak: 2 } }, 0],
    ['begins again at a person’s word', { walk: { ...due(), streak: 2 }, asks: '1' }, 0],
  ])('and the backoff %s', (_, parts, streak) => expect(timed(parts).walk.streak).toBe(streak));
});

describe('another try takes the newest revisions', () => {
  const orphan = { daemonSets: new Map([['driver-other', 'uid']]) };
  it.each<[what: string, parts: Parts, isRenewed: boolean]>([
    ['not by its time alone', { walk: due() }, false],
    ['where inputs have changed', { walk: { failed: { ...failure(), inputs: 'other' } } }, true],
    ['at a person’s word', { walk: due(), asks: '1' }, true],
    ['not under GPU pods', { walk: due(), asks: '1', seen: { users: [user] } }, false],
    ['where the revision has no DaemonSet any more', { walk: due(), finding: missing, input: orphan }, true],
    ['not where it has one', { walk: due(), finding: missing }, false],
    ['not where its pod is there all the same', { walk: due(), finding: hangs, input: orphan }, false],
    ['not where its pod crashes', { walk: due(), finding: crashes, input: orphan }, false],
    [
      'not for a component that another installer brings',
      { walk: { ...due(), target: { driver: { external: 'unwatched' } } }, finding: missing, input: orphan },
      false,
    ],
    [
      'not for one that the node is not to run',
      { walk: { ...due(), target: {} }, finding: missing, input: orphan },
      false,
    ],
  ])('%s', (_, parts, isRenewed) => expect(timed(parts).walk.renew).toBe(isRenewed ? true : undefined));
});

describe('another try restarts', () => {
  const plugin = 'device-plugin';
  const gone = { deployed: { driver: base.deployed.driver ?? '', [plugin]: base.deployed[plugin] ?? '' } };
  it.each<[what: string, parts: Parts, pod: string | undefined, restarted: readonly string[] | undefined]>([
    ['an operand that crashes', { walk: due(), finding: crashes, seen: unproven }, 'driver-pod', ['driver']],
    [
      'an operand that hung until its time was over',
      { walk: due('driver', 'TimedOut'), seen: unproven },
      'driver-pod',
      ['driver'],
    ],
    ['no operand that is on its feet again', { walk: due(), seen: unproven }, undefined, undefined],
    [
      'nothing where its pod has gone',
      { walk: due(), finding: crashes, seen: unproven, input: { pods: [] } },
      undefined,
      ['driver'],
    ],
    ['nothing that holds a proof', { walk: due(), finding: crashes }, undefined, undefined],
    [
      'nothing under GPU pods',
      { walk: due(), finding: crashes, seen: { ...unproven, users: [user] } },
      undefined,
      undefined,
    ],
    [
      'at a person’s word also under GPU pods',
      { walk: due(), finding: crashes, seen: { users: [user] }, asks: '1' },
      'driver-pod',
      undefined,
    ],
    [
      'the nearest component where pods are Ready',
      { stage: plugin, walk: due(plugin), finding: healthy },
      'device-plugin-pod',
      [plugin],
    ],
    [
      'the next one after it',
      { stage: plugin, walk: { ...due(plugin), restarted: [plugin] }, finding: healthy },
      'toolkit-pod',
      [plugin, 'toolkit'],
    ],
    [
      'no component that is not ours',
      { stage: plugin, walk: { ...due(plugin), restarted: [plugin] }, finding: healthy, seen: gone },
      'driver-pod',
      [plugin, 'driver'],
    ],
    [
      'none twice',
      { stage: plugin, walk: { ...due(plugin), restarted: [plugin, 'toolkit', 'driver'] }, finding: healthy },
      undefined,
      [plugin, 'toolkit', 'driver'],
    ],
    [
      'none where only inputs have changed',
      { stage: plugin, walk: { failed: { ...failure(plugin), inputs: 'other' } }, finding: healthy },
      undefined,
      undefined,
    ],
    [
      'the nearest component after a program that failed',
      { stage: 'driver-validation', walk: due('driver-validation'), finding: disproved },
      'toolkit-pod',
      ['toolkit'],
    ],
    [
      'nothing after a program that never ran',
      { stage: 'driver-validation', walk: due('driver-validation'), finding: crashes, seen: unproven },
      undefined,
      undefined,
    ],
  ])('%s', (_, parts, pod, restarted) => {
    const { discard, walk } = timed(parts);
    expect(discard.map((action) => ('name' in action ? action.name : ''))).toEqual(pod === undefined ? [] : [pod]);
    expect(walk.restarted).toEqual(restarted);
  });
});

describe('at a person’s word', () => {
  it('what hangs is started afresh before its time is over', () => {
    const walk = { since: iso(now - 30_000), restarted: ['driver'] };
    const { discard, walk: after, message, wakeAt } = timed({ asks: '1', walk });
    expect(discard).toMatchObject([{ name: 'driver-pod', because: 'trying driver again' }]);
    expect([after.since, after.retry, after.restarted, after.attempt]).toEqual([
      iso(now),
      '1',
      undefined,
      base.walk.attempt,
    ]);
    expect([message, wakeAt]).toEqual([(hangs as { message: string }).message, now + 60_000]);
  });
  it('a validation that hangs is tried in another pod', () => {
    const { discard, walk } = timed({ asks: '1', stage: 'driver-validation' });
    expect([discard, walk.attempt]).toEqual([[], base.walk.attempt + 1]);
  });
  it('what has just failed has failed all the same', () =>
    expect(timed({ asks: '1', finding: crashes })).toMatchObject({ failure: { reason: 'CrashLoop' }, discard: [] }));
});

describe('a state that waits', () => {
  it.each<[what: string, parts: Parts, expected: object]>([
    [
      'looks again when its time is over',
      { walk: { since: iso(now - 1000) } },
      { failure: undefined, wakeAt: now + 59_000 },
    ],
    [
      'fails when its time is over',
      { walk: { since: iso(now - 60_000) }, input: { watchedSince: 0 } },
      { failure: { reason: 'TimedOut' }, message: 'timed out after 60 s: still waiting for driver-pod to be Ready' },
    ],
    [
      'has its whole time under a leader who has just begun to look',
      { walk: { since: iso(now - 60_000) }, input: { watchedSince: now - 1000 } },
      { failure: undefined, wakeAt: now + 59_000 },
    ],
    [
      'looks again earlier where it knows why',
      { finding: { ...hangs, wakeAt: now + 5000 } as Unfinished },
      { failure: undefined, wakeAt: now + 5000 },
    ],
    [
      'fails with what it waited for, where that says more',
      {
        walk: { since: iso(now - 60_000) },
        input: { watchedSince: 0 },
        finding: { ...hangs, telling: true } as Unfinished,
      },
      { failure: { reason: 'PodNotReady' } },
    ],
    [
      'without a clock does not fail',
      {
        walk: { since: iso(now - 1e7) },
        input: { watchedSince: 0 },
        finding: { ...hangs, untimed: true } as Unfinished,
      },
      { failure: undefined, wakeAt: undefined, walk: { untimed: true } },
    ],
    [
      'in preflight has no limit',
      {
        stage: 'preflight',
        walk: { since: iso(now - 1e7) },
        input: { watchedSince: 0 },
        finding: { ...hangs, wakeAt: now + 5 } as Unfinished,
      },
      { failure: undefined, wakeAt: now + 5 },
    ],
    [
      'has its time from when what it waits for began',
      {
        walk: { since: iso(now - 60_000) },
        input: { watchedSince: 0 },
        finding: { ...hangs, since: iso(now - 10_000) } as Unfinished,
      },
      { failure: undefined, wakeAt: now + 50_000 },
    ],
  ])('%s', (_, parts, expected) => expect(timed(parts)).toMatchObject(expected));
  it('begins its time again when it has none to wait for any more', () => {
    const walk = { untimed: true as const, since: iso(now - 1e7), ...due() };
    expect(timed({ walk: { ...walk, failed: { ...failure() } } }).walk).toMatchObject({ since: iso(now), failed: {} });
    expect(timed({ walk }).walk).not.toHaveProperty('untimed');
  });
  it('says minutes where it lasted two of them', () => {
    const lasted = (driver: string): string =>
      timed({
        walk: { since: iso(now - 1e8) },
        input: { watchedSince: 0, policy: aPolicy({ validation: { timeouts: { driver } } }) },
      }).message;
    expect(lasted('119s')).toMatch(/^timed out after 119 s:/);
    expect(lasted('120s')).toMatch(/^timed out after 2 min:/);
  });
});

it.each<[times: readonly (number | undefined)[], first: number | undefined]>([
  [[], undefined],
  [[undefined, undefined], undefined],
  [[undefined, 2, 1, undefined], 1],
  [[1, 2], 1],
])('the earliest of %j', (times, expected) => expect(earliest(...times)).toBe(expected));
