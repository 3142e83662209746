// The plan by tables: what is observed → what is written.
import { describe, expect, it } from 'vitest';
import { CLOSED, DEPLOY_PREFIX, MANAGED, PROOF, RETRY } from '../../../core/keys.ts';
import { open, serving } from '../../../gate/node-proof.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { Outcome } from '../../../reconciler/apply.ts';
import { carryOut } from '../../../reconciler/node/writes.ts';
import { keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const crash: Partial<PodObject> = {
  containers: [
    {
      name: 'driver',
      ready: false,
      restartCount: 3,
      state: { waiting: { reason: 'CrashLoopBackOff' } },
      lastState: { terminated: { exitCode: 1, message: 'no module' } },
    },
  ],
};

describe('the walk', () => {
  it('goes through every stage in order, one deployment at a time, and ends open, untainted, with a proof', () => {
    const world = new World();
    const states: string[] = [];
    for (let i = 0; i < 30; i += 1) {
      world.step();
      if (world.state !== undefined && states.at(-1) !== world.state) states.push(world.state);
      if (world.state !== 'validated' && i > 0 && world.state !== 'preflight') expect(world.tainted).toBe(true);
    }
    expect(states).toEqual([
      'toolkit',
      'driver',
      'driver-validation',
      'device-plugin',
      'device-plugin-validation',
      'validated',
    ]);
    expect(open(world.node)).toMatchObject({ yes: true, proof: { driver: '595.91.07', boot: 'boot-1' } });
    expect(world.tainted).toBe(false);
  });
  it('is written by 11 requests, and reported by its begin and its end', async () => {
    const world = new World();
    const sent: string[] = [];
    const apply = async (action: Action): Promise<Outcome> => {
      sent.push(action.kind === 'event' ? action.reason : action.kind);
      return { kind: 'done' };
    };
    for (let i = 0; i < 30; i += 1) {
      const { node } = world;
      await carryOut(node, world.step(), { apply: { apply }, wrote: () => undefined });
    }
    expect(world.state).toBe('validated');
    expect(sent).toEqual([
      'patch-node',
      'GPUStage',
      ...Array.from({ length: 2 }, () => 'patch-node'),
      'create-pod',
      ...Array.from({ length: 2 }, () => 'patch-node'),
      'create-pod',
      'patch-node',
      'set-taints',
      'GPUValidated',
    ]);
    expect(sent.filter((what) => what.startsWith('GPU'))).toEqual(['GPUStage', 'GPUValidated']);
  });
  it('says what changes within a state once the state has lasted for some seconds', () => {
    const world = new World();
    world.broken['driver'] = { containers: [{ name: 'd', ready: false, restartCount: 0, state: {} }] };
    for (let i = 0; i < 60 && world.state !== 'driver'; i += 1) world.step();
    const first = world.condition?.message;
    const began = world.now;
    while (world.condition?.message === first) {
      expect(world.now - began).toBeLessThan(20_000);
      world.step();
    }
    expect(world.now - began).toBeGreaterThanOrEqual(15_000);
    expect(world.plan().wakeAt).toBeGreaterThan(world.now);
  });
  it('writes nothing more once it is done', () => {
    const world = new World().validated();
    world.settle();
    expect(world.step()).toEqual([]);
  });
  it('writes trust last: marks, condition, then the taint goes', () => {
    const world = new World();
    let kinds: string[] = [];
    for (let i = 0; i < 30 && world.state !== 'validated'; i += 1) kinds = world.step().map((action) => action.kind);
    expect(kinds.filter((kind) => kind !== 'event')).toEqual(['patch-node', 'set-node-condition', 'set-taints']);
  });
  it.each([
    ['no NFD at all', {}, 'PreflightFailedNoNFD'],
    ['no NVIDIA device', { 'feature.node.kubernetes.io/cpu-model.id': '1' }, 'PreflightFailedNoGPU'],
  ])('fails in preflight: %s', (_, labels, reason) => {
    const world = new World();
    world.node = { ...world.node, metadata: { ...world.node.metadata, labels: { [MANAGED]: 'true', ...labels } } };
    world.settle(5);
    expect([world.state, world.condition?.reason]).toEqual(['failed', reason]);
    expect(world.tainted).toBe(false);
  });
  it('fails in preflight beside another installer', () => {
    const world = new World(undefined, { 'nvidia.com/gpu.deploy.driver': 'true' });
    world.settle(5);
    expect(world.condition?.reason).toBe('PreflightFailedAnotherInstaller');
  });
  it('waits in preflight for a free place', () => {
    const world = new World();
    world.slotFree = false;
    world.settle(5);
    expect([world.state, world.condition?.message]).toEqual([
      'preflight',
      expect.stringContaining('bringUp.maxConcurrent'),
    ]);
    world.slotFree = true;
    world.validated();
  });
});

describe('a failure', () => {
  it('toolkit Ready, but the runtime has no handler: stops there, and the reason is the handler, not the time', () => {
    const world = new World();
    const has = (...runtimeHandlers: string[]): void => {
      world.node = { ...world.node, status: { ...world.node.status, runtimeHandlers } };
    };
    has('', 'runc');
    world.lasts();
    expect([world.state, world.condition?.message]).toEqual(['toolkit', expect.stringContaining('it has runc')]);
    world.now += 301_000;
    world.step();
    expect(world.condition?.reason).toBe('ToolkitFailedRuntimeHandlerMissing');
    expect(world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`]).toBeUndefined();
    has('', 'runc', 'nvidia');
    world.now += 60_000;
    world.validated();
  });
  it('a validation pod that cannot be scheduled: the scheduler’s words, and that is the reason when time is over', () => {
    const world = new World();
    const stuck = (): void => {
      for (const [name, one] of world.pods) {
        if (one.validates === undefined) continue;
        const waits = {
          type: 'PodScheduled',
          status: 'False',
          reason: 'Unschedulable',
          message: '0/1 nodes: Insufficient memory.',
        };
        world.pods.set(name, { ...one, phase: 'Pending', nodeName: undefined, containers: [], conditions: [waits] });
      }
    };
    for (let i = 0; i < 12; i += 1) {
      world.step();
      stuck();
    }
    expect([world.state, world.condition?.message]).toEqual([
      'driver-validation',
      expect.stringContaining('Insufficient memory'),
    ]);
    world.now += 301_000;
    world.step();
    expect(world.condition?.reason).toBe('DriverValidationFailedUnschedulable');
  });
  it('a kernel module missing: named, with what to install', () => {
    const world = new World();
    const message = 'ipmi_msghandler: modprobe: FATAL: Module ipmi_msghandler not found';
    world.broken['driver'] = {
      initContainers: [
        {
          name: 'prerequisites',
          ready: false,
          restartCount: 1,
          state: { waiting: { reason: 'CrashLoopBackOff' } },
          lastState: { terminated: { exitCode: 1, message } },
        },
      ],
    };
    world.settle(8);
    expect(world.condition).toMatchObject({
      reason: 'DriverFailedKernelModuleMissing',
      message: expect.stringMatching(/Module ipmi_msghandler not found.*linux-modules-extra/),
    });
  });
  it('stops the walk there, is reported once, and nothing later runs', () => {
    const world = new World();
    world.broken['driver'] = crash;
    world.settle(8);
    expect(world.condition).toMatchObject({
      status: 'False',
      reason: 'DriverFailedCrashLoop',
      message: expect.stringContaining('no module'),
    });
    expect(world.node.metadata.labels?.[`${DEPLOY_PREFIX}device-plugin`]).toBeUndefined();
    expect(world.events.filter((reason) => reason === 'DriverFailedCrashLoop')).toHaveLength(1);
  });
  it('ends the moment the stage is done', () => {
    const world = new World();
    world.broken['driver'] = crash;
    world.settle(8);
    world.broken = {};
    world.start('driver');
    world.validated();
  });
  it('is tried again after the backoff, which doubles, and at once when the operator asks', () => {
    const world = new World();
    world.validationsFail = true;
    world.settle(10);
    expect(world.condition?.reason).toBe('DriverValidationFailedVectorAdd');
    const plan = planNode(world.input());
    expect(plan.actions).toEqual([]);
    const first = (plan.wakeAt ?? 0) - world.now;
    expect(first).toBeGreaterThan(0);
    expect(first).toBeLessThanOrEqual(12_000);
    world.now = plan.wakeAt ?? 0;
    world.settle(6);
    const second = planNode(world.input()).wakeAt ?? 0;
    expect(second - world.now).toBeGreaterThan(first);
    world.validationsFail = false;
    world.annotate(RETRY, 'now');
    world.validated();
  });
  it('is a timeout where nothing happens', () => {
    const world = new World();
    world.broken['driver'] = {};
    world.settle(5);
    expect(world.state).toBe('driver');
    world.now += 61_000;
    world.settle(3);
    expect(world.condition).toMatchObject({
      reason: 'DriverFailedTimedOut',
      message: expect.stringContaining('timed out after 60 s'),
    });
  });
  it('names the image that cannot be pulled', () => {
    const world = new World();
    world.broken['toolkit'] = {
      containers: [
        {
          name: 't',
          ready: false,
          restartCount: 0,
          image: 'nvcr.io/x:1',
          state: { waiting: { reason: 'ImagePullBackOff', message: 'not found' } },
        },
      ],
    };
    world.settle(5);
    expect(world.condition).toMatchObject({
      reason: 'ToolkitFailedImagePull',
      message: expect.stringContaining('nvcr.io/x:1'),
    });
  });
  it('runs no clock while a validation waits for a free GPU', () => {
    const world = new World().validated();
    world.pods.set('user', keptPod({ name: 'user', namespace: 'team', gpus: { 'nvidia.com/gpu': 8 } }));
    world.start('device-plugin');
    world.step();
    for (const [name, p] of world.pods) {
      if (name.startsWith('device-plugin-validation')) {
        world.pods.set(name, {
          ...p,
          phase: 'Pending',
          nodeName: undefined,
          containers: [],
          conditions: [
            {
              type: 'PodScheduled',
              status: 'False',
              reason: 'Unschedulable',
              message: '0/1 nodes are available: 1 Insufficient nvidia.com/gpu.',
            },
          ],
        });
      }
    }
    world.now += 3_600_000;
    world.step();
    expect([world.state, world.condition?.status, serving(world.node).yes, open(world.node).yes]).toEqual([
      'validated',
      'True',
      true,
      false,
    ]);
  });
});

describe('what ends a proof and what only closes the node', () => {
  const both = (world: World): [boolean, boolean] => [serving(world.node).yes, open(world.node).yes];

  it('reboot: void by itself, then evidence from scratch', () => {
    const world = new World().validated();
    const before = world.node.metadata.annotations?.[PROOF];
    world.reboot('boot-2');
    expect(both(world)).toEqual([false, false]);
    world.step();
    expect([world.state, world.tainted, world.node.metadata.annotations?.[PROOF]]).toEqual([
      'toolkit',
      true,
      undefined,
    ]);
    // The pods still show what they were before the reboot: no evidence.
    world.settle(5);
    expect(world.state).toBe('toolkit');
    for (const component of ['toolkit', 'driver', 'device-plugin'] as const) world.start(component);
    world.validated();
    expect(world.node.metadata.annotations?.[PROOF]).not.toBe(before);
  });
  it('driver restarted: withdrawn first of all, restored by driver-validation, closed until the plugin is validated', () => {
    const world = new World().validated();
    world.start('driver');
    const [first] = world.step();
    expect(first).toMatchObject({ kind: 'patch-node', annotations: { [PROOF]: null } });
    expect(both(world)).toEqual([false, false]);
    expect(world.tainted).toBe(false);
    const seen: string[] = [];
    for (let i = 0; i < 10; i += 1) {
      world.step();
      if (world.node.metadata.annotations?.[CLOSED] !== undefined) seen.push(world.node.metadata.annotations[CLOSED]);
    }
    expect(seen).toContain('awaiting device-plugin-validation');
    expect(both(world)).toEqual([true, true]);
  });
  it('driver gone: withdrawn', () => {
    const world = new World().validated();
    world.pods.delete('driver-pod');
    planNode(world.input());
    expect(planNode(world.input()).withdraws).toBe(true);
  });
  it('driver not Ready with the same containers: closed only', () => {
    const world = new World().validated();
    world.broken['driver'] = {};
    world.reality();
    world.step();
    expect(both(world)).toEqual([true, false]);
  });
  it('toolkit restarted: stays, closed until driver-validation passed again', () => {
    const world = new World().validated();
    world.start('toolkit');
    world.step();
    expect(both(world)).toEqual([true, false]);
    world.validated();
    expect(both(world)).toEqual([true, true]);
  });
  it('device plugin gone: stays, closed until it is validated again', () => {
    const world = new World().validated();
    world.broken['device-plugin'] = {};
    world.reality();
    world.step();
    expect(both(world)).toEqual([true, false]);
    world.broken = {};
    world.start('device-plugin');
    world.validated();
    expect(both(world)).toEqual([true, true]);
  });
  it('driver-validation failed: withdrawn', () => {
    const world = new World().validated();
    world.validationsFail = true;
    world.start('toolkit');
    world.settle(6);
    expect(both(world)).toEqual([false, false]);
  });
  it('node not Ready beyond the grace time: withdrawn; restored when it is back', () => {
    const world = new World().validated();
    const ready = (status: string): void => {
      world.node = {
        ...world.node,
        status: {
          ...world.node.status,
          conditions: (world.node.status?.conditions ?? []).map((c) => (c.type === 'Ready' ? { ...c, status } : c)),
        },
      };
    };
    ready('False');
    world.step();
    expect(world.node.metadata.annotations?.[PROOF]).toBeDefined();
    world.now += 61_000;
    world.step();
    expect(world.node.metadata.annotations?.[PROOF]).toBeUndefined();
    ready('True');
    world.validated();
    expect(both(world)).toEqual([true, true]);
  });
  it('some of several GPUs lost: open', () => {
    const world = new World().validated();
    world.node = { ...world.node, status: { ...world.node.status, allocatable: { 'nvidia.com/gpu': '7' } } };
    planNode(world.input());
    expect(planNode(world.input()).actions).toEqual([]);
  });
  it('NFD’s label gone: discovery is not evidence, so it is only reported', () => {
    const world = new World().validated();
    const { 'feature.node.kubernetes.io/pci-10de.present': _, ...labels } = world.node.metadata.labels ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, labels } };
    world.step();
    expect(both(world)).toEqual([true, true]);
    world.now += 6 * 60_000;
    world.step();
    expect([both(world), world.condition?.message]).toEqual([
      [true, true],
      expect.stringContaining('no longer reports an NVIDIA device'),
    ]);
  });
  it('the circuit breaker keeps the proof and closes', () => {
    const world = new World().validated();
    world.start('driver');
    const actions = planNode(world.input()).unless?.('circuit breaker') ?? [];
    expect(actions).toContainEqual(
      expect.objectContaining({
        kind: 'patch-node',
        annotations: expect.objectContaining({ [CLOSED]: 'circuit breaker' }),
      }),
    );
    expect(actions).not.toContainEqual(
      expect.objectContaining({ annotations: expect.objectContaining({ [PROOF]: null }) }),
    );
    // It waits for a person, so that the condition has the command.
    const said = actions.flatMap((action) =>
      action.kind === 'patch-node'
        ? [action.status?.condition?.message ?? '']
        : action.kind === 'set-node-condition'
          ? [action.condition?.message ?? '']
          : [],
    );
    expect(said.join()).toMatch(
      /the circuit breaker keeps its proof.*; now: kubectl annotate gpupolicy default --overwrite gpu-gate\.dev\/breaker-release=\$\(date \+%s\)/,
    );
  });
});

describe('an opt-out', () => {
  const optOut = (world: World): void => {
    const { [MANAGED]: _, ...labels } = world.node.metadata.labels ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, labels } };
  };
  it('waits for GPU pods, tears down in reverse order, and leaves nothing', () => {
    const world = new World().validated();
    world.pods.set('user', keptPod({ name: 'user', namespace: 'team', gpus: { 'nvidia.com/gpu': 1 } }));
    optOut(world);
    world.settle(5);
    expect([world.state, serving(world.node).yes, open(world.node).yes]).toEqual(['removing', true, false]);
    expect(world.condition?.message).toContain('waiting for 1 GPU pod to end (team/user)');
    world.pods.delete('user');
    const removed: string[] = [];
    for (let i = 0; i < 12; i += 1) {
      for (const action of world.step())
        if (action.kind === 'patch-node')
          removed.push(
            ...Object.keys(action.labels).filter((key) => key.startsWith(DEPLOY_PREFIX) && action.labels[key] === null),
          );
    }
    expect(removed.map((key) => key.slice(DEPLOY_PREFIX.length))).toEqual([
      'dcgm-exporter',
      'device-plugin',
      'driver',
      'toolkit',
    ]);
    expect(
      Object.keys({ ...world.node.metadata.labels, ...world.node.metadata.annotations }).filter((key) =>
        key.includes('gpu-gate.dev'),
      ),
    ).toEqual([]);
    expect([world.condition, world.tainted, world.pods.size]).toEqual([undefined, false, 0]);
    expect(world.step()).toEqual([]);
  });
  it('taken back midway, resumes', () => {
    const world = new World().validated();
    optOut(world);
    world.step();
    world.step();
    world.node = {
      ...world.node,
      metadata: { ...world.node.metadata, labels: { ...world.node.metadata.labels, [MANAGED]: 'true' } },
    };
    world.validated();
    expect(open(world.node).yes).toBe(true);
  });
});
