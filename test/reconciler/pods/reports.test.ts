import { claiming, DEVICES } from '../../builders/devices.ts';
import { NO_DEVICES } from '../../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { CLOSED, HOLD, MANAGED, NODE_POLICY, PROOF, STATE, WALK } from '../../../core/keys.ts';
import type { RawPod } from '../../../gate/gpu-request.ts';
import { placementOf } from '../../../gate/placement.ts';
import { askOf, policyNameOf } from '../../../gate/verdict.ts';
import { newWalk } from '../../../reconciler/walk.ts';
import { trimPod, type NodeObject, type PodObject } from '../../../reconciler/model.ts';
import {
  boundPastGate,
  boundUnseen,
  isMissed,
  nodesOnTheirWay,
  type Candidates,
} from '../../../reconciler/pods/reports.ts';
import { aGpuPod } from '../../builders/gpu-pod.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';

const one = (policy: GpuPolicy | undefined) => new Map(policy === undefined ? [] : [[policy.name, policy]]);

describe('a pod’s policy', () => {
  it('is the one that its author names, else the default one, whatever a record says that anybody can write', () => {
    const annotations = { 'gpu-gate.dev/injection': '{"policy":"nope"}' };
    expect(policyNameOf(aGpuPod({ annotations }).wants)).toBe('default');
    expect(policyNameOf(aGpuPod({ annotations: { ...annotations, 'gpu-gate.dev/policy': 'pool' } }).wants)).toBe(
      'pool',
    );
  });
});

/**
 * As the API server notes who wrote which field: the one that made the pod named its node; a
 * scheduler that binds it owns nothing.
 */
const NAMED = { manager: 'kubectl', fieldsV1: { 'f:spec': { 'f:nodeName': {} } } };
const UNNAMED = { manager: 'kubectl', fieldsV1: { 'f:spec': { 'f:containers': {} } } };

/** What a pod that waits is reported. */
const awaited = (
  onTheirWay: readonly NodeObject[],
  more: Partial<Candidates> = {},
  spec: RawPod['spec'] = {},
  minDriver?: string,
  gpus: Readonly<Record<string, number>> = {},
): string | undefined => {
  const annotations = minDriver === undefined ? {} : { 'gpu-gate.dev/min-driver': minDriver };
  const ask = askOf(aGpuPod({ annotations }).wants, one(aPolicy()), NO_DEVICES);
  if (ask.kind !== 'gate') throw new Error('not gated');
  return nodesOnTheirWay(ask, placementOf(spec, gpus), {
    onTheirWay,
    others: [],
    count: onTheirWay.length,
    elsewhere: 0,
    ...more,
  });
};

