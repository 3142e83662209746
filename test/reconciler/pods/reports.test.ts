import { describe, expect, it } from 'vitest';
import { CLOSED, HOLD, MANAGED, NODE_POLICY, PROOF, STATE } from '../../../core/keys.ts';
import { trimPod, type NodeObject, type PodObject } from '../../../reconciler/model.ts';
import {
  boundPastGate,
  boundUnseen,
  couldFit,
  gateOf,
  isMissed,
  isRejected,
  nodesOnTheirWay,
  policyNameOf,
  nodesToWake,
  saysAlready,
} from '../../../reconciler/pods/reports.ts';
import { aNode, aPolicy } from '../../builders/objects.ts';

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

/** As the API server notes who wrote which field: the one that made the pod named its node; a scheduler that binds it owns nothing. */
const NAMED = { manager: 'kubectl', fieldsV1: { 'f:spec': { 'f:nodeName': {} } } };
const UNNAMED = { manager: 'kubectl', fieldsV1: { 'f:spec': { 'f:containers': {} } } };

const saying = (node: NodeObject, message: string): NodeObject => ({
  ...node,
  status: {
    ...node.status,
    conditions: [
      { type: 'Ready', status: 'True' },
      { type: 'GPUValidated', status: 'False', message },
    ],
  },
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
    expect(isMissed(pod, aPolicy(), (namespace) => namespace === 'quiet')).toBe(missed),
  );
  it('could fit where GPUs are free and the gate lets them through', () => {
    const policy = aPolicy();
    expect(couldFit(aGpuPod(), aNode(), [], policy)).toBe(true);
    expect(couldFit(aGpuPod(), aNode({ gpus: '1' }), [], policy)).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ gpus: '3' }), [aGpuPod()], policy)).toBe(false);
    expect(couldFit(aGpuPod(), aNode({ boot: 'x' }), [], policy)).toBe(false);
  });
  const theirs = aNode({ name: 'theirs', labels: { [MANAGED]: 'false', [STATE]: undefined as never } });
  const rebooted = aNode({ name: 'rebooted', boot: 'x' });
  const naming = aGpuPod({ annotations: { 'gpu-gate.dev/policy': 'default' } });
  it.each([
    ['suspended: every node', aGpuPod(), aPolicy({ suspend: true }), [rebooted, theirs], ['rebooted']],
    ['not enforcing yet: every node', aGpuPod(), aPolicy({}, { status: {} }), [theirs], ['theirs']],
    ['Allow: nodes that are not ours', aGpuPod(), aPolicy({ unmanagedNodes: 'Allow' }), [rebooted, theirs], ['theirs']],
    ['Deny: none of those', aGpuPod(), aPolicy({ unmanagedNodes: 'Deny' }), [rebooted, theirs], []],
    ['policy gone: every node', aGpuPod(), undefined, [rebooted], ['rebooted']],
    ['policy gone that the pod names: it waits for it', naming, undefined, [rebooted], []],
    ['never a cordoned node', aGpuPod(), undefined, [aNode({ cordoned: true })], []],
  ])('woken after a policy changed, %s', (_, pod, policy, nodes, names) =>
    expect(
      nodesToWake(
        [pod, pod],
        nodes,
        () => [],
        () => policy,
      ).map((node) => node.metadata.name),
    ).toEqual(names),
  );
  it.each([
    ['a node that is not opted in', theirs, aPolicy(), 'the node is not opted in'],
    ['such a node where the policy allows it', theirs, aPolicy({ unmanagedNodes: 'Allow' }), undefined],
    ['a held node', aNode({ annotations: { [HOLD]: 'x' } }), aPolicy(), 'GPU node held by an operator'],
    ['an open node', aNode(), aPolicy(), undefined],
    [
      'a node of another policy',
      aNode({ annotations: { [NODE_POLICY]: 'b' } }),
      aPolicy(),
      'the node is of another GPUPolicy',
    ],
    ['any node while the policy audits', theirs, aPolicy({}, { status: {} }), undefined],
  ])('bound past the gate: %s', (_, node, policy, because) =>
    expect(boundPastGate(aGpuPod(), node, policy)).toBe(because),
  );
  it('bound while nobody looked: only where the node shows that it was shut before', () => {
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
    expect(boundUnseen(at('2026-11-24T09:40:00Z'), shut, aPolicy())).toMatch(/^GPU stack/);
    expect(boundUnseen(at('2026-11-24T09:20:00Z'), shut, aPolicy())).toBeUndefined();
    const again = since(rebooted, 'Ready');
    expect(boundUnseen(at('2026-11-24T09:40:00Z'), again, aPolicy())).toBe('node rebooted since validation');
    expect(boundUnseen(at('2026-11-24T09:20:00Z'), again, aPolicy())).toBeUndefined();
    const held = aNode({ annotations: { [HOLD]: 'x' } });
    expect(boundUnseen(at('2026-11-24T09:40:00Z'), held, aPolicy())).toBeUndefined();
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
      saying(
        aNode({ labels: { [STATE]: 'failed' }, annotations: { [PROOF]: '' } }),
        'driver: crash loop, since 2026-11-24T09:00:00.000Z; tried again after 2026-11-24T09:10:00.000Z, or now: kubectl …',
      ),
      'is failed (driver: crash loop)',
    ],
  ])('are told why a node that is %s takes none, with no time in it', (_, node, says) =>
    expect(nodesOnTheirWay([node], 'default')).toBe(`waiting for a GPU node: node node-a ${says}`),
  );
  it('are not told of a node on its way out', () =>
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
