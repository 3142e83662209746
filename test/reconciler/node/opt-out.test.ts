// An opt-out that is taken back midway: what the node keeps, and what is walked again. Rounds of
// validation that passed before anything was taken down prove nothing after it.
import { describe, expect, it } from 'vitest';
import { DEPLOY_PREFIX, MANAGED, WALK } from '../../../core/keys.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { parseWalk, type Walk } from '../../../reconciler/walk.ts';
import { aPolicy, keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const USER = keptPod({ name: 'user', namespace: 'team', uid: 'user', gpus: { 'nvidia.com/gpu': 1 } });
const ALL = ['toolkit', 'driver', 'device-plugin', 'dcgm-exporter'];
const BOTH = ['driver-validation', 'device-plugin-validation'];

const walkOf = (world: World): Walk | undefined => parseWalk(world.node.metadata.annotations?.[WALK], 'node-uid');
const deployedOn = (world: World): readonly string[] =>
  ALL.filter((name) => world.node.metadata.labels?.[DEPLOY_PREFIX + name] !== undefined);
const validationsOf = (actions: readonly Action[]): readonly string[] =>
  actions.flatMap((action) =>
    action.kind === 'create-pod' ? [action.manifest.metadata.name.replace(/-n-.*/, '')] : [],
  );
const optOut = (world: World): void => world.relabel((labels) => delete labels[MANAGED]);
const optIn = (world: World): void =>
  world.relabel((labels) => {
    labels[MANAGED] = 'true';
  });
/** Steps of the opt-out until so many operands are left. */
const until = (world: World, left: number): void => {
  for (let i = 0; i < 30 && deployedOn(world).length > left; i += 1) world.step();
  expect(deployedOn(world)).toHaveLength(left);
};

describe('an opt-out that is taken back', () => {
  it.each<[string, (world: World) => void, number, readonly string[], readonly string[], boolean]>([
    [
      'while GPU pods are waited for: the walk is found done',
      (world) => {
        world.pods.set('user', USER);
        for (let i = 0; i < 5; i += 1) world.step();
        world.pods.delete('user');
      },
      0,
      ALL,
      [],
      true,
    ],
    ['before anything was taken down: the walk is found done', (world) => void world.step(), 0, ALL, [], true],
    [
      'after what gates nothing was taken down: validated again',
      (world) => until(world, 3),
      1,
      ALL.slice(0, 3),
      BOTH,
      false,
    ],
    ['after the device plugin was taken down', (world) => until(world, 2), 1, ALL.slice(0, 2), BOTH, false],
    ['after the driver was taken down', (world) => until(world, 1), 1, ALL.slice(0, 1), BOTH, false],
    ['after all was taken down', (world) => until(world, 0), 1, [], BOTH, false],
  ])('%s', (_, leave, epochs, kept, validations, isProven) => {
    const world = new World().validated();
    const [before, proof] = [walkOf(world), world.proof];
    optOut(world);
    leave(world);
    expect([deployedOn(world), world.proof === proof, world.trust[1]]).toEqual([kept, isProven, false]);
    optIn(world);
    const first = world.step();
    expect((walkOf(world)?.epoch ?? 0) - (before?.epoch ?? 0)).toBe(epochs);
    const actions = [...first, ...Array.from({ length: 40 }, () => world.step()).flat()];
    expect(validationsOf(actions)).toEqual(validations);
    expect([deployedOn(world), world.proof === proof, world.trust]).toEqual([ALL, isProven, [true, true]]);
    expect([walkOf(world)?.leaving, walkOf(world)?.renew]).toEqual([undefined, undefined]);
  });

  it('and begun again twice: each counts, and no round of an earlier time is taken for one of a later', () => {
    const world = new World().validated();
    const epoch = walkOf(world)?.epoch ?? 0;
    for (let times = 1; times <= 2; times += 1) {
      optOut(world);
      until(world, 1);
      // What goes on after its rounds were forgotten forgets nothing more.
      world.step();
      optIn(world);
      expect(validationsOf(Array.from({ length: 40 }, () => world.step()).flat())).toEqual(BOTH);
      expect(walkOf(world)?.epoch).toBe(epoch + times);
    }
  });

  it('takes what the policy says by then', () => {
    const world = new World().validated();
    const revision = (): string | undefined => world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`];
    const before = revision();
    optOut(world);
    until(world, 2);
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    optIn(world);
    world.validated();
    expect([revision() === before, walkOf(world)?.driver]).toEqual([false, '610.1.1']);
  });

  it('keeps what it runs, where GPU pods were still there, whatever the policy says by then', () => {
    const world = new World().validated();
    const revision = (): string | undefined => world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`];
    const before = revision();
    world.pods.set('user', USER);
    optOut(world);
    for (let i = 0; i < 3; i += 1) world.step();
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    optIn(world);
    world.settle();
    expect([revision() === before, world.trust]).toEqual([true, [true, true]]);
  });
});

describe('an opt-out whose pods have not ended when upgrade.drain.timeoutSeconds is over', () => {
  const late = (more: (world: World) => void): string => {
    const world = new World(aPolicy({ upgrade: { drain: { timeoutSeconds: 60 } } })).validated();
    world.pods.set('user', USER);
    more(world);
    for (let i = 0; i < 70; i += 1) world.step();
    expect(world.trust).toEqual([true, false]);
    return world.condition?.message ?? '';
  };
  it('says what a person may do, with the command', () =>
    expect(late(optOut)).toMatch(
      /\(team\/user\); upgrade.drain.timeoutSeconds is over, and nothing is taken from under these pods: end them, or opt the node in again; now: kubectl label node n --overwrite gpu-gate.dev\/managed=true$/,
    ));
  it('of a policy that is being deleted: no opt-in would help', () => {
    const metadata = { name: 'default', uid: 'policy-uid', generation: 1, deletionTimestamp: '2026-11-24T10:00:00Z' };
    const message = late((world) => {
      world.policy = aPolicy({ upgrade: { drain: { timeoutSeconds: 60 } } }, { metadata });
    });
    expect(message).toMatch(/nothing is taken from under these pods: end them$/);
  });
});

describe('a clock that is put back an hour', () => {
  it('holds up no opt-out', () => {
    const world = new World().validated();
    optOut(world);
    world.step();
    world.takeOver(-3_600_000);
    until(world, 0);
  });
  it('holds up no removal where no policy selects the node', () => {
    const world = new World().validated();
    const input = world.input.bind(world);
    world.input = () => ({ ...input(), policy: undefined });
    world.step();
    expect(walkOf(world)?.unselected).toBeDefined();
    world.takeOver(-3_600_000);
    world.step();
    world.now += 300_000;
    until(world, 0);
  });
});
