// What ends trust in a node and what restores it, where more than a plain restart happened. Also
// what a change of the policy does to nodes that were validated under the previous policy.
import { describe, expect, it } from 'vitest';
import { COMPONENT, DEPLOY_PREFIX, GPU_VALIDATED, MANAGED, RETRY, WALK } from '../../../core/keys.ts';
import { POD_COMPONENT } from '../../../core/components.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { hostMismatch } from '../../../reconciler/node/states/preflight.ts';
import { parseWalk, type Walk } from '../../../reconciler/walk.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { afterWrite, aPolicy, keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const MINUTE = 60_000;
const user = (gpus = 8): PodObject =>
  keptPod({ name: 'user', namespace: 'team', uid: 'user', gpus: { 'nvidia.com/gpu': gpus } });
const created = (actions: readonly Action[]): string[] =>
  actions.flatMap((action) =>
    action.kind === 'create-pod' ? [action.manifest.metadata.name.replace(/-n-.*/, '')] : [],
  );
const deleted = (actions: readonly Action[]): string[] =>
  actions.flatMap((action) => (action.kind === 'delete-pod' ? [action.name] : []));
const settleAndCollect = (world: World, passes = 20): Action[] =>
  Array.from({ length: passes }, () => world.step()).flat();
/** Validation pods that ask for a GPU wait for one, as on a full node. */
const waitsForGPU = (world: World): void => {
  for (const [name, pod] of world.pods)
    if (name.startsWith('device-plugin-validation'))
      world.pods.set(name, {
        ...pod,
        phase: 'Pending',
        nodeName: undefined,
        containers: [],
        conditions: [
          { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '1 Insufficient nvidia.com/gpu.' },
        ],
      });
};
const memory = (world: World) => parseWalk(world.node.metadata.annotations?.['gpu-gate.dev/walk'], 'node-uid');

describe('a node out of sight', () => {
  it('whose pods were marked not Ready comes back with the same containers: both validations run again', () => {
    const world = new World().validated();
    world.ready('Unknown');
    world.podsReady(false);
    world.step();
    expect(world.trust).toEqual([false, false]);
    world.now += 2 * MINUTE;
    settleAndCollect(world, 3);
    expect(world.proof).toBeUndefined();
    world.ready('True');
    world.podsReady(true);
    const run = created(settleAndCollect(world));
    expect(run).toEqual(['driver-validation', 'device-plugin-validation']);
    expect(world.trust).toEqual([true, true]);
  });
  it('keeps its operands, however long it takes: none of their stages is timed, nothing of it is deleted', () => {
    const world = new World().validated();
    world.ready('Unknown');
    world.podsReady(false);
    world.step();
    for (let hour = 0; hour < 5; hour += 1) {
      world.now += 60 * MINUTE;
      expect(deleted(settleAndCollect(world, 3))).toEqual([]);
    }
    expect(world.condition).toMatchObject({ reason: 'Toolkit', message: expect.stringContaining('node to be Ready') });
  });
  it('its proof goes once, and is not written again and again while it is full', () => {
    const world = new World().validated();
    world.pods.set('user', user());
    world.start('device-plugin');
    world.step();
    waitsForGPU(world);
    world.ready('False');
    world.step();
    world.now += 2 * MINUTE;
    settleAndCollect(world, 2);
    expect(world.proof).toBeUndefined();
    expect(settleAndCollect(world, 5)).toEqual([]);
    expect(planNode(world.input()).withdraws).toBe(false);
  });
  it('a validation that ended before it went counts no more, though nobody had looked at it yet', () => {
    const world = new World();
    for (let i = 0; i < 20 && !created(world.step()).includes('driver-validation'); i += 1);
    expect(memory(world)?.passed).toEqual({});
    world.ready('Unknown');
    world.podsReady(false);
    world.step();
    world.now += 2 * MINUTE;
    settleAndCollect(world, 3);
    expect(settleAndCollect(world, 3)).toEqual([]);
    world.ready('True');
    world.podsReady(true);
    expect(created(settleAndCollect(world))).toEqual(['driver-validation', 'device-plugin-validation']);
    expect(world.trust).toEqual([true, true]);
  });
  it('back after ten minutes, a validation has all its time', () => {
    const world = new World().validated();
    world.ready('False');
    world.step();
    world.now += 10 * MINUTE;
    world.step();
    world.ready('True');
    world.step();
    expect(world.condition?.reason).toBe('DriverValidation');
  });
});

