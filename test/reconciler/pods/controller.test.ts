// Each pod is counted once, no matter which replica leads. The API server here is only a set of
// Event names.
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { wantsOf } from '../../../gate/gpu-request.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { reconcilerMetrics } from '../../../reconciler/metrics.ts';
import { NO_DEVICES, type Devices } from '../../../gate/devices.ts';
import { claiming, DEVICES } from '../../builders/devices.ts';
import { aGpuPod } from '../../builders/gpu-pod.ts';
import type { NodeObject, PodObject } from '../../../reconciler/model.ts';
import type { NamespaceView } from '../../../reconciler/caches.ts';
import { rejections } from '../../../reconciler/limits/rejections.ts';
import { podController } from '../../../reconciler/pods/controller.ts';
import { cachesOf, OPERANDS } from '../../builders/caches.ts';
import { aNode, aPolicy, keptPod, NOW } from '../../builders/objects.ts';

/** A cluster with one pod, `team/p`, that leaders come and go in. */
class World {
  pod: PodObject;
  node: NodeObject = aNode({ name: 'n' });
  policy: GpuPolicy = aPolicy();
  readonly namespaces = new Map<string, NamespaceView>([['team', { optedOut: false }]]);
  readonly told = new Map<string, Action>();
  readonly texts: string[] = [];
  readonly turns: string[] = [];
  readonly deleted: string[] = [];
  readonly rejections = rejections();
  devices: Devices = NO_DEVICES;
  constructor(pod: Partial<PodObject>) {
    this.pod = keptPod({ namespace: 'team', gpus: { 'nvidia.com/gpu': 1 }, ...pod });
  }

  /** A process that takes over at a time, with figures of its own. */
  leader(now = NOW) {
    const registry = new Registry();
    const { pod, node, policy, namespaces } = this;
    const work = podController({
      caches: {
        ...cachesOf({ nodes: [node], policies: [policy], pods: [pod], namespaces, devices: this.devices }),
        pods: { get: () => this.pod, values: () => [pod] },
      },
      turns: {
        add: ({ kind, name }) => void this.turns.push(`${kind} ${name}`),
        addAfter: ({ kind, name }) => void (kind === 'policies' || this.turns.push(`${kind} ${name}`)),
      },
      rejections: this.rejections,
      metrics: reconcilerMetrics(registry),
      operandNamespace: OPERANDS,
      excludedNamespaces: new Set(),
      now: () => now,
      apply: {
        apply: async (action) => {
          if (action.kind === 'delete-pod') this.deleted.push(action.name);
          if (action.kind !== 'event') return { kind: 'done' };
          const known = this.told.has(action.reason);
          this.told.set(action.reason, action);
          this.texts.push(action.message);
          return { kind: 'done', known };
        },
      },
    });
    const late = work.takeOver();
    return {
      work,
      late,
      figure: async (name: string): Promise<string | undefined> =>
        new RegExp(`^gpu_gate_${name}\\S* (\\d+)$`, 'm').exec(await registry.metrics())?.[1],
    };
  }
}
const hours = (n: number): number => n * 3_600_000;

it('a missed pod is counted by one leader, and not again by the next', async () => {
  const world = new World({});
  const first = world.leader();
  await first.work.handlers.pod('team/p');
  await first.work.handlers.pod('team/p');
  expect(await first.figure('missed_pods_total')).toBe('1');
  const second = world.leader(NOW + 60_000);
  await second.work.handlers.pod('team/p');
  expect(await second.figure('missed_pods_total')).toBe('0');
});

it('whether a pod with a claim was missed is decided once the claim is known', async () => {
  const world = new World({});
  world.pod = aGpuPod(
    { labels: {}, creationTimestamp: new Date(NOW).toISOString() },
    claiming({ resourceClaimName: 'gpu' }),
  );
  const { work, figure } = world.leader();
  await work.handlers.pod('team/p');
  expect(world.turns).toEqual(['pod team/p']);
  expect(await figure('missed_pods_total')).toBe('0');
  world.devices = DEVICES;
  const later = world.leader();
  await later.work.handlers.pod('team/p');
  expect(await later.figure('missed_pods_total')).toBe('1');
});

it('also not once its Event has been forgotten', async () => {
  const world = new World({});
  const late = world.leader(NOW + hours(3));
  await late.work.handlers.pod('team/p');
  expect(await late.figure('missed_pods_total')).toBe('0');
  expect(world.told.size).toBe(0);
});

it('whether it was missed is decided as it comes, and waits for its namespace to be known', async () => {
  const world = new World({});
  world.namespaces.clear();
  const { work, figure } = world.leader();
  await work.handlers.pod('team/p');
  world.namespaces.set('team', { optedOut: true });
  await work.handlers.pod('team/p');
  // The namespace opts in again: the pod was left alone by rule all the same.
  world.namespaces.set('team', { optedOut: false });
  await work.handlers.pod('team/p');
  expect(await figure('missed_pods_total')).toBe('0');
});

