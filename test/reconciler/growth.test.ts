// Work per event does not grow with the cluster: the nodes and pods that controllers look at are counted, not the time.
import { Registry } from 'prom-client';
import { beforeAll, describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { CLOSED, HOLD, MANAGED, NODE_POLICY, PROOF, STATE } from '../../core/keys.ts';
import { jsonLog } from '../../platform/log.ts';
import type { Action } from '../../reconciler/actions.ts';
import type { Cache, Caches } from '../../reconciler/caches.ts';
import { fleet } from '../../reconciler/fleet.ts';
import { idOf, type Key } from '../../reconciler/key.ts';
import { reconcilerMetrics } from '../../reconciler/metrics.ts';
import { keyOf, type NodeObject, type PodObject } from '../../reconciler/model.ts';
import { podIndex } from '../../reconciler/pod-index.ts';
import { controllers } from '../../reconciler/reconciler.ts';
import { OPERANDS } from '../builders/caches.ts';
import { afterWrite, aNode, aPolicy, keptPod, NOW } from '../builders/objects.ts';

/** A map that counts what is looked at. */
class Counted<T> implements Cache<T> {
  readonly all = new Map<string, T>();
  looks = 0;
  get(key: string): T | undefined {
    this.looks += 1;
    return this.all.get(key);
  }
  *values(): Iterable<T> {
    for (const value of this.all.values()) {
      this.looks += 1;
      yield value;
    }
  }
}

/** All controllers on a cluster in memory; what they write comes back as watch events would bring it. */
class Cluster {
  readonly nodes = new Counted<NodeObject>();
  readonly pods = new Counted<PodObject>();
  readonly policies = new Map<string, GpuPolicy>();
  readonly writes: Action[] = [];
  now = NOW;
  #version = 1;
  readonly #index = podIndex(OPERANDS);
  readonly #fleet = fleet();
  readonly #due = new Map<string, { key: Key; at: number }>();
  readonly #all: ReturnType<typeof controllers>;

  constructor(policy: GpuPolicy) {
    const add = (key: Key, ms = 0): void => {
      const at = this.now + ms;
      if ((this.#due.get(idOf(key))?.at ?? Infinity) > at) this.#due.set(idOf(key), { key, at });
    };
    const caches: Caches = {
      ...this.#index,
      nodes: this.nodes,
      pods: this.pods,
      policies: this.policies,
      namespaces: new Map([['team', { optedOut: false }]]),
      daemonSets: new Map(),
      fleet: this.#fleet,
      troubleOf: () => undefined,
      nodeNameOf: (uid) => uid.replace(/^uid-/, ''),
      isProven: () => false,
      synced: true,
    };
    this.#all = controllers({
      caches,
      turns: { add, addAfter: add },
      apply: {
        apply: async (action) => {
          this.writes.push(action);
          return { kind: 'done', ...this.#carryOut(action) };
        },
      },
      log: jsonLog('error', () => undefined),
      metrics: reconcilerMetrics(new Registry()),
      operandNamespace: OPERANDS,
      runtimeClass: { name: '', handler: '' },
      excludedNamespaces: new Set(),
      webhookResources: ['nvidia.com/gpu', 'nvidia.com/gpu.shared'],
      notReadyGrace: 60_000,
      now: () => this.now,
      wakeAfter: [1000],
    });
    this.setPolicy(policy);
  }

  setPolicy(policy: GpuPolicy): void {
    const before = this.policies.get(policy.name);
    this.policies.set(policy.name, policy);
    if (before?.generation !== policy.generation) this.#fleet.select([policy], this.nodes.all.values());
    this.#all.listener.policy(before, policy);
  }

  setNode(node: NodeObject): string {
    const { name } = node.metadata;
    this.#version += 1;
    const after = { ...node, metadata: { ...node.metadata, resourceVersion: String(this.#version) } };
    const before = this.nodes.all.get(name);
    this.nodes.all.set(name, after);
    this.#all.listener.node(name, before, after, this.#fleet.update(name, after));
    return after.metadata.resourceVersion;
  }

  setPod(pod: PodObject): void {
    const before = this.pods.all.get(keyOf(pod));
    this.pods.all.set(keyOf(pod), pod);
    this.#index.update(before, pod);
    this.#all.listener.pod(before, pod);
  }

  #carryOut(action: Action): { resourceVersion?: string } {
    if (action.kind === 'policy-status') {
      const policy = this.policies.get(action.name);
      if (policy !== undefined) this.setPolicy({ ...policy, status: action.status });
    }
    if (action.kind !== 'patch-node' && action.kind !== 'set-taints' && action.kind !== 'set-node-condition') return {};
    const node = this.nodes.all.get(action.node);
    const written = node === undefined ? undefined : afterWrite(node, action);
    return written === undefined ? {} : { resourceVersion: this.setNode(written) };
  }

  /** Handles every key that is due within the time, delayed ones too. */
  async settle(ms = 5000): Promise<void> {
    const end = this.now + ms;
    for (;;) {
      const next = Math.min(...[...this.#due.values()].map(({ at }) => at));
      if (next > end) break;
      this.now = Math.max(this.now, next);
      for (const [id, { key, at }] of this.#due) {
        if (at > this.now) continue;
        this.#due.delete(id);
        await this.#all.handlers[key.kind](key.name);
      }
    }
    this.now = end;
  }

  /** What is looked at for one event, until nothing is left to do. */
  async looksFor(event: () => void): Promise<number> {
    this.nodes.looks = 0;
    this.pods.looks = 0;
    event();
    await this.settle();
    return this.nodes.looks + this.pods.looks;
  }
}

const external = { mode: 'external' };
const POLICY = aPolicy({
  components: { toolkit: external, driver: external, devicePlugin: external, dcgmExporter: { enabled: false } },
});
/** A node that waits for its turn. */
const waiting = (name: string): NodeObject => {
  const node = aNode({ name, labels: { [STATE]: 'preflight' }, validated: false });
  return { ...node, metadata: { ...node.metadata, annotations: { [NODE_POLICY]: 'default' } } };
};

async function quiet(size: number, more: (cluster: Cluster) => void = () => undefined): Promise<Cluster> {
  const cluster = new Cluster(POLICY);
  for (let i = 0; i < size; i += 1) cluster.setNode(aNode({ name: `n${i}` }));
  more(cluster);
  await cluster.settle(60_000);
  return cluster;
}

const pod = (name: string, more: Partial<PodObject> = {}): PodObject =>
  keptPod({ namespace: 'team', name, uid: name, nodeName: 'n1', gated: true, gpus: { 'nvidia.com/gpu': 1 }, ...more });
const unschedulable = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable' };

const EVENTS: readonly (readonly [string, (cluster: Cluster) => void])[] = [
  ['a node that is held', (c) => c.setNode(aNode({ name: 'n1', annotations: { [HOLD]: 'x' } }))],
  ['a node that is not ready', (c) => c.setNode(aNode({ name: 'n1', ready: false }))],
  ['a node that rebooted', (c) => c.setNode(aNode({ name: 'n1', boot: 'boot-2' }))],
  ['a node that comes', (c) => c.setNode(aNode({ name: 'new', labels: { [MANAGED]: 'true' } }))],
  ['a node that closes', (c) => c.setNode(aNode({ name: 'n1', annotations: { [CLOSED]: 'x' } }))],
  ['a proof that is gone', (c) => c.setNode(aNode({ name: 'n1', annotations: { [PROOF]: '' } }))],
  ['a pod that is bound', (c) => c.setPod(pod('p'))],
  ['a pod that waits', (c) => c.setPod(pod('p', { nodeName: undefined, conditions: [unschedulable] }))],
  ['a status of the policy', (c) => c.setPolicy({ ...POLICY, status: { nodes: { total: 7 } } })],
];

describe('work for one event is the same among 5,000 nodes as among 100', () => {
  let small: Cluster;
  let large: Cluster;
  beforeAll(async () => {
    [small, large] = [await quiet(100), await quiet(5000)];
  });
  it.each(EVENTS)('%s', async (_, event) => {
    const looks = [await small.looksFor(() => event(small)), await large.looksFor(() => event(large))] as const;
    expect(looks[1]).toBe(looks[0]);
    expect(looks[0]).toBeLessThan(60);
  });
});

it('a freed place wakes one of the nodes that wait', async () => {
  const looks = await Promise.all(
    [100, 2000].map(async (size) => {
      const cluster = await quiet(0, (c) => {
        c.setPolicy({ ...aPolicy({ ...POLICY.spec, bringUp: { maxConcurrent: '1' } }), generation: 2 });
        for (let i = 0; i < size; i += 1) c.setNode(waiting(`w${i}`));
      });
      const holder = [...cluster.nodes.all.values()].find(
        (node) => node.metadata.name.startsWith('w') && node.metadata.labels?.[STATE] !== 'preflight',
      );
      expect(holder).toBeDefined();
      const was = cluster.writes.length;
      const seen = await cluster.looksFor(() => {
        const name = holder?.metadata.name ?? '';
        cluster.setNode(aNode({ name, labels: { [MANAGED]: 'false', [STATE]: 'driver' } }));
      });
      const begun = new Set(
        cluster.writes.slice(was).flatMap((action) => (action.kind === 'patch-node' ? [action.node] : [])),
      );
      begun.delete(holder?.metadata.name ?? '');
      expect(begun.size).toBe(1);
      return seen;
    }),
  );
  expect(looks[1]).toBe(looks[0]);
});

it('a pod that waits hears of the nodes on their way a bounded number of times', async () => {
  const cluster = await quiet(1, (c) => {
    c.setNode(aNode({ name: 'n0', annotations: { [HOLD]: 'x' } }));
    for (let i = 0; i < 50; i += 1) c.setNode(waiting(`w${i}`));
    c.setPod(pod('p', { nodeName: undefined, conditions: [unschedulable] }));
  });
  const told = (): number =>
    cluster.writes.filter((action) => action.kind === 'event' && action.reason === 'WaitingForGPUNode').length;
  expect(told()).toBe(1);
  for (let i = 0; i < 50; i += 1) {
    const node = waiting(`w${i}`);
    cluster.setNode({
      ...node,
      metadata: { ...node.metadata, labels: { ...node.metadata.labels, [STATE]: 'driver' } },
    });
    await cluster.settle(10_000);
  }
  expect(told()).toBeLessThanOrEqual(6);
  expect(told()).toBeGreaterThan(2);
});
