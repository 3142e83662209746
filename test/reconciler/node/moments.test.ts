// The moment at which something is due, to the millisecond, and what a node is to run.
import { describe, expect, it } from 'vitest';
import { WALK } from '../../../core/keys.ts';
import { list, object } from '../../../core/raw.ts';
import type { Proof } from '../../../gate/node-proof.ts';
import { isOutOfSight, noteLosses } from '../../../reconciler/node/losses.ts';
import { changesOnlySaid } from '../../../reconciler/node/marks.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { heldTarget, provesTarget, targetOf, UNWATCHED } from '../../../reconciler/node/target.ts';
import { newWalk, parseWalk, type Walk } from '../../../reconciler/walk.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';
import { World } from './world.ts';

const iso = (ms: number): string => new Date(ms).toISOString();
const at = (ms: number): string => iso(NOW + ms);

describe('a node that is not Ready', () => {
  it.each([
    [59_999, false],
    [60_000, true],
  ])('for %i ms of a grace time of 60 s: out of sight is %j', (ms, hidden) =>
    expect(isOutOfSight({ notReady: at(-ms) }, { now: NOW, notReadyGrace: 60_000 })).toBe(hidden),
  );
  it('is not out of sight where it is one of many', () =>
    expect(isOutOfSight({ notReady: at(-90_000) }, { now: NOW, notReadyGrace: 60_000, isOverloaded: true })).toBe(
      false,
    ));
  it('nor if it is Ready', () => expect(isOutOfSight({}, { now: NOW, notReadyGrace: 0 })).toBe(false));
});

describe('what is noted of a validated node', () => {
  const proof: Proof = { node: 'uid-node-a', boot: 'boot-1', at: at(-600_000), level: 'full', components: {} };
  const walk: Walk = {
    ...newWalk('uid-node-a', 'boot-1', NOW),
    stage: 'done',
    proven: 'boot-1',
    passed: { 'driver-validation': 'a', 'device-plugin-validation': 'b' },
  };
  const noted = (more: object = {}, input: object = {}, isIdle = true, of: Proof | null = proof) =>
    noteLosses(
      { ...walk, ...more },
      {
        node: aNode(),
        policy: aPolicy({ validation: { interval: '10m' } }),
        now: NOW,
        notReadyGrace: 60_000,
        ...input,
      },
      of ?? undefined,
      isIdle,
    );
  const rounds = ({ epoch, gpuEpoch, passed }: Walk) => [epoch, gpuEpoch, Object.keys(passed)];
  const [KEPT, NONE_LEFT] = [
    [0, 0, ['driver-validation', 'device-plugin-validation']],
    [1, 0, []],
  ];
  const PLUGIN_AGAIN = [0, 1, ['driver-validation']];
  it.each([
    ['its interval is over', noted(), NONE_LEFT],
    ['a millisecond before that', noted({}, { now: NOW - 1 }), KEPT],
    ['its interval is over, while GPU pods use it', noted({}, {}, false), KEPT],
    ['its interval is over, on the way', noted({ stage: 'driver' }), KEPT],
    ['it has no proof', noted({}, {}, true, null), KEPT],
    ['the policy asks for no interval', noted({}, { policy: aPolicy({ validation: { interval: '0s' } }) }), KEPT],
    ['nothing was passed', noted({ passed: {} }), [0, 0, []]],
    [
      'all its GPUs are gone',
      noted({}, { now: NOW - 1, node: { ...aNode(), status: { ...aNode().status, allocatable: {} } } }),
      PLUGIN_AGAIN,
    ],
  ])('%s', (_, walked, expected) => expect(rounds(walked)).toEqual(expected));

  const rejected = (rejectedAt: number, before?: number, of: Proof | null = proof) =>
    noted(
      before === undefined ? {} : { rejected: { at: iso(before), count: 5, words: 'w' } },
      { now: NOW - 1, rejection: { at: rejectedAt, count: 7, words: 'GPU is lost' } },
      true,
      of,
    );
  const PROVEN_AT = NOW - 600_000;
  it.each([
    ['in the millisecond of the proof', rejected(PROVEN_AT), KEPT],
    ['after the proof', rejected(PROVEN_AT + 1), PLUGIN_AGAIN],
    ['no later than those that were counted', rejected(PROVEN_AT + 1, PROVEN_AT + 1), KEPT],
    ['later than those that were counted', rejected(PROVEN_AT + 2, PROVEN_AT + 1), PLUGIN_AGAIN],
    ['before there is a proof', rejected(PROVEN_AT + 1, undefined, null), KEPT],
  ])('pods that the kubelet rejected %s', (_, walked, expected) => expect(rounds(walked)).toEqual(expected));
});

