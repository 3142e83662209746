// A Node may lack any of its optional parts: a kubelet that has just registered it has not
// published them, and a client may send it so. The plan says the same of a part that is missing as
// of one that is empty.
import { describe, expect, it } from 'vitest';
import { MANAGED, PROOF, STATE, WALK } from '../../../core/keys.ts';
import type { NodeObject } from '../../../reconciler/model.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { aPolicy, keptPod } from '../../builders/objects.ts';
import { World } from './world.ts';

const LABELS = { [MANAGED]: 'true' };
const bare = (parts: Partial<NodeObject>, labels: Record<string, string> | undefined = LABELS): NodeObject => ({
  metadata: { name: 'n', uid: 'node-uid', resourceVersion: '1', ...(labels === undefined ? {} : { labels }) },
  ...parts,
});
const empty = (labels: Record<string, string> = LABELS): NodeObject => ({
  metadata: { name: 'n', uid: 'node-uid', resourceVersion: '1', labels, annotations: {} },
  spec: { taints: [] },
  status: { conditions: [], allocatable: {}, capacity: {}, nodeInfo: {}, runtimeHandlers: [] },
});
const POLICIES = {
  'a policy': aPolicy(),
  'a suspended policy': aPolicy({ suspend: true }),
  'a policy that is deleted': aPolicy({}, { metadata: { name: 'default', deletionTimestamp: '2026-11-24T10:00:00Z' } }),
  'no policy': undefined,
};

describe.each(Object.entries(POLICIES))('with %s', (_, policy) => {
  const planned = (node: NodeObject) => {
    const { wakeAt, holdsSlot, withdraws, actions } = planNode({ ...new World().input(node), policy });
    return { wakeAt, holdsSlot, withdraws, actions };
  };
  it.each<[string, Partial<NodeObject>]>([
    ['nothing but metadata', {}],
    ['an empty spec and status', { spec: {}, status: {} }],
    ['an empty nodeInfo', { status: { nodeInfo: {} } }],
    ['no conditions', { status: { nodeInfo: {}, allocatable: {} } }],
  ])('a node with %s is planned as an empty one', (__, parts) =>
    expect(planned(bare(parts))).toEqual(planned(empty())),
  );
  it('a node that is left is planned as an empty one', () =>
    expect(planned(bare({}, { [STATE]: 'validated' }))).toEqual(planned(empty({ [STATE]: 'validated' }))));
  it('a node without a label or an annotation is left alone', () =>
    expect(
      planNode({ ...new World().input({ metadata: { name: 'n', uid: 'u', resourceVersion: '1' } }), policy }),
    ).toEqual({
      actions: [],
      wakeAt: undefined,
      holdsSlot: false,
      withdraws: false,
    }));
  it('a proof and a walk without the parts that it may lack', () => {
    const proof = JSON.stringify({ node: 'node-uid', boot: 'boot-1', at: '2026-11-24T09:00:00Z' });
    const withProof = (node: NodeObject): NodeObject => ({
      ...node,
      metadata: { ...node.metadata, annotations: { [PROOF]: proof } },
    });
    expect(planned(withProof(bare({})))).toEqual(planned(withProof(empty())));
  });
});

describe('pods without the parts that they may lack', () => {
  const planned = (containers: readonly object[], initContainers: readonly object[] = []) => {
    const world = new World();
    world.broken['driver'] = {};
    for (let i = 0; i < 40 && world.state !== 'driver'; i += 1) world.step();
    world.now += 6000;
    const driver = world.pods.get('driver-pod') ?? keptPod({});
    world.pods.set('driver-pod', { ...driver, containers, initContainers } as typeof driver);
    return world.condition === undefined ? [] : world.plan().actions;
  };
  const status = { name: 'c', ready: false, restartCount: 0 };
  it('a container without a state is one that has not begun', () => {
    const [begun] = [planned([{ ...status, state: {} }])];
    expect(planned([status])).toEqual(begun);
    expect(planned([{ ...status, state: {}, lastState: {} }])).toEqual(begun);
    expect(planned([], [{ ...status, name: 'k8s-driver-manager' }])).toEqual(begun);
    expect(planned([], [{ ...status, name: 'k8s-driver-manager', state: { terminated: { exitCode: 1 } } }])).toEqual(
      begun,
    );
    expect(planned([], [{ ...status, name: 'kernel-modules' }])).toEqual(begun);
    expect(planned([], [{ ...status, name: 'kernel-modules', state: { terminated: { exitCode: 0 } } }])).toEqual(begun);
    expect(
      planned([], [{ ...status, name: 'other', state: { terminated: { exitCode: 1, message: 'pre-installed' } } }]),
    ).toEqual(begun);
  });
});

it('a walk that cannot be read is begun again', () => {
  const node = { ...empty(), metadata: { ...empty().metadata, annotations: { [WALK]: '{' } } };
  const { walked } = planNode(new World().input(node));
  expect(walked?.before.stage).toBe('preflight');
});
