// The state machine is read off its list: each state has its limit, and another state is one file
// and one line.
import { expect, it } from 'vitest';
import { STAGES } from '../../../core/stages.ts';
import { open } from '../../../gate/node-proof.ts';
import type { NodePlan } from '../../../reconciler/node/node-plan.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { WALK_STATES } from '../../../reconciler/node/states/list.ts';
import type { WalkState } from '../../../reconciler/node/states/state.ts';
import { aPolicy } from '../../builders/objects.ts';
import { World } from './world.ts';

it('has the states that the label can show, in that order', () =>
  expect(WALK_STATES.map(({ name }) => name)).toEqual([...STAGES]));
it('gives every state a limit but preflight, and each its own', () => {
  const timeouts = {
    toolkit: '1s',
    driver: '2s',
    driverValidation: '3s',
    devicePlugin: '4s',
    devicePluginValidation: '5s',
    draDriver: '6s',
    draValidation: '7s',
  };
  const policy = aPolicy({ validation: { timeouts } });
  expect(WALK_STATES.map(({ limit }) => limit(policy))).toEqual([undefined, 1000, 2000, 3000, 4000, 5000, 6000, 7000]);
});

/** A new state, as an engineer may add one: links between GPUs are fast enough. */
const bandwidth = (isFast: () => boolean): WalkState => ({
  name: 'bandwidth',
  limit: () => 60_000,
  restarts: [],
  look: () => ({
    finding: isFast()
      ? { kind: 'done' }
      : { kind: 'waiting', reason: 'Slow', message: 'waiting for links between GPUs to be fast' },
  }),
});

class WiderWorld extends World {
  isFast = false;
  override plan(): NodePlan {
    return planNode(this.input(), [...WALK_STATES, bandwidth(() => this.isFast)]);
  }
}

it('another state in the list is walked, timed, tried again and remembered', () => {
  const world = new WiderWorld();
  world.settle();
  expect([world.state, open(world.node).yes, world.condition]).toMatchObject([
    'bandwidth',
    false,
    { reason: 'Bandwidth', message: expect.stringContaining('links between GPUs') },
  ]);
  world.now += 61_000;
  world.settle(2);
  expect([world.state, world.condition?.reason]).toEqual(['failed', 'BandwidthFailedTimedOut']);
  world.isFast = true;
  world.validated();
  expect(open(world.node).yes).toBe(true);
});