describe('a failed validation', () => {
  const failed = (): { world: World; retryAt: number } => {
    const world = new World(aPolicy({ validation: { backoff: { initial: '5s', max: '20s' } } }));
    world.validationsFail = true;
    for (let i = 0; i < 30 && world.state !== 'failed'; i += 1) world.step();
    const walk = parseWalk(world.node.metadata.annotations?.[WALK], 'node-uid');
    return { world, retryAt: Date.parse(walk?.failed?.retryAt ?? '') };
  };
  const isTried = (world: World, now: number): boolean =>
    planNode({ ...world.input(), now }).actions.some(({ kind }) => kind === 'create-pod');
  it('is tried again when it is due, and not a millisecond before', () => {
    const { world, retryAt } = failed();
    expect([isTried(world, retryAt - 1), isTried(world, retryAt)]).toEqual([false, true]);
  });
  it('waits no longer than the longest backoff: a clock that was ahead wrote a later time', () => {
    const { world, retryAt } = failed();
    const longest = 20_000 * 1.2;
    expect([isTried(world, retryAt - longest), isTried(world, retryAt - longest - 1)]).toEqual([false, true]);
  });
});

describe('what a node is to run', () => {
  const revision = (name: string) => ({ revision: name });
  const selector = (app: string) => ({ external: { namespace: 'x', matchLabels: { app } } });
  const walk = newWalk('u', 'b', NOW);
  const proof = (components: Proof['components']): Proof => ({
    node: 'u',
    boot: 'b',
    at: at(0),
    level: 'full',
    components,
  });
  const evidence = (name: string) => ({ revision: name, pod: 'p', started: at(0) });

  it('it knows by its memory, or else by its labels', () =>
    expect(heldTarget({ ...walk, target: { driver: revision('a') } }, { driver: 'b', toolkit: 't' })).toEqual({
      driver: revision('a'),
      toolkit: revision('t'),
    }));

  it.each([
    ['the same', { driver: evidence('a') }, { driver: revision('a') }, true],
    ['another driver', { driver: evidence('a') }, { driver: revision('b') }, false],
    ['another toolkit, which pods that run hold too', { toolkit: evidence('a') }, { toolkit: revision('b') }, false],
    ['another plugin, which they do not', { 'device-plugin': evidence('a') }, { 'device-plugin': revision('b') }, true],
    ['a part that the proof does not name', {}, { driver: revision('b') }, true],
  ])('the proof is of it: %s', (_, components, target, yes) =>
    expect(provesTarget(proof(components), target)).toBe(yes),
  );

  const chosen = (held: object, wanted: object, more: object = {}) =>
    targetOf({ walk, proof: proof({ driver: evidence('a') }), held, wanted, takes: undefined, ...more } as never);
  it.each<[string, object, object, object, object, object]>([
    [
      'what it has, whatever the policy says',
      { driver: revision('a') },
      { driver: revision('b') },
      {},
      revision('a'),
      evidence('a'),
    ],
    [
      'what it takes now',
      { driver: revision('a') },
      { driver: revision('b') },
      { takes: { driver: revision('b') } },
      revision('b'),
      evidence('a'),
    ],
    ['what the policy says, where it has none', {}, { driver: revision('b') }, {}, revision('b'), evidence('a')],
    [
      'ours, though the policy leaves it to others by now',
      { driver: revision('a') },
      { driver: selector('d') },
      {},
      revision('a'),
      evidence('a'),
    ],
    [
      'that of others, though the policy would bring its own',
      { driver: selector('d') },
      { driver: revision('b') },
      {},
      selector('d'),
      evidence('a'),
    ],
    [
      'that of others, by the same pods',
      { driver: selector('d') },
      { driver: selector('d') },
      {},
      selector('d'),
      evidence('a'),
    ],
    [
      'that of others, by pods that the policy names otherwise: none is the proven one, and none may have started later',
      { driver: selector('d') },
      { driver: selector('e') },
      {},
      selector('e'),
      { ...UNWATCHED, started: at(0) },
    ],
  ])('%s', (_, held, wanted, more, driver, proven) => {
    const { target, proof: kept } = chosen(held, wanted, more);
    expect([target['driver'], kept?.components['driver']]).toEqual([driver, proven]);
  });
  it('a proof gains no part that it did not name', () => {
    const { proof: kept } = chosen({ toolkit: selector('d') }, { toolkit: selector('e') });
    expect(Object.keys(kept?.components ?? {})).toEqual(['driver']);
    expect(chosen({ driver: selector('d') }, { driver: selector('e') }, { proof: undefined }).proof).toBeUndefined();
  });
});

