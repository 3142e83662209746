// What containers get, beside what they bring along: mounts at, below and above the driver's,
// variables, hidden GPUs.
import { NO_DEVICES } from '../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import type { RawContainer, RawPod } from '../../gate/gpu-request.ts';
import { decide, type Admission, type Facts } from '../../webhook/inject.ts';
import { aPod, aPolicy } from '../builders/objects.ts';
import { applied } from '../support/applied.ts';

const facts = (injection: object, more: Partial<Facts> = {}): Facts => ({
  policies: new Map([['default', aPolicy({ injection })]]),
  runtimeClasses: new Map([
    ['nvidia', { nodeSelector: {}, handler: 'nvidia' }],
    ['safe', { nodeSelector: {}, handler: 'runsc' }],
    ['other', { nodeSelector: {}, handler: 'other' }],
  ]),
  devices: NO_DEVICES,
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set(),
  ...more,
});
const GKE = { driverVolumesPreset: 'GKE', runtimeClassName: '' };
/** One volume, so that a test sees what becomes of it. */
const ONE = {
  runtimeClassName: '',
  driverVolumes: [{ name: 'driver', hostPath: '/opt/driver', mountPath: '/usr/local/nvidia' }],
};

interface Seen {
  readonly after: RawPod;
  readonly warnings: readonly string[];
  readonly record: { readonly injected: string[]; readonly skipped: { what: string; because: string }[] };
}
const seen = (pod: RawPod, given: Facts): Seen => {
  const admission: Admission = decide(pod, given);
  if (admission.kind !== 'inject') throw new Error(`${admission.kind} ${admission.reason}`);
  const after = applied(pod, admission.operations);
  expect(decide(after, given)).toMatchObject({ kind: 'leave', reason: 'already-injected' });
  const record = JSON.parse(after.metadata?.annotations?.['gpu-gate.dev/injection'] ?? '{}') as Seen['record'];
  return { after, warnings: admission.warnings, record };
};
const gpuPod = (container: object, spec: object = {}): RawPod => aPod({ gpus: '1', container, spec });
const mountsIn = ({ after }: Seen): (string | undefined)[] =>
  (after.spec?.containers?.[0]?.volumeMounts ?? []).map(({ name, mountPath }) => `${name} ${mountPath}`);

