// What a stolen credential of a GPU node or of gpu-gate itself can do on a real API server. Each
// attack is one that RBAC lets through, so the answer must come from an admission policy of the
// chart, unless the row says that RBAC refuses it.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { installChart, until } from '../../../lab/cluster/gate.ts';
import {
  KubeError,
  MERGE_PATCH,
  openKube,
  STRATEGIC_PATCH,
  type CallOptions,
  type Kube,
} from '../../../platform/kube.ts';

const TAINT = { key: 'startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate', effect: 'NoSchedule' };
const TEAM = { key: 'team', effect: 'NoSchedule' };
const OPERANDS = '/api/v1/namespaces/gpu-gate-operands/pods';
const SECRETS = '/api/v1/namespaces/gpu-gate/secrets';
const POLICIES = '/apis/gpu-gate.dev/v1alpha1/gpupolicies';

let cp: ControlPlane;
type Who = 'kubelet' | 'driver' | 'unbound driver' | 'reconciler' | 'tenant' | 'admin';
let as: Readonly<Record<Who, Kube>>;

const open = async (kubeconfig: string): Promise<Kube> => openKube({ kubeconfig, userAgent: 'attacker' });
const create = <T>(path: string, body: object): Promise<T> => cp.admin.request<T>('POST', path, { body });
const node = (name: string): object => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name,
    labels: { 'gpu-gate.dev/managed': 'true', 'gpu-gate.dev/state': 'failed', team: 'a' },
    annotations: { 'gpu-gate.dev/proof': '{}', note: 'a' },
  },
  spec: { taints: [TAINT, TEAM] },
  status: {
    conditions: [
      { type: 'Ready', status: 'True' },
      { type: 'GPUValidated', status: 'False' },
    ],
  },
});
const pod = (name: string, more: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: { nodeName: 'gpu-0', containers: [{ name: 'c', image: 'example.com/c:1' }], ...more },
});

/** Sends a write that is not stored; resolves to why it was refused, or to '' if it was not. */
async function refusal(
  who: Who,
  method: 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'GET',
  path: string,
  call: CallOptions = {},
): Promise<string> {
  try {
    const query = method === 'GET' ? {} : { query: { dryRun: 'All' } };
    await as[who].request(method, path, { ...query, ...call });
    return '';
  } catch (error) {
    if (error instanceof KubeError) return error.message;
    throw error;
  }
}
const patch = (body: object, contentType = STRATEGIC_PATCH): CallOptions => ({ body, contentType });
const labels = (map: Record<string, string | null>): CallOptions => patch({ metadata: { labels: map } });
const annotations = (map: Record<string, string | null>): CallOptions => patch({ metadata: { annotations: map } });
const condition = (type: string): CallOptions =>
  patch({ status: { conditions: [{ type, status: 'True', reason: 'Forged', message: 'm' }] } });

