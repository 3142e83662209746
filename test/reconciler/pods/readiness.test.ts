import { describe, expect, it } from 'vitest';
import { CLOSED, MANAGED, STATE } from '../../../core/keys.ts';
import { gateOf, saysAlready } from '../../../reconciler/pods/readiness.ts';
import { aGpuPod } from '../../builders/gpu-pod.ts';
import { aNode, aPolicy } from '../../builders/objects.ts';

describe('a pod’s readiness gate', () => {
  it.each([
    ['is True on a serving node', aGpuPod(), aNode(), aPolicy(), 'True', 'NodeValidated'],
    [
      'stays True on a node that is only closed',
      aGpuPod(),
      aNode({ annotations: { [CLOSED]: 'roll-out' } }),
      aPolicy(),
      'True',
      'NodeValidated',
    ],
    ['is False after a reboot', aGpuPod(), aNode({ boot: 'boot-2' }), aPolicy(), 'False', 'NodeNotValidated'],
    [
      'is True while the policy is suspended',
      aGpuPod(),
      aNode({ boot: 'boot-2' }),
      aPolicy({ suspend: true }),
      'True',
      'PolicySuspended',
    ],
    [
      'is True when the policy is gone, and with it the node',
      aGpuPod(),
      aNode({ labels: { [MANAGED]: 'false', [STATE]: undefined as never } }),
      undefined,
      'True',
      'PolicyAbsent',
    ],
    [
      'is the node’s to say, whatever policy the author names afterwards',
      aGpuPod({ annotations: { 'gpu-gate.dev/policy': 'nope' } }),
      aNode({ boot: 'boot-2' }),
      undefined,
      'False',
      'NodeNotValidated',
    ],
    [
      'is not opened by a suspended policy that the author may not name',
      aGpuPod({ annotations: { 'gpu-gate.dev/policy': 'pool' } }),
      aNode({ boot: 'boot-2' }),
      aPolicy({ suspend: true, allowedNamespaces: ['ops'] }),
      'False',
      'NodeNotValidated',
    ],
    [
      'nor on an unmanaged node',
      aGpuPod({ annotations: { 'gpu-gate.dev/policy': 'pool' } }),
      aNode({ labels: { [MANAGED]: 'false', [STATE]: undefined as never } }),
      aPolicy({ suspend: true, unmanagedNodes: 'Allow', allowedNamespaces: ['ops'] }),
      'False',
      'PolicyNotAllowed',
    ],
    [
      'is True on an unmanaged node that the policy allows',
      aGpuPod(),
      aNode({ labels: { [MANAGED]: 'false', [STATE]: undefined as never } }),
      aPolicy({ unmanagedNodes: 'Allow' }),
      'True',
      'NodeNotManaged',
    ],
    [
      'is False on an unmanaged node that the policy denies',
      aGpuPod(),
      aNode({ labels: { [MANAGED]: 'false', [STATE]: undefined as never } }),
      aPolicy({ unmanagedNodes: 'Deny' }),
      'False',
      'NodeNotManaged',
    ],
  ])('%s', (_, pod, node, policy, status, reason) =>
    expect(gateOf(pod, node, policy)).toMatchObject({ status, reason }),
  );
  it('says nothing of a pod that has ended, is not bound, or has no gate', () => {
    expect(gateOf(aGpuPod({}, {}, { phase: 'Succeeded' }), aNode(), aPolicy())).toBeUndefined();
    expect(gateOf(aGpuPod({}, { nodeName: undefined }), aNode(), aPolicy())).toBeUndefined();
    expect(gateOf(aGpuPod({}, { readinessGates: [] }), aNode(), aPolicy())).toBeUndefined();
    expect(gateOf(aGpuPod(), undefined, aPolicy())).toBeUndefined();
    expect(gateOf(aGpuPod({ deletionTimestamp: 'x' }), aNode(), aPolicy())).toBeUndefined();
  });
  it('is written only when it changes', () => {
    const wanted = gateOf(aGpuPod(), aNode(), aPolicy());
    if (wanted === undefined) throw new Error('no gate');
    expect(saysAlready(aGpuPod(), wanted)).toBe(false);
    expect(saysAlready(aGpuPod({}, {}, { phase: 'Running', conditions: [wanted] }), wanted)).toBe(true);
  });
});
