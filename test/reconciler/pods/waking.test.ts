// Pods that wait: when the scheduler is asked to try them again, and what they hear meanwhile.
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { MANAGED, PROOF, STATE, WAKE } from '../../../core/keys.ts';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { reconcilerMetrics } from '../../../reconciler/metrics.ts';
import type { NodeObject, PodObject } from '../../../reconciler/model.ts';
import { waking } from '../../../reconciler/pods/waking.ts';
import { cachesOf, OPERANDS } from '../../builders/caches.ts';
import { aGpuPod } from '../../builders/gpu-pod.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';

const REFUSED = { conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }] };
const waits = (name = 'p', more: object = {}): PodObject =>
  aGpuPod({ name, uid: name, ...more }, { nodeName: undefined }, REFUSED);
const bound = (name = 'p'): PodObject => aGpuPod({ name, uid: name });
const walking = (name: string): NodeObject =>
  aNode({ name, labels: { [STATE]: 'driver' }, annotations: { [PROOF]: '' }, validated: false });
const theirs = (name: string): NodeObject => {
  const node = aNode({ name });
  return { ...node, metadata: { ...node.metadata, labels: { [MANAGED]: 'false' }, annotations: {} } };
};

/** `waking` with these nodes, and what it writes. */
function world(nodes: readonly NodeObject[], policy: GpuPolicy = aPolicy(), there: readonly PodObject[] = []) {
  const writes: Action[] = [];
  const later: number[] = [];
  const clock = { now: NOW };
  const it = waking({
    caches: cachesOf({ nodes, policies: [policy], pods: there }),
    apply: {
      apply: async (action) => {
        writes.push(action);
        return { kind: 'done' };
      },
    },
    turns: { add: () => later.push(0), addAfter: (_, ms) => later.push(ms) },
    metrics: reconcilerMetrics(new Registry()),
    operandNamespace: OPERANDS,
    now: () => clock.now,
  });
  const { wake, 'wake-any': wakeAny, waiting } = it.handlers;
  return {
    it,
    clock,
    later,
    /** Values of the wake annotation that were written, by node. */
    woken: () =>
      writes.flatMap((action) => (action.kind === 'patch-node' ? [[action.node, action.annotations[WAKE]]] : [])),
    /** Texts that pods heard. */
    heard: () =>
      writes.flatMap((action) => (action.kind === 'event' ? [`${action.about.name}: ${action.message}`] : [])),
    wake: (name: string) => wake(name),
    wakeAny: () => wakeAny(''),
    report: () => waiting(''),
  };
}
const AT = new Date(NOW).toISOString();

describe('a node that opened is rewritten, so that the scheduler tries again,', () => {
  it.each<
    [
      what: string,
      pods: readonly PodObject[],
      nodes: readonly NodeObject[],
      there: readonly PodObject[],
      woken: readonly unknown[],
    ]
  >([
    ['where a pod that waits fits', [waits()], [aNode()], [], [['node-a', AT]]],
    ['once for many pods that ask the same', [waits('a'), waits('b'), waits('c')], [aNode()], [], [['node-a', AT]]],
    ['not where no pod waits', [], [aNode()], [], []],
    ['not for a pod that is bound', [bound()], [aNode()], [], []],
    ['not for pods of operands', [waits('p', { namespace: OPERANDS })], [aNode()], [], []],
    ['not where it has closed again', [waits()], [walking('node-a')], [], []],
    ['not where it is gone', [waits()], [], [], []],
    ['not where its GPUs are in use', [waits()], [aNode({ gpus: '2' })], [bound('other')], []],
  ])('%s', async (_, pods, nodes, there, woken) => {
    const { it, wake, woken: seen } = world(nodes, aPolicy(), there);
    for (const pod of pods) it.update(undefined, pod);
    await wake('node-a');
    expect(seen()).toEqual(woken);
  });

  it('and a node of nobody gets its mark taken off again', async () => {
    const { it, wakeAny, woken } = world([theirs('free')], aPolicy({ unmanagedNodes: 'Allow' }));
    it.update(undefined, waits());
    await wakeAny();
    expect(woken()).toEqual([
      ['free', AT],
      ['free', null],
    ]);
  });

  it('after a policy changed: one node for each kind of pod, none where no pod waits', async () => {
    const { it, wakeAny, woken } = world([aNode({ name: 'a' }), aNode({ name: 'b' })]);
    await wakeAny();
    expect(woken()).toEqual([]);
    it.update(undefined, waits('p'));
    it.update(undefined, waits('q', { annotations: { 'gpu-gate.dev/min-driver': '590' } }));
    await wakeAny();
    expect(woken()).toEqual([['a', AT]]);
  });
});

