import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { MANAGED, STATE } from '../../../core/keys.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import { couldFit, isUnschedulable, nodesToWake } from '../../../reconciler/pods/waiting.ts';
import { aGpuPod } from '../../builders/gpu-pod.ts';
import { aNode, aPolicy } from '../../builders/objects.ts';

const one = (policy: GpuPolicy | undefined) => new Map(policy === undefined ? [] : [[policy.name, policy]]);
const requiring = (key: string, value: string): PodObject =>
  aGpuPod({ annotations: { [`gpu-gate.dev/${key}`]: value } });
const needing = (value: string): PodObject =>
  aGpuPod(
    {},
    {
      containers: [{ resources: { limits: { 'nvidia.com/gpu': '1' } }, env: [{ name: 'NVIDIA_REQUIRE_CUDA', value }] }],
    },
  );
const REFUSED = { conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }] };

describe('a pending pod', () => {
  it('waits once the scheduler has found no node for it, if it asks for GPUs', () => {
    expect(isUnschedulable(aGpuPod({}, { nodeName: undefined }, REFUSED))).toBe(true);
    expect(isUnschedulable(aGpuPod({}, {}, REFUSED))).toBe(false);
    expect(isUnschedulable(aGpuPod({}, { nodeName: undefined }))).toBe(false);
    expect(isUnschedulable(aGpuPod({}, { nodeName: undefined, containers: [{}] }, REFUSED))).toBe(false);
  });
  const theirs = aNode({ name: 'theirs', labels: { [MANAGED]: 'false', [STATE]: undefined as never } });
  const rebooted = aNode({ name: 'rebooted', boot: 'x' });
  const naming = aGpuPod({ annotations: { 'gpu-gate.dev/policy': 'default' } });
  it('could fit where GPUs are free and the gate lets them through', () => {
    const policy = aPolicy();
    expect(couldFit(aGpuPod(), aNode(), [], one(policy))).toBe(true);
    expect(couldFit(aGpuPod(), aNode({ gpus: '1' }), [], one(policy))).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ gpus: '3' }), [aGpuPod()], one(policy))).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ boot: 'x' }), [], one(policy))).toBe(false);
  });
  it.each([
    ['suspended: every node', aGpuPod(), aPolicy({ suspend: true }), [rebooted, theirs], ['rebooted']],
    ['not enforcing yet: every node', aGpuPod(), aPolicy({}, { status: {} }), [theirs], ['theirs']],
    ['Allow: nodes that are not ours', aGpuPod(), aPolicy({ unmanagedNodes: 'Allow' }), [rebooted, theirs], ['theirs']],
    ['Deny: none of those', aGpuPod(), aPolicy({ unmanagedNodes: 'Deny' }), [rebooted, theirs], []],
    ['policy gone: every node', aGpuPod(), undefined, [rebooted], ['rebooted']],
    ['policy gone that the pod names: it waits for it', naming, undefined, [rebooted], []],
    ['never a cordoned node', aGpuPod(), undefined, [aNode({ cordoned: true })], []],
    ['no node whose driver is older than the pod requires', requiring('min-driver', '600'), aPolicy(), [aNode()], []],
    ['a node whose driver is new enough', requiring('min-driver', '590'), aPolicy(), [aNode()], ['node-a']],
    ['no node whose CUDA the pod cannot use', needing('cuda>=14'), aPolicy(), [aNode()], []],
    ['no node for a pod whose annotation is malformed', requiring('min-driver', 'new'), aPolicy(), [aNode()], []],
    ['no node for a pod without GPUs', aGpuPod({}, { containers: [{}] }), aPolicy(), [], []],
  ])('woken after a policy changed, %s', (_, pod, policy, nodes, names) =>
    expect(nodesToWake([pod, pod], nodes, () => [], one(policy)).map((node) => node.metadata.name)).toEqual(names),
  );
  it('counts thousands of GPUs, however they are written', () => {
    const thousand = aGpuPod({}, { containers: [{ resources: { limits: { 'nvidia.com/gpu': '1k' } } }] });
    expect(thousand.gpus).toEqual({ 'nvidia.com/gpu': 1000 });
    expect(couldFit(thousand, aNode({ gpus: '1k' }), [], one(aPolicy()))).toBe(true);
    expect(couldFit(thousand, aNode({ gpus: '999' }), [], one(aPolicy()))).toBe(false);
  });
});
