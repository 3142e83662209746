// A policy that allocates by claim, on a real control plane: the simulated DRA driver publishes the
// node's devices once it is Ready, gpu-gate's own claim is allocated by Kubernetes, and a user's
// pod waits until then.
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { createClaimPod, createTemplate, exactly } from '../../../lab/cluster/devices.ts';
import { startGate, until } from '../../../lab/cluster/gate.ts';
import { jsonLog } from '../../../platform/log.ts';
import { STRATEGIC_PATCH } from '../../../platform/kube.ts';
import { reflector } from '../../../platform/reflector.ts';
import { isReady, viewOf } from '../../builders/view.ts';
import { isBefore, MAPS_RESOURCES } from '../../support/kubernetes.ts';

const API = '/apis/resource.k8s.io/v1';
let cluster: Cluster;
const { annotate, gone, gpuPod, kubectl, node, pod, validated } = viewOf(() => cluster);
/** Users' pods, by claim and by the resource that the class maps. */
const USERS = isBefore(MAPS_RESOURCES) ? ['user'] : ['user', 'mapped'];
/** States of gpu-0 in the order in which the label had them. */
const seen: string[] = [];
const stop = new AbortController();

const condition = async (name: string): Promise<{ reason: string; message: string } | undefined> =>
  (await node(name)).status.conditions.find(({ type }) => type === 'GPUValidated');
const closes = (name: string, reason: string): Promise<unknown> =>
  until(
    `${name} to be closed: ${reason}`,
    async () => {
      const { annotations } = (await node(name)).metadata;
      return annotations['gpu-gate.dev/closed'] !== undefined && (await condition(name))?.message.includes(reason);
    },
    60_000,
    async () => JSON.stringify(await condition(name)),
  );
const proofOf = async (name: string): Promise<{ at: string; components: Record<string, { started: string }> }> =>
  JSON.parse((await node(name)).metadata.annotations['gpu-gate.dev/proof'] ?? 'null') as never;
const templates = async (): Promise<readonly string[]> =>
  (
    await cluster.admin.request<{ items: { metadata: { name: string } }[] }>(
      'GET',
      `${API}/namespaces/gpu-gate-operands/resourceclaimtemplates`,
    )
  ).items.map(({ metadata }) => metadata.name);

beforeAll(async () => {
  cluster = await startCluster({ nodes: 2, say: console.log });
  await createTemplate(cluster.admin, 'gpu', exactly('gpu.nvidia.com'));
  // Another installer's device plugin serves the GPUs of gpu-1.
  await cluster.admin.request('PATCH', '/api/v1/nodes/gpu-1/status', {
    contentType: STRATEGIC_PATCH,
    body: { status: { capacity: { 'nvidia.com/gpu': '8' }, allocatable: { 'nvidia.com/gpu': '8' } } },
  });
  const labels = reflector<string>({
    kube: cluster.admin,
    log: jsonLog('error', () => undefined),
    path: '/api/v1/nodes',
    query: { fieldSelector: 'metadata.name=gpu-0' },
    trim: (raw: { metadata: { labels?: Record<string, string> } }) => raw.metadata.labels?.['gpu-gate.dev/state'] ?? '',
    onChange(_, before, after) {
      if (after !== undefined && after !== '' && after !== before) seen.push(after);
    },
  });
  labels.start(stop.signal);
  await startGate(cluster, {
    scheduler: false,
    values: {
      scheduler: { create: false },
      policy: { spec: { allocation: 'DRA', unmanagedNodes: 'Deny', bringUp: { maxConcurrent: '2' } } },
    },
  });
}, 180_000);
afterAll(async () => {
  stop.abort();
  await cluster?.stop();
});