beforeAll(async () => {
  cp = await startControlPlane({
    binaries: await binariesFromEnvironment(console.log),
    scheduler: false,
    controllerManager: false,
    users: [{ name: 'system:node:gpu-0', groups: ['system:nodes'] }],
  });
  await installChart(cp, 'install', {
    deployments: { create: false },
    rbac: { deleteRejectedPods: true },
    tenants: { refuseOptOut: true, refuseNodeName: true, refuseSchedulers: true, exemptNamespaces: ['exempt'] },
    // Nobody answers there: pods are judged as the webhook's absence leaves them.
    webhook: { url: 'https://127.0.0.1:1/mutate', canaryUrl: 'https://127.0.0.1:1/canary' },
  });
  for (const name of ['gpu-0', 'gpu-1']) await create('/api/v1/nodes', node(name));
  const { metadata } = await create<{ metadata: { name: string; uid: string } }>(
    OPERANDS,
    pod('driver-on-gpu-0', { serviceAccountName: 'gpu-gate-driver' }),
  );
  for (const name of ['tenant', 'exempt']) {
    await create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
    await create(`/api/v1/namespaces/${name}/serviceaccounts`, { metadata: { name: 'default' } });
  }
  await create('/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/roles', {
    metadata: { name: 'author' },
    rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['create', 'get', 'update', 'patch', 'delete'] }],
  });
  await create('/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/rolebindings', {
    metadata: { name: 'author' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'author' },
    subjects: [{ kind: 'ServiceAccount', name: 'default', namespace: 'tenant' }],
  });
  await create('/api/v1/namespaces/tenant/pods', pod('theirs'));
  await create('/api/v1/namespaces/tenant/pods', {
    ...pod('rejected'),
    metadata: {
      name: 'rejected',
      ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'r', uid: '1', controller: true }],
    },
  });
  await cp.admin.request('PATCH', '/api/v1/namespaces/tenant/pods/rejected/status', {
    ...patch({ status: { phase: 'Failed', reason: 'UnexpectedAdmissionError' } }),
  });
  await create(SECRETS, {
    metadata: { name: 'gpu-gate-webhook-tls' },
    type: 'kubernetes.io/tls',
    data: { 'tls.crt': '', 'tls.key': '' },
  });
  as = {
    kubelet: await open(cp.userKubeconfig('system:node:gpu-0')),
    driver: await open(
      await cp.serviceAccountKubeconfig('gpu-gate-operands', 'gpu-gate-driver', {
        name: metadata.name,
        uid: metadata.uid,
      }),
    ),
    'unbound driver': await open(await cp.serviceAccountKubeconfig('gpu-gate-operands', 'gpu-gate-driver')),
    reconciler: await open(await cp.serviceAccountKubeconfig('gpu-gate', 'gpu-gate-reconciler')),
    tenant: await open(await cp.serviceAccountKubeconfig('tenant', 'default')),
    admin: cp.admin,
  };
  // An API server learns of a policy by a watch.
  const first: readonly [Who, string, CallOptions][] = [
    ['driver', '/api/v1/nodes/gpu-1', labels({ x: 'y' })],
    ['reconciler', '/api/v1/nodes/gpu-1', labels({ x: 'y' })],
    ['reconciler', '/api/v1/namespaces/tenant/pods/theirs/status', condition('Other')],
    ['reconciler', `${POLICIES}/default`, patch({ spec: { suspend: true } }, MERGE_PATCH)],
  ];
  for (const [who, path, call] of first)
    await until('the admission policies to be enforced', async () => (await refusal(who, 'PATCH', path, call)) !== '');
});
afterAll(async () => cp?.stop());

