import { describe, expect, it } from 'vitest';
import { NO_DEVICES } from '../../gate/devices.ts';
import {
  askedOf,
  entriesFor,
  gpuKindsOf,
  indicesOf,
  occupied,
  requestedAmong,
  requestOf,
  wantsOf,
  wishesOf,
} from '../../gate/gpu-request.ts';
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

describe('GPUs that a pod occupies, as the scheduler adds them up', () => {
  const GPU = 'nvidia.com/gpu';
  const asks = (amount: number, more: object = {}) => ({
    name: 'c',
    resources: { limits: { [GPU]: amount } },
    ...more,
  });
  const sidecar = (amount: number) => asks(amount, { restartPolicy: 'Always' });
  it.each<[string, object[], object[], number | undefined]>([
    ['main containers run together', [asks(1), asks(2)], [], 3],
    ['init containers run one after the other, before them', [asks(1)], [asks(4), asks(2)], 4],
    ['an init container that needs less than they do adds nothing', [asks(4)], [asks(1)], 4],
    ['a sidecar goes on beside them', [asks(1)], [sidecar(2)], 3],
    ['an init container runs beside the sidecars before it', [asks(1)], [sidecar(2), asks(3)], 5],
    ['and not beside those after it', [asks(1)], [asks(3), sidecar(2)], 3],
    ['a pod that asks for none', [{ name: 'c' }], [], undefined],
  ])('%s', (_, containers, initContainers, gpus) => {
    const request = requestOf({ spec: { containers, initContainers } }, 'team');
    expect(occupied(request)[GPU]).toBe(gpus);
  });
  it('are those of NVIDIA’s resources and of classes, and no other device', () => {
    const limits = { 'amd.com/gpu': 1, 'deviceclass.resource.kubernetes.io/gpu.nvidia.com': 2, cpu: 4 };
    const request = requestOf({ spec: { containers: [{ name: 'c', resources: { limits } }] } }, 'team');
    expect(occupied(request)).toEqual({ 'deviceclass.resource.kubernetes.io/gpu.nvidia.com': 2 });
  });
});

describe('the first resource of a list that a pod requests', () => {
  const LIST = ['example.com/vgpu', 'example.com/mem-*'];
  const limits = (name: string, amount: unknown = 1) => ({ name: 'c', resources: { limits: { [name]: amount } } });
  it.each<[string, object | undefined, string | undefined]>([
    ['by a limit', { containers: [limits('example.com/vgpu')] }, 'example.com/vgpu'],
    ['by a request', { containers: [{ resources: { requests: { 'example.com/vgpu': '2' } } }] }, 'example.com/vgpu'],
    ['by a pattern', { containers: [limits('example.com/mem-8g')] }, 'example.com/mem-8g'],
    ['in an init container', { containers: [{}], initContainers: [limits('example.com/vgpu')] }, 'example.com/vgpu'],
    ['in a later container', { containers: [{}, limits('example.com/vgpu')] }, 'example.com/vgpu'],
    ['not by another resource', { containers: [limits('example.com/other')] }, undefined],
    ['not by an amount of zero', { containers: [limits('example.com/vgpu', '0')] }, undefined],
    ['not in an empty pod', {}, undefined],
    ['not in no pod', undefined, undefined],
  ])('%s', (_, spec, name) => expect(requestedAmong(spec as never, LIST)).toBe(name));
});

it('what to write in a policy for resources: MIG profiles by one entry', () =>
  expect(entriesFor(['nvidia.com/mig-1g.10gb', 'nvidia.com/gpu.shared', 'nvidia.com/mig-2g.20gb'])).toEqual([
    'nvidia.com/mig-*',
    'nvidia.com/gpu.shared',
  ]));

describe('a validation pod of gpu-gate', () => {
  const LABELS = { 'app.kubernetes.io/part-of': 'gpu-gate', 'app.kubernetes.io/component': 'driver-validation' };
  const OTHER = { ...LABELS, 'app.kubernetes.io/component': 'driver' };
  it.each<[string, string, Record<string, string> | undefined, boolean]>([
    ['of the driver', 'ops', LABELS, true],
    ['of the plugin', 'ops', { ...LABELS, 'app.kubernetes.io/component': 'device-plugin-validation' }, true],
    ['is not one of a tenant’s namespace', 'team', LABELS, false],
    ['is not an operand', 'ops', OTHER, false],
    ['is not one of another product', 'ops', { ...LABELS, 'app.kubernetes.io/part-of': 'other' }, false],
    ['is not one without labels', 'ops', undefined, false],
  ])('%s', (_, namespace, labels, yes) =>
    expect(wantsOf({ metadata: { namespace, ...(labels === undefined ? {} : { labels }) } }, 'ops').validation).toBe(
      yes,
    ),
  );
});

it.each([
  ['as long as may be shown', 'x'.repeat(39), `"${'x'.repeat(39)}!" `],
  ['longer', 'x'.repeat(40), `"${'x'.repeat(40)}…" `],
])('a value that cannot be read is shown, and cut where it is %s', (_, value, shown) =>
  expect(wishesOf(aPod({ annotations: { 'gpu-gate.dev/policy': `${value}!` } }))).toMatchObject({
    because: expect.stringContaining(shown),
  }),
);
