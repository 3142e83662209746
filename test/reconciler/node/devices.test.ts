// One device that fails alone: it is left out, is named, and the others serve on.
import { describe, expect, it } from 'vitest';
import { claimFacts, type ClaimFacts } from '../../../gate/devices.ts';
import { parseWalk, type Walk } from '../../../reconciler/walk.ts';
import { RETRY, WALK } from '../../../core/keys.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import type { NodeInput } from '../../../reconciler/node/observed.ts';
import { aPolicy, keptPod, verdict } from '../../builders/objects.ts';
import { aPool, World } from './world.ts';

const idOf = (device: string): string => `gpu.nvidia.com/n/${device}`;
const claimOf = (...devices: readonly string[]): ClaimFacts =>
  claimFacts({
    status: {
      allocation: {
        devices: {
          results: devices.map((device) => ({
            driver: device.startsWith('nic') ? 'nic.example.com' : 'gpu.nvidia.com',
            pool: 'n',
            device,
          })),
        },
      },
    },
  });

/** A node with a DRA driver, and claims. */
class DeviceWorld extends World {
  readonly claims = new Map<string, ClaimFacts>();
  /** Devices on which vectorAdd fails. */
  sick: readonly string[] = [];
  /** Are the rules that the node wants there? */
  ruled: 'yes' | 'no' | 'not served' = 'yes';
  /** What the scheduler gives a validation: the first device that is not left out. */
  #given = new Map<string, string>();

  constructor(more: object = {}) {
    super(aPolicy({ allocation: 'DRA', validation: { timeouts: { driver: '60s' } }, ...more }));
  }
  override input(): NodeInput {
    return {
      ...super.input(),
      claimOf: (key) => this.claims.get(key),
      ruledOut:
        this.ruled === 'not served'
          ? undefined
          : new Set(this.ruled === 'yes' ? Object.keys(this.walk.leftOut ?? {}) : []),
    };
  }
  get walk(): Walk {
    const walk = parseWalk(this.node.metadata.annotations?.[WALK], this.node.metadata.uid);
    if (walk === undefined) return { leftOut: {} } as Walk;
    return walk;
  }
  get leftOut(): readonly string[] {
    return Object.keys(this.walk.leftOut ?? {});
  }
  /** A user's pod whose container has these devices, of which the kubelet says so. */
  user(devices: readonly string[], resources: readonly object[]): void {
    this.claims.set('default/user-claim', claimOf(...devices));
    this.pods.set(
      'user',
      keptPod({
        namespace: 'default',
        name: 'user',
        uid: 'user',
        claims: true,
        wants: {
          ...keptPod({}).wants,
          claims: [{ entry: 'gpu', claim: 'user-claim', template: undefined }],
        },
        containers: [
          {
            name: 'c',
            ready: true,
            restartCount: 0,
            allocatedResourcesStatus: [{ name: 'claim:gpu/device', resources }],
          },
        ],
      }),
    );
  }
  /** The scheduler gives a device first, and the program runs a pass later. */
  protected override validate(pod: PodObject): void {
    if (!pod.name.startsWith('dra-validation-')) {
      super.validate(pod);
      return;
    }
    const ruled = this.ruled === 'yes' ? this.leftOut : [];
    const device = aPool()
      .devices.map(({ name }) => name)
      .find((name) => !ruled.includes(idOf(name)));
    if (device === undefined) throw new Error('no device is left');
    this.#given.set(pod.name, device);
    this.claims.set(`${pod.namespace}/${pod.name}-gpu`, claimOf(device));
    this.pods.set(pod.name, {
      ...pod,
      phase: 'Running',
      nodeName: 'n',
      wants: { ...pod.wants, claims: [{ entry: 'gpu', claim: `${pod.name}-gpu`, template: 't' }] },
    });
  }
  override reality(): void {
    super.reality();
    for (const [name, pod] of this.pods) {
      const device = this.#given.get(name);
      if (device === undefined || pod.phase !== 'Running') continue;
      // Seen once while it runs, as a kubelet publishes it.
      if (this.walk.trial?.pod !== `${pod.namespace}/${name}`) continue;
      const passed = !this.sick.includes(device);
      const terminated = { exitCode: passed ? 0 : 1, message: verdict(passed, passed ? 'Test PASSED' : 'bad memory') };
      this.pods.set(name, {
        ...pod,
        phase: passed ? 'Succeeded' : 'Failed',
        containers: [{ name: 'c', ready: false, restartCount: 0, state: { terminated } }],
      });
      this.claims.delete(`${pod.namespace}/${name}-gpu`);
    }
  }
  passes(count: number): this {
    for (let i = 0; i < count; i += 1) this.step();
    return this;
  }
}