describe('the author of a GPU pod, where the values refuse ways past the gate', () => {
  const gpus = { limits: { 'nvidia.com/gpu': '1' } };
  const body = (spec: object = {}, metadata: object = {}, resources: object = gpus): CallOptions => ({
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'p', ...metadata },
      spec: {
        schedulerName: 'gpu-gate-scheduler',
        containers: [{ name: 'c', image: 'example.com/c:1', resources }],
        ...spec,
      },
    },
  });
  const pods = (namespace: string): string => `/api/v1/namespaces/${namespace}/pods`;
  beforeAll(() =>
    until(
      'the policy for tenants to be enforced',
      async () => (await refusal('tenant', 'POST', pods('tenant'), body({ nodeName: 'gpu-0' }))) !== '',
    ),
  );
  it.each<[string, CallOptions, string]>([
    ['opt out', body({}, { labels: { 'gpu-gate.dev/inject': 'false' } }), 'cannot opt out'],
    ['name a node', body({ nodeName: 'gpu-0' }), 'cannot name their node'],
    [
      'use a scheduler that does not ask the extender',
      body({ schedulerName: 'other' }),
      'are placed by gpu-gate-scheduler',
    ],
    ['be created while the webhook is down', body({ schedulerName: 'default-scheduler' }), 'webhook was not reached'],
    [
      'pass as a static pod',
      body({ nodeName: 'gpu-0' }, { annotations: { 'kubernetes.io/config.mirror': 'x' } }),
      'cannot name their node',
    ],
    [
      'hide the request in an init container',
      body({ nodeName: 'gpu-0', initContainers: [{ name: 'i', image: 'example.com/i:1', resources: gpus }] }, {}, {}),
      'cannot name their node',
    ],
  ])('cannot %s', async (_, call, message) => {
    const said = await refusal('tenant', 'POST', pods('tenant'), call);
    expect(said).toContain("ValidatingAdmissionPolicy 'gpu-gate-tenants'");
    expect(said).toContain(message);
  });
  it.each<[string, string, CallOptions]>([
    ['a GPU pod of the injected scheduler', 'tenant', body()],
    ['a pod that asks for no GPU and names its node', 'tenant', body({ nodeName: 'gpu-0' }, {}, {})],
    ['a pod that asks for zero GPUs', 'tenant', body({ nodeName: 'gpu-0' }, {}, { limits: { 'nvidia.com/gpu': '0' } })],
    [
      'anything in an exempt namespace',
      'exempt',
      body({ nodeName: 'gpu-0' }, { labels: { 'gpu-gate.dev/inject': 'false' } }),
    ],
  ])('may still create %s', async (_, namespace, call) =>
    expect(await refusal(namespace === 'exempt' ? 'admin' : 'tenant', 'POST', pods(namespace), call)).toBe(''),
  );
  it('writes no Nodes, no status of pods and no GPUPolicies, by RBAC', async () => {
    expect(await refusal('tenant', 'PATCH', '/api/v1/nodes/gpu-0', labels({ a: 'b' }))).toContain(
      'cannot patch resource "nodes"',
    );
    expect(
      await refusal('tenant', 'PATCH', `${pods('tenant')}/theirs/status`, condition('gpu-gate.dev/node-validated')),
    ).toContain('cannot patch resource "pods/status"');
    expect(
      await refusal('tenant', 'PATCH', `${POLICIES}/default`, patch({ spec: { suspend: true } }, MERGE_PATCH)),
    ).toContain('cannot patch resource "gpupolicies"');
    expect(await refusal('tenant', 'POST', OPERANDS, body())).toContain('cannot create resource "pods"');
  });
});

const NODE_KEYS = "ValidatingAdmissionPolicy 'gpu-gate-node-keys'";

describe('a kubelet', () => {
  const own = '/api/v1/nodes/gpu-0';
  it.each<[string, string, CallOptions, string]>([
    ['a label of gpu-gate', own, labels({ 'gpu-gate.dev/state': 'validated' }), 'labels below gpu-gate.dev/'],
    [
      'a label of gpu-gate by way of the status',
      `${own}/status`,
      labels({ 'gpu-gate.dev/state': 'validated' }),
      'labels below gpu-gate.dev/',
    ],
    ['another label of gpu-gate', own, labels({ 'gpu-gate.dev/deploy.driver': 'x' }), 'labels below gpu-gate.dev/'],
    ['an opt-out', own, labels({ 'gpu-gate.dev/managed': null }), 'labels below gpu-gate.dev/'],
    ['a proof', own, annotations({ 'gpu-gate.dev/proof': '{"at":"now"}' }), 'annotations below gpu-gate.dev/'],
    [
      'a proof by way of the status',
      `${own}/status`,
      annotations({ 'gpu-gate.dev/proof': '{"at":"now"}' }),
      'annotations below',
    ],
    ['the end of a proof', own, annotations({ 'gpu-gate.dev/proof': null }), 'annotations below gpu-gate.dev/'],
    ['our condition', `${own}/status`, condition('GPUValidated'), 'the condition GPUValidated'],
    [
      'the end of our condition',
      `${own}/status`,
      patch({ status: { conditions: [{ type: 'GPUValidated', $patch: 'delete' }] } }),
      'the condition GPUValidated',
    ],
  ])('of its own node cannot write %s', async (_, path, call, message) => {
    const said = await refusal('kubelet', 'PATCH', path, call);
    expect(said).toContain(NODE_KEYS);
    expect(said).toContain(message);
  });

  it.each<[string, string, CallOptions]>([
    ['a label that is not ours', own, labels({ 'example.com/a': 'b' })],
    ['its heartbeat', `${own}/status`, condition('Ready')],
    ['its capacity', `${own}/status`, patch({ status: { capacity: { 'nvidia.com/gpu': '8' } } })],
  ])('of its own node can still write %s', async (_, path, call) =>
    expect(await refusal('kubelet', 'PATCH', path, call)).toBe(''),
  );

  const registration = (more: object): CallOptions => ({
    body: { apiVersion: 'v1', kind: 'Node', metadata: { name: 'gpu-0', ...more }, spec: { taints: [TAINT] } },
  });
  it('registers an opted-in and tainted node, and no proven one', async () => {
    await cp.admin.request('DELETE', own);
    try {
      expect(
        await refusal('kubelet', 'POST', '/api/v1/nodes', registration({ labels: { 'gpu-gate.dev/managed': 'true' } })),
      ).toBe('');
      expect(
        await refusal(
          'kubelet',
          'POST',
          '/api/v1/nodes',
          registration({ labels: { 'gpu-gate.dev/state': 'validated' } }),
        ),
      ).toContain(NODE_KEYS);
      expect(
        await refusal(
          'kubelet',
          'POST',
          '/api/v1/nodes',
          registration({ annotations: { 'gpu-gate.dev/proof': '{}' } }),
        ),
      ).toContain(NODE_KEYS);
    } finally {
      await create('/api/v1/nodes', node('gpu-0'));
    }
  });
});