describe('a mount of the pod’s own near the driver’s', () => {
  const own = (mountPath: string, volume: object, more: object = {}): RawPod =>
    gpuPod({ volumeMounts: [{ name: 'own', mountPath, ...more }] }, { volumes: [{ name: 'own', ...volume }] });
  const driver = (path: string): object => ({ hostPath: { path } });

  it.each([
    ['far from it', '/data', { emptyDir: {} }, {}, 'mounted', 0],
    ['beside it', '/usr/local/nvidia-tools', { emptyDir: {} }, {}, 'mounted', 0],
    ['at its place', '/usr/local/nvidia', { emptyDir: {} }, {}, 'left', 1],
    ['at its place, written in another way', '//usr/local/x/../nvidia/', { emptyDir: {} }, {}, 'left', 1],
    ['below it', '/usr/local/nvidia/tools', { emptyDir: {} }, {}, 'left', 1],
    ['above it', '/usr/local', { emptyDir: {} }, {}, 'left', 1],
    ['above all', '/', { emptyDir: {} }, {}, 'left', 1],
    ['the driver’s folder itself', '/usr/local/nvidia', driver('/opt/driver/'), {}, 'left', 0],
    [
      'a part of the driver’s folder at its place',
      '/usr/local/nvidia/lib64',
      driver('/opt/driver/lib64'),
      {},
      'left',
      0,
    ],
    ['another part of it there', '/usr/local/nvidia/lib64', driver('/opt/driver/lib'), {}, 'left', 1],
    ['a folder above the driver’s', '/usr/local', driver('/opt'), {}, 'left', 1],
    ['the driver’s folder by a sub-path', '/usr/local/nvidia', driver('/opt'), { subPath: 'driver' }, 'left', 0],
    ['another folder by a sub-path', '/usr/local/nvidia', driver('/opt/driver'), { subPath: 'x' }, 'left', 1],
    [
      'a folder that an expression names',
      '/usr/local/nvidia',
      driver('/opt/driver'),
      { subPathExpr: '$(A)' },
      'left',
      1,
    ],
  ])('%s: %s', (_, mountPath, volume, more, what, warnings) => {
    const result = seen(own(mountPath, volume, more), facts(ONE));
    expect(mountsIn(result).includes('driver /usr/local/nvidia')).toBe(what === 'mounted');
    expect(result.warnings).toHaveLength(warnings);
    for (const warning of result.warnings) expect(warning.length).toBeLessThan(120);
    expect(result.after.spec?.volumes?.some(({ name }) => name === 'driver')).toBe(what === 'mounted');
  });

  it('a folder above the driver’s that holds it at the same place is the driver’s too', () => {
    const policy = {
      ...ONE,
      driverVolumes: [{ name: 'driver', hostPath: '/opt/nvidia', mountPath: '/usr/local/nvidia' }],
    };
    const result = seen(own('/usr/local', driver('/opt')), facts(policy));
    expect([result.warnings, mountsIn(result), result.record.injected]).toEqual([
      [],
      ['own /usr/local'],
      ['driverVolumes', 'readinessGate'],
    ]);
  });

  it('GKE’s own manifests: the preset’s folder under another name is not a conflict', () => {
    const pod = gpuPod(
      { volumeMounts: [{ name: 'library-dir-host', mountPath: '/usr/local/nvidia' }] },
      { volumes: [{ name: 'library-dir-host', hostPath: { path: '/home/kubernetes/bin/nvidia' } }] },
    );
    const result = seen(pod, facts(GKE));
    expect([result.warnings, result.record.skipped]).toEqual([[], []]);
    expect(mountsIn(result).filter((mount) => mount?.endsWith(' /usr/local/nvidia'))).toEqual([
      'library-dir-host /usr/local/nvidia',
    ]);
  });

  it('a block device below it', () => {
    const { warnings } = seen(
      gpuPod({ volumeDevices: [{ name: 'disk', devicePath: '/usr/local/nvidia/disk' }] }),
      facts(ONE),
    );
    expect(warnings).toEqual([
      "gpu-gate: /usr/local/nvidia/disk in main is nested with the driver's mount, which was left out",
    ]);
  });
});

it('fields that are missing or null are no obstacle', () => {
  const nothing = { name: null, mountPath: null, subPath: null, subPathExpr: null };
  const container = {
    name: null,
    volumeMounts: [{}, nothing],
    volumeDevices: [{}, { devicePath: null }],
    env: [{}, { name: null }],
    envFrom: null,
  };
  const spec = { volumes: [{}, { name: null, hostPath: null }, { hostPath: { path: null } }] };
  const given = facts({ ...ONE, env: [{ name: 'A', value: 'b' }] });
  // A mount without a path is at '/', and so above the driver's.
  const { warnings, after } = seen(gpuPod(container, spec), given);
  expect(warnings).toEqual(["gpu-gate: / in ? is nested with the driver's mount, which was left out"]);
  expect(after.spec?.containers?.[0]?.env?.at(-1)).toEqual({ name: 'A', value: 'b' });
});

