// What the removal takes off each object, and what it leaves.
import { describe, expect, it } from 'vitest';
import { parsePolicy } from '../../core/parse-policy.ts';
import { parseReleaseArgs } from '../../uninstall/args.ts';
import {
  conditionOf,
  deployLabelsOf,
  finalizerOf,
  gateOf,
  isForced,
  isMadeByHelm,
  marksOf,
  needsOperands,
  some,
  waitsForOurScheduler,
  type MarkedNode,
  type SeenPod,
} from '../../uninstall/marks.ts';

const NODE: MarkedNode = {
  metadata: {
    name: 'gpu-0',
    uid: 'u',
    resourceVersion: '7',
    labels: {
      'kubernetes.io/hostname': 'gpu-0',
      'gpu-gate.dev/managed': 'true',
      'gpu-gate.dev/state': 'validated',
      'gpu-gate.dev/deploy.driver': 'r1',
    },
    annotations: { 'gpu-gate.dev/proof': '{}', 'gpu-gate.dev/node-policy': 'default', other: 'x' },
  },
  spec: {
    taints: [
      { key: 'nvidia.com/gpu', effect: 'NoSchedule' },
      { key: 'startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate', effect: 'NoSchedule' },
    ],
  },
  status: {
    conditions: [
      { type: 'Ready', status: 'True' },
      { type: 'GPUValidated', status: 'True' },
    ],
  },
};
const CLEAN: MarkedNode = { metadata: { name: 'cpu', uid: 'v', resourceVersion: '1', labels: { a: 'b' } } };
const pod = (more: object = {}, status: object = {}): SeenPod => ({
  metadata: { namespace: 'team', name: 'p', uid: 'p1' },
  spec: { readinessGates: [{ conditionType: 'gpu-gate.dev/node-validated' }], nodeName: 'gpu-0', ...more },
  status: { phase: 'Running', ...status },
});

describe('a node', () => {
  it('loses all our keys and our taint by one patch of the version that was read', () =>
    expect(marksOf(NODE)).toEqual({
      path: '/api/v1/nodes/gpu-0',
      body: {
        metadata: {
          uid: 'u',
          resourceVersion: '7',
          labels: { 'gpu-gate.dev/managed': null, 'gpu-gate.dev/state': null },
          annotations: { 'gpu-gate.dev/proof': null, 'gpu-gate.dev/node-policy': null },
        },
        spec: { taints: [{ key: 'nvidia.com/gpu', effect: 'NoSchedule' }] },
      },
    }));
  it('keeps the labels of operands until these are gone', () =>
    expect(deployLabelsOf(NODE)?.body).toEqual({
      metadata: { uid: 'u', labels: { 'gpu-gate.dev/deploy.driver': null } },
    }));
  it('loses our condition alone', () =>
    expect(conditionOf(NODE)?.body).toEqual({
      metadata: { uid: 'u' },
      status: { conditions: [{ type: 'GPUValidated', $patch: 'delete' }] },
    }));
  it('without a mark of ours is not written', () =>
    expect([marksOf(CLEAN), deployLabelsOf(CLEAN), conditionOf(CLEAN)]).toEqual([undefined, undefined, undefined]));
});

describe('a readiness gate', () => {
  const now = Date.parse('2026-01-02T03:04:05.678Z');
  it('is opened once', () => {
    const body = gateOf(pod(), now)?.body as { status: { conditions: [{ type: string; status: string }] } };
    expect(body.status.conditions[0]).toMatchObject({
      type: 'gpu-gate.dev/node-validated',
      status: 'True',
      reason: 'GateReleased',
      lastTransitionTime: '2026-01-02T03:04:05Z',
    });
    expect(gateOf(pod({}, { conditions: body.status.conditions }), now)).toBeUndefined();
  });
  it('that is open keeps the time of its transition', () => {
    const open = { type: 'gpu-gate.dev/node-validated', status: 'True', reason: 'NodeValidated' };
    expect(JSON.stringify(gateOf(pod({}, { conditions: [open] }), now)?.body)).not.toContain('lastTransitionTime');
  });
  it('of a pod that waits is opened, of one that has ended is not', () => {
    expect(gateOf(pod({ nodeName: undefined }, { phase: 'Pending' }), now)).toBeDefined();
    expect(gateOf(pod({}, { phase: 'Succeeded' }), now)).toBeUndefined();
    expect(gateOf(pod({ readinessGates: [] }), now)).toBeUndefined();
  });
});