describe('a driver’s pod', () => {
  it.each<[string, Who, string, CallOptions, string]>([
    [
      'another node’s label',
      'driver',
      '/api/v1/nodes/gpu-1',
      labels({ 'nvidia.com/gpu.deploy.driver': 'x' }),
      'the node that it runs on',
    ],
    [
      'another node’s opt-out',
      'driver',
      '/api/v1/nodes/gpu-1',
      labels({ 'gpu-gate.dev/managed': null }),
      'labels below gpu-gate.dev/',
    ],
    [
      'anything with a token that belongs to no pod',
      'unbound driver',
      '/api/v1/nodes/gpu-0',
      labels({ 'nvidia.com/gpu.deploy.driver': 'x' }),
      'the node that it runs on',
    ],
    [
      'its own node’s state',
      'driver',
      '/api/v1/nodes/gpu-0',
      labels({ 'gpu-gate.dev/state': 'validated' }),
      'labels below gpu-gate.dev/',
    ],
    [
      'its own node’s proof',
      'driver',
      '/api/v1/nodes/gpu-0',
      annotations({ 'gpu-gate.dev/proof': 'x' }),
      'annotations below gpu-gate.dev/',
    ],
    ['a label of others', 'driver', '/api/v1/nodes/gpu-0', labels({ team: 'b' }), 'below nvidia.com/ only'],
    [
      'the end of an annotation of others',
      'driver',
      '/api/v1/nodes/gpu-0',
      annotations({ note: null }),
      'below nvidia.com/ only',
    ],
    [
      'the end of our taint',
      'driver',
      '/api/v1/nodes/gpu-0',
      patch({ spec: { taints: [{ key: 'team', effect: 'NoSchedule' }] } }, MERGE_PATCH),
      'the taint startup-taint',
    ],
    [
      'a taint of another kind',
      'driver',
      '/api/v1/nodes/gpu-0',
      patch({ spec: { taints: [TAINT] } }, MERGE_PATCH),
      'below nvidia.com/ only',
    ],
    ['a cordon', 'driver', '/api/v1/nodes/gpu-0', patch({ spec: { unschedulable: true } }), 'below nvidia.com/ only'],
  ])('cannot write %s', async (_, who, path, call, message) => {
    const said = await refusal(who, 'PATCH', path, call);
    expect(said).toContain(NODE_KEYS);
    expect(said).toContain(message);
  });
  it('writes NVIDIA’s labels of its own node', async () => {
    for (const call of [
      labels({ 'nvidia.com/gpu.deploy.driver': 'pre-installed' }),
      labels({ 'nvidia.com/gpu.deploy.driver': null }),
    ])
      expect(await refusal('driver', 'PATCH', '/api/v1/nodes/gpu-0', call)).toBe('');
  });
  it('lists the pods of its own namespace, and by RBAC of no other', async () => {
    expect(await refusal('driver', 'GET', OPERANDS)).toBe('');
    expect(await refusal('driver', 'GET', '/api/v1/pods')).toContain('cannot list resource "pods"');
    expect(await refusal('driver', 'GET', '/api/v1/namespaces/tenant/pods')).toContain('cannot list resource "pods"');
    expect(await refusal('driver', 'PATCH', '/api/v1/nodes/gpu-0/status', condition('GPUValidated'))).toContain(
      'cannot patch resource "nodes/status"',
    );
  });
});