describe('a device that the kubelet calls unhealthy', () => {
  const unhealthy = (resourceID: string, message = 'xid 79') => ({ resourceID, health: 'Unhealthy', message });
  it.each<[what: string, devices: readonly string[], resources: readonly object[], leftOut: readonly string[]]>([
    ['is left out', ['gpu-1'], [unhealthy('k8s.gpu.nvidia.com/claim=1-gpu-1')], ['gpu-1']],
    ['is the claim’s only one, whatever it is called', ['gpu-1'], [unhealthy('x')], ['gpu-1']],
    ['is found among others by its name', ['gpu-1', 'gpu-11'], [unhealthy('k8s.x/claim=1-gpu-11')], ['gpu-11']],
    ['is found by driver, pool and name', ['gpu-1', 'gpu-11'], [unhealthy('gpu.nvidia.com/n/gpu-1')], ['gpu-1']],
    ['is none of another driver’s', ['nic-1'], [unhealthy('nic-1')], []],
    ['is not guessed', ['gpu-1', 'gpu-2'], [unhealthy('x')], []],
    ['is not one that is healthy', ['gpu-1'], [{ resourceID: 'gpu-1', health: 'Healthy' }], []],
    ['is not one that is unknown', ['gpu-1'], [{ resourceID: 'gpu-1', health: 'Unknown' }], []],
    ['is not of a claim that is not known', [], [unhealthy('gpu-1')], []],
  ])('%s', (_, devices, resources, leftOut) => {
    const world = new DeviceWorld();
    world.validated();
    world.user(devices, resources);
    world.settle();
    expect(world.leftOut).toEqual(leftOut.map(idOf));
    expect(world.trust).toEqual([true, true]);
  });

  const broken = (): DeviceWorld => {
    const world = new DeviceWorld();
    world.validated();
    world.user(['gpu-1'], [unhealthy('gpu-1')]);
    world.settle();
    return world;
  };
  it('is named by the condition and an Event, and stays out when its pod has gone', () => {
    const world = broken();
    expect(world.condition?.message).toContain('; gpu-1 is left out: unhealthy by the kubelet: xid 79');
    expect(world.events.filter((one) => one === 'GPUDeviceLeftOut')).toHaveLength(1);
    world.pods.delete('user');
    world.settle();
    expect(world.leftOut).toEqual([idOf('gpu-1')]);
  });
  it.each<[string, (world: DeviceWorld) => void]>([
    ['the node reboots', (world) => world.reboot('boot-2')],
    ['the DRA driver starts again', (world) => world.start('dra-driver')],
    ['a person asks for a retry', (world) => world.annotate(RETRY, '1')],
  ])('comes back when %s', (_, happens) => {
    const world = broken();
    world.pods.delete('user');
    happens(world);
    world.passes(40);
    expect([world.leftOut, world.condition?.message?.includes('left out')]).toEqual([[], false]);
  });
});

