import { describe, expect, it } from 'vitest';
import { driverPathsOf, useOf, usesGpus, type GpuUse } from '../../gate/users.ts';
import { trimPod } from '../../reconciler/model.ts';
import { aPolicy } from '../builders/objects.ts';

const NONE: GpuUse = { gpus: {}, claims: false, runtimeClass: '', hostPaths: [], daemon: false };
const policy = aPolicy({ injection: { driverVolumesPreset: 'GKE' } });

describe('a user of a node’s GPUs', () => {
  it.each<[string, Partial<GpuUse>, boolean]>([
    ['asks for a GPU', { gpus: { 'nvidia.com/gpu': 1 } }, true],
    ['asks for a slice', { gpus: { 'nvidia.com/mig-1g.10gb': 1000 } }, true],
    ['has a claim', { claims: true }, true],
    ['has the policy’s runtime class', { runtimeClass: 'nvidia' }, true],
    ['has a device', { hostPaths: ['/dev/nvidia0'] }, true],
    ['has the device that controls them', { hostPaths: ['/dev/nvidiactl'] }, true],
    ['mounts the driver', { hostPaths: ['/run/nvidia/driver'] }, true],
    ['mounts all that belongs to the driver', { hostPaths: ['/run/nvidia'] }, true],
    ['mounts a part of the driver', { hostPaths: ['/home/kubernetes/bin/nvidia/lib64'] }, true],
    ['is a DaemonSet’s pod that asks for a GPU', { gpus: { 'nvidia.com/gpu': 1 }, daemon: true }, true],
  ])('%s', (_, use) => expect(usesGpus({ ...NONE, ...use }, policy)).toBe(true));
  it.each<[string, Partial<GpuUse>]>([
    ['shows nothing of the kind', {}],
    ['asks for none', { gpus: { 'nvidia.com/gpu': 0 } }],
    ['has another runtime class', { runtimeClass: 'kata' }],
    ['mounts what only begins alike', { hostPaths: ['/run/nvidia-other', '/home/kubernetes/bin/nvidia2'] }],
    ['mounts the whole host, as agents do', { hostPaths: ['/'] }],
    ['is a DaemonSet’s pod with no more than the runtime class', { runtimeClass: 'nvidia', daemon: true }],
  ])('is none that %s', (_, use) => expect(usesGpus({ ...NONE, ...use }, policy)).toBe(false));

  it('is one by the policy that the node has', () => {
    const own = aPolicy({ injection: { runtimeClassName: 'gpu' }, hostPaths: { driverRoot: '/opt/driver/' } });
    expect(usesGpus({ ...NONE, runtimeClass: 'gpu' }, own)).toBe(true);
    expect(usesGpus({ ...NONE, runtimeClass: 'nvidia' }, own)).toBe(false);
    expect(usesGpus({ ...NONE, hostPaths: ['/opt/driver/lib'] }, own)).toBe(true);
    expect(usesGpus({ ...NONE, runtimeClass: '' }, aPolicy({ injection: { runtimeClassName: '' } }))).toBe(false);
  });
  it('is one by the usual runtime class or a device where no policy has the node', () => {
    expect(usesGpus({ ...NONE, runtimeClass: 'nvidia' }, undefined)).toBe(true);
    expect(usesGpus({ ...NONE, hostPaths: ['/dev/nvidia0'] }, undefined)).toBe(true);
    expect(usesGpus({ ...NONE, hostPaths: ['/run/nvidia'] }, undefined)).toBe(false);
  });
  it('a driver in the host’s own root has no folder that could be mounted', () =>
    expect(driverPathsOf(aPolicy({ hostPaths: { driverRoot: '/' } }))).toEqual(['/run/nvidia']));
});

describe('a pod is kept for as long as it may be a user', () => {
  const kept = (spec: object, paths: readonly string[] = ['/run/nvidia']) =>
    trimPod(
      { metadata: { name: 'p', namespace: 'team', uid: 'u', ownerReferences: [] }, spec: { nodeName: 'n', ...spec } },
      'gpu-gate-operands',
      () => false,
      paths,
    );
  const hostPath = (path: string) => ({ volumes: [null, { name: 'v', hostPath: { path } }], containers: [{}] });
  it.each([
    ['a runtime class', { runtimeClassName: 'nvidia', containers: [{ name: 'nvml' }] }, { runtimeClass: 'nvidia' }],
    [
      'a claim',
      { resourceClaims: [{ name: 'gpu', resourceClaimTemplateName: 'one' }], containers: [{}] },
      { claims: true },
    ],
    ['a device', hostPath('/dev/nvidia0'), { hostPaths: ['/dev/nvidia0'] }],
    ['a driver', hostPath('/run/nvidia/driver'), { hostPaths: ['/run/nvidia/driver'] }],
    [
      'a thousand GPUs, written 1k',
      { containers: [{ resources: { limits: { 'nvidia.com/gpu': '1k' } } }] },
      { gpus: { 'nvidia.com/gpu': 1000 } },
    ],
  ])('for %s', (_, spec, use) => {
    const pod = kept(spec);
    expect(pod).toMatchObject(use);
    expect(pod === undefined ? undefined : usesGpus(pod, aPolicy())).toBe(true);
  });
  it.each([
    ['other folders of the host', hostPath('/var/log')],
    ['no GPU', { containers: [{ resources: { limits: { 'nvidia.com/gpu': '0' } } }] }],
  ])('and not for %s', (_, spec) => expect(kept(spec)).toBeUndefined());
});

describe('whose pod it is', () => {
  const owned = (ownerReferences: readonly object[] | undefined) =>
    useOf({ metadata: ownerReferences === undefined ? {} : { ownerReferences } }, { containers: [], claims: [] }, [])
      .daemon;
  it.each<[string, object[] | undefined, boolean]>([
    ['a DaemonSet’s', [{ kind: 'Node' }, { kind: 'DaemonSet', controller: true }], true],
    ['not one that a DaemonSet merely owns', [{ kind: 'DaemonSet', controller: false }], false],
    ['not a ReplicaSet’s', [{ kind: 'ReplicaSet', controller: true }], false],
    ['nobody’s', undefined, false],
  ])('%s', (_, owners, yes) => expect(owned(owners)).toBe(yes));
});
