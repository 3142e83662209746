import { describe, expect, it } from 'vitest';
<<<<<<< HEAD
import { gpuRequest, occupied, wantsOf, wishesOf } from '../../gate/gpu-request.ts';
import { aPod } from '../builders/objects.ts';
=======
import { NO_DEVICES } from '../../gate/devices.ts';
import { askedOf, gpuKindsOf, indicesOf, requestOf, wishesOf } from '../../gate/gpu-request.ts';
import { aPod, aPolicy } from '../builders/objects.ts';
>>>>>>> main

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

  it('names the containers that ask, and no others', () =>
    expect(
      gpuRequest(
        aPod({
          spec: {
            containers: [
              { name: 'other', resources: { limits: { 'nvidia.com/pgpu': 1 } } },
              { name: 'one', resources: { requests: { 'nvidia.com/gpu': 1 } } },
            ],
            initContainers: [{ name: 'none' }, { name: 'two', resources: { limits: { 'nvidia.com/gpu': 1 } } }],
          },
        }),
        RESOURCES,
      ),
    ).toEqual({ containers: [1], initContainers: [1] }));

  it.each([
    ['driver-validation', { 'app.kubernetes.io/part-of': 'gpu-gate' }, 'operands', true],
    ['device-plugin-validation', { 'app.kubernetes.io/part-of': 'gpu-gate' }, 'operands', true],
    ['driver', { 'app.kubernetes.io/part-of': 'gpu-gate' }, 'operands', false],
    ['driver-validation', {}, 'operands', false],
    ['driver-validation', { 'app.kubernetes.io/part-of': 'gpu-gate' }, 'team', false],
  ])('a pod of component %s with %j in %s is a validation: %s', (component, labels, namespace, expected) =>
    expect(
      wantsOf(aPod({ namespace, labels: { ...labels, 'app.kubernetes.io/component': component } }), 'operands')
        .validation,
    ).toBe(expected),
  );

  describe('occupies what the scheduler adds up', () => {
    const container = (gpus: number, more: object = {}) => ({
      name: 'c',
      resources: { limits: { 'nvidia.com/gpu': gpus } },
      ...more,
    });
    const sidecar = (gpus: number) => container(gpus, { restartPolicy: 'Always' });
    it.each([
      ['main containers together', [], [container(1), container(2)], 3],
      ['the largest init container', [container(4), container(2)], [container(1)], 4],
      ['main containers where no init container is larger', [container(1)], [container(3)], 3],
      ['sidecars beside main containers', [sidecar(2)], [container(1)], 3],
      [
        'an init container beside the sidecars that were started before it',
        [sidecar(2), container(3)],
        [container(1)],
        5,
      ],
      ['an init container without those that are started after it', [container(3), sidecar(1)], [container(1)], 3],
    ])('%s', (_, initContainers, containers, expected) =>
      expect(occupied(wantsOf(aPod({ spec: { containers, initContainers } }), 'operands'))).toEqual({
        'nvidia.com/gpu': expected,
      }),
    );
  });

  it('what an author wrote is quoted up to forty characters', () => {
    const because = (text: string): string => {
      const read = wishesOf(aPod({ annotations: { 'gpu-gate.dev/min-driver': text } }));
      return read.ok ? '' : read.because;
    };
    expect(because('x'.repeat(40))).toContain(`"${'x'.repeat(40)}"`);
    expect(because('x'.repeat(41))).toContain(`"${'x'.repeat(40)}…"`);
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