describe('pods that wait are counted', () => {
  it('until they are bound or gone, and one that changes is one', () => {
    const { it } = world([]);
    for (const name of ['a', 'b', 'c']) it.update(undefined, waits(name));
    it.update(waits('a'), waits('a', { annotations: { note: 'x' } }));
    expect(it.size).toBe(3);
    it.update(waits('a'), bound('a'));
    it.update(waits('b'), undefined);
    expect(it.size).toBe(1);
    it.update(waits('c'), undefined);
    it.update(bound('a'), undefined);
    expect(it.size).toBe(0);
  });

  it('as GPU pods, where what they ask for is a GPU', () => {
    const { it } = world([]);
    for (const name of ['a', 'b']) it.update(undefined, waits(name));
    const claims = {
      nodeName: undefined,
      resourceClaims: [{ name: 'nic', resourceClaimTemplateName: 'nic' }],
      containers: [{ resources: { claims: [{ name: 'nic' }] } }],
    };
    it.update(undefined, aGpuPod({ name: 'c', uid: 'c' }, claims, REFUSED));
    expect([it.size, it.gpuPods]).toEqual([3, 2]);
    it.update(waits('a'), bound('a'));
    expect(it.gpuPods).toBe(1);
  });
});

describe('a pod that waits hears', () => {
  it('which nodes are on their way, three by name, once for each text', async () => {
    const { it, report, heard } = world(['a', 'b', 'c', 'd'].map(walking));
    it.update(undefined, waits());
    await report();
    await report();
    expect(heard()).toEqual([
      'p: waiting for a GPU node: node a is in driver; node b is in driver; node c is in driver; and up to 1 more',
    ]);
  });
  it.each<[what: string, nodes: readonly NodeObject[], policy: GpuPolicy]>([
    ['where every node is open', [aNode()], aPolicy()],
    ['while the policy audits', [walking('a')], aPolicy({}, { status: {} })],
    ['of nodes of another policy', [walking('a')], aPolicy({}, { metadata: { name: 'other', uid: 'x' } })],
  ])('nothing %s', async (_, nodes, policy) => {
    const { it, report, heard } = world(nodes, policy);
    it.update(undefined, waits());
    await report();
    expect(heard()).toEqual([]);
  });
  it('another reason only after a while, which doubles, and again from the start once it was bound and waits again', async () => {
    const nodes = [walking('a')];
    const { it, report, heard, later, clock } = world(nodes);
    const failed = {
      ...walking('a'),
      metadata: { ...walking('a').metadata, labels: { [MANAGED]: 'true', [STATE]: 'failed' } },
    };
    it.update(undefined, waits());
    await report();
    // The same nodes, seen by a world that knows the pod's first report.
    Object.assign(nodes[0]?.metadata.labels ?? {}, failed.metadata.labels);
    await report();
    expect(heard()).toHaveLength(1);
    expect(later).toEqual([30_000]);
    clock.now += 30_000;
    await report();
    expect(heard().at(-1)).toBe('p: waiting for a GPU node: node a has failed');
    Object.assign(nodes[0]?.metadata.labels ?? {}, { [STATE]: 'toolkit' });
    await report();
    expect(later).toEqual([30_000, 60_000]);
    it.update(waits(), bound());
    it.update(bound(), waits());
    await report();
    expect(heard()).toHaveLength(3);
  });
});
