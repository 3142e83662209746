// A policy that evicts pods where a proof was withdrawn, on a real control plane: Kubernetes' own
// controller evicts by the rule with NoExecute, and only there.
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { createClaimPod, createTemplate, exactly } from '../../../lab/cluster/devices.ts';
import { startGate, until, untilEnforcing } from '../../../lab/cluster/gate.ts';
import { isNotFound } from '../../../platform/kube.ts';
import { isReady, viewOf } from '../../builders/view.ts';
import { isBefore, TAINTS_DEVICES } from '../../support/kubernetes.ts';

let cluster: Cluster;
const { annotate, gpuPod, kubectl, node, pod, validated } = viewOf(() => cluster);

const effects = async (): Promise<readonly string[]> =>
  (
    await cluster.admin.request<{ items: { spec: { taint: { effect: string } } }[] }>(
      'GET',
      '/apis/resource.k8s.io/v1/devicetaintrules',
    )
  ).items
    .map(({ spec }) => spec.taint.effect)
    .toSorted();
const effectsAre = (...expected: readonly string[]): Promise<unknown> =>
  until(
    `rules with ${expected.join(', ') || 'no effect'}`,
    async () => (await effects()).join() === expected.join(),
    60_000,
    async () => (await effects()).join(),
  );
const runs = (name: string): Promise<unknown> =>
  until(`${name} to be Ready`, async () => isReady(await pod(name)), 60_000);

beforeAll(async () => {
  cluster = await startCluster({ nodes: 1, say: console.log });
  await createTemplate(cluster.admin, 'gpu', exactly('gpu.nvidia.com'));
  await startGate(cluster, {
    scheduler: false,
    values: {
      scheduler: { create: false },
      policy: { spec: { allocation: 'DRA', startupTaint: 'Off', withdrawnPods: 'Evict' } },
    },
  });
  await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
  await validated('gpu-0');
  await untilEnforcing(cluster);
  await createClaimPod(cluster.admin, 'by-claim', { resourceClaimTemplateName: 'gpu' });
  await gpuPod('by-resource', 'gpu-0');
  for (const name of ['by-claim', 'by-resource']) await runs(name);
}, 240_000);
afterAll(async () => cluster?.stop());

it.skipIf(isBefore(TAINTS_DEVICES))('a node that is only held evicts nobody', async () => {
  const before = (await pod('by-claim')).metadata.uid;
  await annotate('gpu-0', 'gpu-gate.dev/hold=test');
  await effectsAre('NoSchedule');
  await kubectl('annotate', 'node', 'gpu-0', 'gpu-gate.dev/hold-');
  await effectsAre();
  expect((await pod('by-claim')).metadata.uid).toBe(before);
});

it.skipIf(isBefore(TAINTS_DEVICES))(
  'where the proof is withdrawn, pods are evicted that ask by claim and by a mapped resource',
  async () => {
    onTestFinished(() => void kubectl('annotate', 'node', 'gpu-0', 'sim.gpu-gate.dev/driver-fails-'));
    await annotate('gpu-0', 'sim.gpu-gate.dev/driver-fails=out of memory', 'sim.gpu-gate.dev/restart=driver:1');
    await effectsAre('NoExecute', 'NoSchedule');
    expect((await node('gpu-0')).metadata.annotations['gpu-gate.dev/proof']).toBeUndefined();
    for (const name of ['by-claim', 'by-resource'])
      await until(`${name} to be evicted`, () => pod(name).then(() => false, isNotFound), 60_000);
    // Proven again, it has no rule, and evicts nobody.
    await kubectl('annotate', 'node', 'gpu-0', 'sim.gpu-gate.dev/driver-fails-');
    await validated('gpu-0');
    await effectsAre();
    await createClaimPod(cluster.admin, 'next', { resourceClaimTemplateName: 'gpu' });
    await runs('next');
  },
);
