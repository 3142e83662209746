// What the plan of a node depends on outside the node: many silent nodes, pods that its kubelet
// rejects, and why its own pods do not come.
import { describe, expect, it } from 'vitest';
import { POD_COMPONENT } from '../../../core/components.ts';
import { DEPLOY_PREFIX, GPU_VALIDATED, MANAGED, STARTUP_TAINT } from '../../../core/keys.ts';
import { open } from '../../../gate/node-proof.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { NodeInput } from '../../../reconciler/node/observed.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { aPolicy } from '../../builders/objects.ts';
import { World } from './world.ts';

class Surrounded extends World {
  more: Partial<NodeInput> = {};
  override input(): NodeInput {
    return { ...super.input(), ...this.more };
  }
  /** Steps for so many seconds; the pods that were made. */
  pass(seconds: number): readonly string[] {
    return Array.from({ length: seconds }, () => this.step())
      .flat()
      .flatMap((action) => (action.kind === 'create-pod' ? [action.manifest.metadata.name] : []));
  }
  #isSilent = false;
  silence(is: boolean): void {
    this.#isSilent = is;
    this.ready(is ? 'Unknown' : 'True');
    this.podsReady(!is);
  }
  /** What a silent kubelet published last stays. */
  override reality(): void {
    const { status } = this.node;
    super.reality();
    if (this.#isSilent) this.node = { ...this.node, status: { ...status } };
  }
}
const validated = (): Surrounded => new Surrounded().validated();
const sentence = (actions: readonly Action[]): string | undefined =>
  actions.flatMap((action) => (action.kind === 'set-node-condition' ? [action.condition?.message ?? ''] : []))[0];

describe('a node that is silent among many', () => {
  const silent = (): Surrounded => {
    const world = validated();
    world.more = { isOverloaded: true };
    world.silence(true);
    return world;
  };
  it('is closed with its proof kept, and reopens with it and without a validation', () => {
    const world = silent();
    const { proof } = world;
    expect(world.pass(300)).toEqual([]);
    expect([world.proof, world.trust]).toEqual([proof, [false, false]]);
    expect(world.condition?.message).toContain('many nodes are silent at once');
    world.silence(false);
    expect(world.pass(10)).toEqual([]);
    expect([world.proof, world.trust, world.closed]).toEqual([proof, [true, true], undefined]);
  });
  it('loses its proof if it comes back with another boot', () => {
    const world = silent();
    world.pass(120);
    world.reboot('boot-2');
    world.silence(false);
    world.step();
    expect([world.proof, world.trust]).toEqual([undefined, [false, false]]);
  });
  it('loses its proof if its driver has restarted meanwhile', () => {
    const world = silent();
    world.pass(120);
    world.start('driver');
    world.silence(false);
    world.step();
    expect(world.trust).toEqual([false, false]);
    expect(world.proof).toBeUndefined();
  });
  it('loses its proof if it stays silent when the others report again', () => {
    const world = silent();
    world.pass(120);
    world.more = {};
    world.step();
    expect(world.proof).toBeUndefined();
  });
});

describe('a node whose kubelet rejects GPU pods again and again', () => {
  const words = 'Allocate failed: GPU is lost';
  it('is closed with the kubelet’s words, keeps its proof, and a validation begins', () => {
    const world = validated();
    world.validationsFail = true;
    const { proof } = world;
    world.more = { rejection: { count: 5, words, at: world.now } };
    const made = world.pass(1);
    expect(made).toEqual([expect.stringMatching(/^device-plugin-validation/)]);
    expect([world.proof, world.trust]).toEqual([proof, [true, false]]);
    expect(world.condition?.message).toContain(`the kubelet has rejected 5 GPU pods: ${words}`);
    world.pass(3);
    expect(world.trust).toEqual([true, false]);
  });
  it('opens again when the validation passes, and the same rejections close it no more', () => {
    const world = validated();
    world.more = { rejection: { count: 5, words, at: world.now } };
    expect(world.pass(10)).toHaveLength(1);
    expect(open(world.node).yes).toBe(true);
    expect(world.condition?.message).not.toContain(words);
    expect(world.pass(10)).toEqual([]);
    world.more = { rejection: { count: 5, words, at: world.now } };
    expect(world.pass(10)).toHaveLength(1);
  });
  it('is not closed for pods that were rejected before its proof', () => {
    const world = new Surrounded();
    world.more = { rejection: { count: 5, words, at: world.now } };
    world.validated();
    expect([world.pass(5), world.trust]).toEqual([[], [true, true]]);
  });
});

describe('why a pod does not come reaches the condition', () => {
  /** In the driver's state, long enough for another sentence. */
  const atDriver = (): Surrounded => {
    const world = new Surrounded();
    world.broken['driver'] = { containers: [], initContainers: [] };
    for (let i = 0; i < 60 && world.state !== 'driver'; i += 1) world.step();
    world.pass(6);
    return world;
  };
  it('a DaemonSet that may not create it', () => {
    const world = atDriver();
    const { daemonSets, pods } = world.input();
    const name = `driver-${world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`] ?? ''}`;
    const troubles = new Map([[daemonSets.get(name) ?? '', 'FailedCreate: pods are forbidden: exceeded quota']]);
    const others = pods.filter((pod) => !pod.name.startsWith('driver'));
    expect(sentence(planNode({ ...world.input(), pods: others, troubles }).actions)).toContain(
      'waiting for the driver pod to be created; FailedCreate: pods are forbidden: exceeded quota',
    );
  });
  it('a pod that cannot start, until one of its containers has', () => {
    const world = atDriver();
    const uid = world.pods.get('driver-pod')?.uid ?? '';
    const troubles = new Map([[uid, 'FailedMount: host path /run/nvidia is not a directory']]);
    world.more = { troubles };
    world.pass(1);
    expect(world.condition?.message).toContain('; FailedMount: host path /run/nvidia is not a directory');
    const started = { name: 'd', ready: false, restartCount: 0, state: { running: { startedAt: 'x' } } };
    world.broken['driver'] = { containers: [started] };
    world.reality();
    // Like every sentence without a trouble, once the state has lasted.
    world.pass(10);
    expect(world.condition?.message).not.toContain('FailedMount');
  });
  it('a validation pod that the API server refuses', () => {
    const world = new Surrounded();
    for (let i = 0; i < 60 && world.state !== 'driver'; i += 1) world.step();
    world.step();
    const name = [...world.pods.keys()].find((one) => one.startsWith(POD_COMPONENT['driver-validation'])) ?? '';
    world.pods.delete(name);
    world.now += 6000;
    const troubles = new Map([[name, 'refused by the API server: pods is forbidden: PodSecurity']]);
    const { actions } = planNode({ ...world.input(), troubles });
    expect(sentence(actions)).toContain('; refused by the API server: pods is forbidden: PodSecurity');
    expect(actions.map(({ kind }) => kind)).toContain('create-pod');
    expect(world.node.status?.conditions?.some(({ type }) => type === GPU_VALIDATED)).toBe(true);
  });
});

const eventsIn = (actions: readonly Action[], reason: string): readonly string[] =>
  actions.flatMap((action) => (action.kind === 'event' && action.reason === reason ? [action.message] : []));

describe('a spelling of the opt-in that does not count', () => {
  const labelled = (value: string): Surrounded => {
    const world = new Surrounded();
    world.relabel((labels) => (labels[MANAGED] = value));
    return world;
  };
  it.each(['True', 'TRUE', 'yes', '1', 'on', 'enabled'])('%s is reported once, and does nothing else', (value) => {
    const { actions } = planNode(labelled(value).input());
    expect(actions).toMatchObject([{ kind: 'event', type: 'Warning', reason: 'GPUNotOptedIn', once: true }]);
    expect(eventsIn(actions, 'GPUNotOptedIn')[0]).toContain('write exactly gpu-gate.dev/managed=true');
  });
  it.each(['false', 'no', '', '0'])('“%s” opts out, and needs no word', (value) =>
    expect(planNode(labelled(value).input()).actions).toEqual([]),
  );
  it('on a node that was ours: it is taken apart, and the Event says why', () => {
    const world = validated();
    world.relabel((labels) => (labels[MANAGED] = 'True'));
    const actions = Array.from({ length: 20 }, () => {
      const before = world.state;
      return before === undefined ? [] : world.step();
    }).flat();
    expect(eventsIn(actions, 'GPUNotOptedIn')).toHaveLength(1);
    expect(world.state).toBeUndefined();
  });
});

describe('the startup taint of a node template', () => {
  const TAINT = { key: STARTUP_TAINT, effect: 'NoSchedule' };
  const tainted = (value: string | undefined): Surrounded => {
    const world = new Surrounded();
    world.relabel((labels) => {
      if (value === undefined) delete labels[MANAGED];
      else labels[MANAGED] = value;
    });
    world.node = { ...world.node, spec: { taints: [TAINT] } };
    return world;
  };
  it.each([
    [undefined, 'has no label gpu-gate.dev/managed: write exactly gpu-gate.dev/managed=true'],
    ['false', 'has gpu-gate.dev/managed=false: write exactly gpu-gate.dev/managed=true'],
  ])('with the label %s is reported once, and does nothing else', (value, words) => {
    const { actions } = planNode(tainted(value).input());
    expect(actions).toMatchObject([{ kind: 'event', type: 'Warning', reason: 'GPUTaintWithoutOptIn', once: true }]);
    expect(eventsIn(actions, 'GPUTaintWithoutOptIn')[0]).toContain(words);
  });
  it('with a misspelt label: the spelling is what to write', () =>
    expect(planNode(tainted('yes').input()).actions).toMatchObject([{ reason: 'GPUNotOptedIn' }]));
  it('on a node that is opted in, or opted out since, is ours to take away: no Event', () => {
    const world = tainted('true');
    const events: string[] = [];
    const pass = (): void => {
      for (const action of world.step()) if (action.kind === 'event') events.push(action.reason);
    };
    for (let i = 0; i < 40; i += 1) pass();
    expect(world.tainted).toBe(false);
    world.node = { ...world.node, spec: { taints: [TAINT] } };
    world.relabel((labels) => delete labels[MANAGED]);
    while (world.state !== undefined) pass();
    expect(world.tainted).toBe(false);
    expect(events).not.toContain('GPUTaintWithoutOptIn');
  });
});

describe('a second installer', () => {
  const OPERATOR = 'nvidia.com/gpu.deploy.';
  const comes = (world: Surrounded, labels: Record<string, string>): readonly string[] => {
    world.relabel((all) => Object.assign(all, labels));
    return eventsIn(Array.from({ length: 5 }, () => world.step()).flat(), 'GPUSecondInstaller');
  };
  it('is reported by one Event with its labels, and changes nothing', () => {
    const world = validated();
    const { proof } = world;
    const said = comes(world, { [`${OPERATOR}driver`]: 'true', [`${OPERATOR}device-plugin`]: 'true' });
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(`${OPERATOR}driver, ${OPERATOR}device-plugin`);
    expect([world.proof, world.trust]).toEqual([proof, [true, true]]);
  });
  it('is reported on a node on its way too, also where the walk fails for it', () => {
    const world = new Surrounded();
    world.broken['driver'] = {};
    world.settle(6);
    expect(world.state).toBe('driver');
    expect(comes(world, { [`${OPERATOR}driver`]: 'true' })).toHaveLength(1);
    world.now += 61_000;
    expect(comes(world, {})).toEqual([]);
    expect(world.state).toBe('failed');
  });
  it('is not reported twice where preflight refuses it', () => {
    const world = new Surrounded();
    expect(comes(world, { [`${OPERATOR}driver`]: 'true' })).toEqual([]);
    expect(world.condition?.reason).toBe('PreflightFailedAnotherInstaller');
  });
  it('is reported again when it brings more, and when it comes again', () => {
    const world = validated();
    expect(comes(world, { [`${OPERATOR}driver`]: 'true' })).toHaveLength(1);
    expect(comes(world, { [`${OPERATOR}container-toolkit`]: 'true' })).toHaveLength(1);
    expect(comes(world, { [`${OPERATOR}driver`]: 'false', [`${OPERATOR}container-toolkit`]: 'false' })).toEqual([]);
    expect(comes(world, { [`${OPERATOR}driver`]: 'true' })).toHaveLength(1);
  });
  it('is reported where it would give the GPUs to virtual machines', () =>
    expect(comes(validated(), { 'nvidia.com/gpu.workload.config': 'vm-passthrough' })).toHaveLength(1));
  it.each([
    ['what our driver-manager leaves without a value', { [`${OPERATOR}device-plugin`]: '' }],
    ['what our driver-manager found', { [`${OPERATOR}driver`]: 'pre-installed' }],
    ['what it does not bring', { [`${OPERATOR}driver`]: 'false' }],
    ['what is not ours', { [`${OPERATOR}operator-validator`]: 'true' }],
  ])('is not taken from %s', (_, labels) => expect(comes(validated(), labels)).toEqual([]));
  it('is not the one that the policy leaves a component to', () => {
    const world = new Surrounded(aPolicy({ components: { driver: { mode: 'external' } } })).validated();
    expect(comes(world, { [`${OPERATOR}driver`]: 'true' })).toEqual([]);
    // The node stays with their driver, whatever the policy says since.
    world.policy = aPolicy();
    expect(comes(world, { other: 'x' })).toEqual([]);
  });
});

describe('GPUs by resources that the policy does not list', () => {
  class Offering extends Surrounded {
    offers: Record<string, string> = {};
    override reality(): void {
      super.reality();
      const has = Object.keys(this.node.status?.allocatable ?? {}).length > 0;
      if (has) this.node = { ...this.node, status: { ...this.node.status, allocatable: this.offers } };
    }
  }
  const offering = (offers: Record<string, string>, resources?: readonly string[]): Offering => {
    const world = new Offering(resources === undefined ? aPolicy() : aPolicy({ resources }));
    world.offers = offers;
    return world;
  };
  const MIXED = { 'nvidia.com/gpu': '0', 'nvidia.com/mig-1g.10gb': '7', 'nvidia.com/mig-2g.20gb': '1' };
  it('mixed MIG with the default resources: names what to write, restarts nothing, and fails with that reason', () => {
    const world = offering(MIXED);
    world.lasts();
    expect([world.state, world.condition?.message]).toEqual([
      'device-plugin',
      expect.stringContaining(
        "the kubelet offers nvidia.com/mig-1g.10gb, nvidia.com/mig-2g.20gb, which the GPUPolicy does not list: add nvidia.com/mig-* to its spec.resources, and to the chart's policy.spec.resources",
      ),
    ]);
    world.now += 301_000;
    world.step();
    expect(world.condition?.reason).toBe('DevicePluginFailedUnlistedResources');
    for (let i = 0; i < 60; i += 1) {
      world.now += 60_000;
      world.step();
    }
    expect(world.events).not.toContain('GPUOperandRestart');
    world.policy = aPolicy({ resources: ['nvidia.com/gpu', 'nvidia.com/mig-*'] });
    world.validated();
  });
  it('another device of NVIDIA’s alone: it is named, waits as without it, and the node mends itself', () => {
    const world = offering({ 'nvidia.com/hostdev': '2' });
    world.lasts();
    expect(world.condition?.message).toContain(
      'waiting for the kubelet to offer nvidia.com/gpu on this node; it offers nvidia.com/hostdev, which the GPUPolicy does not list',
    );
    for (let i = 0; i < 60; i += 1) {
      world.now += 60_000;
      world.step();
    }
    expect(world.condition?.reason).toBe('DevicePluginFailedTimedOut');
    expect(world.events).toContain('GPUOperandRestart');
  });
  it('beside GPUs that it lists: validated, and the condition says what is not gated', () => {
    const world = offering({ 'nvidia.com/gpu': '4', 'nvidia.com/mig-1g.10gb': '7', 'nvidia.com/hostdev': '2' });
    world.validated();
    expect(world.condition?.message).toContain(
      '; nvidia.com/mig-1g.10gb of this node is not gated, because the GPUPolicy does not list it: add nvidia.com/mig-*',
    );
    expect(world.condition?.message).not.toContain('hostdev');
  });
  it.each([
    ['nvidia.com/mig-1g.10gb', 'PreflightFailedAnotherInstaller'],
    ['nvidia.com/hostdev', undefined],
  ])('offered before the walk as %s', (name, reason) => {
    const world = offering({ 'nvidia.com/gpu': '1' });
    world.node = { ...world.node, status: { ...world.node.status, allocatable: { [name]: '7' } } };
    const { actions } = world.plan();
    const reasons = actions.flatMap((action) =>
      action.kind === 'set-node-condition' ? [action.condition?.reason] : [],
    );
    if (reason === undefined) expect(reasons).not.toContain('PreflightFailedAnotherInstaller');
    else expect(reasons).toContain(reason);
  });
});

describe('our own driver-manager that finds a driver on the host', () => {
  const ended = (message: string, exitCode = 1) => ({
    conditions: [],
    initContainers: [
      {
        name: 'k8s-driver-manager',
        ready: false,
        restartCount: 3,
        state: { waiting: { reason: 'CrashLoopBackOff' } },
        lastState: { terminated: { exitCode, message } },
      },
    ],
  });
  const reasonOf = (labels: Record<string, string>, message: string, exitCode = 1): string | undefined => {
    const world = new Surrounded();
    world.broken['driver'] = { conditions: [] };
    world.settle(4);
    // It writes the label before it ends.
    world.relabel((all) => Object.assign(all, labels));
    world.broken['driver'] = ended(message, exitCode);
    world.reality();
    world.settle(4);
    return world.condition?.reason;
  };
  const LABEL = { 'nvidia.com/gpu.deploy.driver': 'pre-installed' };
  it.each([
    ['by its label', LABEL, '', 1, 'DriverFailedDriverPreInstalled'],
    ['by its words', {}, 'driver is pre-installed on host', 1, 'DriverFailedDriverPreInstalled'],
    ['not: it ends for another reason', {}, 'cannot reach the API server', 1, 'DriverFailedCrashLoop'],
    ['not: it has ended well', LABEL, '', 0, 'DriverFailedCrashLoop'],
  ])('%s', (_, labels, message, exitCode, expected) => expect(reasonOf(labels, message, exitCode)).toBe(expected));
});
