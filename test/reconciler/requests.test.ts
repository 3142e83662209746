import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { GPU_VALIDATED, NODE_VALIDATED } from '../../core/keys.ts';
import type { Action, EventAction } from '../../reconciler/actions.ts';
import { repeatOf, requestOf, targetOf } from '../../reconciler/requests.ts';
import { NOW } from '../builders/objects.ts';

const around = { now: NOW, instance: 'replica-1', at: '42' };
const node = { node: 'node-a', uid: 'uid-node-a' };
const pod = { namespace: 'team', name: 'p', uid: 'uid-p' };
const policy = { name: 'default', uid: 'uid-policy' };
const condition = { status: 'True', reason: 'R', message: 'm' } as const;
const manifest = (kind: string) => ({
  apiVersion: 'v1',
  kind,
  metadata: { name: 'x', namespace: 'gpu-gate-operands' },
  spec: { a: 1 },
});
const event: EventAction = {
  kind: 'event',
  about: { kind: 'Pod', ...pod },
  type: 'Normal',
  reason: 'R',
  message: 'm',
};

const ACTIONS: Readonly<Record<Action['kind'], Action>> = {
  'patch-node': { kind: 'patch-node', ...node, labels: { a: '1', b: null }, annotations: { c: null } },
  'set-taints': {
    kind: 'set-taints',
    ...node,
    resourceVersion: '41',
    taints: [{ key: 'k', effect: 'NoSchedule' }],
  },
  'set-node-condition': {
    kind: 'set-node-condition',
    ...node,
    type: GPU_VALIDATED,
    condition: { type: GPU_VALIDATED, ...condition },
  },
  'set-pod-condition': { kind: 'set-pod-condition', ...pod, condition: { type: NODE_VALIDATED, ...condition } },
  'create-pod': { kind: 'create-pod', manifest: manifest('Pod') },
  'delete-pod': { kind: 'delete-pod', ...pod, because: 'a new round begins' },
  'evict-pod': { kind: 'evict-pod', ...pod, because: 'the driver is replaced' },
  'apply-daemonset': { kind: 'apply-daemonset', manifest: manifest('DaemonSet') },
  'delete-daemonset': { kind: 'delete-daemonset', namespace: 'gpu-gate-operands', name: 'x' },
  'create-claim-template': { kind: 'create-claim-template', manifest: manifest('ResourceClaimTemplate') },
  'delete-claim-template': { kind: 'delete-claim-template', namespace: 'gpu-gate-operands', name: 'x' },
  'create-runtime-class': { kind: 'create-runtime-class', name: 'nvidia', handler: 'nvidia' },
  'policy-status': {
    kind: 'policy-status',
    ...policy,
    status: { observedGeneration: 2, nodes: { validated: 3, total: 3 } },
    was: { nodes: { driver: 1, validated: 2, total: 3 } },
  },
  'create-device-taint': {
    kind: 'create-device-taint',
    ...node,
    name: 'gpu-gate.node-a.gpu.nvidia.com',
    driver: 'gpu.nvidia.com',
    taint: { key: 'gpu-gate.dev/not-open', effect: 'NoSchedule' },
  },
  'delete-device-taint': { kind: 'delete-device-taint', name: 'gpu-gate.node-a.gpu.nvidia.com', uid: 'rule-uid' },
  'policy-finalizers': { kind: 'policy-finalizers', ...policy, finalizers: [] },
  event,
};

/** Compares with `test/golden/requests/NAME.json`; GPU_GATE_TEST_UPDATE=1 rewrites it. */
const golden = (name: string, value: unknown): void => {
  const file = join(import.meta.dirname, '../golden/requests', `${name}.json`);
  const text = `${JSON.stringify(value, undefined, 2)}\n`;
  if (process.env['GPU_GATE_TEST_UPDATE'] === '1') writeFileSync(file, text);
  expect(text).toBe(readFileSync(file, 'utf8'));
};

it.each(Object.values(ACTIONS))('$kind is sent as its golden file says', (action) =>
  golden(action.kind, requestOf(action, around)),
);

it('marks and condition of a Node are one request', () =>
  golden(
    'patch-node-with-condition',
    requestOf(
      {
        kind: 'patch-node',
        ...node,
        labels: { a: '1', b: null },
        annotations: { c: null },
        status: { type: GPU_VALIDATED, condition: { type: GPU_VALIDATED, ...condition } },
      },
      around,
    ),
  ));

it('marks and taints of a Node are one request, where nothing is written of the status', () =>
  golden(
    'patch-node-with-taints',
    requestOf(
      {
        kind: 'patch-node',
        ...node,
        labels: { a: '1', b: null },
        annotations: { c: null },
        taints: [{ key: 'k', effect: 'NoSchedule' }],
      },
      around,
    ),
  ));

it('a DaemonSet with fields of others is written whole at the version at which they were seen', () =>
  golden(
    'apply-daemonset-whole',
    requestOf({ kind: 'apply-daemonset', manifest: manifest('DaemonSet'), wholeAt: '7' }, around),
  ));

