// GPUPolicies on a real control plane: pools, conflicts, nodes that are not opted in, suspension,
// external components, the breaker.
import { Agent } from 'node:https';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { MERGE_PATCH } from '../../../platform/kube.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { schedulerClient, startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { askExtender } from '../../../lab/cluster/ask-extender.ts';
import { conditionOf, viewOf } from '../../builders/view.ts';

let cluster: Cluster;
let gate: Gate;
const { node, pod, kubectl, annotate, state, validated, gpuPod, gone, goneIfThere, restore } = viewOf(() => cluster);

const TIMES = { backoff: { initial: '1s', max: '4s' } };
const POLICIES = '/apis/gpu-gate.dev/v1alpha1/gpupolicies';
interface Policy {
  spec: Record<string, unknown>;
  status?: {
    enforcingSince?: string;
    nodes?: Record<string, number>;
    conditions?: { type: string; status: string; reason: string; message: string }[];
  };
}
const policy = (name: string): Promise<Policy> => cluster.admin.request('GET', `${POLICIES}/${name}`);
const makePolicy = (name: string, spec: object): Promise<unknown> =>
  cluster.admin.request('POST', POLICIES, {
    body: { apiVersion: 'gpu-gate.dev/v1alpha1', kind: 'GPUPolicy', metadata: { name }, spec },
  });
const edit = (name: string, patch: object): Promise<unknown> =>
  cluster.admin.request('PATCH', `${POLICIES}/${name}`, { contentType: MERGE_PATCH, body: patch });
const says = (name: string, type: string, status: string): Promise<string> =>
  until(`policy ${name} to say ${type}=${status}`, async () => {
    const found = (await policy(name)).status?.conditions?.find((c) => c.type === type);
    return found?.status === status && `${found.reason}: ${found.message}`;
  });
const figure = async (name: string): Promise<number> =>
  Number(
    / (\S+)$/.exec((await gate.metrics()).split('\n').find((line) => line.startsWith(name)) ?? '')?.[1] ?? Number.NaN,
  );

beforeAll(async () => {
  cluster = await startCluster({ nodes: 5, say: console.log });
  gate = await startGate(cluster, {
    values: { policy: { spec: { nodeSelector: { pool: 'a' }, validation: TIMES, bringUp: { maxConcurrent: '5' } } } },
  });
  for (const name of POOL) await kubectl('label', 'node', name, 'pool=a');
  first = await firstOptIns();
});
afterEach(async () => {
  await edit('default', { spec: { suspend: false, unmanagedNodes: 'Auto' } });
  await restore(...POOL);
});
afterAll(async () => cluster?.stop());

/** Nodes of the policy `default`. */
const POOL = ['gpu-0', 'gpu-1', 'gpu-2', 'gpu-3'];
/** What the policy said before and after the first of its nodes was opted in. */
let first: Awaited<ReturnType<typeof firstOptIns>>;
async function firstOptIns() {
  const audits = await says('default', 'Enforcing', 'False');
  for (const name of POOL) await kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
  await says('default', 'Enforcing', 'True');
  const since = (await policy('default')).status?.enforcingSince;
  for (const name of POOL) await validated(name);
  return { audits, since, sinceAfter: (await policy('default')).status?.enforcingSince };
}
/** A node that is deleted when the test ends. */
async function oneMoreNode(labels: Readonly<Record<string, string>> = {}): Promise<string> {
  const [name] = await cluster.addNodes(1, labels);
  if (name === undefined) throw new Error('no node');
  onTestFinished(() => kubectl('delete', 'node', name).then(() => undefined));
  return name;
}

describe('policies', () => {
  it('a node that no policy selects says so, and with which command to go on', async () => {
    const name = await oneMoreNode({ 'gpu-gate.dev/managed': 'true' });
    await until('the condition NoPolicy', async () => {
      const { status } = await node(name);
      return status.conditions.find(({ type }) => type === 'GPUValidated')?.reason === 'NoPolicy';
    });
  });

  it('Auto: installed, it audits; it enforces with the first node opted in, and says since when', async () => {
    expect(first.audits).toMatch(/^NoNodeOptedIn/);
    expect(first.since).toBeDefined();
    expect(first.sinceAfter).toBe(first.since);
    await says('default', 'Ready', 'True');
  });
});

