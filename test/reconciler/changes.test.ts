// What a change in the cluster makes the reconciler look at.
import { expect, it } from 'vitest';
import { CLOSED, MANAGED, PROOF, STARTUP_TAINT, WALK } from '../../core/keys.ts';
import { changes } from '../../reconciler/changes.ts';
import type { Caches, Listener } from '../../reconciler/caches.ts';
import type { Key } from '../../reconciler/key.ts';
import type { DaemonSetView } from '../../reconciler/model.ts';
import { newWalk } from '../../reconciler/walk.ts';
import { cachesOf, OPERANDS, type ClusterParts } from '../builders/caches.ts';
import { aNode, aPolicy, keptPod, NOW } from '../builders/objects.ts';

const WAKE_AFTER = [1000, 3000];
const team = { namespace: 'team', name: 'p' };
const plain = aNode({ name: 'plain' });
/** A node that nothing of gpu-gate is on, but for the label by which a node opts in. */
const labelled = (managed?: string) => ({
  ...plain,
  metadata: { ...plain.metadata, annotations: {}, labels: managed === undefined ? {} : { [MANAGED]: managed } },
});
const unmanaged = labelled();
const tainted = { ...unmanaged, spec: { taints: [{ key: STARTUP_TAINT, effect: 'NoSchedule' }] } };

/** Names of the keys that are due after a change, each as `kind name`. */
function due(parts: ClusterParts, more: Partial<Caches>, change: (listener: Listener) => void): readonly string[] {
  const keys = new Set<string>();
  const add = ({ kind, name }: Key): void => void keys.add(`${kind} ${name}`.trim());
  const { listener } = changes({
    caches: { ...cachesOf(parts), ...more },
    turns: { add, addAfter: add },
    operandNamespace: OPERANDS,
    wakeAfter: WAKE_AFTER,
    nodes: { gone: (name) => keys.add(`forgotten ${name}`), awaits: ({ metadata }) => metadata.name === 'awaited' },
    pods: { forget: (uid) => keys.add(`forgotten ${uid}`) },
    waking: { update: () => undefined, size: 0 },
  });
  change(listener);
  return [...keys].toSorted();
}
/** A node whose pods leave for a roll-out. */
const inTurn = (name: string) => {
  const rollOut = { phase: 'drain', since: new Date(NOW).toISOString() } as const;
  const walk = { ...newWalk(`uid-${name}`, 'boot-1', NOW), proven: 'boot-1', rollOut };
  return aNode({ name, annotations: { [WALK]: JSON.stringify(walk) } });
};
const none = new Set<never>();
const daemonSet = { name: 'driver-1', uid: 'ds' } as DaemonSetView;

it.each<
  [
    what: string,
    parts: ClusterParts,
    change: (listener: Listener) => void,
    keys: readonly string[],
    more?: Partial<Caches>,
  ]
