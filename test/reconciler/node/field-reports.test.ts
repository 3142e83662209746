// Situations of nodes that people who run GPU clusters have reported, and what is right in them.
import { describe, expect, it } from 'vitest';
import { MANAGED } from '../../../core/keys.ts';
import { trimPod, type PodObject } from '../../../reconciler/model.ts';
import { enforcement } from '../../../reconciler/policies/status.ts';
import { fleetOf } from '../../builders/caches.ts';
import { aPolicy } from '../../builders/objects.ts';
import { World } from './world.ts';

const NFD = 'feature.node.kubernetes.io/';
const PRESENT = `${NFD}pci-10de.present`;
const MINUTE = 60_000;

describe('Node Feature Discovery that names PCI devices by other fields', () => {
  const relabelled = (world: World, labels: Record<string, string>): void =>
    world.relabel((all) => {
      delete all[PRESENT];
      Object.assign(all, labels);
    });
  const fresh = (label: string): World => {
    const world = new World();
    relabelled(world, { [NFD + label]: 'true' });
    return world;
  };
  it.each([
    'pci-10de.present',
    'pci-0300_10de.present',
    'pci-0302_10de.present',
    'pci-1200_10de.present',
    'pci-10de_2330.present',
    'pci-0302_10de_2330.present',
    'pci-0302_10de_2330_10de_16c1.present',
    'pci-10de_10de_16c1.present',
  ])('a new node with %s is walked', (label) => void fresh(label).validated());
  it.each([
    'pci-0200_10de.present',
    'pci-0604_10de_1af1.present',
    'pci-8086.present',
    'pci-0302_1002.present',
    'usb-10de.present',
  ])('a new node with %s has no GPU', (label) => {
    const world = fresh(label);
    world.settle(5);
    expect(world.condition?.reason).toBe('PreflightFailedNoGPU');
  });
  it('a label that is not true is none', () => {
    const world = new World();
    relabelled(world, { [PRESENT]: 'false' });
    world.settle(5);
    expect(world.condition?.reason).toBe('PreflightFailedNoGPU');
  });
  it.each<[string, Record<string, string>]>([
    ['vendor and device', { [`${NFD}pci-10de_2330.present`]: 'true', [`${NFD}cpu-cpuid.AVX`]: 'true' }],
    ['the device alone, which names no vendor', { [`${NFD}pci-2330.present`]: 'true' }],
    ['nothing, because it was removed', {}],
  ])('a node that serves keeps proof and pods, and stays open: %s', (_, labels) => {
    const world = new World().validated();
    const { proof } = world;
    relabelled(world, labels);
    for (let i = 0; i < 20; i += 1) {
      world.now += MINUTE;
      world.step();
      expect([world.proof, world.trust]).toEqual([proof, [true, true]]);
      expect(world.condition?.message).not.toContain('found no NVIDIA PCI device');
    }
  });
});

describe('pods that rest on a node that is opted out', () => {
  const team = (name: string, spec: object, more: object = {}): PodObject => {
    const raw = {
      metadata: { name, namespace: 'team', uid: name, creationTimestamp: '2026-11-24T09:00:00Z', ...more },
      spec: { nodeName: 'n', ...spec },
      status: { phase: 'Running' },
    };
    const pod = trimPod(raw, 'gpu-gate-operands', () => false, ['/run/nvidia/driver', '/home/kubernetes/bin/nvidia']);
    if (pod === undefined) throw new Error('trimmed away');
    return pod;
  };
  const container = (more: object): object => ({ containers: [{ name: 'c', image: 'x', ...more }] });
  const limits = (name: string, amount: string): object => container({ resources: { limits: { [name]: amount } } });
  const hostPath = (path: string): object => ({ ...container({}), volumes: [{ name: 'v', hostPath: { path } }] });

  it.each([
    ['one GPU', limits('nvidia.com/gpu', '1')],
    ['a thousand slices, which the API server writes as 1k', limits('nvidia.com/gpu', '1k')],
    ['a MIG profile that the policy does not list', limits('nvidia.com/mig-1g.10gb', '1')],
    [
      'the runtime class and all GPUs by a variable',
      {
        runtimeClassName: 'nvidia',
        ...container({ env: [{ name: 'NVIDIA_VISIBLE_DEVICES', value: 'all' }] }),
      },
    ],
    [
      'a resource claim',
      {
        resourceClaims: [{ name: 'gpu', resourceClaimTemplateName: 'one-gpu' }],
        ...container({ resources: { claims: [{ name: 'gpu' }] } }),
      },
    ],
    ['another scheduler', { schedulerName: 'hami-scheduler', ...limits('nvidia.com/gpu', '1') }],
    ['a device of the host', hostPath('/dev/nvidia0')],
    ['the driver of the host', hostPath('/run/nvidia/driver')],
  ])('with %s: the opt-out waits for it, by name, and takes nothing from under it', (_, spec) => {
    const world = new World().validated();
    const deployed = Object.keys(world.node.metadata.labels ?? {}).filter((key) => key.includes('/deploy.'));
    world.pods.set('user', team('user', spec));
    world.relabel((labels) => delete labels[MANAGED]);
    for (let i = 0; i < 60; i += 1) {
      world.now += MINUTE;
      world.step();
    }
    expect([world.state, world.trust]).toEqual(['removing', [true, false]]);
    expect(world.condition?.message).toContain('waiting for 1 GPU pod to end (team/user)');
    expect(Object.keys(world.node.metadata.labels ?? {})).toEqual(expect.arrayContaining(deployed));
    world.pods.delete('user');
    world.settle();
    expect([world.state, world.pods.size]).toEqual([undefined, 0]);
  });
  it('a thousand slices are as many GPUs', () =>
    expect(team('p', limits('nvidia.com/gpu', '1k')).gpus).toEqual({ 'nvidia.com/gpu': 1000 }));
});