describe('a write that changes only what is said', () => {
  const walk = newWalk('uid-node-a', 'boot-1', NOW);
  const node = (text?: string) => aNode({ annotations: text === undefined ? {} : { [WALK]: text } });
  const SAME = node(JSON.stringify({ ...walk, said: { text: 'before' } }));
  const patch = (annotations: object, labels: object = {}) =>
    ({ kind: 'patch-node', node: 'node-a', uid: 'uid-node-a', labels, annotations }) as never;
  const SAID = patch({ [WALK]: '…' });
  it.each([
    ['the walk as it was', SAME, SAID, walk, true],
    ['a walk in another stage', SAME, SAID, { ...walk, stage: 'driver' }, false],
    ['another mark beside it', SAME, patch({ [WALK]: '…', other: 'x' }), walk, false],
    ['another mark alone', SAME, patch({ other: 'x' }), walk, false],
    ['a label beside it', SAME, patch({ [WALK]: '…' }, { state: 'x' }), walk, false],
    ['a node without a walk', node(), SAID, walk, false],
    ['no walk to write', SAME, SAID, undefined, false],
    ['a write of the condition', SAME, { kind: 'set-node-condition' } as never, walk, false],
  ])('%s', (_, present, mark, wanted, yes) => expect(changesOnlySaid(present, mark, wanted)).toBe(yes));
});

describe('a validation’s pod', () => {
  const made = (injection: object, name: string) => {
    const world = new World(aPolicy({ injection }));
    const actions = Array.from({ length: 20 }, () => world.step()).flat();
    const pods = actions.flatMap((action) => (action.kind === 'create-pod' ? [action.manifest] : []));
    const { spec } = object(pods.find(({ metadata }) => metadata.name.startsWith(name)));
    const { schedulerName, containers } = object(spec);
    const { resources } = object(list<unknown>(containers)[0]);
    return [schedulerName, object(object(resources)['limits'])['nvidia.com/gpu']];
  };
  it.each([
    ['device-plugin-validation', {}, [undefined, '1']],
    ['device-plugin-validation', { schedulerName: 'gpu-scheduler' }, ['gpu-scheduler', '1']],
    ['driver-validation', { schedulerName: 'gpu-scheduler' }, [undefined, undefined]],
  ])('of %s asks as users’ pods do: %j', (name, injection, expected) =>
    expect(made(injection, name)).toEqual(expected),
  );
});
