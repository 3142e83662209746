// A node whose GPUs reach pods by claims: its states, what is awaited in each, what closes it
// again, and a change from one way to the other.
import { describe, expect, it } from 'vitest';
import { DEPLOY_PREFIX } from '../../../core/keys.ts';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { aPolicy, keptPod } from '../../builders/objects.ts';
import { aPool, World } from './world.ts';

const spec = { validation: { timeouts: { driver: '60s' } } };
const policyOf = (allocation: 'DevicePlugin' | 'DRA', more: object = {}): GpuPolicy =>
  aPolicy({ ...spec, allocation, ...more });
const dra = (more: object = {}): World => new World(policyOf('DRA', more));
const passes = (world: World, count = 20): World => {
  for (let i = 0; i < count; i += 1) world.step();
  return world;
};
const said = ({ state, condition }: World): readonly [string | undefined, string] => [state, condition?.message ?? ''];
const labels = ({ node }: World): readonly string[] =>
  Object.keys(node.metadata.labels ?? {})
    .filter((key) => key.startsWith(DEPLOY_PREFIX))
    .map((key) => key.slice(DEPLOY_PREFIX.length));
const validations = ({ pods }: World): readonly string[] =>
  [...pods.keys()].filter((name) => name.startsWith('dra-validation-'));

it('walks to validated without a device plugin', () => {
  const world = dra().validated();
  expect(labels(world)).toEqual(['toolkit', 'driver', 'dra-driver', 'dcgm-exporter']);
  expect(world.condition).toMatchObject({ reason: 'Validated', message: /^driver and DRA driver validated/ as never });
  expect(Object.keys((JSON.parse(world.proof ?? '') as { components: object }).components)).toEqual([
    'toolkit',
    'driver',
    'dra-driver',
  ]);
});

describe('dra-driver waits', () => {
  it.each<[what: string, change: (world: World) => void, message: string]>([
    ['for slices', (world) => (world.publishes = []), 'waiting for the ResourceSlices of gpu.nvidia.com on this node'],
    [
      'for all slices of the newest generation',
      (world) => (world.publishes = [aPool({ generation: 5, count: 2 })]),
      'waiting for pool n of gpu.nvidia.com to be complete: 1 of 2 ResourceSlices of generation 5 are there',
    ],
    [
      'for a device',
      (world) => (world.publishes = [aPool({ devices: [] })]),
      'waiting for gpu.nvidia.com to publish a device of this node: its ResourceSlices are empty',
    ],
    [
      'for an API server that serves them',
      (world) => {
        world.publishes = undefined;
        world.reality();
      },
      'waiting for the API server to serve resource.k8s.io/v1',
    ],
    ['for its pod', (world) => (world.broken['dra-driver'] = {}), 'waiting for dra-driver-pod to be Ready'],
  ])('%s', (_, change, message) => {
    const world = dra();
    change(world);
    expect(said(passes(world))).toEqual(['dra-driver', expect.stringContaining(message)]);
    world.publishes = [aPool()];
    world.broken = {};
    world.start('dra-driver');
    world.reality();
    world.validated();
  });
  it('says so of an external driver, and fails in the end', () => {
    const world = dra({ components: { draDriver: { mode: 'external' } } });
    expect(said(passes(world))[1]).toContain('on this node, which the external DRA driver is to publish');
    world.now += 360_000;
    passes(world, 2);
    expect(world.condition?.reason).toBe('DraDriverFailedTimedOut');
    world.published = [aPool()];
    world.reality();
    passes(world);
    world.validated();
    expect(labels(world)).toEqual(['toolkit', 'driver', 'dcgm-exporter']);
  });
});