describe('other pods', () => {
  const theirs = aNode({ name: 'theirs', labels: { [MANAGED]: 'false', [STATE]: undefined as never } });
  const rebooted = aNode({ name: 'rebooted', boot: 'x' });

  it.each([
    ['one that came past the webhook', aGpuPod({ labels: {} }), true],
    ['not one that was injected', aGpuPod(), false],
    ['not one whose author opted out', aGpuPod({ labels: { 'gpu-gate.dev/inject': 'false' } }), false],
    ['not one in a namespace that is left alone', aGpuPod({ labels: {}, namespace: 'quiet' }), false],
    [
      'not one from before the policy enforced',
      aGpuPod({ labels: {}, creationTimestamp: '2026-10-01T00:00:00Z' }),
      false,
    ],
    ['not one that was made with spec.nodeName', aGpuPod({ labels: {}, managedFields: [NAMED] }), false],
    ['not a mirror pod', aGpuPod({ labels: {}, annotations: { 'kubernetes.io/config.mirror': 'x' } }), false],
    ['one that a scheduler has bound since', aGpuPod({ labels: {}, managedFields: [UNNAMED] }), true],
  ])('missed: %s', (_, pod, missed) =>
    expect(isMissed(pod, aPolicy(), (namespace) => namespace === 'quiet', NO_DEVICES)).toBe(missed),
  );
  it.each([
    ['a claim for a GPU', { resourceClaimName: 'gpu' }, true],
    ['a claim for another device', { resourceClaimName: 'fpga' }, false],
    ['a claim that is not known yet', { resourceClaimName: 'late' }, false],
  ])('missed, and bound past the gate: a pod with %s', (_, how, is) => {
    const pod = aGpuPod({ labels: {} }, claiming(how));
    expect(isMissed(pod, aPolicy(), () => false, DEVICES)).toBe(is);
    expect(boundPastGate(pod, rebooted, one(aPolicy()), DEVICES) !== undefined).toBe(is);
  });
  it.each([
    ['a node that is not opted in', theirs, aPolicy(), 'node not opted in to gpu-gate'],
    ['such a node where the policy allows it', theirs, aPolicy({ unmanagedNodes: 'Allow' }), undefined],
    ['a held node', aNode({ annotations: { [HOLD]: 'x' } }), aPolicy(), 'GPU node held by an operator'],
    ['an open node', aNode(), aPolicy(), undefined],
    ['a node of another policy', aNode({ annotations: { [NODE_POLICY]: 'b' } }), aPolicy(), 'other GPU policy'],
    ['any node while the policy audits', theirs, aPolicy({}, { status: {} }), undefined],
  ])('bound past the gate: %s', (_, node, policy, because) =>
    expect(boundPastGate(aGpuPod(), node, one(policy), NO_DEVICES)?.sentence).toBe(because),
  );
  const migPod = (resource = 'nvidia.com/mig-1g.10gb'): PodObject =>
    aGpuPod({ labels: {} }, { containers: [{ resources: { limits: { [resource]: '1' } } }] });
  it.each([
    ['on a node that rebooted', migPod(), rebooted, aPolicy(), 'rebooted'],
    ['on an open node', migPod(), aNode(), aPolicy(), undefined],
    ['on a node that is not opted in', migPod(), theirs, aPolicy(), undefined],
    ['while the policy audits', migPod(), rebooted, aPolicy({}, { status: {} }), undefined],
    [
      'with a policy that lists MIG alone: a whole GPU',
      aGpuPod(),
      rebooted,
      aPolicy({ resources: ['nvidia.com/mig-*'] }),
      'rebooted',
    ],
    ['that is not a GPU', migPod('nvidia.com/hostdev'), rebooted, aPolicy(), undefined],
  ])('bound past the gate by a resource that the policy does not list, %s', (_, pod, node, policy, kind) =>
    expect(boundPastGate(pod, node, one(policy), NO_DEVICES)?.kind).toBe(kind),
  );
  const requiring = (minDriver: string, at = '2026-11-24T09:40:00Z'): PodObject =>
    aGpuPod(
      { annotations: { 'gpu-gate.dev/min-driver': minDriver } },
      {},
      { conditions: [{ type: 'PodScheduled', status: 'True', lastTransitionTime: at }] },
    );
  it.each([
    ['an older driver than the pod requires', requiring('600'), 'driver-old'],
    ['a driver that is new enough', requiring('590'), undefined],
    ['a malformed driver version', requiring('new'), 'bad-min-driver'],
    [
      'another CUDA than the pod requires',
      aGpuPod(
        {},
        {
          containers: [
            {
              resources: { limits: { 'nvidia.com/gpu': '1' } },
              env: [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=14' }],
            },
          ],
        },
      ),
      'cuda',
    ],
    ['a policy that does not exist', aGpuPod({ annotations: { 'gpu-gate.dev/policy': 'nope' } }), 'no-such-policy'],
  ])('bound past the gate: %s', (_, pod, kind) =>
    expect(boundPastGate(pod, aNode(), one(aPolicy()), NO_DEVICES)?.kind).toBe(kind),
  );
  it('bound past the gate while no replica led: a driver is as old as its proof', () => {
    expect(boundUnseen(requiring('600'), aNode(), one(aPolicy()), NO_DEVICES)?.kind).toBe('driver-old');
    expect(boundUnseen(requiring('600', '2026-11-24T08:00:00Z'), aNode(), one(aPolicy()), NO_DEVICES)).toBeUndefined();
  });
  it('bound while no replica led: only if the node shows that it was closed before', () => {
    const at = (time: string): PodObject =>
      aGpuPod({}, {}, { conditions: [{ type: 'PodScheduled', status: 'True', lastTransitionTime: time }] });
    const failed = aNode({ annotations: { [PROOF]: '' }, validated: false });
    const since = (node: typeof failed, type: string): typeof failed => ({
      ...node,
      status: {
        ...node.status,
        conditions: node.status?.conditions?.map((c) =>
          c.type === type ? { ...c, lastTransitionTime: '2026-11-24T09:30:00Z' } : c,
        ) as NonNullable<NonNullable<typeof failed.status>['conditions']>,
      },
    });
    const shut = since(failed, 'GPUValidated');
    expect(boundUnseen(at('2026-11-24T09:40:00Z'), shut, one(aPolicy()), NO_DEVICES)?.sentence).toMatch(/^GPU stack/);
    expect(boundUnseen(at('2026-11-24T09:20:00Z'), shut, one(aPolicy()), NO_DEVICES)).toBeUndefined();
    const again = since(rebooted, 'Ready');
    expect(boundUnseen(at('2026-11-24T09:40:00Z'), again, one(aPolicy()), NO_DEVICES)?.sentence).toBe(
      'node rebooted since validation',
    );
    expect(boundUnseen(at('2026-11-24T09:20:00Z'), again, one(aPolicy()), NO_DEVICES)).toBeUndefined();
    const held = aNode({ annotations: { [HOLD]: 'x' } });
    expect(boundUnseen(at('2026-11-24T09:40:00Z'), held, one(aPolicy()), NO_DEVICES)).toBeUndefined();
    // Of a node that nobody opted in nothing says since when.
    const unmanaged = { ...shut, metadata: { ...shut.metadata, labels: {} } };
    expect(boundUnseen(at('2026-11-24T09:40:00Z'), unmanaged, one(aPolicy()), NO_DEVICES)).toBeUndefined();
  });
  it('list the nodes on their way, three by name', () => {
    const walking = ['a', 'b', 'c', 'd', 'e'].map((name) =>
      aNode({ name, labels: { [STATE]: 'driver' }, annotations: { [PROOF]: '' }, validated: false }),
    );
    const three = 'waiting for a GPU node: node a is in driver; node b is in driver; node c is in driver';
    expect(awaited(walking)).toBe(`${three}; and up to 2 more`);
    expect(awaited(walking.slice(0, 3))).toBe(three);
    expect(awaited(walking.slice(0, 3).toReversed())).toBe(three);
    expect(awaited(walking.slice(0, 3), { count: 12 })).toBe(`${three}; and up to 9 more`);
    expect(awaited([], { others: [aNode()] })).toBeUndefined();
  });
  it.each([
    ['held', aNode({ annotations: { [HOLD]: 'x' } }), 'takes no new GPU pods (GPU node held by an operator)'],
    ['cordoned', aNode({ cordoned: true }), 'takes no new GPU pods (node cordoned)'],
    [
      'closed',
      aNode({ annotations: { [CLOSED]: 'awaiting driver' } }),
      'takes no new GPU pods (GPU node closed: awaiting driver)',
    ],
    ['rebooted', aNode({ boot: 'x' }), 'takes no new GPU pods (node rebooted since validation)'],
    [
      'failed',
      aNode({
        labels: { [STATE]: 'failed' },
        annotations: {
          [PROOF]: '',
          [WALK]: JSON.stringify({
            ...newWalk('uid-node-a', 'boot-1', NOW),
            said: {
              text: 'driver: crash loop',
              at: '2026-11-24T09:00:00.000Z',
              retryAt: '2026-11-24T09:10:00.000Z',
              command: 'kubectl …',
            },
          }),
        },
      }),
      'has failed (driver: crash loop)',
    ],
  ])('report why a node that is %s takes none, with no time in the text', (_, node, says) =>
    expect(awaited([node])).toBe(`waiting for a GPU node: node node-a ${says}`),
  );
  it('leave out a node on its way out', () =>
    expect(awaited([aNode({ labels: { [MANAGED]: 'false', [STATE]: 'removing' } })])).toBeUndefined());

  describe('that wait: nodes that they could never use', () => {
    const walking = (name: string, labels: Record<string, string> = {}): NodeObject =>
      aNode({ name, labels: { [STATE]: 'driver', ...labels }, annotations: { [PROOF]: '' }, validated: false });
    const tainted = (node: NodeObject, key = 'nvidia.com/gpu', value = 'present'): NodeObject => ({
      ...node,
      spec: { ...node.spec, taints: [{ key, value, effect: 'NoSchedule' }] },
    });
    const POOL = 'the pod does not tolerate the taint nvidia.com/gpu=present:NoSchedule';
    const ADVICE = 'add a toleration to the pod, or to injection.tolerations of its GPUPolicy';

    it('are not named as being on their way; what keeps the pod off them is', () =>
      expect(awaited([tainted(walking('a')), walking('b'), tainted(walking('c'))])).toBe(
        `waiting for a GPU node: node b is in driver; others are not for this pod: ${POOL} (2 nodes, such as a)`,
      ));
    it('validated ones behind the taint of their pool: none is on its way, and what to write', () =>
      expect(awaited([], { others: [tainted(aNode({ name: 'a' })), tainted(aNode({ name: 'b' }))] })).toBe(
        `no GPU node of GPUPolicy default is for this pod: ${POOL} (2 nodes, such as a); ${ADVICE}`,
      ));
    it('by each reason, the gate’s own among them', () => {
      const pod = { nodeSelector: { pool: 'a' }, tolerations: [] };
      const old = aNode({ name: 'old', labels: { pool: 'a' } });
      expect(
        awaited(
          [walking('b', { pool: 'b' })],
          { others: [tainted(aNode({ name: 'c', labels: { pool: 'a' } })), old] },
          pod,
          '600',
        ),
      ).toBe(
        `no GPU node of GPUPolicy default is for this pod: the pod's nodeSelector pool=a is not met (node b); ${POOL} (node c); GPU driver older than the pod requires (node old); change the nodeSelector of the pod, or label the node`,
      );
    });
    it('with fewer GPUs than the pod requests; of one that has counted none yet nothing is known', () => {
      const sized = (node: NodeObject, capacity: Record<string, string>): NodeObject => ({
        ...node,
        status: { ...node.status, capacity },
      });
      const eight = { 'nvidia.com/gpu': 8 };
      const small = sized(aNode({ name: 'small' }), { 'nvidia.com/gpu': '4' });
      const words = 'the pod requests 8 nvidia.com/gpu, more than the 4 of the node';
      expect(awaited([sized(walking('a'), { 'nvidia.com/gpu': '4' })], { others: [small] }, {}, undefined, eight)).toBe(
        `no GPU node of GPUPolicy default is for this pod: ${words} (2 nodes, such as a); request fewer GPUs in one pod, or add nodes that have as many`,
      );
      for (const capacity of [{}, { 'nvidia.com/gpu': '0' }, { 'nvidia.com/gpu': '8' }, { 'nvidia.com/gpu': '1k' }])
        expect(awaited([sized(walking('b'), capacity)], { others: [small] }, {}, undefined, eight)).toBe(
          'waiting for a GPU node: node b is in driver',
        );
    });
    it('and one that is open and for the pod: it waits for a free GPU, which the scheduler says', () =>
      expect(awaited([tainted(walking('a'))], { others: [tainted(aNode()), aNode({ name: 'c' })] })).toBeUndefined());
    it('of other policies alone', () =>
      expect(awaited([], { elsewhere: 3 })).toBe(
        "no opted-in node is of GPUPolicy default, 3 of other policies: name another one by the annotation gpu-gate.dev/policy in the pod's template, if it may run there",
      ));
    it('of another policy are not named, whatever they lack', () =>
      expect(
        awaited([aNode({ name: 'x', annotations: { [NODE_POLICY]: 'b', [HOLD]: '' } })], {
          others: [tainted(aNode({ name: 'y', annotations: { [NODE_POLICY]: 'b' } }))],
        }),
      ).toBeUndefined());
    it('many, or with long names: the Event stays below its limit', () => {
      const others = Array.from({ length: 60 }, (_, i) => tainted(aNode({ name: `n${i}` }), `example.com/taint-${i}`));
      expect(awaited([], { others })?.length).toBeLessThanOrEqual(1000);
    });
  });
  it('of no GPU are not kept at all', () => {
    expect(
      trimPod(
        { metadata: { name: 'x', namespace: 'y', uid: 'z' }, spec: { containers: [{}] } },
        'gpu-gate-operands',
        () => false,
      ),
    ).toBeUndefined();
  });
});