describe('a second policy', () => {
  let toolkit: string | undefined;
  beforeAll(async () => {
    await makePolicy('pool-b', {
      nodeSelector: { pool: 'b' },
      validation: TIMES,
      components: {
        driver: { version: '580.1.1' },
        dcgmExporter: { mode: 'external' },
        toolkit: { mode: 'external', podSelector: { namespace: 'default', matchLabels: { app: 'wrong-name' } } },
      },
    });
    await kubectl('label', 'node', 'gpu-4', 'pool=b', 'gpu-gate.dev/managed=true');
    await until('the node to wait for the external toolkit', async () =>
      (await node('gpu-4')).status.conditions
        .find(({ type }) => type === 'GPUValidated')
        ?.message.includes('waiting for a pod of the external toolkit'),
    );
    toolkit = await state('gpu-4');
    await cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
      body: {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'their-toolkit', labels: { app: 'their-toolkit' } },
        spec: {
          nodeName: 'gpu-4',
          tolerations: [{ operator: 'Exists' }],
          containers: [{ name: 'c', image: 'example/toolkit:1' }],
        },
      },
    });
    // Named rightly, with no restart of gpu-gate: the pod was none of its business until now.
    await edit('pool-b', {
      spec: {
        components: { toolkit: { podSelector: { namespace: 'default', matchLabels: { app: 'their-toolkit' } } } },
      },
    });
    await validated('gpu-4');
  });
  afterEach(() => restore('gpu-4'));

  it('has a pool of its own, with operands of its own; an external component is taken by its pod', async () => {
    expect(toolkit).toBe('toolkit');
    const daemonSets = await kubectl(
      'get',
      'daemonsets',
      '-n',
      'gpu-gate-operands',
      '-o',
      'jsonpath={.items[*].spec.template.spec.containers[0].image}',
    );
    expect(daemonSets).toContain('580.1.1');
    expect(daemonSets).toContain('595.91.07');
    const proof = JSON.parse((await node('gpu-4')).metadata.annotations['gpu-gate.dev/proof'] ?? '{}') as {
      driver: string;
    };
    expect(proof.driver).toBe('580.1.1');
  });

  it('selects a node of another policy: the older has it, both report the conflict', async () => {
    onTestFinished(() => kubectl('delete', 'gpupolicy', 'overlaps', '--ignore-not-found').then(() => undefined));
    await makePolicy('overlaps', { nodeSelector: { pool: 'b' }, validation: TIMES });
    expect(await says('overlaps', 'Conflict', 'True')).toContain('pool-b');
    expect(await says('pool-b', 'Conflict', 'True')).toContain('overlaps');
    expect((await node('gpu-4')).metadata.annotations['gpu-gate.dev/node-policy']).toBe('pool-b');
    await kubectl('delete', 'gpupolicy', 'overlaps');
    await says('pool-b', 'Conflict', 'False');
  });

  it('keeps its nodes for GPU pods of its own', async () => {
    onTestFinished(() => goneIfThere('other-pool'));
    await gpuPod('other-pool', 'gpu-4');
    await until('the extender’s reason', async () => {
      const message = conditionOf(await pod('other-pool'), 'PodScheduled')?.message ?? '';
      return message.includes('other GPU policy') && message;
    });
  });

  it('validates an idle node again after validation.interval', async () => {
    onTestFinished(() => edit('pool-b', { spec: { validation: { interval: '0s' } } }).then(() => undefined));
    const before = (await node('gpu-4')).metadata.annotations['gpu-gate.dev/proof'];
    await edit('pool-b', { spec: { validation: { interval: '3s' } } });
    await until('a new proof', async () => {
      const { annotations } = (await node('gpu-4')).metadata;
      return annotations['gpu-gate.dev/proof'] !== undefined && annotations['gpu-gate.dev/proof'] !== before;
    });
  });
});