describe('dra-validation', () => {
  it('makes no pod before its claim template is there', () => {
    const world = dra({ deviceClasses: ['a', 'b'] });
    world.claimTemplate = undefined;
    expect(said(passes(world))).toEqual([
      'dra-validation',
      expect.stringContaining('waiting for a DeviceClass of the GPUPolicy (spec.deviceClasses: a, b)'),
    ]);
    expect(validations(world)).toEqual([]);
    world.claimTemplate = 'template';
    world.validated();
    expect(validations(world)).toHaveLength(1);
  });
  it('a node that was validated stays so without the template', () => {
    const world = dra().validated();
    world.claimTemplate = undefined;
    world.settle();
    expect(world.trust).toEqual([true, true]);
  });

  /** Its pod finds no device. */
  const unschedulable = (allocated: readonly string[]): World => {
    const world = dra();
    world.allocated = allocated;
    const pods = new Map<string, number>();
    for (let i = 0; i < 30; i += 1) {
      world.step();
      for (const name of validations(world)) {
        const pod = world.pods.get(name);
        if (pod === undefined) continue;
        pods.set(name, 1);
        world.pods.set(name, {
          ...pod,
          phase: 'Pending',
          containers: [],
          conditions: [
            { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: 'cannot allocate all claims' },
          ],
        });
      }
    }
    return world;
  };
  it('waits for a device without a clock where all are allocated', () => {
    const world = unschedulable(['gpu.nvidia.com/n/gpu-0', 'gpu.nvidia.com/n/gpu-1']);
    world.now += 3_600_000;
    world.step();
    expect(said(world)).toEqual(['dra-validation', expect.stringContaining('cannot be scheduled')]);
  });
  it('fails in time where one is free', () => {
    const world = unschedulable(['gpu.nvidia.com/n/gpu-0']);
    world.now += 360_000;
    world.step();
    expect(world.condition?.reason).toBe('DraValidationFailedUnschedulable');
  });
});

describe('a validated node closes, its pods stay, and it is validated again', () => {
  it.each<[what: string, happens: (world: World) => void, ends: (world: World) => void]>([
    ['its slices go', (world) => (world.publishes = []), (world) => (world.publishes = [aPool()])],
    [
      'a pool is not complete',
      (world) => (world.publishes = [aPool({ generation: 2, count: 2 })]),
      (world) => (world.publishes = [aPool({ generation: 2, slices: 2, count: 2 })]),
    ],
    ['the pod of the DRA driver goes', (world) => (world.broken['dra-driver'] = {}), (world) => (world.broken = {})],
    ['the DRA driver restarts', (world) => world.start('dra-driver'), () => undefined],
  ])('%s', (_, happens, ends) => {
    const world = dra().validated();
    const before = world.proof;
    const rounds = validations(world);
    happens(world);
    world.reality();
    world.step();
    expect(world.trust).toEqual([true, false]);
    passes(world, 4);
    ends(world);
    if (world.pods.get('dra-driver-pod')?.conditions.length === 0) world.start('dra-driver');
    world.reality();
    passes(world);
    expect(world.trust).toEqual([true, true]);
    expect(world.proof).not.toBe(before);
    expect(validations(world)).not.toEqual(rounds);
  });
  it('another policy field of the driver makes another revision, which pods that run do not wait for with drain None', () => {
    const more = { upgrade: { drain: { mode: 'None' } } };
    const world = dra(more).validated();
    world.pods.set('user', keptPod({ namespace: 'default', name: 'user', uid: 'user', claims: true }));
    world.policy = policyOf('DRA', { ...more, components: { draDriver: { version: 'v9' } } });
    world.rollOut = { isFree: true, isStopped: false, isRendered: true };
    for (let i = 0; i < 30; i += 1) world.step();
    expect([world.state, world.trust]).toEqual(['validated', [true, true]]);
    expect(world.pods.get('dra-driver-pod')?.labels['gpu-gate.dev/revision']).toBe(
      world.input().revisions['dra-driver'],
    );
  });
});