describe('a node of a policy with allocation: DRA', () => {
  it('walks to validated by the states of the DRA driver', { timeout: 120_000 }, async () => {
    await createClaimPod(cluster.admin, 'user', { resourceClaimTemplateName: 'gpu' });
    if (USERS.includes('mapped')) await gpuPod('mapped', 'gpu-0');
    await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
    await validated('gpu-0');
    expect(seen).toEqual(['toolkit', 'driver', 'driver-validation', 'dra-driver', 'dra-validation', 'validated']);
    expect(Object.keys((await proofOf('gpu-0')).components)).toEqual(['toolkit', 'driver', 'dra-driver']);
    expect(await condition('gpu-0')).toMatchObject({
      reason: 'Validated',
      message: expect.stringContaining('driver and DRA driver validated'),
    });
  });

  it('users’ pods that waited start there, by claim and by the resource that the class maps', async () => {
    for (const name of USERS) {
      await until(`${name} to be Ready`, async () => isReady(await pod(name)), 60_000);
      expect((await pod(name)).spec.nodeName).toBe('gpu-0');
    }
  });

  it('closes while its pool is not complete, and is validated again', { timeout: 120_000 }, async () => {
    onTestFinished(() => void kubectl('annotate', 'node', 'gpu-0', 'sim.gpu-gate.dev/missing-slices-'));
    const before = await proofOf('gpu-0');
    await annotate('gpu-0', 'sim.gpu-gate.dev/missing-slices=1');
    await closes('gpu-0', 'waiting for pool gpu-0 of gpu.nvidia.com to be complete: 1 of 2 ResourceSlices');
    await kubectl('annotate', 'node', 'gpu-0', 'sim.gpu-gate.dev/missing-slices-');
    await validated('gpu-0');
    expect((await proofOf('gpu-0')).at).not.toBe(before.at);
  });

  it('closes when the DRA driver restarts, and is validated again', { timeout: 120_000 }, async () => {
    const before = await proofOf('gpu-0');
    await annotate('gpu-0', 'sim.gpu-gate.dev/validation-seconds=3', 'sim.gpu-gate.dev/restart=dra-driver:1');
    await closes('gpu-0', 'dra-');
    await annotate('gpu-0', 'sim.gpu-gate.dev/validation-seconds=1');
    await validated('gpu-0');
    expect((await proofOf('gpu-0')).components['dra-driver']?.started).not.toBe(
      before.components['dra-driver']?.started,
    );
    // Pods that ran have been fine all the while.
    expect(isReady(await pod('user'))).toBe(true);
  });

  it('loses its proof by a reboot, and gets another one', { timeout: 120_000 }, async () => {
    await annotate('gpu-0', 'sim.gpu-gate.dev/reboot=1');
    await until('the proof to go', async () => (await proofOf('gpu-0')) === null, 60_000);
    await validated('gpu-0');
    await until('its pod to be Ready again', async () => isReady(await pod('user')), 60_000);
  });

  it('where a device plugin serves the GPUs already, is refused, by name', async () => {
    await kubectl('label', 'node', 'gpu-1', 'gpu-gate.dev/managed=true');
    await until(
      'gpu-1 to be refused',
      async () => (await condition('gpu-1'))?.reason === 'PreflightFailedOtherAllocation',
    );
    expect((await condition('gpu-1'))?.message).toContain('a device plugin offers 8 nvidia.com/gpu');
  });

  it(
    'once opted out, leaves neither labels nor slices, and the claim template goes with the policy',
    { timeout: 120_000 },
    async () => {
      for (const name of USERS) await gone(name);
      expect(await templates()).toHaveLength(1);
      await kubectl('delete', 'gpupolicy', 'default', '--wait=false');
      await until(
        'the policy to be gone',
        async () => (await cluster.kubectl(['get', 'gpupolicy', 'default'])).code !== 0,
        90_000,
      );
      await until('the template to be gone', async () => (await templates()).length === 0);
      const slices = await cluster.admin.request<{ items: unknown[] }>('GET', `${API}/resourceslices`);
      expect(slices.items).toEqual([]);
      expect(Object.keys((await node('gpu-0')).metadata.labels).filter((key) => key.includes('/deploy.'))).toEqual([]);
    },
  );
});