describe('LD_LIBRARY_PATH', () => {
  it.each(['GKE', 'Host', 'DriverContainer'])(
    'preset %s leaves the image’s alone, without a warning',
    (driverVolumesPreset) => {
      const { after, warnings } = seen(gpuPod({}), facts({ driverVolumesPreset, runtimeClassName: '' }));
      expect([after.spec?.containers?.[0]?.env, warnings]).toEqual([undefined, []]);
      const paths = (after.spec?.containers?.[0]?.volumeMounts ?? []).map(({ mountPath }) => mountPath);
      expect(paths).toEqual(
        expect.arrayContaining(['/usr/lib/x86_64-linux-gnu/libcuda.so.1', '/usr/lib64/libcuda.so.1']),
      );
    },
  );
  it('the policy may set it all the same', () => {
    const env = [{ name: 'LD_LIBRARY_PATH', value: '/x' }];
    expect(seen(gpuPod({}), facts({ ...GKE, env })).after.spec?.containers?.[0]?.env).toEqual(env);
  });
});

describe('a runtime class that runs the pod in a sandbox', () => {
  const without = (pod: RawPod, injection: object = {}): Seen => seen(pod, facts({ ...GKE, ...injection }));
  it.each(['kata', 'kata-qemu-nvidia-gpu', 'gvisor', 'safe'])(
    '%s: no driver volumes, no variables',
    (runtimeClassName) => {
      const pod = aPod({ gpus: '1', spec: { runtimeClassName } });
      const { after, warnings, record } = without(pod, { env: [{ name: 'A', value: 'b' }] });
      expect([after.spec?.volumes, after.spec?.containers?.[0], warnings]).toEqual([
        undefined,
        pod.spec?.containers?.[0],
        [],
      ]);
      expect(record.skipped).toEqual([
        { what: 'driverVolumes', because: "the pod's runtime class runs it in a sandbox" },
      ]);
    },
  );
  it('so is the policy’s own', () => {
    const { after } = without(gpuPod({}), { runtimeClassName: 'safe' });
    expect([after.spec?.runtimeClassName, after.spec?.volumes]).toEqual(['safe', undefined]);
  });
  it.each(['other', 'nvidia', 'katalog'])('%s is not one', (runtimeClassName) => {
    const { after } = without(aPod({ gpus: '1', spec: { runtimeClassName } }));
    expect(after.spec?.volumes).toHaveLength(7);
  });
});

it.each([
  [false, 'nvidia', 1],
  [true, 'nvidia', 0],
  [undefined, 'nvidia', 0],
  [false, 'other', 0],
])('hostUsers %s under class %s: %i warnings', (hostUsers, runtimeClassName, expected) => {
  const { warnings } = seen(aPod({ gpus: '1', spec: { hostUsers, runtimeClassName } }), facts({}));
  expect(warnings).toHaveLength(expected);
  for (const warning of warnings)
    expect(warning).toMatch(/^gpu-gate: hostUsers: false, .{1,100}; leave hostUsers out$/);
});

