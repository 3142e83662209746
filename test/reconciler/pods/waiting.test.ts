import { claiming, DEVICES } from '../../builders/devices.ts';
import { NO_DEVICES } from '../../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { MANAGED, STATE } from '../../../core/keys.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import { couldFit, isUnschedulable, kindOf, nodesToWake } from '../../../reconciler/pods/waiting.ts';
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
    expect(couldFit(aGpuPod(), aNode(), [], one(policy), NO_DEVICES)).toBe(true);
    expect(couldFit(aGpuPod(), aNode({ gpus: '1' }), [], one(policy), NO_DEVICES)).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ gpus: '3' }), [aGpuPod()], one(policy), NO_DEVICES)).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ boot: 'x' }), [], one(policy), NO_DEVICES)).toBe(false);
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
    expect(nodesToWake([pod, pod], nodes, () => [], one(policy), NO_DEVICES).map((node) => node.metadata.name)).toEqual(
      names,
    ),
  );
  it.each([
    ['a claim', claiming({ resourceClaimName: 'gpu' })],
    [
      'a resource that a class maps, on a node whose plugin does not offer it',
      { containers: [{ resources: { limits: { 'example.com/gpu': '1' } } }] },
    ],
  ])('asks for GPUs by %s: waits, and could fit on an open node', (_, spec) => {
    const pod = aGpuPod({}, { nodeName: undefined, ...spec }, REFUSED);
    expect(isUnschedulable(pod)).toBe(true);
    expect(couldFit(pod, aNode({ gpus: '0' }), [], one(aPolicy()), DEVICES)).toBe(true);
    expect(couldFit(pod, rebooted, [], one(aPolicy()), DEVICES)).toBe(false);
  });
  it('asks the same as another pod of its template, whatever its claim is named', () => {
    const of = (name: string, template: string) =>
      kindOf(
        aGpuPod({}, claiming({ resourceClaimTemplateName: template }), {
          resourceClaimStatuses: [{ name: 'device', resourceClaimName: name }],
        }),
      );
    expect(of('a', 'gpu')).toBe(of('b', 'gpu'));
    expect(of('a', 'gpu')).not.toBe(of('a', 'fpga'));
  });
  it('counts thousands of GPUs, however they are written', () => {
    const thousand = aGpuPod({}, { containers: [{ resources: { limits: { 'nvidia.com/gpu': '1k' } } }] });
    expect(thousand.gpus).toEqual({ 'nvidia.com/gpu': 1000 });
    expect(couldFit(thousand, aNode({ gpus: '1k' }), [], one(aPolicy()), NO_DEVICES)).toBe(true);
    expect(couldFit(thousand, aNode({ gpus: '999' }), [], one(aPolicy()), NO_DEVICES)).toBe(false);
  });
});