describe('policies in use', () => {
  it('rejectedPods: Delete removes what a kubelet rejected after a reboot', async () => {
    // By the chart's value: it also gives the permission to delete pods, which gpu-gate does not
    // have otherwise.
    onTestFinished(async () => {
      await kubectl('delete', 'deployment', 'rejected', '--ignore-not-found');
      await gate.upgrade({ policy: { spec: { rejectedPods: 'Report' } } });
    });
    await gate.upgrade({ policy: { spec: { rejectedPods: 'Delete' } } });
    await kubectl('create', 'deployment', 'rejected', '--image', 'example/train:1', '--replicas', '1');
    await cluster.admin.request('PATCH', '/apis/apps/v1/namespaces/default/deployments/rejected', {
      contentType: 'application/strategic-merge-patch+json',
      body: {
        spec: {
          template: {
            spec: {
              nodeSelector: { 'kubernetes.io/hostname': 'gpu-3' },
              containers: [{ name: 'train', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
            },
          },
        },
      },
    });
    const pods = async (): Promise<string> =>
      kubectl(
        'get',
        'pods',
        '-l',
        'app=rejected',
        '-o',
        'custom-columns=U:.metadata.uid,N:.spec.nodeName,P:.status.phase,R:.status.reason',
        '--no-headers',
      );
    await until('the pod to run', async () => /gpu-3\s+Running/.test(await pods()));
    await annotate('gpu-3', 'sim.gpu-gate.dev/reboot=rejecting');
    await until(
      'the Event',
      async () =>
        (await kubectl('get', 'events', '--field-selector', 'reason=GPUPodRejected', '-o', 'name')).trim() !== '',
    );
    await until('a new pod to run, and no rejected one to be left', async () => {
      const now = await pods();
      return /gpu-3\s+Running/.test(now) && !/Failed/.test(now);
    });
  });

  it('suspend: nothing injected, nothing refused, gates True; resumed it goes on', async () => {
    onTestFinished(async () => {
      for (const name of ['held', 'plain']) await goneIfThere(name);
    });
    await annotate('gpu-0', 'gpu-gate.dev/hold=test');
    await gpuPod('held', 'gpu-0');
    await until('the refusal', async () =>
      conditionOf(await pod('held'), 'PodScheduled')?.message?.includes('node held'),
    );
    await edit('default', { spec: { suspend: true } });
    await until('the pod to be let through, and its gate to be True', async () => {
      const held = await pod('held');
      const said = conditionOf(held, 'gpu-gate.dev/node-validated');
      return held.spec.nodeName === 'gpu-0' && said?.status === 'True' && said.reason === 'PolicySuspended';
    });
    expect((await gpuPod('plain', 'gpu-0')).spec.readinessGates).toBeUndefined();
    await edit('default', { spec: { suspend: false } });
    await says('default', 'Enforcing', 'True');
  });

  it.each([
    ['Deny', false],
    ['Allow', true],
  ] as const)('unmanagedNodes %s: a GPU pod on a node that is not opted in', async (unmanagedNodes, goes) => {
    const name = await oneMoreNode();
    await cluster.admin.request('PATCH', `/api/v1/nodes/${name}/status`, {
      contentType: MERGE_PATCH,
      body: { status: { capacity: { 'nvidia.com/gpu': '8' }, allocatable: { 'nvidia.com/gpu': '8' } } },
    });
    await edit('default', { spec: { unmanagedNodes } });
    const asks = `on-${unmanagedNodes.toLowerCase()}`;
    // The extender learns of the edit by its watch: a pod made too soon would be judged by the
    // old word.
    // As a scheduler asks: it must know the edit before the pod is there.
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ...(await schedulerClient(cluster)) });
    onTestFinished(() => agent.destroy());
    await until('the extender to know', async () => {
      const { answer } = await askExtender(gate.extenderPort, agent, [name]);
      return answer.NodeNames.length > 0 === goes;
    });
    await gpuPod(asks, name);
    if (goes) await until('the pod to be bound there', async () => (await pod(asks)).spec.nodeName === name);
    else
      await until('the refusal', async () => {
        const message = conditionOf(await pod(asks), 'PodScheduled')?.message ?? '';
        return /not opted in/.test(message);
      });
    await gone(asks);
  });

  it('a startup taint of the node’s template is taken over, and goes with the proof', async () => {
    const name = await oneMoreNode({ pool: 'a' });
    await kubectl('taint', 'node', name, 'startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate=:NoSchedule');
    await kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
    await validated(name);
    await until('the taint to go', async () => ((await node(name)).spec.taints ?? []).length === 0);
  });

  it('the breaker: drivers of all nodes fail at once; they keep their proofs, closed, until released', async () => {
    const names = POOL;
    const annotations = { 'sim.gpu-gate.dev/driver-fails': 'boom', 'sim.gpu-gate.dev/restart': 'driver:breaker' };
    await Promise.all(
      names.map((name) =>
        cluster.admin.request('PATCH', `/api/v1/nodes/${name}`, {
          contentType: MERGE_PATCH,
          body: { metadata: { annotations } },
        }),
      ),
    );
    await until('the breaker to trip', async () => (await figure('gpu_gate_breaker_tripped')) === 1);
    const kept = await until('nodes that are kept, closed', async () => {
      const all = await Promise.all(names.map(async (name) => (await node(name)).metadata.annotations));
      const closed = all.filter(
        (a) => a['gpu-gate.dev/closed'] === 'circuit breaker' && a['gpu-gate.dev/proof'] !== undefined,
      );
      return closed.length >= 3 && closed.length;
    });
    console.log(`breaker: ${kept} of ${names.length} proofs kept`);
    await edit('default', { metadata: { annotations: { 'gpu-gate.dev/breaker-release': '1' } } });
    await until('every proof to be withdrawn', async () => {
      const all = await Promise.all(
        names.map(async (name) => (await node(name)).metadata.annotations['gpu-gate.dev/proof']),
      );
      return all.every((proof) => proof === undefined);
    });
    await until('the gauge to fall', async () => (await figure('gpu_gate_breaker_tripped')) === 0);
  });
});