describe('a device on which gpu-gate’s own validation fails', () => {
  it('is left out, and another one is validated at once', () => {
    const world = new DeviceWorld();
    world.sick = ['gpu-0'];
    const before = world.now;
    world.passes(20);
    expect([world.state, world.trust, world.leftOut]).toEqual(['validated', [true, true], [idOf('gpu-0')]]);
    expect(world.condition?.message).toContain('; gpu-0 is left out: vectorAdd failed on it: bad memory');
    expect(world.events).not.toContain('DraValidationFailedVectorAdd');
    expect(world.now - before).toBeLessThan(30_000);
  });
  it('is not tried again before its rule is there', () => {
    const world = new DeviceWorld();
    world.sick = ['gpu-0'];
    world.ruled = 'no';
    world.passes(20);
    expect([world.state, world.condition?.message]).toEqual([
      'dra-validation',
      expect.stringContaining('waiting for the DeviceTaintRule that leaves gpu.nvidia.com/n/gpu-0 out'),
    ]);
    world.ruled = 'yes';
    world.passes(20);
    expect(world.state).toBe('validated');
  });
  it('is not the device where each of them fails: the node fails', () => {
    const world = new DeviceWorld();
    world.sick = ['gpu-0', 'gpu-1'];
    world.passes(20);
    expect(world.condition).toMatchObject({
      reason: 'DraValidationFailedVectorAdd',
      message: expect.stringContaining('no device of the node is left: vectorAdd failed on it: bad memory'),
    });
  });
  it('fails the node where there are no rules to leave it out', () => {
    const world = new DeviceWorld();
    world.sick = ['gpu-0'];
    world.ruled = 'not served';
    world.passes(20);
    expect(world.condition?.reason).toBe('DraValidationFailedVectorAdd');
  });
});

describe('taints of others', () => {
  const tainted = (): DeviceWorld => {
    const world = new DeviceWorld();
    world.publishes = [
      aPool({
        devices: [
          { name: 'gpu-0', taints: [] },
          { name: 'gpu-1', taints: [{ key: 'gpu.nvidia.com/xid', value: '79', effect: 'NoSchedule' }] },
        ],
      }),
    ];
    world.validated();
    world.settle();
    return world;
  };
  it('of the driver are named by the condition, and leave nothing out', () => {
    const world = tainted();
    expect(world.condition?.message).toContain('; gpu-1 has the taint gpu.nvidia.com/xid=79:NoSchedule');
    expect([world.trust, world.leftOut]).toEqual([[true, true], []]);
    world.publishes = [aPool()];
    world.reality();
    world.settle();
    expect(world.condition?.message).not.toContain('taint');
  });
  it.each([
    ['of the device', { pool: 'n', device: 'gpu-1' }, ['gpu-1']],
    ['of the pool', { pool: 'n' }, ['gpu-0', 'gpu-1']],
    ['of every device', {}, ['gpu-0', 'gpu-1']],
    ['of another pool', { pool: 'm' }, []],
    ['of another driver', { driver: 'x' }, []],
    ['of another device', { device: 'gpu-7' }, []],
  ])('by a rule %s are named', (_, selector, devices) => {
    const rule = { driver: '', pool: '', device: '', key: 'a/b', value: '', effect: 'NoExecute', ...selector };
    class Ruled extends DeviceWorld {
      override input(): NodeInput {
        return { ...super.input(), otherRules: [rule] };
      }
    }
    const world = new Ruled();
    world.validated();
    world.settle();
    expect(Object.entries(world.walk.tainted ?? {})).toEqual(devices.map((name) => [idOf(name), 'a/b:NoExecute']));
  });
  it('on devices of other drivers are not looked at', () => {
    const world = new DeviceWorld();
    const taints = [{ key: 'a/b', value: '', effect: 'None' }];
    world.published = [aPool({ driver: 'nic.example.com', devices: [{ name: 'nic-0', taints }] })];
    world.validated();
    world.settle();
    expect(world.walk.tainted).toBeUndefined();
  });
  it('are counted where they are many', () => {
    const world = new DeviceWorld();
    const taints = [{ key: 'a/b', value: '', effect: 'None' }];
    world.publishes = [aPool({ devices: Array.from({ length: 9 }, (__, i) => ({ name: `gpu-${i}`, taints })) })];
    world.validated();
    world.settle();
    expect(world.condition?.message).toContain('; 9 devices have taints of others');
  });
});