it('all GPUs vanish and come back while an earlier stage is being repaired: one must be used again', () => {
  const world = new World().validated();
  world.broken['toolkit'] = {};
  world.reality();
  world.step();
  world.node = { ...world.node, status: { ...world.node.status, allocatable: {} } };
  const before = memory(world)?.gpuEpoch ?? 0;
  world.step();
  expect(memory(world)?.gpuEpoch).toBe(before + 1);
  world.broken = {};
  world.start('toolkit');
  expect(created(settleAndCollect(world))).toEqual(['driver-validation', 'device-plugin-validation']);
  expect(world.trust).toEqual([true, true]);
});

it('some of several GPUs lost: open, reported in the condition and by one Event, also when they are back', () => {
  const world = new World().validated();
  const offers = (amount: string): void => {
    world.node = {
      ...world.node,
      status: { ...world.node.status, allocatable: { 'nvidia.com/gpu': amount }, capacity: { 'nvidia.com/gpu': '8' } },
    };
  };
  const pass = (): readonly Action[] => {
    const { actions } = planNode(world.input());
    for (const action of actions) world.node = afterWrite(world.node, action) ?? world.node;
    return actions.filter(({ kind }) => kind !== 'patch-node');
  };
  offers('6');
  expect(pass()).toMatchObject([
    { kind: 'set-node-condition' },
    { kind: 'event', type: 'Warning', reason: 'GPUsLost' },
  ]);
  expect([world.trust, world.condition?.message]).toEqual([
    [true, true],
    expect.stringContaining('6 of 8 nvidia.com/gpu allocatable'),
  ]);
  expect(pass()).toEqual([]);
  offers('8');
  expect(pass()).toMatchObject([{ kind: 'set-node-condition' }]);
  expect(world.condition?.message).not.toContain('allocatable');
});

