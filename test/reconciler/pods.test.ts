import { describe, expect, it } from 'vitest';
import { CLOSED, MANAGED, PROOF, STATE } from '../../core/keys.ts';
import { trimPod, type PodObject } from '../../reconciler/model.ts';
import { enforcement, policyStatus, sameStatus } from '../../reconciler/policy-status.ts';
import {
  couldFit,
  gateOf,
  isMissed,
  isRejected,
  nodesOnTheirWay,
  policyNameOf,
  saysAlready,
} from '../../reconciler/pods.ts';
import { aNode, aPolicy, NOW } from '../support/objects.ts';

const aGpuPod = (more: object = {}, spec: object = {}, status: object = {}): PodObject => {
  const pod = trimPod(
    {
      metadata: {
        name: 'p',
        namespace: 'team',
        uid: 'u',
        creationTimestamp: '2026-11-24T09:00:00Z',
        labels: { 'gpu-gate.dev/injected': 'true' },
        ownerReferences: [{ kind: 'ReplicaSet', controller: true }],
        ...more,
      },
      spec: {
        nodeName: 'node-a',
        readinessGates: [{ conditionType: 'gpu-gate.dev/node-validated' }],
        containers: [{ resources: { limits: { 'nvidia.com/gpu': '2', cpu: '1' } } }],
        ...spec,
      },
      status: { phase: 'Running', ...status },
    },
    'gpu-gate-operands',
    () => false,
  );
  if (pod === undefined) throw new Error('trimmed away');
  return pod;
};

describe('a pod’s policy', () => {
  it('is the one that its author names, else the default one, whatever a record says that anybody can write', () => {
    const annotations = { 'gpu-gate.dev/injection': '{"policy":"nope"}' };
    expect(policyNameOf(aGpuPod({ annotations }))).toBe('default');
    expect(policyNameOf(aGpuPod({ annotations: { ...annotations, 'gpu-gate.dev/policy': 'pool' } }))).toBe('pool');
  });
});

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
    ['is True when the policy is gone', aGpuPod(), aNode({ boot: 'boot-2' }), undefined, 'True', 'PolicyAbsent'],
    [
      'is True on an unmanaged node that the policy allows',
      aGpuPod(),
      aNode({ labels: { [MANAGED]: 'false', [STATE]: undefined as never } }),
      aPolicy({ unmanagedNodes: 'Allow' }),
      'True',
      'NodeNotManaged',
    ],
  ])('%s', (_, pod, node, policy, status, reason) =>
    expect(gateOf(pod, node, policy)).toMatchObject({ status, reason }),
  );
  it('says nothing of a pod that has ended, is not bound, or has no gate', () => {
    expect(gateOf(aGpuPod({}, {}, { phase: 'Succeeded' }), aNode(), aPolicy())).toBeUndefined();
    expect(gateOf(aGpuPod({}, { nodeName: undefined }), aNode(), aPolicy())).toBeUndefined();
    expect(gateOf(aGpuPod({}, { readinessGates: [] }), aNode(), aPolicy())).toBeUndefined();
  });
  it('is written only when it changes', () => {
    const wanted = gateOf(aGpuPod(), aNode(), aPolicy());
    if (wanted === undefined) throw new Error('no gate');
    expect(saysAlready(aGpuPod(), wanted)).toBe(false);
    expect(saysAlready(aGpuPod({}, {}, { phase: 'Running', conditions: [wanted] }), wanted)).toBe(true);
  });
});