it('an Event that is there already is counted by two patches', () => {
  const { seen, counted } = repeatOf(requestOf(event, around), NOW);
  golden('event-repeated', [seen, counted(3)]);
});

describe('preconditions', () => {
  it.each(['patch-node', 'set-taints', 'set-node-condition'] as const)(
    '%s names the UID of the Node and the version that it expects',
    (kind) =>
      expect(requestOf(ACTIONS[kind], around).body).toMatchObject({
        metadata: { uid: 'uid-node-a', resourceVersion: '42' },
      }),
  );
  it('taints that come first are guarded by the version that they were read at', () =>
    expect(requestOf(ACTIONS['set-taints'], { ...around, at: undefined }).body).toMatchObject({
      metadata: { resourceVersion: '41' },
    }));
});

it('a policy whose breaker is over loses its memory, and one that was released forgets that it tripped', () => {
  const was = { breaker: { trippedAt: 'x', release: '' } };
  const statusOf = (status: object): unknown =>
    (requestOf({ kind: 'policy-status', ...policy, status, was }, around).body as { status: object }).status;
  expect(statusOf({})).toMatchObject({ breaker: null });
  expect(statusOf({ breaker: { releasedAt: 'y' } })).toMatchObject({
    breaker: { trippedAt: null, release: null, releasedAt: 'y' },
  });
});

it.each([
  ['another status', 'False', true],
  ['no condition yet', undefined, true],
  ['the same status', 'True', false],
])('a transition is dated where there was %s', (_, standing, dated) => {
  for (const kind of ['set-node-condition', 'set-pod-condition'] as const)
    expect(JSON.stringify(requestOf(ACTIONS[kind], { ...around, standing })).includes('lastTransitionTime')).toBe(
      dated,
    );
});

it('a condition is removed by its type', () => {
  const remove: Action = { kind: 'set-node-condition', ...node, type: GPU_VALIDATED, condition: undefined };
  expect(requestOf(remove, around).body).toMatchObject({
    status: { conditions: [{ type: GPU_VALIDATED, $patch: 'delete' }] },
  });
});

it('Events of one text have one name, and with `once` those of one reason', () => {
  const nameOf = (more: Partial<EventAction>): unknown =>
    (requestOf({ ...event, ...more }, around).body as { metadata: { name: string } }).metadata.name;
  expect(nameOf({ message: 'other' })).not.toBe(nameOf({}));
  expect(nameOf({ once: true, message: 'other' })).toBe(nameOf({ once: true }));
});

describe('an error of a write names its object', () => {
  it.each<[kind: Action['kind'], name: string]>([
    ['patch-node', 'of node node-a'],
    ['set-taints', 'of node node-a'],
    ['set-node-condition', 'of node node-a'],
    ['set-pod-condition', 'team/p'],
    ['create-pod', 'x'],
    ['delete-pod', 'team/p'],
    ['apply-daemonset', 'x'],
    ['delete-daemonset', 'gpu-gate-operands/x'],
    ['create-claim-template', 'x'],
    ['delete-claim-template', 'gpu-gate-operands/x'],
    ['create-runtime-class', 'nvidia'],
    ['policy-status', 'default'],
    ['policy-finalizers', 'default'],
    ['event', 'on Pod p'],
  ])('%s: %s', (kind, name) => expect(targetOf(ACTIONS[kind])).toBe(name));
});

describe('an Event is written', () => {
  const sent = (about: EventAction['about']) =>
    requestOf({ ...event, about }, around) as { path: string; body: { involvedObject: object } };
  it.each<[what: string, about: EventAction['about'], path: string, involved: object]>([
    [
      'in the namespace of a pod',
      { kind: 'Pod', ...pod },
      '/api/v1/namespaces/team/events',
      { apiVersion: 'v1', namespace: 'team' },
    ],
    [
      'in default for a node',
      { kind: 'Node', name: 'node-a', uid: 'u' },
      '/api/v1/namespaces/default/events',
      { apiVersion: 'v1', kind: 'Node' },
    ],
    [
      'in default for a policy, with its own group',
      { kind: 'GPUPolicy', name: 'default', uid: 'u' },
      '/api/v1/namespaces/default/events',
      { apiVersion: 'gpu-gate.dev/v1alpha1' },
    ],
  ])('%s', (_, about, path, involved) => {
    expect(sent(about).path).toBe(path);
    expect(sent(about).body.involvedObject).toMatchObject(involved);
  });
});

it.each<[what: string, action: Action, body: object]>([
  ['taints that are gone', { ...ACTIONS['set-taints'], taints: [] } as Action, { spec: { taints: null } }],
  ['finalizers that are gone', ACTIONS['policy-finalizers'], { metadata: { finalizers: null } }],
  [
    'finalizers that stay',
    { ...ACTIONS['policy-finalizers'], finalizers: ['a'] } as Action,
    { metadata: { finalizers: ['a'] } },
  ],
])('%s are written so that the API server keeps no rest', (_, action, body) =>
  expect(requestOf(action, around).body).toMatchObject(body),
);