it('Auto: a node whose GPUs come from a ResourceSlice is waited for, until the slice is gone', async () => {
  const slices = '/apis/resource.k8s.io/v1/resourceslices';
  const makeNode = (name: string, labels: object): Promise<unknown> =>
    cluster.admin.request('POST', '/api/v1/nodes', {
      body: { apiVersion: 'v1', kind: 'Node', metadata: { name, labels: { pool: 'dra', ...labels } } },
    });
  await makeNode('by-dra', {});
  await cluster.admin.request('POST', slices, {
    body: {
      apiVersion: 'resource.k8s.io/v1',
      kind: 'ResourceSlice',
      metadata: { name: 'by-dra-gpus' },
      spec: {
        driver: 'gpu.nvidia.com',
        nodeName: 'by-dra',
        pool: { name: 'by-dra', generation: 1, resourceSliceCount: 1 },
        devices: [{ name: 'gpu-0' }],
      },
    },
  });
  await makePolicy('dra', { nodeSelector: { pool: 'dra' }, validation: TIMES });
  await says('dra', 'Enforcing', 'False');
  await makeNode('opted-in', { 'gpu-gate.dev/managed': 'true' });
  await until(
    'the policy to wait for the node',
    async () =>
      (await says('dra', 'Enforcing', 'False')).startsWith('NodesNotValidated: ') &&
      (await says('dra', 'Enforcing', 'False')).includes('by-dra'),
  );
  await cluster.admin.request('DELETE', `${slices}/by-dra-gpus`);
  await says('dra', 'Enforcing', 'True');
  for (const name of ['by-dra', 'opted-in']) await cluster.admin.request('DELETE', `/api/v1/nodes/${name}`);
  await kubectl('delete', 'gpupolicy', 'dra');
});