it('a node with a thousand slices is walked, and Auto waits for one that is not opted in', () => {
  class Sliced extends World {
    override reality(): void {
      super.reality();
      const has = Object.keys(this.node.status?.allocatable ?? {}).length > 0;
      if (has) this.node = { ...this.node, status: { ...this.node.status, allocatable: { 'nvidia.com/gpu': '1k' } } };
    }
  }
  const { node } = new Sliced().validated();
  const plain = { ...node, metadata: { ...node.metadata, name: 'plain', labels: {}, annotations: {} } };
  const auditing = aPolicy({}, { status: {} });
  expect(enforcement(auditing, fleetOf([node, plain], [auditing]))).toMatchObject({ reason: 'NodesNotValidated' });
  expect(enforcement(auditing, fleetOf([node], [auditing]))).toMatchObject({ enforcing: true });
});

describe('a node that another product uses', () => {
  const OPERATOR = 'nvidia.com/gpu.deploy.';
  const walked = (labels: Record<string, string>): World => {
    const world = new World(undefined, labels);
    world.settle(6);
    return world;
  };
  it.each<[string, Record<string, string>]>([
    ['vm-passthrough', { 'nvidia.com/gpu.workload.config': 'vm-passthrough' }],
    ['vm-vgpu', { 'nvidia.com/gpu.workload.config': 'vm-vgpu' }],
    ['the VFIO manager', { [`${OPERATOR}vfio-manager`]: 'true' }],
    ['the sandbox device plugin', { [`${OPERATOR}sandbox-device-plugin`]: 'true' }],
    ['the vGPU manager', { [`${OPERATOR}vgpu-manager`]: 'true' }],
    [
      'all of them',
      {
        'nvidia.com/gpu.workload.config': 'vm-passthrough',
        [`${OPERATOR}vfio-manager`]: 'true',
        [`${OPERATOR}sandbox-device-plugin`]: 'true',
      },
    ],
  ])('for virtual machines, by %s: refused in preflight, and nothing is deployed', (_, labels) => {
    const world = walked(labels);
    expect(world.condition?.reason).toBe('PreflightFailedAnotherInstaller');
    expect(world.condition?.message).toContain('GPUs of this node are for virtual machines');
    expect([world.pods.size, world.tainted]).toEqual([0, false]);
  });
  it('for virtual machines, by a label that comes while the toolkit does: no driver is deployed', () => {
    const world = new World();
    world.broken['toolkit'] = {};
    world.settle(6);
    expect(world.state).toBe('toolkit');
    world.relabel((all) => Object.assign(all, { 'nvidia.com/gpu.workload.config': 'vm-passthrough' }));
    world.broken = {};
    world.start('toolkit');
    for (let i = 0; i < 10; i += 1) world.step();
    expect(world.condition?.reason).toBe('PreflightFailedAnotherInstaller');
    expect(world.pods.has('driver-pod')).toBe(false);
    world.relabel((all) => delete all['nvidia.com/gpu.workload.config']);
    world.now += 60_000;
    world.validated();
  });
  it.each([
    ['mig-manager', 'true', true],
    ['operator-validator', 'true', true],
    ['dcgm', 'true', true],
    ['container-toolkit', 'paused-for-driver-upgrade', true],
    ['mig-manager', 'false', false],
    ['operands', 'false', false],
  ])('%s=%s: refused: %s', (name, value, refused) => {
    const { condition } = walked({ [OPERATOR + name]: value });
    if (refused) expect(condition?.reason).toBe('PreflightFailedAnotherInstaller');
    else expect(condition?.reason).not.toMatch(/^Preflight/);
  });
  it('whose GPUs are for containers is walked', () =>
    void new World(undefined, { 'nvidia.com/gpu.workload.config': 'container' }).validated());
});

it('a node with an external plugin whose GPUs come by Dynamic Resource Allocation alone: the condition says why it waits', () => {
  const world = new World(aPolicy({ components: { devicePlugin: { mode: 'external' } } }));
  for (let i = 0; i < 15; i += 1) world.step();
  expect([world.state, world.condition?.message]).toEqual([
    'device-plugin',
    expect.stringContaining(
      'waiting for the kubelet to offer nvidia.com/gpu on this node, which the external device plugin is to do; GPUs that come by Dynamic Resource Allocation alone are not offered by a kubelet',
    ),
  ]);
});
