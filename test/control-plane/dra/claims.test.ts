// Pods that ask for GPUs by Dynamic Resource Allocation, on a real control plane: real scheduler,
// real claim controller, hand-written ResourceSlices. No DeviceTaintRules here: webhook, extender
// and reconciler alone.
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import {
  createClaim,
  createClaimPod,
  createClass,
  createPod,
  createTemplate,
  exactly,
  firstOf,
  GPU_DRIVER,
  publishSlice,
} from '../../../lab/cluster/devices.ts';
import { startGate, until, untilEnforcing, type Gate } from '../../../lab/cluster/gate.ts';
import { conditionOf, viewOf, type Pod } from '../../builders/view.ts';
import { isBefore, MAPS_RESOURCES } from '../../support/kubernetes.ts';
import { story } from '../../support/story.ts';

interface ClaimPod extends Pod {
  readonly metadata: Pod['metadata'] & { readonly labels?: Record<string, string> };
  readonly spec: Pod['spec'] & { readonly schedulerName?: string };
}

let cluster: Cluster;
let gate: Gate;
const { explain, kubectl, annotate, validated, pod: anyPod } = viewOf(() => cluster);
const pod = (name: string): Promise<ClaimPod> => anyPod(name);

const calls = async (outcome: string, reason: string): Promise<number> => {
  const line = (await gate.metrics())
    .split('\n')
    .find((one) => one.startsWith(`gpu_gate_admission_total{outcome="${outcome}",reason="${reason}"}`));
  return Number(line?.split(' ').at(-1) ?? 0);
};
const waitsFor = (name: string, reason: string): Promise<unknown> =>
  until(
    `${name} to wait for "${reason}"`,
    async () => {
      const { spec, status } = await pod(name);
      const scheduled = status.conditions?.find(({ type }) => type === 'PodScheduled') as
        | { message?: string }
        | undefined;
      return spec.nodeName === undefined && scheduled?.message?.includes(reason) === true;
    },
    undefined,
    async () => JSON.stringify((await pod(name)).status.conditions),
  );
const boundTo = (name: string, node: string): Promise<unknown> =>
  until(
    `${name} to be bound to ${node}`,
    async () => (await pod(name)).spec.nodeName === node,
    undefined,
    async () => JSON.stringify((await pod(name)).status.conditions),
  );
/** Every shape, by the name of its pod. */
const SHAPES: Readonly<Record<string, () => Promise<unknown>>> = {
  template: () => createClaimPod(cluster.admin, 'template', { resourceClaimTemplateName: 'gpu' }),
  claim: () => createClaimPod(cluster.admin, 'claim', { resourceClaimName: 'shared' }),
  alternatives: () => createClaimPod(cluster.admin, 'alternatives', { resourceClaimTemplateName: 'either' }),
  ...(isBefore(MAPS_RESOURCES)
    ? {}
    : {
        mapped: () => createPod(cluster.admin, 'mapped', { resources: { limits: { 'example.com/gpu': '1' } } }),
        implicit: () =>
          createPod(cluster.admin, 'implicit', {
            resources: { limits: { 'deviceclass.resource.kubernetes.io/gpu.nvidia.com': '1' } },
          }),
      }),
};

beforeAll(async () => {
  cluster = await startCluster({ nodes: 2, say: console.log });
  const { admin } = cluster;
  await createClass(admin, 'gpu.nvidia.com', GPU_DRIVER, 'example.com/gpu');
  await createClass(admin, 'mig.nvidia.com', 'without-devices.example.com');
  await createClass(admin, 'fpga', 'fpga.example.com', 'example.com/fpga');
  await publishSlice(admin, 'gpu-1', { driver: 'fpga.example.com' });
  await createTemplate(admin, 'gpu', exactly('gpu.nvidia.com'));
  await createTemplate(admin, 'either', firstOf('mig.nvidia.com', 'gpu.nvidia.com'));
  await createTemplate(admin, 'fpga', exactly('fpga'));
  await createClaim(admin, 'shared', exactly('gpu.nvidia.com'));
  gate = await startGate(cluster, {
    values: {
      // The startup taint would keep these pods off before the extender is asked.
      policy: { spec: { allocation: 'DRA', deviceTaints: 'Off', startupTaint: 'Off' } },
      draDriver: { deviceClasses: false },
    },
  });
  // The walk stays at the driver until a test lets it go on.
  await annotate('gpu-0', 'sim.gpu-gate.dev/driver-seconds=3600');
  await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
  await untilEnforcing(cluster);
  // A node with GPUs that is not validated would keep the policy auditing.
  await publishSlice(admin, 'gpu-0');
});
afterAll(async () => cluster?.stop());

