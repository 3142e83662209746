// What the marks of a node say beyond its state: the CUDA of its driver, and what a kubelet or
// Node Feature Discovery said.
import { describe, expect, it } from 'vitest';
import type { Proof } from '../../../gate/node-proof.ts';
import type { NodeInput } from '../../../reconciler/node/observed.ts';
import { aPolicy } from '../../builders/objects.ts';
import { NFD, World } from './world.ts';

const CUDA = 'nvidia.com/cuda.runtime-version.full';
const DRIVER = 'nvidia.com/cuda.driver-version.full';
const proofOf = (world: World): Proof => JSON.parse(world.proof ?? '{}') as Proof;

describe('the proof names the CUDA of its driver', () => {
  const validated = (spec: object = {}): World =>
    new World(aPolicy(spec), { [CUDA]: '13.1', [DRIVER]: '580.1.1' }).validated();
  /** Validated again, without what was read of the driver before. */
  const again = (world: World): World => {
    world.relabel((labels) => delete labels[CUDA]);
    world.start('device-plugin');
    return world.validated();
  };
  it('as it is read of it', () => expect(proofOf(validated())).toMatchObject({ cuda: '13.1', driver: '595.91.07' }));
  it('as it was read before, where it is the same driver', () => {
    const world = validated();
    const { at } = proofOf(world);
    expect(proofOf(again(world))).toMatchObject({ cuda: '13.1', driver: '595.91.07' });
    expect(proofOf(world).at).not.toBe(at);
  });
  it('not as it was read of another driver', () => {
    const world = validated({ components: { driver: { mode: 'external' } } });
    expect(proofOf(world)).toMatchObject({ cuda: '13.1', driver: '580.1.1' });
    world.relabel((labels) => {
      labels[DRIVER] = '610.1.1';
    });
    const proof = proofOf(again(world));
    expect(proof.driver).toBe('610.1.1');
    expect(proof).not.toHaveProperty('cuda');
  });
  it('not where nobody has read it', () => {
    expect(proofOf(new World().validated())).not.toHaveProperty('cuda');
    const external = new World(aPolicy({ components: { driver: { mode: 'external' } } })).validated();
    expect(proofOf(external)).not.toHaveProperty('driver');
  });
});

describe('a closed node', () => {
  class Rejecting extends World {
    rejection: NodeInput['rejection'];
    override input(): NodeInput {
      return { ...super.input(), rejection: this.rejection };
    }
  }
  const words = 'Allocate failed: GPU is lost';
  it('says what its kubelet rejected, until a validation has passed after it', () => {
    const world = new Rejecting().validated();
    world.validationsFail = true;
    world.rejection = { count: 5, words, at: world.now };
    world.settle(4);
    expect(world.condition?.message).toContain(words);
    world.validationsFail = false;
    world.now += 600_000;
    world.validated();
    world.broken['device-plugin'] = {};
    world.reality();
    world.settle(4);
    expect(world.trust).toEqual([true, false]);
    expect(world.condition?.message).not.toContain(words);
  });
});

describe('a validated node whose label of Node Feature Discovery is gone', () => {
  const since = (ms: number): string => {
    const world = new World().validated();
    world.relabel((labels) => delete labels[NFD]);
    world.step();
    world.now += ms - 1000;
    world.step();
    return world.condition?.message ?? '';
  };
  const hold = aPolicy().spec.labelHold;
  it.each([
    ['says so when that has lasted', hold, true],
    ['does not say so at once', hold - 1, false],
  ])('%s', (_, ms, yes) =>
    expect(since(ms).includes('Node Feature Discovery no longer reports an NVIDIA device')).toBe(yes),
  );
  it('says nothing where the label is there', () => {
    const world = new World().validated();
    world.now += hold;
    world.settle(2);
    expect(world.condition?.message).not.toContain('Node Feature Discovery');
  });
});
