// The worst pods that an API server accepts: what a call costs and what its answer holds does not
// grow with them beyond a bound. Work is counted in reads of the pod, not in time.
import { NO_DEVICES } from '../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import type { RawPod } from '../../gate/gpu-request.ts';
import { decide, type Admission, type Facts } from '../../webhook/inject.ts';
import { encode } from '../../webhook/review.ts';
import { aPolicy } from '../builders/objects.ts';
import { applied } from '../support/applied.ts';

const MIB = 1024 * 1024;
/** The most that a policy may name. */
const WORST = aPolicy({
  injection: {
    schedulerName: 's',
    driverVolumesPreset: 'GKE',
    driverVolumes: Array.from({ length: 8 }, (_, i) => ({
      name: `volume-${i}`,
      hostPath: `/opt/${i}`,
      mountPath: `/own/${i}/${'x'.repeat(1000)}`,
    })),
    env: Array.from({ length: 64 }, (_, i) => ({ name: `VARIABLE_${i}`, value: 'v'.repeat(4096) })),
    tolerations: Array.from({ length: 16 }, (_, i) => ({ key: `key-${i}`, operator: 'Exists' })),
  },
});
const USUAL = aPolicy({ injection: { driverVolumesPreset: 'GKE' } });
const PLAIN = aPolicy();
const facts = (policy = USUAL): Facts => ({
  policies: new Map([['default', policy]]),
  runtimeClasses: new Map([['nvidia', { nodeSelector: { zone: 'a' } }]]),
  devices: NO_DEVICES,
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set(),
});

const gpu = { limits: { 'nvidia.com/gpu': '1' } };
const many = <T>(count: number, one: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => one(i));
const mapOf = (count: number, key: (i: number) => string): Record<string, string> =>
  Object.fromEntries(many(count, (i) => [key(i), 'v']));
const withContainers = (containers: object[], spec: object = {}): RawPod => ({
  metadata: { name: 'p' },
  spec: { containers, ...spec },
});

/**
 * Pods that grow in one place each; `n` is chosen so that the largest is about what an API server
 * reads (3 MiB).
 */
const PODS: Readonly<Record<string, readonly [number, (n: number) => RawPod]>> = {
  'GPU containers': [30_000, (n) => withContainers(many(n, (i) => ({ name: `c${i}`, resources: gpu })))],
  'other containers': [
    30_000,
    (n) => withContainers([{ name: 'gpu', resources: gpu }, ...many(n, (i) => ({ name: `c${i}` }))]),
  ],
  'init containers': [
    30_000,
    (n) => withContainers([], { initContainers: many(n, (i) => ({ name: `c${i}`, resources: gpu })) }),
  ],
  'mounts that are in the way': [
    40_000,
    (n) =>
      withContainers([
        {
          name: 'c',
          resources: gpu,
          volumeMounts: many(n, (i) => ({ name: 'v', mountPath: `/usr/local/nvidia/${i}` })),
        },
      ]),
  ],
  'containers with mounts that are in the way': [
    5000,
    (n) =>
      withContainers(
        many(n, (i) => ({
          name: `c${i}`,
          resources: gpu,
          volumeMounts: many(4, (j) => ({ name: 'v', mountPath: `/own/${i}/${j}` })),
        })),
      ),
  ],
  'one long mount path': [
    3_000_000,
    (n) =>
      withContainers([{ name: 'c', resources: gpu, volumeMounts: [{ name: 'v', mountPath: '/a'.repeat(n / 2) }] }]),
  ],
  variables: [
    50_000,
    (n) => withContainers([{ name: 'c', resources: gpu, env: many(n, (i) => ({ name: `V${i}`, value: 'x' })) }]),
  ],
  volumes: [
    60_000,
    (n) => withContainers([{ name: 'c', resources: gpu }], { volumes: many(n, (i) => ({ name: `v${i}` })) }),
  ],
  'resources of a container': [
    60_000,
    (n) =>
      withContainers([
        { name: 'c', resources: { limits: { ...mapOf(n, (i) => `example.com/r${i}`), ...gpu.limits } } },
      ]),
  ],
  gates: [
    60_000,
    (n) =>
      withContainers([{ name: 'c', resources: gpu }], {
        readinessGates: many(n, (i) => ({ conditionType: `a/${i}` })),
      }),
  ],
  tolerations: [
    60_000,
    (n) => withContainers([{ name: 'c', resources: gpu }], { tolerations: many(n, (i) => ({ key: `k${i}` })) }),
  ],
  'a node selector': [
    60_000,
    (n) => withContainers([{ name: 'c', resources: gpu }], { nodeSelector: mapOf(n, (i) => `k${i}`) }),
  ],
  annotations: [
    10_000,
    (n) => ({
      ...withContainers([{ name: 'c', resources: gpu }]),
      metadata: { annotations: mapOf(n, (i) => `a/${i}`) },
    }),
  ],
};

