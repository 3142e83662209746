// What a user expects where news is late or lost, where marks are undone by others, and where
// clocks are wrong. Each was once not so.
import { describe, expect, it } from 'vitest';
import { COMPONENT, DEPLOY_PREFIX, MANAGED, PART_OF, RETRY, REVISION, WALK } from '../../../core/keys.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { trimNode, trimPod, type PodObject } from '../../../reconciler/model.ts';
import { selecting } from '../../../core/gpu-policy.ts';
import { allocatable } from '../../../reconciler/node/findings.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { BRING_UP, places as placesOf, shareOf } from '../../../reconciler/limits/places.ts';
import { aPolicy, keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const MINUTE = 60_000;
const EXTERNAL = { mode: 'external' };
const ALL_EXTERNAL = { toolkit: EXTERNAL, driver: EXTERNAL, devicePlugin: EXTERNAL, dcgmExporter: EXTERNAL };
const user = (more: Partial<PodObject> = {}): PodObject =>
  keptPod({ name: 'user', namespace: 'team', uid: 'user', gpus: { 'nvidia.com/gpu': 8 }, ...more });
const taken = (actions: readonly Action[]): string[] =>
  actions.flatMap((a) =>
    a.kind === 'patch-node'
      ? Object.keys(a.labels)
          .filter((k) => k.startsWith(DEPLOY_PREFIX) && a.labels[k] === null)
          .map((k) => k.slice(DEPLOY_PREFIX.length))
      : [],
  );
const many = (world: World, n: number): Action[] => Array.from({ length: n }, () => world.step()).flat();
const created = (actions: readonly Action[]): string[] =>
  actions.flatMap((a) => (a.kind === 'create-pod' ? [a.manifest.metadata.name] : []));
const deleted = (actions: readonly Action[]): string[] =>
  actions.flatMap((a) => (a.kind === 'delete-pod' ? [a.name] : []));
/** External stack: the node offers GPUs by another installer's plugin. */
class ExternalWorld extends World {
  gpus = '8';
  override reality(): void {
    super.reality();
    this.node = {
      ...this.node,
      status: { ...this.node.status, allocatable: this.gpus === '0' ? {} : { 'nvidia.com/gpu': this.gpus } },
    };
  }
}
const fullNode = (world: World): void => {
  for (const [name, pod] of world.pods)
    if (name.startsWith('device-plugin-validation'))
      world.pods.set(name, {
        ...pod,
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
};

describe('A1 operand evidence is only what runs in the operand namespace', () => {
  const impostor = (world: World, more: Partial<PodObject> = {}): PodObject =>
    keptPod({
      name: 'copy',
      namespace: 'team',
      uid: 'impostor',
      owned: false,
      labels: {
        [COMPONENT]: 'driver',
        [REVISION]: world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`] ?? '',
        'gpu-gate.dev/injected': 'true',
      },
      conditions: [{ type: 'Ready', status: 'True' }],
      containers: [
        { name: 'c', ready: true, restartCount: 0, state: { running: { startedAt: '2026-11-24T08:00:00Z' } } },
      ],
      ...more,
    });
  it('a tenant pod with copied labels must not hide that the driver restarted', () => {
    const world = new World();
    world.settle(3); // toolkit
    for (let i = 0; i < 10 && world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`] === undefined; i += 1)
      world.step();
    const pods = [...world.pods];
    world.pods.clear();
    world.pods.set('copy', impostor(world)); // the tenant's pod came first
    for (const [k, v] of pods) world.pods.set(k, v);
    world.validated();
    world.start('driver'); // the real driver restarts
    world.step();
    expect(world.trust).toEqual([false, false]);
  });
  it('a tenant pod with copied labels must not take a proof away', () => {
    const world = new World().validated();
    const pods = [...world.pods];
    world.pods.clear();
    world.pods.set('copy', impostor(world));
    for (const [k, v] of pods) world.pods.set(k, v);
    world.step();
    expect(world.trust).toEqual([true, true]);
  });
  it('such a pod is kept by trimPod (so this reaches the plan)', () => {
    const raw = {
      metadata: {
        name: 'x',
        namespace: 'team',
        uid: 'u',
        creationTimestamp: '2026-11-24T08:00:00Z',
        labels: { [COMPONENT]: 'driver', [REVISION]: 'abc', 'gpu-gate.dev/injected': 'true' },
      },
      spec: { containers: [{ name: 'c' }], nodeName: 'n' },
      status: {},
    };
    const kept = trimPod(raw, 'gpu-gate-operands', () => false);
    expect(kept?.labels[COMPONENT]).toBeUndefined();
  });
  it('an opt-out ends, also where a completed GPU job carries app.kubernetes.io/component=driver', () => {
    const world = new World().validated();
    world.pods.set('job', user({ name: 'job', phase: 'Succeeded', labels: { [COMPONENT]: 'driver' } }));
    world.relabel((labels) => delete labels[MANAGED]);
    many(world, 40);
    expect(world.condition?.message).toBeUndefined();
  });
  it('an opt-out ends, also where the external exporter is selected by app.kubernetes.io/component=dcgm-exporter', () => {
    const world = new World(
      aPolicy({
        components: {
          dcgmExporter: {
            mode: 'external',
            podSelector: { namespace: 'monitoring', matchLabels: { [COMPONENT]: 'dcgm-exporter' } },
          },
        },
      }),
    );
    world.pods.set(
      'theirs',
      keptPod({
        name: 'theirs',
        namespace: 'monitoring',
        uid: 't',
        labels: { [COMPONENT]: 'dcgm-exporter' },
        conditions: [{ type: 'Ready', status: 'True' }],
      }),
    );
    world.validated();
    world.relabel((labels) => delete labels[MANAGED]);
    many(world, 40);
    expect(world.condition?.message).toBeUndefined();
  });
});

describe('A2 a place is held only while a stage progresses', () => {
  it('a node that dies in its first walk gives its place back', () => {
    const world = new World();
    world.broken['driver'] = {};
    world.settle(6);
    world.ready('Unknown');
    world.podsReady(false);
    for (let hour = 0; hour < 24; hour += 1) {
      world.now += 60 * MINUTE;
      many(world, 2);
    }
    expect(planNode(world.input()).holdsSlot).toBe(false);
  });
  it('a full node (external stack) that waits for a free GPU on its first walk gives its place back', () => {
    const world = new ExternalWorld(aPolicy({ components: ALL_EXTERNAL }));
    world.pods.set('user', user());
    for (let i = 0; i < 10; i += 1) {
      world.step();
      fullNode(world);
    }
    expect(world.state).toBe('device-plugin-validation');
    world.now += 24 * 60 * MINUTE;
    world.step();
    const plan = planNode(world.input());
    const places = placesOf(BRING_UP);
    if (plan.holdsSlot) places.hold('n', 'default');
    expect(places.free('another', 'default', shareOf('10%', 2))).toBe(true);
  });
});

describe('A3 a policy edit changes no validated node before its turn', () => {
  it('validation.image: nodes stay open', () => {
    const world = new World().validated();
    world.policy = aPolicy({ validation: { image: 'registry.example/vectoradd:new' } });
    world.step();
    expect(world.trust).toEqual([true, true]);
  });
  it('validation.image that is not vectorAdd: no proof goes', () => {
    const world = new World().validated();
    world.policy = aPolicy({ validation: { image: 'registry.example/typo:1' } });
    world.step();
    for (const [name, pod] of world.pods)
      if (name.startsWith('driver-validation') && pod.validates !== undefined)
        world.pods.set(name, {
          ...pod,
          phase: 'Succeeded',
          containers: [
            { name: 'c', ready: false, restartCount: 0, state: { terminated: { exitCode: 0, message: 'hello' } } },
          ],
        });
    many(world, 3);
    expect([world.condition?.reason, world.trust[0]]).toEqual(['Validated', true]);
  });
  it('an external driver gets a podSelector: no proof goes', () => {
    const driverPod = keptPod({
      name: 'd',
      namespace: 'gpu-operator',
      uid: 'd',
      labels: { app: 'nvidia-driver-daemonset' },
      conditions: [{ type: 'Ready', status: 'True' }],
      containers: [
        { name: 'c', ready: true, restartCount: 0, state: { running: { startedAt: '2026-11-24T08:00:00Z' } } },
      ],
    });
    const world = new World(aPolicy({ components: { driver: EXTERNAL } }));
    world.pods.set('d', driverPod);
    world.validated();
    world.policy = aPolicy({
      components: {
        driver: {
          mode: 'external',
          podSelector: { namespace: 'gpu-operator', matchLabels: { app: 'nvidia-driver-daemonset' } },
        },
      },
    });
    const plan = planNode(world.input());
    expect(plan.withdraws).toBe(false);
  });
  it('external → managed: a driver that is still external is still watched', () => {
    const selector = {
      mode: 'external',
      podSelector: { namespace: 'gpu-operator', matchLabels: { app: 'nvidia-driver-daemonset' } },
    };
    const driverPod = (startedAt: string) =>
      keptPod({
        name: 'd',
        namespace: 'gpu-operator',
        uid: 'd',
        labels: { app: 'nvidia-driver-daemonset' },
        conditions: [{ type: 'Ready', status: 'True' }],
        containers: [{ name: 'c', ready: true, restartCount: 0, state: { running: { startedAt } } }],
      });
    const world = new World(aPolicy({ components: { driver: selector } }));
    world.pods.set('d', driverPod('2026-11-24T08:00:00Z'));
    world.validated();
    world.policy = aPolicy({});
    world.step();
    world.pods.set('d', driverPod('2026-11-24T12:00:00Z'));
    world.step();
    expect(world.trust).toEqual([false, false]);
  });
  it('nodes of a first walk that GPU pods run on (external, full) are not given a managed driver under them', () => {
    const world = new ExternalWorld(aPolicy({ components: ALL_EXTERNAL }));
    world.pods.set('user', user());
    for (let i = 0; i < 10; i += 1) {
      world.step();
      fullNode(world);
    }
    world.policy = aPolicy({ components: { ...ALL_EXTERNAL, driver: { mode: 'managed' } } });
    many(world, 3);
    expect(world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`]).toBeUndefined();
  });
});

describe('A4 marks lost or stripped by another writer', () => {
  it('a deploy label removed on a busy proven node comes back; nothing later is taken from under GPU pods', () => {
    const world = new World().validated();
    world.pods.set('user', user());
    world.relabel((labels) => delete labels[`${DEPLOY_PREFIX}toolkit`]);
    world.pods.delete('toolkit-pod');
    const actions = many(world, 6);
    expect(taken(actions)).toEqual([]);
  });
  it('the driver’s label removed while an earlier state is not done comes back in the same look', () => {
    const world = new World().validated();
    world.broken['toolkit'] = {};
    world.reality();
    world.step();
    world.relabel((labels) => delete labels[`${DEPLOY_PREFIX}driver`]);
    const [first] = planNode(world.input()).actions;
    expect(first).toMatchObject({ kind: 'patch-node', labels: { [`${DEPLOY_PREFIX}driver`]: expect.any(String) } });
  });
  it('the walk’s memory lost after GPUs had vanished: the round that passed before proves nothing', () => {
    const world = new World().validated();
    const rounds = [...world.pods.keys()].filter((name) => name.includes('-validation-'));
    world.node = { ...world.node, status: { ...world.node.status, allocatable: {} } };
    world.step();
    const { [WALK]: _, ...annotations } = world.node.metadata.annotations ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, annotations } };
    const run = created(many(world, 10));
    expect(run).toHaveLength(2);
    expect(run.filter((name) => rounds.includes(name))).toEqual([]);
  });
  it('a deploy label removed after a policy edit comes back with the revision that the proof names', () => {
    const world = new World().validated();
    const before = world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`];
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    world.relabel((labels) => delete labels[`${DEPLOY_PREFIX}driver`]);
    world.pods.delete('driver-pod');
    many(world, 25);
    expect(world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`]).toBe(before);
  });
  it('the walk’s memory lost (annotation stripped, or written by another version) on a busy proven node: its revisions stay', () => {
    const world = new World().validated();
    world.pods.set('user', user());
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    const { [WALK]: _, ...annotations } = world.node.metadata.annotations ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, annotations } };
    expect(taken(many(world, 6))).toEqual([]);
  });
  it('a walk with a part of another type does not make the plan throw for ever', () => {
    const world = new World().validated();
    world.annotate(
      WALK,
      JSON.stringify({ ...JSON.parse(world.node.metadata.annotations?.[WALK] ?? '{}'), passed: null }),
    );
    expect(() => world.step()).not.toThrow();
  });
  it('a walk whose time cannot be read still times out', () => {
    const world = new World();
    world.broken['driver'] = {};
    world.settle(6);
    world.annotate(
      WALK,
      JSON.stringify({ ...JSON.parse(world.node.metadata.annotations?.[WALK] ?? '{}'), since: 'yesterday' }),
    );
    world.now += 24 * 60 * MINUTE;
    many(world, 3);
    expect(world.state).toBe('failed');
  });
  it('a failure whose time of retry cannot be read is tried again', () => {
    const world = new World();
    world.validationsFail = true;
    world.settle(10);
    const walk = JSON.parse(world.node.metadata.annotations?.[WALK] ?? '{}');
    world.annotate(WALK, JSON.stringify({ ...walk, failed: { ...walk.failed, retryAt: 'x' } }));
    world.validationsFail = false;
    world.now += 24 * 60 * MINUTE;
    many(world, 20);
    expect(world.state).toBe('validated');
  });
});

describe('A5 the retry annotation', () => {
  it('taken away again: no retry without pause', () => {
    const world = new World();
    world.validationsFail = true;
    world.settle(10);
    world.annotate(RETRY, '1');
    world.settle(10);
    const { [RETRY]: _, ...annotations } = world.node.metadata.annotations ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, annotations } };
    const attempts = created(many(world, 30)); // 30 seconds
    expect(attempts.length).toBeLessThanOrEqual(4);
  });
  it('taken away again, while GPU pods depend on a crashing operand: it is not deleted again and again', () => {
    const world = new World().validated();
    world.pods.set('user', user());
    const crash = {
      containers: [{ name: 'd', ready: false, restartCount: 3, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
    };
    world.broken['device-plugin'] = crash;
    world.reality();
    world.settle(6);
    world.annotate(RETRY, '1');
    many(world, 6);
    const { [RETRY]: _, ...annotations } = world.node.metadata.annotations ?? {};
    world.node = { ...world.node, metadata: { ...world.node.metadata, annotations } };
    expect(deleted(many(world, 30)).length).toBeLessThanOrEqual(1);
  });
});

describe('A6 stuck', () => {
  it('a revision whose DaemonSet is gone for good (older gpu-gate or older policy): an idle node takes the newest', () => {
    const world = new World().validated();
    world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
    // The old DaemonSet was deleted, so its pod goes and none comes.
    const old = world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`];
    world.daemonSets.delete(`driver-${old}`);
    const reality = world.reality.bind(world);
    world.reality = () => {
      reality();
      if (world.node.metadata.labels?.[`${DEPLOY_PREFIX}driver`] === old) world.pods.delete('driver-pod');
    };
    for (let hour = 0; hour < 48; hour += 1) {
      world.now += 60 * MINUTE;
      many(world, 4);
    }
    expect(world.state).toBe('validated');
  });
  it('boot ID missing for one observation, then the same again: not stuck, nothing restarted', () => {
    const world = new World().validated();
    const status = world.node.status;
    world.node = { ...world.node, status: { ...world.node.status, nodeInfo: {} } };
    world.step();
    world.node = { ...world.node, status: { ...world.node.status, nodeInfo: { ...status?.nodeInfo } } };
    const actions = many(world, 10);
    expect([world.state, deleted(actions)]).toEqual(['validated', []]);
  });
  it('… nor with GPU pods, for a day', () => {
    const world = new World().validated();
    world.pods.set('user', user());
    world.node = { ...world.node, status: { ...world.node.status, nodeInfo: {} } };
    world.step();
    world.reboot('boot-1');
    world.reality();
    for (let hour = 0; hour < 24; hour += 1) {
      world.now += 60 * MINUTE;
      many(world, 4);
    }
    expect(world.trust[0]).toBe(true);
  });
  it('1,000 shared GPUs (the API writes 1k) are GPUs', () => {
    const node = trimNode({
      metadata: { name: 'n', uid: 'u', resourceVersion: '1' },
      status: { allocatable: { 'nvidia.com/gpu.shared': '1k' } },
    });
    expect(allocatable(node, ['nvidia.com/gpu.shared'])).toEqual({ 'nvidia.com/gpu.shared': 1000 });
  });
});

describe('A7 a selector that stops selecting for a moment', () => {
  it('policy’s nodeSelector label vanishes from an idle proven node (GFD or NFD restarts): nothing is torn down at once', () => {
    const world = new World(aPolicy({ nodeSelector: { 'nvidia.com/gpu.product': 'H100' } }), {
      'nvidia.com/gpu.product': 'H100',
    }).validated();
    const input = { ...world.input(), policy: undefined };
    const plan = planNode(input);
    expect([taken(plan.actions), plan.withdraws]).toEqual([[], false]);
  });
  it('a whole fleet that a policy edit stops selecting: the breaker is asked', () => {
    const world = new World().validated();
    const plan = planNode({ ...world.input(), policy: undefined });
    const goes = plan.actions.some((a) => a.kind === 'patch-node' && a.annotations['gpu-gate.dev/proof'] === null);
    expect(goes && !plan.withdraws).toBe(false);
  });
});

describe('A8 an external driver', () => {
  const spec = {
    components: { driver: { mode: 'external', podSelector: { namespace: 'x', matchLabels: { app: 'd' } } } },
  };
  const pod = (more: Partial<PodObject> = {}) =>
    keptPod({
      name: 'd',
      namespace: 'x',
      uid: 'd',
      labels: { app: 'd' },
      conditions: [{ type: 'Ready', status: 'True' }],
      containers: [
        { name: 'c', ready: true, restartCount: 0, state: { running: { startedAt: '2026-11-24T08:00:00Z' } } },
      ],
      ...more,
    });
  it('gone: the proof goes, as for a managed one', () => {
    const world = new World(aPolicy(spec));
    world.pods.set('d', pod());
    world.validated();
    world.pods.delete('d');
    world.step();
    expect(world.trust).toEqual([false, false]);
  });
  it('crashing: the proof goes, as for a managed one', () => {
    const world = new World(aPolicy(spec));
    world.pods.set('d', pod());
    world.validated();
    world.pods.set(
      'd',
      pod({
        conditions: [],
        containers: [{ name: 'c', ready: false, restartCount: 1, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
      }),
    );
    world.step();
    expect(world.trust).toEqual([false, false]);
  });
});

describe('A9 clocks', () => {
  it('the new leader’s clock is an hour behind: a failed node is tried again within its longest backoff', () => {
    const world = new World();
    world.validationsFail = true;
    world.settle(10);
    world.takeOver(-60 * MINUTE);
    world.validationsFail = false;
    for (let i = 0; i < 60; i += 1) {
      world.now += 15_000;
      world.step();
    } // 15 minutes, backoff.max is 10
    expect(world.state).toBe('validated');
  });
  it('a jump of an hour forward fails no stage that had just begun', () => {
    const world = new World();
    world.broken['driver'] = {};
    world.settle(6);
    // Within one leader the clock is steady (platform/clock); another leader brings its own.
    world.takeOver(60 * MINUTE);
    world.step();
    expect(world.state).toBe('driver');
  });
});

describe('A10 marks of PART_OF', () => {
  it('leftovers go where both labels were stripped by hand', () => {
    const world = new World();
    world.broken['driver'] = {};
    world.settle(6);
    expect(world.tainted).toBe(true);
    world.relabel((labels) => {
      for (const key of Object.keys(labels)) if (key.startsWith('gpu-gate.dev/')) delete labels[key];
    });
    many(world, 5);
    expect(world.tainted).toBe(false);
    void PART_OF;
  });
});

/** Pods of previous rounds of validation go when the next one begins: nothing runs in them. */
const restarted = (actions: readonly Action[]): string[] =>
  actions.flatMap((a) => (a.kind === 'delete-pod' && !a.name.includes('-validation-') ? [a.name] : []));

describe('B1 a reboot of which pods tell before the node does (two watches)', () => {
  const rebooted = (): World => {
    const world = new World().validated();
    for (const component of ['toolkit', 'driver', 'device-plugin'] as const) world.start(component);
    world.step(); // the watch of pods was first
    world.reboot('boot-2');
    world.reality();
    return world;
  };
  it('the node comes back by itself, nothing is deleted', () => {
    const world = rebooted();
    const actions = many(world, 30);
    expect([world.state, restarted(actions)]).toEqual(['validated', []]);
  });
  it('… and with GPU pods that started again with the node, within a day', () => {
    const world = rebooted();
    world.pods.set('user', keptPod({ name: 'user', namespace: 'team', uid: 'user', gpus: { 'nvidia.com/gpu': 1 } }));
    for (let hour = 0; hour < 24; hour += 1) {
      world.now += 60 * MINUTE;
      many(world, 4);
    }
    expect(world.state).toBe('validated');
  });
});

describe('B2 opting out, while GPU pods are still there', () => {
  it('the driver dies under them: the proof goes, as it would without the opt-out', () => {
    const world = new World().validated();
    world.pods.set('user', keptPod({ name: 'user', namespace: 'team', uid: 'user', gpus: { 'nvidia.com/gpu': 1 } }));
    world.relabel((labels) => delete labels[MANAGED]);
    many(world, 3);
    expect(world.trust).toEqual([true, false]);
    world.broken['driver'] = {
      containers: [{ name: 'd', ready: false, restartCount: 1, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
    };
    world.reality();
    many(world, 3);
    expect(world.trust).toEqual([false, false]);
  });
});

describe('B3 a policy that goes while another one has the node too', () => {
  it('the other takes the idle node over, with the stack that it renders alike', () => {
    const world = new World().validated();
    const old = aPolicy(
      {},
      {
        metadata: {
          name: 'default',
          uid: 'a',
          generation: 2,
          creationTimestamp: '2026-11-01T00:00:00Z',
          deletionTimestamp: '2026-11-24T10:00:00Z',
        },
      },
    );
    const pool = aPolicy(
      {},
      { metadata: { name: 'pool', uid: 'b', generation: 1, creationTimestamp: '2026-11-20T00:00:00Z' } },
    );
    const [policy] = selecting(world.node.metadata.labels ?? {}, [old, pool]);
    const { actions } = planNode({ ...world.input(), policy });
    const taken = actions.flatMap((a) =>
      a.kind === 'patch-node'
        ? Object.keys(a.labels).filter((k) => k.startsWith(DEPLOY_PREFIX) && a.labels[k] === null)
        : [],
    );
    expect(taken).toEqual([]);
  });
});

it('B4 a downgrade: a walk with a stage that this version does not know keeps the revisions of a proven node', () => {
  const world = new World().validated();
  world.policy = aPolicy({ components: { driver: { version: '610.1.1' } } });
  world.annotate(
    WALK,
    JSON.stringify({ ...JSON.parse(world.node.metadata.annotations?.[WALK] ?? '{}'), stage: 'draining' }),
  );
  const taken = many(world, 6).flatMap((a) =>
    a.kind === 'patch-node'
      ? Object.keys(a.labels).filter((k) => k.startsWith(DEPLOY_PREFIX) && a.labels[k] === null)
      : [],
  );
  expect(taken).toEqual([]);
});

it('B5 a node re-created under its name while its plugin still serves is not reported as another installer’s', () => {
  const world = new World().validated();
  world.node = {
    ...world.node,
    metadata: {
      ...world.node.metadata,
      uid: 'node-uid',
      labels: { [MANAGED]: 'true', 'feature.node.kubernetes.io/pci-10de.present': 'true' },
      annotations: {},
    },
  };
  const reasons: (string | undefined)[] = [];
  for (let i = 0; i < 4; i += 1) {
    const { actions } = planNode({ ...world.input(), now: (world.now += 1000) });
    for (const a of actions) if (a.kind === 'set-node-condition') reasons.push(a.condition?.reason);
    const patch = actions.find((a) => a.kind === 'patch-node');
    if (patch?.kind === 'patch-node')
      for (const [k, v] of Object.entries(patch.labels))
        world.relabel((l) => {
          if (v === null) delete l[k];
          else l[k] = v;
        });
    if (patch?.kind === 'patch-node')
      for (const [k, v] of Object.entries(patch.annotations)) if (v !== null) world.annotate(k, v);
  }
  expect(reasons).not.toContain('PreflightFailedAnotherInstaller');
});

it('B6 dcgm-exporter gates nothing: its new version reaches validated nodes', () => {
  const world = new World().validated();
  const before = world.node.metadata.labels?.[`${DEPLOY_PREFIX}dcgm-exporter`];
  world.policy = aPolicy({ components: { dcgmExporter: { version: '9.9' } } });
  many(world, 5);
  expect(world.node.metadata.labels?.[`${DEPLOY_PREFIX}dcgm-exporter`]).not.toBe(before);
});

it('B7 a node that waits for a place looks again after a time, so that added places (more nodes, an edit) count before another node finishes', () => {
  // planNode once returned no time to look again.
  const world = new World();
  world.slotFree = false;
  world.settle(5);
  expect(planNode(world.input()).wakeAt).toBeDefined();
});
