import { claiming, DEVICES } from '../../builders/devices.ts';
import { NO_DEVICES } from '../../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { CLOSED, HOLD, MANAGED, NODE_POLICY, PROOF, STATE, WALK } from '../../../core/keys.ts';
import { policyNameOf } from '../../../gate/verdict.ts';
import { newWalk } from '../../../reconciler/walk.ts';
import { trimPod, type PodObject } from '../../../reconciler/model.ts';
import { boundPastGate, boundUnseen, isMissed, nodesOnTheirWay } from '../../../reconciler/pods/reports.ts';
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
    expect(nodesOnTheirWay([...walking, aNode()], 'default')).toBe(
      'waiting for a GPU node: node a is in driver; node b is in driver; node c is in driver; and 2 more',
    );
    expect(nodesOnTheirWay([aNode()], 'default')).toBeUndefined();
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
      'is failed (driver: crash loop)',
    ],
  ])('report why a node that is %s takes none, with no time in the text', (_, node, says) =>
    expect(nodesOnTheirWay([node], 'default')).toBe(`waiting for a GPU node: node node-a ${says}`),
  );
  it('leave out a node on its way out', () =>
    expect(
      nodesOnTheirWay([aNode({ labels: { [MANAGED]: 'false', [STATE]: 'removing' } })], 'default'),
    ).toBeUndefined());
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