describe('the reconciler’s account', () => {
  const its = '/api/v1/nodes/gpu-1';
  const theirs = '/api/v1/namespaces/tenant/pods/theirs';
  const NODES = 'gpu-gate-reconciler-nodes';
  const STATUS = 'gpu-gate-reconciler-pod-status';
  const OBJECTS = 'gpu-gate-reconciler-objects';
  const NOTHING = { containerStatuses: [{ name: 'c', ready: true, restartCount: 0, image: 'i', imageID: 'i' }] };
  it.each<[string, string, CallOptions, string]>([
    ['an opt-in', its, labels({ 'gpu-gate.dev/managed': 'false' }), NODES],
    ['a label of others', its, labels({ team: 'b' }), NODES],
    ['the end of a label of others', its, labels({ team: null }), NODES],
    ['an annotation of others', its, annotations({ note: 'b' }), NODES],
    ['a label by way of the status', `${its}/status`, labels({ team: 'b' }), NODES],
    ['a finalizer', its, patch({ metadata: { finalizers: ['example.com/f'] } }), NODES],
    ['a cordon', its, patch({ spec: { unschedulable: true } }), NODES],
    ['a taint of others', its, patch({ spec: { taints: [TAINT] } }, MERGE_PATCH), NODES],
    ['the condition Ready', `${its}/status`, condition('Ready'), NODES],
    [
      'a node’s address',
      `${its}/status`,
      patch({ status: { addresses: [{ type: 'InternalIP', address: '10.0.0.9' }] } }),
      NODES,
    ],
    ['capacity', `${its}/status`, patch({ status: { capacity: { 'nvidia.com/gpu': '8' } } }), NODES],
    [
      'a pod’s address',
      `${theirs}/status`,
      patch({ status: { podIP: '10.0.0.9', podIPs: [{ ip: '10.0.0.9' }] } }),
      STATUS,
    ],
    ['a pod’s phase', `${theirs}/status`, patch({ status: { phase: 'Failed' } }), STATUS],
    ['a pod’s readiness', `${theirs}/status`, condition('Ready'), STATUS],
    ['a pod’s containers', `${theirs}/status`, patch({ status: NOTHING }), STATUS],
    ['a pod’s labels by way of the status', `${theirs}/status`, labels({ app: 'victim' }), STATUS],
    ['a pod’s annotations by way of the status', `${theirs}/status`, annotations({ a: 'b' }), STATUS],
    [
      'a pod’s finalizers by way of the status',
      `${theirs}/status`,
      patch({ metadata: { finalizers: ['a.b/c'] } }),
      STATUS,
    ],
    ['what a policy says', `${POLICIES}/default`, patch({ spec: { suspend: true } }, MERGE_PATCH), OBJECTS],
  ])('cannot write %s', async (_, path, call, policy) =>
    expect(await refusal('reconciler', 'PATCH', path, call)).toContain(`ValidatingAdmissionPolicy '${policy}'`),
  );

  const token = (name: string, more: object = {}): CallOptions => ({
    body: {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'kubernetes.io/service-account-token',
      metadata: {
        ...(name === '' ? {} : { name }),
        ...more,
        annotations: { 'kubernetes.io/service-account.name': 'gpu-gate-scheduler' },
      },
    },
  });
  it.each<[string, string, CallOptions, string]>([
    [
      'a token of the scheduler, under a name of its own',
      SECRETS,
      token('gpu-gate-canary-tls'),
      'of type kubernetes.io/tls only',
    ],
    ['a token of the scheduler, under another name', SECRETS, token('x'), 'of type kubernetes.io/tls only'],
    [
      'a token of the scheduler, under a generated name',
      SECRETS,
      token('', { generateName: 'gpu-gate-ca' }),
      'of type kubernetes.io/tls only',
    ],
    [
      'a TLS Secret of another name',
      SECRETS,
      { body: { type: 'kubernetes.io/tls', metadata: { name: 'x' }, data: { 'tls.crt': '', 'tls.key': '' } } },
      'only those of gpu-gate’s certificates'.replace('’', "'"),
    ],
  ])('cannot make %s', async (_, path, call, message) => {
    const said = await refusal('reconciler', 'POST', path, call);
    expect(said).toContain(`ValidatingAdmissionPolicy '${OBJECTS}'`);
    expect(said).toContain(message);
  });
  it('cannot store a ConfigMap of another name', async () => {
    const configMap = { body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'x' } }, query: {} };
    expect(await refusal('reconciler', 'POST', '/api/v1/namespaces/gpu-gate/configmaps', configMap)).toContain(OBJECTS);
    expect(
      await refusal('reconciler', 'POST', '/api/v1/namespaces/gpu-gate/configmaps', { body: configMap.body }),
    ).toBe('');
  });
  it('deletes pods that a kubelet rejected, and no other pod of a tenant', async () => {
    expect(await refusal('reconciler', 'DELETE', theirs)).toContain(OBJECTS);
    expect(await refusal('reconciler', 'DELETE', '/api/v1/namespaces/tenant/pods/rejected')).toBe('');
    expect(await refusal('reconciler', 'DELETE', `${OPERANDS}/driver-on-gpu-0`)).toBe('');
  });

  it.each<[string, string, CallOptions]>([
    ['its labels', its, labels({ 'gpu-gate.dev/state': 'validated', 'gpu-gate.dev/deploy.driver': 'r' })],
    [
      'its annotations',
      its,
      annotations({ 'gpu-gate.dev/proof': '{"a":1}', 'gpu-gate.dev/closed': 'why', 'gpu-gate.dev/wake': '1' }),
    ],
    ['its condition', `${its}/status`, condition('GPUValidated')],
    ['its readiness condition', `${theirs}/status`, condition('gpu-gate.dev/node-validated')],
    [
      'a policy’s finalizers',
      `${POLICIES}/default`,
      patch({ metadata: { finalizers: ['gpu-gate.dev/opt-out-nodes'] } }, MERGE_PATCH),
    ],
    ['a policy’s status', `${POLICIES}/default/status`, patch({ status: { nodes: { validated: 1 } } }, MERGE_PATCH)],
  ])('writes %s', async (_, path, call) => expect(await refusal('reconciler', 'PATCH', path, call)).toBe(''));

  it('takes its taint away, and leaves the others', async () => {
    const { spec } = await cp.admin.request<{ spec: { taints: { key: string }[] } }>('GET', its);
    const others = spec.taints.filter(({ key }) => key !== TAINT.key);
    expect(await refusal('reconciler', 'PATCH', its, patch({ spec: { taints: others } }, MERGE_PATCH))).toBe('');
    const fewer = patch({ spec: { taints: others.slice(1) } }, MERGE_PATCH);
    expect(await refusal('reconciler', 'PATCH', its, fewer)).toContain(NODES);
  });
});