>([
  ['a node that gpu-gate does not manage', {}, (to) => to.node('plain', undefined, unmanaged, none), []],
  [
    'a managed node that was closed',
    {},
    (to) => to.node('node-a', aNode(), aNode({ annotations: { [CLOSED]: 'x' } }), none),
    ['device-taint node-a', 'node node-a', 'waiting'],
  ],
  [
    'a managed node that opens',
    {},
    (to) => to.node('node-a', aNode({ annotations: { [CLOSED]: 'x' } }), aNode(), none),
    ['device-taint node-a', 'node node-a', 'waiting', 'wake node-a'],
  ],
  [
    'a node that comes open',
    {},
    (to) => to.node('node-a', undefined, aNode(), none),
    ['device-taint node-a', 'node node-a', 'waiting', 'wake node-a'],
  ],
  [
    'a managed node that is gone',
    {},
    (to) => to.node('node-a', aNode(), undefined, none),
    ['device-taint node-a', 'forgotten node-a', 'node node-a', 'waiting'],
  ],
  ['a label that opts nothing in', {}, (to) => to.node('plain', undefined, labelled('false'), none), []],
  ['a label that is misspelt', {}, (to) => to.node('plain', undefined, labelled('True'), none), ['node plain']],
  ['a label that is misspelt as before', {}, (to) => to.node('plain', labelled('True'), labelled('True'), none), []],
  ['a startup taint without an opt-in', {}, (to) => to.node('plain', unmanaged, tainted, none), ['node plain']],
  ['such a taint as before', {}, (to) => to.node('plain', tainted, tainted, none), []],
  [
    'a node whose pods have a readiness gate',
    {
      pods: [
        keptPod({ ...team, nodeName: 'plain', gated: true }),
        keptPod({ namespace: 'team', name: 'q', uid: 'q', nodeName: 'plain' }),
      ],
    },
    (to) => to.node('plain', unmanaged, unmanaged, none),
    ['pod team/p'],
  ],
  [
    'a node that a policy leads now',
    {},
    (to) => to.node('node-a', aNode(), aNode(), new Set(['led'])),
    ['device-taint node-a', 'node node-a', 'operands', 'policies', 'waiting'],
  ],
  [
    'a node that is counted otherwise',
    {},
    (to) => to.node('node-a', aNode(), aNode(), new Set(['state'])),
    ['device-taint node-a', 'node node-a', 'policies', 'waiting'],
  ],
  [
    'a node that stops a roll-out',
    { nodes: [inTurn('draining')] },
    (to) => to.node('node-a', aNode(), aNode(), new Set(['stopping'])),
    ['device-taint node-a', 'node draining', 'node node-a', 'policies', 'waiting'],
  ],
  ['a heartbeat', {}, (to) => to.nodeVersion(aNode()), []],
  ['a heartbeat that a write waits for', {}, (to) => to.nodeVersion(aNode({ name: 'awaited' })), ['node awaited']],
  [
    'a pod of a user that is bound',
    {},
    (to) => to.pod(keptPod({ ...team, nodeName: undefined }), keptPod({ ...team, nodeName: 'n' })),
    ['bound team/p', 'node n', 'pod team/p'],
  ],
  [
    'a bound pod that changes',
    {},
    (to) => to.pod(keptPod({ ...team, nodeName: 'n' }), keptPod({ ...team, nodeName: 'n' })),
    ['node n', 'pod team/p'],
  ],
  [
    'a pod that waits',
    {},
    (to) => to.pod(undefined, keptPod({ ...team, nodeName: undefined })),
    ['pod team/p', 'waiting'],
  ],
  ['a pod that is gone', {}, (to) => to.pod(keptPod({ ...team, nodeName: 'n' }), undefined), ['forgotten u', 'node n']],
  ['a pod of an operand', {}, (to) => to.pod(undefined, keptPod({ nodeName: 'n' })), ['node n']],
  [
    'a validation pod that is not bound yet',
    { nodes: [aNode()] },
    (to) => to.pod(undefined, keptPod({ nodeName: undefined, validates: 'uid-node-a' })),
    ['node node-a'],
  ],
  [
    'a pod of the first list',
    {},
    (to) => to.pod(undefined, keptPod({ ...team, nodeName: 'n' })),
    [],
    { synced: false },
  ],
  ['a policy’s status', { nodes: [aNode()] }, (to) => to.policy(aPolicy(), aPolicy()), ['policies']],
  [
    'a policy’s rules',
    { nodes: [aNode(), unmanaged], pods: [keptPod({ ...team, gated: true })] },
    (to) => to.policy(aPolicy(), { ...aPolicy(), generation: 2 }),
    ['device-taint node-a', 'node node-a', 'operands', 'pod team/p', 'policies', 'waiting', 'wake-any'],
  ],
  [
    'a policy that begins to enforce',
    { nodes: [aNode()] },
    (to) => to.policy(aPolicy({}, { status: {} }), aPolicy()),
    ['device-taint node-a', 'node node-a', 'operands', 'policies', 'waiting'],
  ],
  [
    'a policy that is gone',
    {},
    (to) => to.policy(aPolicy(), undefined),
    ['operands', 'policies', 'waiting', 'wake-any'],
  ],
  [
    'a namespace whose pods came first',
    { pods: [keptPod(team), keptPod({ namespace: 'other', name: 'q', uid: 'q' })] },
    (to) => to.namespace('team'),
    ['pod team/p'],
  ],
  ['a DaemonSet that changes', {}, (to) => to.daemonSet(daemonSet, daemonSet), ['operands']],
  [
    'a DaemonSet that a node runs, and that is another now',
    { nodes: [aNode({ labels: { 'gpu-gate.dev/deploy.driver': '1' } })] },
    (to) => to.daemonSet(undefined, daemonSet),
    ['node node-a', 'operands'],
  ],
  [
    'trouble with a validation pod',
    { nodes: [aNode()], pods: [keptPod({ name: 'v', nodeName: undefined, validates: 'uid-node-a' })] },
    (to) => to.trouble({ kind: 'Pod', name: 'v', at: 0, message: '', about: 'u' }),
    ['node node-a'],
  ],
  [
    'trouble with a pod that runs',
    { pods: [keptPod({ name: 'v', nodeName: 'n' })] },
    (to) => to.trouble({ kind: 'Pod', name: 'v', at: 0, message: '', about: 'u' }),
    ['node n'],
  ],
  [
    'trouble with a DaemonSet that a node walks with',
    { nodes: [aNode({ boot: 'other', labels: { 'gpu-gate.dev/deploy.driver': '1' } })] },
    (to) => to.trouble({ kind: 'DaemonSet', name: 'driver-1', at: 0, message: '', about: 'ds' }),
    ['node node-a'],
  ],
  [
    'trouble with a pod that nobody knows',
    {},
    (to) => to.trouble({ kind: 'Pod', name: 'v', at: 0, message: '', about: 'u' }),
    [],
  ],
  [
    'trouble of the first list',
    { pods: [keptPod({ name: 'v', nodeName: 'n' })] },
    (to) => to.trouble({ kind: 'Pod', name: 'v', at: 0, message: '', about: 'u' }),
    [],
    { synced: false },
  ],
])('%s', (_, parts, change, keys, more = {}) => expect(due(parts, more, change)).toEqual(keys));

