// `gpu-gate.dev/prove`: validations run again at a person's word, and no operand is touched. And
// how long each stage took.
import { describe, expect, it } from 'vitest';
import { PROOF, PROVE, WALK } from '../../../core/keys.ts';
import { levelAsked, proveValue } from '../../../core/levels.ts';
import { parseProof, type Proof } from '../../../gate/node-proof.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { parseWalk, type Walk } from '../../../reconciler/walk.ts';
import { World } from './world.ts';

const proofOf = (world: World): Proof => parseProof(world.node.metadata.annotations?.[PROOF]) ?? expect.unreachable();
const walkOf = (world: World): Walk =>
  parseWalk(world.node.metadata.annotations?.[WALK], world.node.metadata.uid) ?? expect.unreachable();
/** What happens to pods until the node is open again. */
function afterwards(world: World): readonly string[] {
  const did: string[] = [];
  const note = (actions: readonly Action[]): void => {
    for (const action of actions) {
      if (action.kind === 'create-pod')
        did.push(`create ${action.manifest.metadata.name.replace(/(?<=-validation)-.*/, '')}`);
      if (action.kind === 'delete-pod' && !action.name.includes('-validation-')) did.push(`delete ${action.name}`);
    }
  };
  for (let i = 0; i < 8; i += 1) note(world.step());
  return did;
}

describe('a node that serves', () => {
  it('full: both validations run again, the proof stands meanwhile and is new then', () => {
    const world = new World().validated();
    const { at } = proofOf(world);
    world.now += 3_600_000;
    world.annotate(PROVE, 'full-1');
    world.step();
    expect([world.trust, world.closed, proofOf(world).at]).toEqual([[true, false], 'awaiting driver-validation', at]);
    expect(afterwards(world)).toEqual(['create device-plugin-validation']);
    expect(world.trust).toEqual([true, true]);
    expect(Date.parse(proofOf(world).at)).toBeGreaterThan(Date.parse(at));
    expect(proofOf(world)).toMatchObject({ level: 'full' });
    expect(proofOf(world).driverAt).toBeUndefined();
  });
  it('driver: that validation alone, and the rest of the proof is as old as it was', () => {
    const world = new World().validated();
    const { at } = proofOf(world);
    world.now += 3_600_000;
    world.annotate(PROVE, 'driver-1');
    expect(afterwards(world)).toEqual(['create driver-validation']);
    expect(world.trust).toEqual([true, true]);
    expect(proofOf(world)).toMatchObject({ level: 'full', at });
    expect(Date.parse(proofOf(world).driverAt ?? '')).toBeGreaterThan(Date.parse(at));
  });
  it('a driver that does not compute any more loses its proof, and is proven in full again', () => {
    const world = new World().validated();
    world.now += 3_600_000;
    world.validationsFail = true;
    world.annotate(PROVE, 'driver-1');
    for (let i = 0; i < 4; i += 1) world.step();
    expect([world.state, world.proof, world.trust]).toEqual(['failed', undefined, [false, false]]);
    world.validationsFail = false;
    world.now += 3_600_000;
    expect(afterwards(world).filter((what) => what.startsWith('create'))).toContain('create device-plugin-validation');
    expect(world.trust).toEqual([true, true]);
  });
  it('each value once, and taking it away asks for nothing', () => {
    const world = new World().validated();
    world.annotate(PROVE, 'driver-1');
    afterwards(world);
    world.annotate(PROVE, 'driver-1');
    expect(afterwards(world)).toEqual([]);
    const { [PROVE]: _, ...annotations } = world.node.metadata.annotations ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, annotations } };
    expect(afterwards(world)).toEqual([]);
    world.annotate(PROVE, 'driver-2');
    expect(afterwards(world)).toEqual(['create driver-validation']);
  });
  it('a value that was there before the walk began asks for nothing', () => {
    const world = new World();
    world.annotate(PROVE, 'full-1');
    world.validated();
    expect([walkOf(world).prove, walkOf(world).attempt]).toEqual(['full-1', 1]);
  });
});

it('a node that failed in a validation tries it again without its backoff', () => {
  const world = new World();
  world.validationsFail = true;
  for (let i = 0; i < 12; i += 1) world.step();
  expect(world.state).toBe('failed');
  world.validationsFail = false;
  world.annotate(PROVE, 'full-1');
  expect(afterwards(world)).toEqual(['create driver-validation', 'create device-plugin-validation']);
  expect(world.trust).toEqual([true, true]);
});

it('a driver that came back is proven to the level of the driver until a pod got a GPU', () => {
  const world = new World().validated();
  world.broken['device-plugin'] = {};
  world.pods.delete('driver-pod');
  world.pods.delete('device-plugin-pod');
  for (let i = 0; i < 12; i += 1) world.step();
  expect([world.trust, proofOf(world).level]).toEqual([[true, false], 'driver']);
});

it.each([
  ['driver', 'driver'],
  ['driver-17', 'driver'],
  ['driverless', 'full'],
  ['full-17', 'full'],
  ['now', 'full'],
  ['', 'full'],
  [proveValue('driver', 17_000), 'driver'],
  [proveValue('full', 17_000), 'full'],
])('%j asks for the level %s', (value, level) => expect(levelAsked(value)).toBe(level));

describe('the time of a stage', () => {
  const first = (): World => {
    const world = new World();
    for (let i = 0; !world.trust[1] && i < 30; i += 1) {
      world.now += 10_000;
      world.step();
    }
    return world;
  };
  it('is kept once the stage is passed, also over a reboot', () => {
    const world = first();
    const took = walkOf(world).tookMs ?? {};
    expect(took['driver']).toBeGreaterThan(0);
    expect(Object.keys(took)).toContain('device-plugin-validation');
    world.node = { ...world.node, status: { ...world.node.status, nodeInfo: { bootID: 'boot-2' } } };
    world.step();
    expect([walkOf(world).boot, walkOf(world).tookMs]).toEqual(['boot-2', took]);
  });
  it('is not that of a stage that had failed', () => {
    const world = new World();
    world.broken['driver'] = {};
    for (let i = 0; world.state !== 'failed' && i < 60; i += 1) {
      world.now += 10_000;
      world.step();
    }
    expect(walkOf(world).tookMs).not.toHaveProperty('driver');
  });
  it('is not that of a stage that the walk fell back from', () => {
    const world = first();
    const { driver } = walkOf(world).tookMs ?? {};
    world.annotate(PROVE, 'full-1');
    world.now += 500_000;
    world.step();
    expect(walkOf(world).tookMs?.['driver']).toBe(driver);
  });
});