describe('containers that request no GPU', () => {
  const VOID = { name: 'NVIDIA_VISIBLE_DEVICES', value: 'void' };
  const beside = (container: object, spec: object = {}): RawPod =>
    aPod({
      spec: {
        containers: [
          { name: 'train', resources: { limits: { 'nvidia.com/gpu': '1' } } },
          { name: 'beside', ...container },
        ],
        ...spec,
      },
    });
  const envOf = ({ after }: Seen, name = 'beside'): RawContainer['env'] =>
    [...(after.spec?.containers ?? []), ...(after.spec?.initContainers ?? [])].find((each) => each.name === name)?.env;

  it('see none under the policy’s class, init containers too, and it is recorded', () => {
    const result = seen(beside({}, { initContainers: [{ name: 'fetch' }] }), facts({}));
    expect([envOf(result), envOf(result, 'fetch'), envOf(result, 'train')]).toEqual([[VOID], [VOID], undefined]);
    expect(result.record.injected).toEqual(['runtimeClassName', 'hiddenGpus', 'readinessGate']);
  });
  it.each([
    ['say themselves what they see', { env: [{ name: 'NVIDIA_VISIBLE_DEVICES', value: 'all' }] }],
    ['take it from elsewhere', { env: [{ name: 'NVIDIA_VISIBLE_DEVICES', valueFrom: {} }] }],
    ['request a GPU that the policy does not list', { resources: { limits: { 'nvidia.com/mig-1g.5gb': '1' } } }],
    ['request a share of one by another device plugin', { resources: { requests: { 'volcano.sh/vgpu-number': 1 } } }],
    ['have a claim', { resources: { claims: [{ name: 'gpu' }] } }],
  ])('are left alone if they %s', (_, container) => {
    const pod = beside(container);
    expect(seen(pod, facts({})).after.spec?.containers?.[1]).toEqual(pod.spec?.containers?.[1]);
  });
  it.each([
    ['request zero GPUs', { resources: { limits: { 'nvidia.com/gpu': '0' } } }],
    ['request another device', { resources: { limits: { 'example.com/nic': '1' } } }],
    ['have variables of their own', { env: [{ name: 'A', value: 'b' }] }],
  ])('see none if they %s', (_, container) => {
    expect(envOf(seen(beside(container), facts({})))?.at(-1)).toEqual(VOID);
  });
  it.each([
    ['the policy says so', { hideUnrequestedGpus: false }, {}],
    ['the policy injects no class', { runtimeClassName: '' }, {}],
    ['the pod has another class', {}, { runtimeClassName: 'other' }],
  ])('are left alone if %s', (_, injection, spec) => {
    const pod = beside({}, spec);
    expect(seen(pod, facts(injection)).after.spec?.containers).toEqual(pod.spec?.containers);
  });
  it('are seen on a second call too, when another webhook has added one', () => {
    const first = seen(beside({}), facts({})).after;
    const later = {
      ...first,
      spec: { ...first.spec, containers: [...(first.spec?.containers ?? []), { name: 'late' }] },
    };
    const second = seen(later, facts({}));
    expect([envOf(second), envOf(second, 'late')]).toEqual([[VOID], [VOID]]);
  });
});

describe('tolerations of the policy', () => {
  const POOL = { key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' };
  const tolerations = (present: unknown): unknown =>
    seen(aPod({ gpus: '1', spec: { tolerations: present } }), facts({ tolerations: [POOL] })).after.spec?.tolerations;
  const own = { key: 'team', value: 'a' };
  it.each([
    ['none', undefined, [POOL]],
    ['a null', null, [POOL]],
    ['others', [own], [own, POOL]],
    ['the same', [POOL], [POOL]],
  ])('beside %s', (_, present, expected) => expect(tolerations(present)).toEqual(expected));
  it('are none by default', () => expect(seen(aPod({ gpus: '1' }), facts({})).after.spec?.tolerations).toBeUndefined());
});

describe('a policy with allowedNamespaces', () => {
  const named = (allowedNamespaces: string[], more: object = {}): Facts => ({
    ...facts({}),
    policies: new Map([
      ['default', aPolicy()],
      ['pool', aPolicy({ allowedNamespaces, ...more }, { metadata: { name: 'pool' } })],
    ]),
  });
  const pod = aPod({ gpus: '1', annotations: { 'gpu-gate.dev/policy': 'pool' } });
  it('may be named there', () => {
    expect(decide(pod, named(['ops', 'team']))).toMatchObject({ kind: 'inject', policy: 'pool' });
    expect(decide(pod, named([]))).toMatchObject({ kind: 'inject', policy: 'pool' });
  });
  it.each([{}, { suspend: true }])('may not be named elsewhere, whatever it does: %j', (more) => {
    expect(decide(pod, named(['ops'], more))).toEqual({
      kind: 'refuse',
      reason: 'policy-not-allowed',
      because: expect.stringMatching(/^GPUPolicy pool may not be named in this namespace: /),
    });
  });
  it('is the default one: pods that name none are under it everywhere', () => {
    const only = { ...facts({}), policies: new Map([['default', aPolicy({ allowedNamespaces: ['ops'] })]]) };
    expect(decide(aPod({ gpus: '1' }), only)).toMatchObject({ kind: 'inject', policy: 'default' });
  });
});
