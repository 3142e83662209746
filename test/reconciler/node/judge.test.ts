// What a stop means for a proof that stands, as values.
import { describe, expect, it } from 'vitest';
import { COMPONENT } from '../../../core/keys.ts';
import type { Climb } from '../../../reconciler/node/climb.ts';
import type { Finding } from '../../../reconciler/node/findings.ts';
import { isDriverAsProven, judge } from '../../../reconciler/node/judge.ts';
import { observe, type NodeInput, type Observed, type WithPolicy } from '../../../reconciler/node/observed.ts';
import { WALK_STATES } from '../../../reconciler/node/states/list.ts';
import { UNWATCHED } from '../../../reconciler/node/target.ts';
import type { Choice, Walk } from '../../../reconciler/walk.ts';
import type { ComponentEvidence } from '../../../gate/node-proof.ts';
import { keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const base = observe(new World().validated().input() as WithPolicy);
const { now } = base.input;
const iso = (ms: number): string => new Date(ms).toISOString();
type Unfinished = Exclude<Finding, { readonly kind: 'done' }>;
const waits = { kind: 'waiting', reason: 'Running', message: 'm' } as const;
const disproved: Unfinished = { kind: 'failed', reason: 'VectorAdd', message: 'm', disproves: true };
const neverRan: Unfinished = { kind: 'failed', reason: 'Rejected', message: 'm' };

interface Parts {
  readonly stage?: string;
  readonly finding?: Unfinished;
  readonly seen?: Partial<Observed>;
  readonly walk?: Partial<Walk>;
  readonly input?: Partial<NodeInput>;
}
function judged({ stage, finding = waits, seen = {}, walk = {}, input = {} }: Parts): string {
  const state = WALK_STATES.find(({ name }) => name === stage);
  const after = { ...base.walk, ...walk };
  const climb: Climb = {
    stop: state === undefined ? undefined : { state, finding },
    deploy: base.deployed,
    evidence: {},
    passed: {},
    proven: new Set(),
    upholds: false,
    pods: [],
  };
  const timed = { walk: after, failure: undefined, wakeAt: undefined, message: '', discard: [] };
  return judge({ ...base, ...seen, walk: after, input: { ...base.input, ...input } as WithPolicy }, climb, timed);
}
const failedBy = (reason: string, stage = 'driver-validation'): Partial<Walk> => ({
  failed: { stage, reason, message: 'm', at: iso(now), retryAt: iso(now), inputs: 'i' },
});
const noDriver = { pods: base.input.pods.filter((pod) => pod.labels[COMPONENT] !== 'driver') };

describe('a proof', () => {
  it.each<[what: string, parts: Parts, judgement: string]>([
    ['is not there to judge', { seen: { proof: undefined }, stage: 'driver' }, 'unproven'],
    ['stands where all states are done', {}, 'stands'],
    ['is kept, and the node closed, where a state waits', { stage: 'device-plugin' }, 'closed'],
    [
      'is kept where the driver validation runs again',
      { stage: 'driver-validation', finding: { ...waits, computing: true } },
      'closed',
    ],
    ['goes where its program fails', { stage: 'driver-validation', finding: disproved }, 'withdrawn'],
    ['is kept where its program never ran', { stage: 'driver-validation', finding: neverRan }, 'closed'],
    [
      'is kept where the program of users’ way fails',
      { stage: 'device-plugin-validation', finding: disproved },
      'closed',
    ],
    [
      'goes where its program hung until its time was over',
      { stage: 'driver-validation', finding: { ...waits, computing: true }, walk: failedBy('TimedOut') },
      'withdrawn',
    ],
    [
      'is kept where its pod hung and the program had not begun',
      { stage: 'driver-validation', finding: waits, walk: failedBy('TimedOut') },
      'closed',
    ],
    [
      'is kept where its program runs after another failure',
      { stage: 'driver-validation', finding: { ...waits, computing: true }, walk: failedBy('Rejected') },
      'closed',
    ],
    [
      'is kept where another state’s time was over',
      { stage: 'driver-validation', finding: { ...waits, computing: true }, walk: failedBy('TimedOut', 'driver') },
      'closed',
    ],
    ['goes with the driver’s pod, whatever state waits', { stage: 'toolkit', input: noDriver }, 'withdrawn'],
    ['goes where the node is to run no driver that is known', { stage: 'toolkit', walk: { target: {} } }, 'withdrawn'],
    ['goes where the node is out of sight', { stage: 'toolkit', walk: { notReady: iso(now - 60_000) } }, 'withdrawn'],
    [
      'goes where another toolkit is taken at last',
      { stage: 'toolkit', walk: { renew: true, target: { ...base.walk.target, toolkit: { revision: 'new' } } } },
      'withdrawn',
    ],
    [
      'is kept where another toolkit is only wanted',
      { stage: 'toolkit', walk: { target: { ...base.walk.target, toolkit: { revision: 'new' } } } },
      'closed',
    ],
    ['is kept where the same stack is taken', { stage: 'toolkit', walk: { renew: true } }, 'closed'],
  ])('%s', (_, parts, judgement) => expect(judged(parts)).toBe(judgement));
});

describe('another installer’s driver is as proven', () => {
  const external: Choice = { external: { namespace: 'theirs', matchLabels: { app: 'driver' } } };
  const started = '2026-11-24T09:00:00Z';
  const pod = (uid: string) =>
    keptPod({
      namespace: 'theirs',
      uid,
      labels: { app: 'driver' },
      containers: [{ name: 'c', ready: true, restartCount: 0, state: { running: { startedAt: started } } }],
    });
  const known: ComponentEvidence = { revision: 'external', pod: 'a', started };
  it.each<[what: string, choice: Choice, pods: readonly string[], proven: ComponentEvidence | undefined, yes: boolean]>(
    [
      ['while its pod runs', external, ['a'], known, true],
      ['not with another pod', external, ['b'], known, false],
      ['not without its pod', external, [], known, false],
      ['where nobody watches it', { external: 'unwatched' }, [], known, true],
      ['where nobody watched it, and its pods are not there yet', external, [], UNWATCHED, true],
      ['not where the proof names no driver', external, ['a'], undefined, false],
      ['not where the proof names no driver and nobody watches', { external: 'unwatched' }, [], undefined, false],
    ],
  )('%s', (_, choice, pods, proven, yes) => {
    const input = { ...base.input, pods: pods.map(pod) };
    const components = proven === undefined ? {} : { driver: proven };
    expect(isDriverAsProven(input, choice, { node: 'u', boot: 'b', at: started, level: 'full', components })).toBe(yes);
  });
});