describe('pods that run on a stack which fails', () => {
  const hung = (): World => {
    const world = new World().validated();
    world.pods.set('user', user());
    world.broken['driver'] = {};
    world.reality();
    world.step();
    return world;
  };
  it('keep it: no retry by the clock deletes the driver under them', () => {
    const world = hung();
    for (let i = 0; i < 6; i += 1) {
      world.now += 20 * MINUTE;
      expect(deleted(settleAndCollect(world, 3))).toEqual([]);
    }
    expect(world.events).toContain('DriverFailedTimedOut');
  });
  it('lose it at the operator’s word', () => {
    const world = hung();
    world.now += 20 * MINUTE;
    world.step();
    world.annotate(RETRY, '1');
    expect(deleted(world.step())).toEqual(['driver-pod']);
  });
  it('an opt-out waits for them, also where the proof is gone', () => {
    const world = new World().validated();
    world.pods.set('user', user());
    world.broken['driver'] = {
      containers: [{ name: 'd', ready: false, restartCount: 1, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
    };
    world.reality();
    world.step();
    expect(world.proof).toBeUndefined();
    world.relabel((labels) => delete labels[MANAGED]);
    settleAndCollect(world, 5);
    expect(world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`]).toBeDefined();
    expect(world.condition).toMatchObject({
      status: 'False',
      message: expect.stringContaining('waiting for 1 GPU pod'),
    });
    world.pods.delete('user');
    settleAndCollect(world, 20);
    expect(world.condition).toBeUndefined();
    expect(world.events).toContain('GPURemoved');
  });
});

it('an operand that is on its feet again after one crash is left alone', () => {
  const world = new World();
  world.broken['driver'] = {
    containers: [{ name: 'd', ready: false, restartCount: 1, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
  };
  world.settle(8);
  expect(world.condition?.reason).toBe('DriverFailedCrashLoop');
  // Running now, compiling.
  world.broken['driver'] = {
    containers: [
      { name: 'd', ready: false, restartCount: 2, state: { running: { startedAt: '2026-11-24T10:01:00Z' } } },
    ],
  };
  world.reality();
  world.now += 30_000;
  expect(deleted(settleAndCollect(world, 3))).toEqual([]);
  expect(world.state).toBe('driver');
});

it('a first walk that failed goes on only when there is a place again; the operator may push it', () => {
  const world = new World();
  world.validationsFail = true;
  world.settle(10);
  expect(world.state).toBe('failed');
  world.slotFree = false;
  world.now += 30 * MINUTE;
  expect(world.step()).toEqual([]);
  world.slotFree = true;
  world.validationsFail = false;
  world.validated();
});

describe('driver-validation while a proof stands', () => {
  const again = (change: (pod: PodObject) => PodObject): World => {
    const world = new World().validated();
    world.start('toolkit');
    world.step();
    for (const [name, pod] of world.pods)
      if (name.startsWith('driver-validation') && pod.validates !== undefined) world.pods.set(name, change(pod));
    return world;
  };
  const waiting =
    (reason: string, message: string) =>
    (pod: PodObject): PodObject => ({
      ...pod,
      phase: 'Pending',
      containers: [{ name: 'c', ready: false, restartCount: 0, state: { waiting: { reason, message } } }],
    });
  const running = (pod: PodObject): PodObject => ({
    ...pod,
    phase: 'Running',
    containers: [{ name: 'c', ready: true, restartCount: 0, state: { running: {} } }],
  });
  it('its image cannot be pulled: the node only closes, because that says nothing about the driver', () => {
    const world = again(waiting('ErrImagePull', 'no such host'));
    world.step();
    expect([world.condition?.reason, world.trust]).toEqual(['DriverValidationFailedImagePull', [true, false]]);
  });
  it('vectorAdd hangs until its time is over: withdrawn', () => {
    const world = again(running);
    world.step();
    expect(world.trust).toEqual([true, false]);
    world.now += 6 * MINUTE;
    world.step();
    world.step();
    expect([world.condition?.reason, world.trust]).toEqual(['DriverValidationFailedTimedOut', [false, false]]);
  });
  it('it never began until its time was over: closed only', () => {
    const world = again(waiting('ContainerCreating', ''));
    world.step();
    world.now += 6 * MINUTE;
    world.step();
    world.step();
    expect([world.condition?.reason, world.trust]).toEqual(['DriverValidationFailedTimedOut', [true, false]]);
  });
});

describe('a change of the policy', () => {
  const revisionOf = (world: World, component: string): string | undefined =>
    world.node.metadata.labels?.[DEPLOY_PREFIX + component];
  it('a node that was validated keeps its revisions, also after a reboot', () => {
    const world = new World().validated();
    const before = revisionOf(world, 'driver');
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    expect(world.step()).toEqual([]);
    world.reboot('boot-2');
    for (const component of ['toolkit', 'driver', 'device-plugin'] as const) world.start(component);
    world.validated();
    expect(revisionOf(world, 'driver')).toBe(before);
  });
  it('its proof names the driver that it runs, not the one that the policy names by now, nor NFD’s label of the previous driver', () => {
    const world = new World().validated();
    const versions = (): unknown => {
      const { driver, cuda } = JSON.parse(world.proof ?? '{}') as { driver?: string; cuda?: string };
      return [driver, cuda];
    };
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    world.relabel((labels) => (labels['nvidia.com/cuda.driver-version.full'] = '550.1'));
    world.start('driver');
    world.step();
    expect(world.proof).toBeUndefined();
    world.validated();
    expect(versions()).toEqual(['595.91.07', undefined]);
    world.reboot('boot-2');
    for (const component of ['toolkit', 'driver', 'device-plugin'] as const) world.start(component);
    world.validated();
    expect(versions()).toEqual(['595.91.07', undefined]);
  });
  it('a failed one takes the new revision at once, from the last component back to that one', () => {
    const world = new World().validated();
    const before = revisionOf(world, 'driver');
    world.broken['driver'] = {
      containers: [{ name: 'd', ready: false, restartCount: 1, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
    };
    world.reality();
    world.settle(6);
    expect(world.state).toBe('failed');
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    world.broken = {};
    const gone = settleAndCollect(world, 25).flatMap((action) =>
      action.kind === 'patch-node'
        ? Object.keys(action.labels).filter((key) => key.startsWith(DEPLOY_PREFIX) && action.labels[key] === null)
        : [],
    );
    expect(gone.map((key) => key.slice(DEPLOY_PREFIX.length))).toEqual(['dcgm-exporter', 'device-plugin', 'driver']);
    world.validated();
    expect(revisionOf(world, 'driver')).not.toBe(before);
    expect(memory(world)?.renew).toBeUndefined();
  });
  it('but not under GPU pods', () => {
    const world = new World().validated();
    const before = revisionOf(world, 'device-plugin');
    world.pods.set('user', user());
    world.broken['device-plugin'] = {
      containers: [{ name: 'd', ready: false, restartCount: 1, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
    };
    world.reality();
    world.settle(6);
    world.policy = aPolicy({ components: { devicePlugin: { version: '9' } } });
    world.settle(6);
    expect(revisionOf(world, 'device-plugin')).toBe(before);
  });
  it('nor where it has another target: they are waited for by name', () => {
    const world = new World().validated();
    const before = revisionOf(world, 'driver');
    world.pods.set('user', user());
    const { evidence, target, ...walk } = parseWalk(world.node.metadata.annotations?.[WALK], 'node-uid') as Walk;
    const { driver: _, ...others } = evidence;
    world.annotate(
      WALK,
      JSON.stringify({ ...walk, evidence: others, target: { ...target, driver: { revision: 'other' } } }),
    );
    for (let i = 0; i < 3; i += 1) world.step();
    expect(revisionOf(world, 'driver')).toBe(before);
    expect(world.condition?.message).toContain(
      'waiting for 1 GPU pod to end (team/user) before the driver is replaced',
    );
  });
  it.each([
    ['managed to external', {}, { driver: { mode: 'external' } }],
    ['external to managed', { driver: { mode: 'external' } }, {}],
  ])('mode of a proven node’s driver, %s: nothing changes until its turn', (_, from, to) => {
    const world = new World(aPolicy({ components: from })).validated();
    world.pods.set('user', user());
    world.policy = aPolicy({ components: to });
    expect(planNode(world.input())).toMatchObject({ actions: [], withdraws: false });
  });
  it('managed to external midway: ours is taken off before the walk goes on', () => {
    const world = new World();
    world.broken['driver'] = {};
    world.settle(6);
    expect(revisionOf(world, 'driver')).toBeDefined();
    world.policy = aPolicy({ components: { driver: { mode: 'external' } } });
    world.broken = {};
    world.validated();
    expect([revisionOf(world, 'driver'), world.pods.has('driver-pod')]).toEqual([undefined, false]);
  });
  it('gone, where everything is external: the proof stays until the last GPU pod has ended', () => {
    const external = { mode: 'external' };
    const world = new World(
      aPolicy({ components: { toolkit: external, driver: external, devicePlugin: external, dcgmExporter: external } }),
    );
    const gpus = (): void => {
      world.node = { ...world.node, status: { ...world.node.status, allocatable: { 'nvidia.com/gpu': '8' } } };
    };
    for (let i = 0; i < 12; i += 1) {
      gpus();
      world.step();
    }
    gpus();
    expect(world.trust).toEqual([true, true]);
    world.pods.set('user', user());
    const without = (): readonly Action[] => planNode({ ...world.input(), policy: undefined }).actions;
    expect(without()).not.toContainEqual(
      expect.objectContaining({ annotations: expect.objectContaining({ 'gpu-gate.dev/proof': null }) }),
    );
    world.pods.delete('user');
    // Nor at once: a policy or a label may only flap.
    world.node = without().reduce((node, action) => afterWrite(node, action) ?? node, world.node);
    expect(without()).toEqual([]);
    world.now += 6 * MINUTE;
    expect(planNode({ ...world.input(), policy: undefined }).withdraws).toBe(true);
    expect(without()).toContainEqual(
      expect.objectContaining({ annotations: expect.objectContaining({ 'gpu-gate.dev/proof': null }) }),
    );
  });
});

it('two pods of an external component on a node: the order of their watch events is not a restart', () => {
  const podSelector = { namespace: 'theirs', matchLabels: { app: 'theirs' } };
  const world = new World(aPolicy({ components: { driver: { mode: 'external', podSelector } } }));
  const theirs = (name: string): PodObject =>
    keptPod({
      name,
      namespace: 'theirs',
      uid: name,
      labels: { app: 'theirs' },
      conditions: [{ type: 'Ready', status: 'True' }],
      containers: [
        { name: 'c', ready: true, restartCount: 0, state: { running: { startedAt: '2026-11-24T09:00:00Z' } } },
      ],
    });
  for (const name of ['a', 'b']) world.pods.set(name, theirs(name));
  world.validated();
  world.pods.delete('a');
  world.pods.set('a', theirs('a'));
  expect(world.step()).toEqual([]);
  world.pods.set('a', { ...theirs('a'), conditions: [] });
  world.step();
  expect(world.closed).toBe('awaiting driver');
});

describe('preflight', () => {
  const reason = (labels: Record<string, string>, spec: object = {}): string | undefined => {
    const world = new World(aPolicy(spec), labels);
    world.settle(4);
    return world.condition?.reason;
  };
  const OPERATOR = 'nvidia.com/gpu.deploy.';
  const onlyPlugin = { components: { toolkit: { mode: 'external' }, driver: { mode: 'external' } } };
  it.each([
    ['another installer of what we install', { [`${OPERATOR}driver`]: 'true' }, {}, 'PreflightFailedAnotherInstaller'],
    [
      'another installer of the rest alone',
      { [`${OPERATOR}driver`]: 'true', [`${OPERATOR}device-plugin`]: 'false' },
      onlyPlugin,
      'DevicePlugin',
    ],
    [
      'a driver that driver-manager found on the host',
      { [`${OPERATOR}driver`]: 'pre-installed' },
      {},
      'PreflightFailedDriverPreInstalled',
    ],
    [
      'another operating system than the driver image is for',
      {
        'feature.node.kubernetes.io/system-os_release.ID': 'rhel',
        'feature.node.kubernetes.io/system-os_release.VERSION_ID': '9.4',
      },
      {},
      'PreflightFailedWrongDriverImage',
    ],
    [
      'the one that the driver image is for',
      {
        'feature.node.kubernetes.io/system-os_release.ID': 'rhel',
        'feature.node.kubernetes.io/system-os_release.VERSION_ID': '9.4',
      },
      { components: { driver: { version: '595.91.07-rhel9' } } },
      'Driver',
    ],
  ])('%s', (_, labels, spec, expected) => {
    const given = reason(labels, spec);
    if (expected.startsWith('Preflight')) expect(given).toBe(expected);
    else expect(given).not.toMatch(/^Preflight/);
  });
  it.each([
    ['nothing is allowed', [], true],
    ['its relative is allowed, for every minor version', ['rocky9'], false],
    ['exactly that version is allowed', ['rocky9.4'], false],
    ['another version is allowed', ['rocky8', 'rocky9.5'], true],
    ['what only begins alike is allowed', ['rocky'], true],
  ])('a node that runs a relative of the image’s system, where %s', (_, alsoFor, fails) => {
    const labels = {
      'feature.node.kubernetes.io/system-os_release.ID': 'rocky',
      'feature.node.kubernetes.io/system-os_release.VERSION_ID': '9.4',
    };
    const world = new World(aPolicy({ components: { driver: { version: '595.91.07-rhel9', alsoFor } } }), labels);
    world.settle(4);
    if (fails) expect(world.condition?.message).toContain('add rocky9 to components.driver.alsoFor');
    else expect(world.condition?.reason).not.toMatch(/^Preflight/);
  });
  it('a driver image for one kernel alone', () => {
    const { node } = new World();
    const running = {
      ...node,
      status: { ...node.status, nodeInfo: { bootID: 'b', kernelVersion: '6.8.0-71-generic' } },
    };
    const image = (kernel: string): string => `nvcr.io/nvidia/driver:595-${kernel}-ubuntu24.04`;
    expect(hostMismatch(running, image('6.8.0-71-generic'), [])).toBeUndefined();
    expect(hostMismatch(running, image('6.8.0-72-generic'), [])).toContain('this node runs kernel 6.8.0-71-generic');
    expect(hostMismatch(running, 'example/driver:latest', [])).toBeUndefined();
    expect(hostMismatch(node, image('6.8.0-72-generic'), [])).toBeUndefined();
  });
  it('a system of which NFD has not said everything is not held against the image', () => {
    const world = new World(aPolicy(), { 'feature.node.kubernetes.io/system-os_release.ID': 'sles' });
    expect(hostMismatch(world.node, 'nvcr.io/nvidia/driver:595-ubuntu24.04', [])).toBeUndefined();
  });
  it('NFD’s label flaps in the midst of a walk: not believed at once', () => {
    const world = new World();
    world.broken['driver'] = {};
    world.settle(6);
    world.relabel((labels) => delete labels['feature.node.kubernetes.io/pci-10de.present']);
    world.step();
    expect(world.state).toBe('driver');
    world.now += 6 * MINUTE;
    world.step();
    expect(world.condition?.reason).toBe('PreflightFailedNoNFD');
  });
});

describe('validation.interval', () => {
  it('validates an idle node again, leaves a busy one alone; Completed pods stay until the next round', () => {
    const world = new World(aPolicy({ validation: { interval: '1h' } })).validated();
    const first = [...world.pods.keys()].filter((name) => name.includes('validation'));
    expect(first).toHaveLength(2);
    world.pods.set('user', user(1));
    world.now += 2 * 60 * MINUTE;
    expect(world.step()).toEqual([]);
    expect([...world.pods.keys()].filter((name) => name.includes('validation'))).toEqual(first);
    world.pods.delete('user');
    expect(created(settleAndCollect(world))).toEqual(['driver-validation', 'device-plugin-validation']);
    const second = [...world.pods.keys()].filter((name) => name.includes('validation'));
    expect(second).toHaveLength(2);
    expect(second).not.toEqual(first);
  });
});

it('nodes that failed together do not try again together', () => {
  const retryAt = (uid: string): number => {
    const world = new World();
    world.node = { ...world.node, metadata: { ...world.node.metadata, uid } };
    world.validationsFail = true;
    for (let i = 0; i < 10; i += 1) world.step();
    return planNode(world.input()).wakeAt ?? 0;
  };
  expect(new Set(['a', 'b', 'c', 'd'].map(retryAt)).size).toBe(4);
});

it('Events carry no time: equal ones are counted as one', () => {
  const world = new World();
  const said: string[] = [];
  for (let i = 0; i < 30; i += 1)
    for (const action of world.step()) if (action.kind === 'event') said.push(action.message);
  expect(said.length).toBeGreaterThan(1);
  expect(said.filter((message) => /\d{4}-\d\d-\d\dT/.test(message))).toEqual([]);
});

it('a closed node that opens again says so', () => {
  const world = new World().validated();
  world.start('device-plugin');
  settleAndCollect(world);
  expect(world.events.filter((reason) => reason.startsWith('GPUNode'))).toEqual(['GPUNodeClosed', 'GPUNodeOpen']);
  expect(world.node.status?.conditions?.some(({ type }) => type === GPU_VALIDATED)).toBe(true);
  expect([...world.pods.values()].some((pod) => pod.labels[COMPONENT] === POD_COMPONENT['device-plugin'])).toBe(true);
});

it.each(['no policy selects the node', 'the node is opted out'])(
  'a driver of others whose walk is forgotten while %s: its proof stays under GPU pods',
  (what) => {
    const selector = { namespace: 'drivers', matchLabels: { app: 'driver' } };
    const world = new World(aPolicy({ components: { driver: { mode: 'external', podSelector: selector } } }));
    world.pods.set(
      'theirs',
      keptPod({
        namespace: 'drivers',
        name: 'theirs',
        uid: 'theirs',
        labels: { app: 'driver' },
        conditions: [{ type: 'Ready', status: 'True' }],
        containers: [
          { name: 'c', ready: true, restartCount: 0, state: { running: { startedAt: '2026-11-24T09:00:00Z' } } },
        ],
      }),
    );
    world.validated();
    world.pods.set('user', user());
    const { 'gpu-gate.dev/walk': _, ...annotations } = world.node.metadata.annotations ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, annotations } };
    const isOptedOut = what.includes('opted out');
    if (isOptedOut)
      world.relabel((labels) => {
        delete labels[MANAGED];
      });
    world.carryOut(planNode({ ...world.input(), ...(isOptedOut ? {} : { policy: undefined }) }).actions);
    expect(world.trust).toEqual([true, false]);
  },
);

it('a deploy label that is taken away while no policy selects the node comes back, as long as its proof stands', () => {
  const world = new World().validated();
  world.pods.set('user', user());
  const before = world.node.metadata.labels;
  world.relabel((labels) => {
    delete labels[`${DEPLOY_PREFIX}driver`];
  });
  world.carryOut(planNode({ ...world.input(), policy: undefined }).actions);
  expect(world.node.metadata.labels).toEqual(before);
  expect(world.trust).toEqual([true, false]);
});

describe('the selector of a driver of others is edited, and names', () => {
  const SELECTOR = { namespace: 'drivers', matchLabels: { app: 'driver' } };
  const theirs = (uid: string, startedAt: string): PodObject =>
    keptPod({
      namespace: 'drivers',
      name: uid,
      uid,
      labels: { app: 'driver' },
      controller: { kind: 'DaemonSet', uid: 'theirs' },
      conditions: [{ type: 'Ready', status: 'True' }],
      containers: [{ name: 'c', ready: true, restartCount: 0, state: { running: { startedAt } } }],
    });
  const edited = (after: PodObject | undefined, isWatched = true) => {
    const driver = { mode: 'external', ...(isWatched ? { podSelector: SELECTOR } : {}) };
    const world = new World(aPolicy({ components: { driver } }));
    world.pods.set('theirs', theirs('one', '2026-11-24T09:00:00Z'));
    world.validated();
    world.pods.set('user', user());
    world.pods.delete('theirs');
    if (after !== undefined) world.pods.set('theirs', after);
    world.policy = aPolicy({
      components: { driver: { mode: 'external', podSelector: { ...SELECTOR, ownerKind: 'DaemonSet' } } },
    });
    world.carryOut(world.plan().actions);
    return world.trust[0];
  };
  const LATER = '2026-11-24T23:00:00Z';
  it.each<[string, PodObject | undefined, serves: boolean]>([
    ['the same pods', theirs('one', '2026-11-24T09:00:00Z'), true],
    ['others that started before the proof', theirs('two', '2026-11-24T09:30:00Z'), true],
    ['none', undefined, true],
    ['pods that started after the proof', theirs('one', LATER), false],
  ])('%s', (_, after, serves) => expect(edited(after)).toBe(serves));
  it('pods that nobody watched before: whatever they did, the proof stands', () =>
    expect(edited(theirs('one', LATER), false)).toBe(true));
});
