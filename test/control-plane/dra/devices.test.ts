// One device of a node that fails alone, on a real control plane with Kubernetes' own scheduler: a
// rule for that device keeps every pod off it, and the others serve.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { createClaimPod, createTemplate, devicesOf, exactly } from '../../../lab/cluster/devices.ts';
import { startGate, until, untilEnforcing, type Gate } from '../../../lab/cluster/gate.ts';
import { STRATEGIC_PATCH } from '../../../platform/kube.ts';
import { viewOf, type Pod } from '../../builders/view.ts';
import { isBefore, TAINTS_DEVICES } from '../../support/kubernetes.ts';

interface ClaimPod extends Pod {
  readonly status: Pod['status'] & { readonly resourceClaimStatuses?: { readonly resourceClaimName?: string }[] };
}

let cluster: Cluster;
let gate: Gate;
const { annotate, explain, gone, kubectl, node, pod, validated } = viewOf(() => cluster);

const rules = async (): Promise<readonly string[]> =>
  (
    await cluster.admin.request<{ items: { spec: { deviceSelector: { device?: string }; taint: { key: string } } }[] }>(
      'GET',
      '/apis/resource.k8s.io/v1/devicetaintrules',
    )
  ).items.map(({ spec }) => `${spec.taint.key} ${spec.deviceSelector.device ?? 'all'}`);
const message = async (): Promise<string> =>
  (await node('gpu-0')).status.conditions.find(({ type }) => type === 'GPUValidated')?.message ?? '';
const says = (text: string): Promise<unknown> =>
  until(`the condition to say "${text}"`, async () => (await message()).includes(text), 60_000, message);
const deviceOf = async (name: string): Promise<string | undefined> => {
  const claim = ((await pod(name)) as ClaimPod).status.resourceClaimStatuses?.[0]?.resourceClaimName;
  return claim === undefined ? undefined : (await devicesOf(cluster.admin, claim))[0];
};
const user = (name: string): Promise<unknown> =>
  createClaimPod(cluster.admin, name, { resourceClaimTemplateName: 'gpu' });
const bound = (name: string): Promise<unknown> =>
  until(`${name} to be bound`, async () => (await pod(name)).spec.nodeName === 'gpu-0', 60_000);

beforeAll(async () => {
  cluster = await startCluster({ nodes: 1, say: console.log });
  await createTemplate(cluster.admin, 'gpu', exactly('gpu.nvidia.com'));
  gate = await startGate(cluster, {
    scheduler: false,
    values: { scheduler: { create: false }, policy: { spec: { allocation: 'DRA', startupTaint: 'Off' } } },
  });
  await annotate('gpu-0', 'sim.gpu-gate.dev/gpus=4', 'sim.gpu-gate.dev/device-fails=gpu-0');
  await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
  await untilEnforcing(cluster);
  await validated('gpu-0');
}, 240_000);
afterAll(async () => cluster?.stop());

describe.skipIf(isBefore(TAINTS_DEVICES))('a device on which gpu-gate’s own validation failed', () => {
  it('is left out by a rule of its own; the node is open', async () => {
    await until('the rule alone', async () => (await rules()).join(', ') === 'gpu-gate.dev/device-failed gpu-0');
    expect(await message()).toContain('gpu-0 is left out: vectorAdd failed on it');
  });
  it('is given to no pod, and the others are', { timeout: 120_000 }, async () => {
    for (const name of ['a', 'b', 'c', 'd']) await user(name);
    for (const name of ['a', 'b', 'c']) await bound(name);
    await until('the fourth to wait', async () =>
      (await pod('d')).status.conditions?.some(({ reason }) => reason === 'Unschedulable'),
    );
    const devices = await Promise.all(['a', 'b', 'c'].map(deviceOf));
    expect(devices.map(String).toSorted()).toEqual(['gpu-1', 'gpu-2', 'gpu-3']);
  });
  it('is counted, and explained', async () => {
    await until('the metric', async () =>
      (await gate.metrics()).includes(
        'gpu_gate_devices_kept_off{node="gpu-0",device="gpu.nvidia.com/gpu-0/gpu-0",by="gpu-gate"} 1',
      ),
    );
    const waiting = explain('d');
    expect(waiting).toMatch(/claim d-device-\w+ \(class gpu\.nvidia\.com\): not allocated yet/);
    expect(waiting).toContain('device gpu-0 of node gpu-0 is left out: vectorAdd failed on it');
    expect(explain('a')).toMatch(
      /\(class gpu\.nvidia\.com\): allocated gpu\.nvidia\.com\/gpu-0\/gpu-[123] on node gpu-0/,
    );
  });
});

describe.skipIf(isBefore(TAINTS_DEVICES))('a device that the kubelet calls unhealthy', () => {
  it('is left out, and stays so when its pod ends', { timeout: 120_000 }, async () => {
    const device = (await deviceOf('a')) ?? '';
    const { containerStatuses = [] } = (await pod('a')).status as { containerStatuses?: object[] };
    await cluster.admin.request('PATCH', '/api/v1/namespaces/default/pods/a/status', {
      contentType: STRATEGIC_PATCH,
      body: {
        status: {
          containerStatuses: containerStatuses.map((one) => ({
            ...one,
            allocatedResourcesStatus: [
              {
                name: 'claim:device',
                resources: [{ resourceID: `k8s.gpu.nvidia.com/claim=1-${device}`, health: 'Unhealthy' }],
              },
            ],
          })),
        },
      },
    });
    await says(`${device} is left out: unhealthy by the kubelet`);
    await until('a second rule', async () => (await rules()).includes(`gpu-gate.dev/device-failed ${device}`));
    await gone('a');
    await gone('b');
    // The freed device goes to the pod that waits, and the broken one to none.
    await bound('d');
    expect(await deviceOf('d')).not.toBe(device);
    await user('e');
    await until('the next to wait', async () =>
      (await pod('e')).status.conditions?.some(({ reason }) => reason === 'Unschedulable'),
    );
  });
});

describe.skipIf(isBefore(TAINTS_DEVICES))('a device that its driver taints', () => {
  it('is named', async () => {
    await annotate('gpu-0', 'sim.gpu-gate.dev/device-taint=gpu-3=gpu.nvidia.com/xid');
    await says('gpu-3 has the taint gpu.nvidia.com/xid:NoSchedule');
  });
});

describe.skipIf(isBefore(TAINTS_DEVICES))('a retry', () => {
  it('gives all of them back', { timeout: 120_000 }, async () => {
    await kubectl('annotate', 'node', 'gpu-0', 'sim.gpu-gate.dev/device-fails-');
    await annotate('gpu-0', 'gpu-gate.dev/retry=1');
    await until('no rule to be left', async () => (await rules()).length === 0, 90_000);
    await validated('gpu-0');
    await bound('e');
  });
});