describe('other pods', () => {
  it('rejected after a reboot are told from those that failed by themselves', () => {
    const failed = (reason: string): PodObject => aGpuPod({}, {}, { phase: 'Failed', reason });
    expect(isRejected(failed('UnexpectedAdmissionError'), aNode())).toBe(true);
    expect(isRejected(failed('OutOfnvidia.com/gpu'), aNode())).toBe(true);
    expect(isRejected(failed('Evicted'), aNode())).toBe(false);
    expect(
      isRejected(
        aGpuPod({ ownerReferences: [] }, {}, { phase: 'Failed', reason: 'UnexpectedAdmissionError' }),
        aNode(),
      ),
    ).toBe(false);
  });
  it('missed by the webhook are those created without injection since the policy enforces', () => {
    const missed = aGpuPod({ labels: {} });
    expect(isMissed(missed, aPolicy(), new Set())).toBe(true);
    expect(isMissed(missed, aPolicy(), new Set(['team']))).toBe(false);
    expect(isMissed(aGpuPod(), aPolicy(), new Set())).toBe(false);
    expect(isMissed(aGpuPod({ labels: { 'gpu-gate.dev/inject': 'false' } }), aPolicy(), new Set())).toBe(false);
    expect(isMissed(aGpuPod({ labels: {}, creationTimestamp: '2026-10-01T00:00:00Z' }), aPolicy(), new Set())).toBe(
      false,
    );
  });
  it('could fit where GPUs are free', () => {
    expect(couldFit(aGpuPod(), aNode(), [])).toBe(true);
    expect(couldFit(aGpuPod(), aNode({ gpus: '1' }), [])).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ gpus: '3' }), [aGpuPod()])).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ boot: 'x' }), [])).toBe(false);
  });
  it('are told of the nodes on their way, three by name', () => {
    const walking = ['a', 'b', 'c', 'd', 'e'].map((name) =>
      aNode({ name, labels: { [STATE]: 'driver' }, annotations: { [PROOF]: '' }, validated: false }),
    );
    expect(nodesOnTheirWay([...walking, aNode()], 'default')).toBe(
      'waiting for a GPU node: node a is in driver; node b is in driver; node c is in driver; and 2 more',
    );
    expect(nodesOnTheirWay([aNode()], 'default')).toBeUndefined();
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

describe('a policy', () => {
  const fresh = (spec: object = {}) => aPolicy(spec, { status: {} });
  it.each([
    ['audits while nothing is opted in', fresh(), [aNode({ labels: { [MANAGED]: 'false' } })], false, 'NoNodeOptedIn'],
    ['enforces at once where no other node offers GPUs', fresh(), [aNode()], true, 'Enforcing'],
    [
      'waits for every node that offers GPUs',
      fresh(),
      [
        aNode(),
        aNode({
          name: 'old',
          labels: { [MANAGED]: 'false', [STATE]: undefined as never },
          annotations: { [PROOF]: '' },
        }),
      ],
      false,
      'NodesNotValidated',
    ],
    [
      'denies from the first opt-in',
      fresh({ unmanagedNodes: 'Deny' }),
      [aNode(), aNode({ name: 'old', annotations: { [PROOF]: '' } })],
      true,
      'Enforcing',
    ],
    ['enforces for good, also with no node left', aPolicy(), [], true, 'Enforcing'],
    ['does not enforce while suspended', aPolicy({ suspend: true }), [aNode()], false, 'Suspended'],
  ])('%s', (_, policy, nodes, enforcing, reason) =>
    expect(enforcement(policy, nodes)).toMatchObject({ enforcing, reason }),
  );
  it('names the next command where it waits', () => {
    const old = aNode({ name: 'old', labels: { [MANAGED]: 'false' }, annotations: { [PROOF]: '' } });
    expect(enforcement(fresh(), [aNode(), old]).message).toContain('kubectl label node old gpu-gate.dev/managed=true');
  });
  it('has a status that is the same when nothing changed', () => {
    const first = policyStatus(aPolicy(), [aNode()], [], NOW);
    const again = policyStatus({ ...aPolicy(), status: first }, [aNode()], [], NOW + 60_000);
    expect(sameStatus(first, again)).toBe(true);
    expect(first.nodes).toEqual({ validated: 1, total: 1 });
  });
});
