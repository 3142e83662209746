import { describe, expect, it } from 'vitest';
import { NO_DEVICES } from '../../gate/devices.ts';
import { askedOf, gpuKindsOf, indicesOf, requestOf, wishesOf } from '../../gate/gpu-request.ts';
import { aPod, aPolicy } from '../builders/objects.ts';

const KINDS = gpuKindsOf(aPolicy({ resources: ['nvidia.com/gpu', 'nvidia.com/mig-*'] }));

describe('what a pod asks for', () => {
  it.each([
    ['nothing', aPod(), undefined],
    ['a GPU in a container', aPod({ gpus: '2' }), { containers: [0], initContainers: [] }],
    ['a GPU in an init container', aPod({ initGpus: '1' }), { containers: [], initContainers: [0] }],
    ['zero GPUs', aPod({ gpus: '0' }), undefined],
    ['a thousand GPUs', aPod({ gpus: '1Ki' }), { containers: [0], initContainers: [] }],
    ['text for an amount', aPod({ gpus: 'many' }), undefined],
    [
      'a MIG slice',
      aPod({ container: { resources: { limits: { 'nvidia.com/mig-1g.10gb': 1 } } } }),
      { containers: [0], initContainers: [] },
    ],
    ['another vendor’s', aPod({ container: { resources: { limits: { 'amd.com/gpu': 1 } } } }), undefined],
  ])('%s', (_, pod, expected) => {
    const asked = askedOf(requestOf(pod, 'team'), KINDS, NO_DEVICES);
    expect(asked.kind === 'gpus' ? indicesOf(asked.byResource) : undefined).toEqual(expected);
  });

  it('malformed requirements are reported in one sentence', () => {
    expect(wishesOf(aPod({ annotations: { 'gpu-gate.dev/min-driver': 'newest' } }))).toMatchObject({
      ok: false,
      because: expect.stringContaining('is not a driver version'),
    });
    expect(wishesOf(aPod({ annotations: { 'gpu-gate.dev/policy': '../x' } }))).toMatchObject({
      ok: false,
      because: expect.stringContaining('is not the name of a GPUPolicy'),
    });
    expect(
      wishesOf(aPod({ annotations: { 'gpu-gate.dev/min-driver': '580' }, labels: { 'gpu-gate.dev/inject': 'false' } })),
    ).toEqual({ ok: true, wishes: { minDriver: '580', optedOut: true } });
  });

  it('a malformed driver version does not hide which policy judges the pod', () =>
    expect(
      wishesOf(aPod({ annotations: { 'gpu-gate.dev/policy': 'pool', 'gpu-gate.dev/min-driver': 'newest' } })),
    ).toMatchObject({ ok: false, annotation: 'gpu-gate.dev/min-driver', wishes: { policy: 'pool', optedOut: false } }));
});
