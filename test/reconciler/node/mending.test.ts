// A closed node on which nothing rests mends itself: what a person would restart is restarted, one
// after the other, each once a backoff, and reported. With GPU pods on it nothing is touched.
import { describe, expect, it } from 'vitest';
import { RETRY } from '../../../core/keys.ts';
import type { NodeObject, PodObject } from '../../../reconciler/model.ts';
import { keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const user: PodObject = keptPod({ name: 'user', namespace: 'team', uid: 'user', gpus: { 'nvidia.com/gpu': 1 } });

/**
 * A node whose kubelet offers no GPU, or whose runtime has lost the handler, until enough was
 * restarted.
 */
class Broken extends World {
  what: 'gpus' | 'handler' | undefined;
  /** The restart of this operand mends it. */
  mends = '';
  restarted: string[] = [];

  override reality(): void {
    super.reality();
    const status: NodeObject['status'] = {
      ...this.node.status,
      ...(this.what === 'gpus' ? { allocatable: { 'nvidia.com/gpu': '0' } } : {}),
      runtimeHandlers: this.what === 'handler' ? ['', 'runc'] : ['', 'runc', 'nvidia'],
    };
    this.node = { ...this.node, status };
  }
  /** So long, in passes of ten seconds. */
  live(minutes: number): void {
    for (let i = 0; i < minutes * 6; i += 1) {
      this.now += 9000;
      for (const action of this.step())
        if (action.kind === 'delete-pod' && !action.name.includes('validation')) {
          this.restarted.push(action.name.replace('-pod', ''));
          if (action.name === `${this.mends}-pod`) this.what = undefined;
        }
    }
  }
}
const broken = (what: 'gpus' | 'handler', mends = ''): Broken => {
  const world = new Broken().validated();
  world.what = what;
  world.mends = mends;
  world.reality();
  return world;
};

describe('a closed node', () => {
  it.each([
    ['gpus', 'device-plugin', ['device-plugin']],
    ['gpus', 'toolkit', ['device-plugin', 'toolkit']],
    ['gpus', 'driver', ['device-plugin', 'toolkit', 'driver']],
    ['handler', 'toolkit', ['toolkit']],
  ] as const)('without its %s is open again once the %s was restarted', (what, mends, restarted) => {
    const world = broken(what, mends);
    world.live(60);
    expect([world.trust, world.restarted]).toEqual([[true, true], restarted]);
    expect(world.events.filter((reason) => reason === 'GPUOperandRestart')).toHaveLength(restarted.length);
  });
  it('restarts each once and no more where none helps', () => {
    const world = broken('gpus');
    world.live(240);
    expect(world.restarted).toEqual(['device-plugin', 'toolkit', 'driver']);
  });
  it('restarts each once also after a driver that failed many times', () => {
    const world = new Broken();
    world.broken['driver'] = {};
    world.live(120);
    expect(world.restarted.length).toBeGreaterThan(10);
    world.broken = {};
    world.what = 'gpus';
    world.restarted = [];
    world.live(240);
    expect(world.restarted).toEqual(['driver', 'device-plugin', 'toolkit']);
  });
  it('restarts nothing under GPU pods', () => {
    const world = broken('gpus', 'device-plugin');
    world.pods.set('user', user);
    world.live(60);
    expect([world.restarted, world.trust]).toEqual([[], [true, false]]);
  });
  it('says when it is tried again, and how to try it now', () => {
    const world = broken('gpus');
    world.live(6);
    const said = world.condition?.message ?? '';
    expect(said).toMatch(
      /^no new GPU pods, device-plugin: .* now: kubectl annotate node n --overwrite gpu-gate.dev\/retry=/,
    );
    world.live(60);
    expect(world.condition?.message).toContain('; retried after ');
  });
  it('obeys a retry while it still waits', () => {
    const world = broken('gpus', 'device-plugin');
    world.live(1);
    world.annotate(RETRY, '1');
    world.live(1);
    expect([world.restarted, world.trust]).toEqual([['device-plugin'], [true, true]]);
  });
});