describe('preflight refuses a node whose GPUs are served in the other way', () => {
  it('by a device plugin', () => {
    const world = dra();
    world.offered = { 'nvidia.com/gpu': '8' };
    world.reality();
    passes(world, 4);
    expect(world.condition).toMatchObject({
      reason: 'PreflightFailedOtherAllocation',
      message: expect.stringContaining(
        'GPUs of this node are served in another way than allocation: DRA of the GPUPolicy: a device plugin offers 8 nvidia.com/gpu; remove it from this node, or set allocation: DevicePlugin',
      ),
    });
    world.offered = {};
    world.reality();
    world.now += 60_000;
    world.validated();
  });
  it('by a DRA driver', () => {
    const world = new World(policyOf('DevicePlugin'));
    world.published = [aPool()];
    world.reality();
    passes(world, 4);
    expect(world.condition).toMatchObject({
      reason: 'PreflightFailedOtherAllocation',
      message: expect.stringContaining(
        'the DRA driver gpu.nvidia.com publishes devices; remove it from this node, or set allocation: DRA',
      ),
    });
  });
  it('and not for a DRA driver of other devices', () => {
    const world = new World(policyOf('DevicePlugin'));
    world.published = [aPool({ driver: 'compute-domain.nvidia.com' })];
    world.validated();
  });
  it.each(['DevicePlugin', 'DRA'] as const)('a validated node (%s) stays open, and says so', (allocation) => {
    const world = new World(policyOf(allocation)).validated();
    world.offered = { 'nvidia.com/gpu': '8' };
    world.published = [aPool()];
    world.reality();
    world.settle();
    expect([world.trust, world.condition?.message]).toEqual([
      [true, true],
      expect.stringContaining('on this node as well, so that two pods may be given one GPU'),
    ]);
  });
});

describe('a change of allocation', () => {
  const other = { DevicePlugin: 'DRA', DRA: 'DevicePlugin' } as const;
  const component = { DevicePlugin: 'device-plugin', DRA: 'dra-driver' } as const;

  it.each(['DevicePlugin', 'DRA'] as const)(
    'leaves a validated node with %s until it is opted out and in again',
    (from) => {
      const world = new World(policyOf(from)).validated();
      const before = labels(world);
      world.policy = policyOf(other[from]);
      world.rollOut = { isFree: true, isStopped: false, isRendered: true };
      world.settle();
      expect([labels(world), world.trust]).toEqual([before, [true, true]]);
      world.reboot('boot-2');
      world.pods.delete(`${component[from]}-pod`);
      world.settle();
      expect(labels(world)).toEqual(before);
      world.relabel((all) => delete all['gpu-gate.dev/managed']);
      world.settle();
      expect(labels(world)).toEqual([]);
      world.relabel((all) => {
        all['gpu-gate.dev/managed'] = 'true';
      });
      world.validated();
      expect(labels(world)).toContain(component[other[from]]);
      expect(labels(world)).not.toContain(component[from]);
    },
  );

  it.each(['DevicePlugin', 'DRA'] as const)(
    'is taken at once by a node on its first walk with %s, one after the other',
    (from) => {
      const world = new World(policyOf(from));
      world.broken[component[from]] = {};
      passes(world);
      expect(world.state).toBe(component[from]);
      world.policy = policyOf(other[from]);
      for (let i = 0; i < 30; i += 1) {
        world.step();
        const both = [`${component.DRA}-pod`, `${component.DevicePlugin}-pod`].filter((name) => world.pods.has(name));
        expect(both.length).toBeLessThan(2);
      }
      world.validated();
      expect(labels(world)).toContain(component[other[from]]);
    },
  );

  it('waits for what the former way still offers', () => {
    const world = new World(policyOf('DRA'));
    world.claimTemplate = undefined;
    passes(world, 12);
    world.published = [aPool()];
    world.policy = policyOf('DevicePlugin');
    passes(world, 30);
    expect(said(world)).toEqual([
      'device-plugin',
      expect.stringContaining('the DRA driver gpu.nvidia.com publishes devices, from before allocation: DevicePlugin'),
    ]);
    world.published = [];
    world.reality();
    world.validated();
  });

  it('keeps what users hold: nothing is taken from under them', () => {
    const world = new World(policyOf('DRA')).validated();
    world.pods.set('user', keptPod({ namespace: 'default', name: 'user', uid: 'user', claims: true }));
    world.policy = policyOf('DevicePlugin');
    // A label by hand that lets the other one on.
    world.relabel((all) => {
      all[`${DEPLOY_PREFIX}device-plugin`] = world.input().revisions['device-plugin'] ?? '';
    });
    passes(world, 4);
    expect(labels(world)).toContain('dra-driver');
    world.pods.delete('user');
    passes(world);
    expect(labels(world)).not.toContain('device-plugin');
    world.validated();
  });
});