/** The same object; `reads()` says how many fields and elements were read of it. */
function counted<T extends object>(value: T): { readonly value: T; readonly reads: () => number } {
  let count = 0;
  const wrap = (inner: unknown): unknown =>
    typeof inner === 'object' && inner !== null
      ? new Proxy(inner, {
          get(target, key, receiver) {
            count += 1;
            const found: unknown = Reflect.get(target, key, receiver);
            return typeof found === 'function' ? found : wrap(found);
          },
        })
      : inner;
  return { value: wrap(value) as T, reads: () => count };
}
const work = (pod: RawPod, given: Facts): number => {
  const { value, reads } = counted(pod);
  decide(value, given);
  return reads();
};
/** A GPU pod is never let through without the gate: it is refused, or it gets the gate. */
const gated = (pod: RawPod, admission: Admission): boolean =>
  admission.kind === 'refuse' ||
  (admission.kind === 'inject' &&
    applied(pod, admission.operations).spec?.readinessGates?.some(
      ({ conditionType }) => conditionType === 'gpu-gate.dev/node-validated',
    ) === true);

describe.each(Object.entries(PODS))('%s', (_, [most, podOf]) => {
  it.each([
    ['the worst policy', WORST],
    ['a usual policy', USUAL],
    ['a policy without mounts', PLAIN],
  ])('under %s: the answer is bounded, and the pod is gated or refused', (_, policy) => {
    const pod = podOf(most);
    const admission = decide(pod, facts(policy));
    expect(encode('u', admission).length).toBeLessThan(2 * MIB);
    const warnings = admission.kind === 'refuse' ? [admission.because] : admission.warnings;
    expect(warnings.length).toBeLessThanOrEqual(10);
    if (admission.kind !== 'refuse') for (const warning of warnings) expect(warning.length).toBeLessThan(120);
    else expect(admission.because.length).toBeLessThan(400);
    expect(gated(pod, admission)).toBe(true);
  });

  it('twice as much of it costs at most twice as much work', () => {
    const [half, whole] = [work(podOf(most / 2), facts(WORST)), work(podOf(most), facts(WORST))];
    expect(whole).toBeLessThanOrEqual(2 * half + 100);
    expect(work(podOf(most), facts(USUAL))).toBeLessThan(40 * most + 1000);
  });
});

it('what cannot be listed is counted', () => {
  const pod = withContainers(
    many(500, (i) => ({
      name: `c${i}`,
      resources: gpu,
      volumeMounts: [{ name: 'v', mountPath: '/usr/local/nvidia' }],
    })),
  );
  const admission = decide(pod, facts());
  if (admission.kind !== 'inject') throw new Error(admission.reason);
  expect(admission.warnings).toHaveLength(10);
  expect(admission.warnings.at(-1)).toBe(
    'gpu-gate: 491 more warnings; annotation gpu-gate.dev/injection lists what was left out',
  );
  expect(admission.skipped.at(-1)).toEqual({ what: '470 more', because: 'the list is cut here' });
});

it('a pod that would grow beyond what an API server stores is refused, in one sentence', () => {
  const pod = withContainers(many(300, (i) => ({ name: `c${i}`, resources: gpu })));
  expect(decide(pod, facts(WORST))).toEqual({
    kind: 'refuse',
    reason: 'too-large',
    because: expect.stringMatching(
      /^GPUPolicy default would add \d+ KiB to the containers of this pod, more than the 1024 KiB that fit: use fewer containers$/,
    ),
  });
  expect(decide(pod, facts(PLAIN))).toMatchObject({ kind: 'inject' });
});
