import { describe, expect, it } from 'vitest';
import { DEPLOY_PREFIX, MANAGED, WALK } from '../../../core/keys.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { selecting } from '../../../core/gpu-policy.ts';
import { aPolicy, keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const MINUTE = 60_000;
const many = (world: World, n: number): Action[] => Array.from({ length: n }, () => world.step()).flat();
const deleted = (actions: readonly Action[]): string[] =>
  actions.flatMap((a) => (a.kind === 'delete-pod' ? [a.name] : []));

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
    expect([world.state, deleted(actions)]).toEqual(['validated', []]);
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

it('B5 a node re-created under its name while its plugin still serves is not told to be another installer’s', () => {
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

it('B7 a waiting place is asked for again when places become more (more nodes, an edit): not until somebody else ends', () => {
  // planNode says no time to look again.
  const world = new World();
  world.slotFree = false;
  world.settle(5);
  expect(planNode(world.input()).wakeAt).toBeDefined();
});