describe('a pod that needs an operand', () => {
  const nodes = new Map([['gpu-0', NODE]]);
  const policies = new Map(
    [
      { metadata: { name: 'default' }, spec: {} },
      { metadata: { name: 'b' }, spec: { injection: { runtimeClassName: 'b' } } },
    ]
      .map(parsePolicy)
      .map((policy) => [policy.name, policy]),
  );
  const asks = { containers: [{ resources: { limits: { 'nvidia.com/gpu': '1' } } }] };
  const needs = (one: SeenPod, on: ReadonlyMap<string, MarkedNode> = nodes): boolean =>
    needsOperands(one, on, policies, 'operands');
  it.each([
    ['asks for a GPU', pod(asks), true],
    ['has the runtime class', pod({ runtimeClassName: 'nvidia' }), true],
    ['mounts the driver', pod({ volumes: [{ name: 'd', hostPath: { path: '/run/nvidia/driver' } }] }), true],
    ['has another policy’s runtime class', pod({ runtimeClassName: 'b' }), false],
    ['has ended', pod(asks, { phase: 'Failed' }), false],
    ['asks for none', pod(), false],
    ['is elsewhere', pod({ ...asks, nodeName: 'cpu' }), false],
    ['is an operand', { ...pod(asks), metadata: { namespace: 'operands', name: 'p', uid: 'p1' } }, false],
  ])('%s', (_, one, is) => expect(needs(one)).toBe(is));
  it('on a node whose marks are gone may be of any policy', () => {
    const { 'gpu-gate.dev/node-policy': _, ...annotations } = NODE.metadata.annotations ?? {};
    const bare = new Map([['gpu-0', { ...NODE, metadata: { ...NODE.metadata, annotations } }]]);
    expect(needs(pod({ runtimeClassName: 'b' }), bare)).toBe(true);
  });
});

describe('a policy', () => {
  const policy = (finalizers: string[], annotations?: object) => ({
    metadata: { name: 'p', uid: 'u', finalizers, annotations },
    spec: {},
  });
  const body = (finalizers: string[] | null) => ({
    metadata: { uid: 'u', finalizers, annotations: { 'gpu-gate.dev/release': null } },
  });
  it('loses our finalizer and keeps others', () => {
    expect(finalizerOf(policy(['a/b', 'gpu-gate.dev/opt-out-nodes']))?.body).toEqual(body(['a/b']));
    expect(finalizerOf(policy(['gpu-gate.dev/opt-out-nodes']))?.body).toEqual(body(null));
    expect(finalizerOf(policy(['a/b']))).toBeUndefined();
  });
  it('says that pods may lose operands, once', () => {
    const forced = policy([], { 'gpu-gate.dev/release': 'force' });
    expect([isForced(forced), isForced(policy([])), isForced(policy([], { 'gpu-gate.dev/release': 'no' }))]).toEqual([
      true,
      false,
      false,
    ]);
    expect(finalizerOf(forced)?.body).toEqual(body(null));
  });
});

it('a pod waits for the scheduler that ends only while it is on no node', () => {
  const ours = { schedulerName: 'gpu-gate-scheduler', nodeName: undefined };
  expect(waitsForOurScheduler(pod(ours, { phase: 'Pending' }))).toBe(true);
  expect(waitsForOurScheduler(pod({ ...ours, nodeName: 'gpu-0' }))).toBe(false);
  expect(waitsForOurScheduler(pod({ nodeName: undefined }))).toBe(false);
});

it('a Job is helm’s by the manager of its fields', () => {
  const by = (manager: string) => isMadeByHelm({ metadata: { managedFields: [{ manager }] } });
  expect([by('helm'), by('helm-controller'), by('kubectl-client-side-apply'), isMadeByHelm({ metadata: {} })]).toEqual([
    true,
    true,
    false,
    false,
  ]);
});

it('names many things by the first few', () =>
  expect([some(['a', 'b']), some(['a', 'b', 'c'], 2)]).toEqual(['a, b', 'a, b and 1 more']));

describe('the command line', () => {
  it('has defaults', () =>
    expect(parseReleaseArgs([])).toEqual({
      ok: true,
      args: {
        kubeconfig: '',
        namespace: 'gpu-gate',
        operandNamespace: 'gpu-gate-operands',
        deployment: 'gpu-gate-reconciler',
        job: '',
        force: false,
        timeoutMs: 240_000,
      },
    }));
  it.each([
    [['--timeout', 'soon'], '--timeout soon is not a duration: write one such as 90s or 10m'],
    [['--timeout', '0s'], '--timeout 0s is not a duration: write one such as 90s or 10m'],
    [['--wrong'], "Unknown option '--wrong'"],
  ])('%j is refused', (args, because) => {
    const parsed = parseReleaseArgs(args);
    expect(parsed.ok ? '' : parsed.because).toContain(because);
  });
});