/** A node before its proof, and after it. */
const chapter = story();

describe('while the node is not proven', () => {
  for (const [name, make] of Object.entries(SHAPES))
    chapter(`a pod that asks by ${name} waits, with the reason`, async () => {
      await make();
      await waitsFor(name, 'GPU stack not validated: driver');
      const { metadata, spec } = await pod(name);
      expect(metadata.labels?.['gpu-gate.dev/injected']).toBe('true');
      expect(spec.schedulerName).toBe('gpu-gate-scheduler');
      expect(spec.readinessGates).toEqual([{ conditionType: 'gpu-gate.dev/node-validated' }]);
      expect(spec.runtimeClassName).toBeUndefined();
    });

  chapter('a pod whose template comes later is scheduled by the gate’s scheduler, which sees the claim', async () => {
    await createClaimPod(cluster.admin, 'late', { resourceClaimTemplateName: 'late' });
    const { spec } = await pod('late');
    expect(spec.schedulerName).toBe('gpu-gate-scheduler');
    expect(spec.readinessGates).toBeUndefined();
    await createTemplate(cluster.admin, 'late', exactly('gpu.nvidia.com'));
    await waitsFor('late', 'GPU stack not validated: driver');
  });

  chapter(
    'claims for other devices and pods without any are left alone, and cost one call where CEL cannot tell',
    async () => {
      const before = await calls('left', 'no-gpu');
      await createPod(cluster.admin, 'plain', {});
      expect(await calls('left', 'no-gpu')).toBe(before);
      await createClaimPod(cluster.admin, 'other-claim', { resourceClaimTemplateName: 'fpga' });
      expect(await calls('left', 'no-gpu')).toBe(before + 1);
      await createPod(cluster.admin, 'other-resource', { resources: { limits: { 'example.com/fpga': '1' } } });
      expect(await calls('left', 'no-gpu')).toBe(before + 2);
      for (const name of ['other-claim', 'other-resource']) {
        if (name === 'other-claim' || !isBefore(MAPS_RESOURCES)) await boundTo(name, 'gpu-1');
        const { metadata, spec } = await pod(name);
        expect([metadata.labels?.['gpu-gate.dev/injected'], spec.schedulerName]).toEqual([
          undefined,
          'default-scheduler',
        ]);
      }
    },
  );

  chapter('a claim pod that opted out is bound past the gate, and an Event says so', async () => {
    await createClaimPod(
      cluster.admin,
      'past',
      { resourceClaimTemplateName: 'gpu' },
      {},
      { 'gpu-gate.dev/inject': 'false' },
    );
    await boundTo('past', 'gpu-0');
    await until('the Event', async () => {
      const events = await kubectl(
        'get',
        'events',
        '--field-selector',
        'involvedObject.name=past',
        '-o',
        'jsonpath={.items[*].reason}',
      );
      return events.includes('GPUPodPastGate');
    });
    await kubectl('delete', 'pod', 'past', '--now');
  });

  chapter('explain shows the claim, its class and the verdict', () => {
    const text = explain('claim');
    expect(text).toContain('claim shared (class gpu.nvidia.com): not allocated yet');
    expect(text).toMatch(/gpu-0 +driver +refused +GPU stack not validated: driver/);
  });
});

describe('after the proof', () => {
  chapter('every one of them is bound', async () => {
    await annotate('gpu-0', 'sim.gpu-gate.dev/driver-seconds=1');
    await validated('gpu-0');
    for (const name of [...Object.keys(SHAPES), 'late']) await boundTo(name, 'gpu-0');
    expect(explain('claim')).toMatch(
      /claim shared \(class gpu\.nvidia\.com\): allocated gpu\.nvidia\.com\/gpu-0\/gpu-\d on node gpu-0/,
    );
  });

  chapter('a pod whose claim is allocated to a node that closed waits for that node, with that reason', async () => {
    await annotate('gpu-0', 'gpu-gate.dev/hold=test');
    await createClaimPod(cluster.admin, 'second', { resourceClaimName: 'shared' });
    await waitsFor('second', 'the pod waits for the node of its allocated GPU claim: GPU node held by an operator');
    await kubectl('annotate', 'node', 'gpu-0', 'gpu-gate.dev/hold-');
    await boundTo('second', 'gpu-0');
    await until(
      'its readiness gate',
      async () => conditionOf(await pod('second'), 'gpu-gate.dev/node-validated')?.status === 'True',
    );
  });
});
