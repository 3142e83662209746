// Work per event does not grow with the cluster: the nodes and pods that controllers look at are
// counted, not the time.
import { beforeAll, describe, expect, it } from 'vitest';
import { CLOSED, HOLD, MANAGED, NODE_POLICY, PROOF, STATE, WALK } from '../../core/keys.ts';
import type { NodeObject, PodObject } from '../../reconciler/model.ts';
import { newWalk } from '../../reconciler/walk.ts';
import { Cluster, VALIDATIONS_ONLY } from '../builders/cluster.ts';
import { aNode, aPolicy, keptPod, NOW } from '../builders/objects.ts';

const THEIRS = { external: { namespace: 'theirs', matchLabels: { app: 'driver' } } };
const remembering = JSON.stringify({ ...newWalk('uid-n1', 'boot-1', NOW), target: { driver: THEIRS } });

/** A node that waits for its turn. */
const waiting = (name: string): NodeObject => {
  const node = aNode({ name, labels: { [STATE]: 'preflight' }, validated: false });
  return { ...node, metadata: { ...node.metadata, annotations: { [NODE_POLICY]: 'default' } } };
};

async function quiet(size: number, more: (cluster: Cluster) => void = () => undefined): Promise<Cluster> {
  const cluster = new Cluster(VALIDATIONS_ONLY);
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
  ['a driver of another installer', (c) => c.setNode(aNode({ name: 'n1', annotations: { [WALK]: remembering } }))],
  ['a pod that is bound', (c) => c.setPod(pod('p'))],
  ['a pod that waits', (c) => c.setPod(pod('p', { nodeName: undefined, conditions: [unschedulable] }))],
  ['a status of the policy', (c) => c.setPolicy({ ...VALIDATIONS_ONLY, status: { nodes: { total: 7 } } })],
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

it('at rest nothing is written in ten minutes, while kubelets go on reporting', async () => {
  const cluster = new Cluster(aPolicy());
  cluster.operandsWork = () => true;
  cluster.passValidations();
  for (let i = 0; i < 30; i += 1) cluster.setNode(waiting(`n${i}`));
  await cluster.settle(600_000);
  const names = [...cluster.nodes.all.keys()];
  expect(names.map((name) => cluster.node(name).metadata.labels?.[STATE])).toEqual(names.map(() => 'validated'));
  const before = cluster.writes.length;
  for (let minute = 0; minute < 10; minute += 1) {
    for (const name of names) cluster.setNode(cluster.node(name));
    await cluster.settle(60_000);
  }
  expect(cluster.writes.slice(before)).toEqual([]);
});

it('a freed place wakes one of the nodes that wait', async () => {
  const looks = await Promise.all(
    [100, 2000].map(async (size) => {
      const cluster = await quiet(0, (c) => {
        c.setPolicy({ ...aPolicy({ ...VALIDATIONS_ONLY.spec, bringUp: { maxConcurrent: '1' } }), generation: 2 });
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