it('a rejected pod is counted by one leader', async () => {
  const world = new World({ phase: 'Failed', reason: 'UnexpectedAdmissionError' });
  for (const count of ['1', '0']) {
    const { work, figure } = world.leader();
    await work.handlers.pod('team/p');
    expect(await figure('rejected_pods_total')).toBe(count);
  }
});

it('a pod bound past the gate is counted by one leader, with the reason of the moment it was seen', async () => {
  const world = new World({ placed: true });
  world.node = aNode({ name: 'n', annotations: { 'gpu-gate.dev/hold': 'x' } });
  for (const count of ['1', '0']) {
    const { work, figure } = world.leader();
    await work.handlers.bound('team/p');
    expect(await figure('pods_past_gate_total')).toBe(count);
  }
  expect(world.told.get('GPUPodPastGate')).toMatchObject({
    message: 'bound to n by spec.nodeName, although the gate refuses this node: GPU node held by an operator',
  });
});

it('a pod that asks by a resource that the policy does not list is counted, and its Event names what to write', async () => {
  const wants = wantsOf(
    { spec: { containers: [{ resources: { limits: { 'nvidia.com/mig-1g.5gb': '1' } } }] } },
    OPERANDS,
  );
  const world = new World({ gpus: { 'nvidia.com/mig-1g.5gb': 1 }, wants, schedulerName: 'default-scheduler' });
  world.node = aNode({ name: 'n', boot: 'boot-2' });
  const { work, figure } = world.leader();
  await work.handlers.bound('team/p');
  expect(await figure('pods_past_gate_total')).toBe('1');
  expect(world.texts).toEqual([
    "bound to n by default-scheduler, although the gate refuses this node: node rebooted since validation; its GPUPolicy does not list nvidia.com/mig-1g.5gb, so that such pods are not gated: add nvidia.com/mig-* to spec.resources, and to the chart's policy.spec.resources",
  ]);
});

it('on takeover a node that is only held now does not make the pods on it reported', () => {
  const world = new World({});
  world.node = aNode({ name: 'n', annotations: { 'gpu-gate.dev/hold': 'x' } });
  expect(world.leader().late).toEqual([]);
});

it('on take-over pods are named that came to a node after it had rebooted', () => {
  const world = new World({ placed: true, created: '2026-11-24T09:40:00Z' });
  const rebooted = aNode({ name: 'n', boot: 'boot-2' });
  const conditions = [{ type: 'Ready', status: 'True', lastTransitionTime: '2026-11-24T09:30:00Z' }];
  world.node = { ...rebooted, status: { ...rebooted.status, conditions } };
  expect(world.leader().late).toEqual(['team/p']);
});

const rejected = { phase: 'Failed', reason: 'UnexpectedAdmissionError', message: 'Pod was rejected: GPU is lost' };

it.each([
  ['a bare pod', undefined, 'GPU is lost; no controller owns it, so it has failed for good: create it again'],
  ['a Job’s', 'Job', 'only if its backoffLimit and podFailurePolicy allow that'],
  ['a ReplicaSet’s', 'ReplicaSet', 'its ReplicaSet creates another one'],
])('the Event of a rejected pod reports what becomes of it: %s', async (_, kind, text) => {
  const world = new World({ ...rejected, controller: kind === undefined ? undefined : { kind, uid: 'x' } });
  await world.leader().work.handlers.pod('team/p');
  expect(world.told.get('GPUPodRejected')).toBeDefined();
  const told = [...world.texts].find((message) => message.startsWith('the kubelet of n rejected this pod'));
  expect(told).toContain(text);
});

it('rejected pods of an open node count for it, and the last one calls for a look at it', async () => {
  const world = new World(rejected);
  const { work } = world.leader();
  for (let i = 0; i < 5; i += 1) {
    world.pod = { ...world.pod, uid: `u${i}` };
    expect(world.turns).toEqual([]);
    await work.handlers.pod('team/p');
  }
  expect(world.turns).toEqual(['node n']);
  expect(world.rejections.reached('n')).toMatchObject({ count: 5, words: 'GPU is lost' });
});

it('rejected pods of a node that is not open do not count: they were bound before', async () => {
  const world = new World(rejected);
  world.node = aNode({ name: 'n', boot: 'boot-2' });
  const { work } = world.leader();
  for (let i = 0; i < 9; i += 1) {
    world.pod = { ...world.pod, uid: `u${i}` };
    await work.handlers.pod('team/p');
  }
  expect(world.rejections.reached('n')).toBeUndefined();
});

it('a rejected pod is deleted where the policy says so, but not one without a controller', async () => {
  for (const [owned, deleted] of [
    [true, ['p']],
    [false, []],
  ] as const) {
    const world = new World({ ...rejected, owned });
    world.policy = aPolicy({ rejectedPods: 'Delete' });
    await world.leader().work.handlers.pod('team/p');
    expect(world.deleted).toEqual(deleted);
  }
});