it('a leader that takes over looks at proofs first, at misspelt nodes, at every pod, policy and operand', () => {
  const keys: string[] = [];
  const add = ({ kind, name }: Key): void => void keys.push(`${kind} ${name}`.trim());
  const walking = aNode({ name: 'walking' });
  const { [PROOF]: _, ...unproven } = walking.metadata.annotations ?? {};
  const all = changes({
    caches: cachesOf({
      nodes: [
        { ...walking, metadata: { ...walking.metadata, annotations: unproven } },
        aNode({ name: 'proven' }),
        unmanaged,
        labelled('True'),
      ],
      pods: [keptPod(team)],
    }),
    turns: { add, addAfter: add },
    operandNamespace: OPERANDS,
    wakeAfter: WAKE_AFTER,
    nodes: { gone: () => undefined, awaits: () => false },
    pods: { forget: () => undefined },
    waking: { update: () => undefined, size: 1000 },
  });
  all.takeOver(['team/bound']);
  expect(keys).toEqual([
    'bound team/bound',
    'node proven',
    'node walking',
    'node plain',
    'device-taint walking',
    'device-taint proven',
    'operands',
    'policies',
    'pod team/p',
    'wake-any',
    'waiting',
  ]);
});

it('waiting pods are looked at less often where there are many', () => {
  const waits: number[] = [];
  for (const size of [1, 101]) {
    const { listener } = changes({
      caches: cachesOf({}),
      turns: { add: () => undefined, addAfter: ({ kind }, ms) => (kind === 'waiting' ? waits.push(ms) : undefined) },
      operandNamespace: OPERANDS,
      wakeAfter: WAKE_AFTER,
      nodes: { gone: () => undefined, awaits: () => false },
      pods: { forget: () => undefined },
      waking: { update: () => undefined, size },
    });
    listener.pod(undefined, keptPod({ ...team, nodeName: undefined }));
  }
  expect(waits).toEqual([500, 10_000]);
});
