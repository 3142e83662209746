// What a pod that asks for GPUs by Dynamic Resource Allocation gets: what keeps it off unproven
// nodes, and nothing that its devices do not need.
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { RawPod } from '../../gate/gpu-request.ts';
import { decide, type Admission } from '../../webhook/inject.ts';
import { claiming, DEVICES } from '../builders/devices.ts';
import { aPod, aPolicy } from '../builders/objects.ts';
import { applied } from '../support/applied.ts';

const SCHEDULER = { schedulerName: 'gpu-gate-scheduler' };
const decided = (pod: RawPod, policy: GpuPolicy | undefined = aPolicy({ injection: SCHEDULER })): Admission =>
  decide(pod, {
    policies: new Map(policy === undefined ? [] : [[policy.name, policy]]),
    runtimeClasses: new Map([['nvidia', { nodeSelector: {} }]]),
    devices: DEVICES,
    namespaceLabels: {},
    namespace: 'team',
    excludedNamespaces: new Set(),
  });
const claimPod = (how: object): RawPod => aPod({ spec: claiming(how) });
const injected = (admission: Admission) => {
  if (admission.kind !== 'inject') throw new Error(JSON.stringify(admission));
  return admission;
};

describe('a pod that asks for GPUs by claim alone', () => {
  it.each([
    ['a claim', claimPod({ resourceClaimName: 'gpu' })],
    ['a template', claimPod({ resourceClaimTemplateName: 'gpu' })],
    ['a mapped resource', aPod({ container: { resources: { limits: { 'example.com/gpu': '1' } } } })],
    [
      'an implicit resource',
      aPod({ container: { resources: { limits: { 'deviceclass.resource.kubernetes.io/gpu.nvidia.com': '1' } } } }),
    ],
  ])('by %s gets scheduler, readiness gate and label, and no runtime class', (_, pod) => {
    const admission = injected(decided(pod));
    expect(admission.injected).toEqual(['readinessGate', 'schedulerName']);
    expect(admission.skipped).toEqual([{ what: 'runtimeClassName', because: 'the GPUs come by claim' }]);
    expect(admission.warnings).toEqual([]);
    const { spec, metadata } = applied(pod, admission.operations);
    expect(spec?.runtimeClassName).toBeUndefined();
    expect(spec?.volumes).toBeUndefined();
    expect(metadata?.labels?.['gpu-gate.dev/injected']).toBe('true');
  });

  const FULL = { ...SCHEDULER, claimPods: 'Full', driverVolumesPreset: 'GKE' };
  it('gets all in the containers with the claim where the policy says that its driver needs it', () => {
    const pod = aPod({
      spec: {
        resourceClaims: [{ name: 'device', resourceClaimName: 'gpu' }],
        containers: [{ name: 'other' }, { name: 'gpu', resources: { claims: [{ name: 'device' }] } }],
      },
    });
    const admission = injected(decided(pod, aPolicy({ injection: FULL })));
    expect(admission.injected).toEqual(
      expect.arrayContaining(['runtimeClassName', 'driverVolumes', 'readinessGate', 'schedulerName']),
    );
    const { containers = [], runtimeClassName } = applied(pod, admission.operations).spec ?? {};
    expect(runtimeClassName).toBe('nvidia');
    expect(containers.map(({ volumeMounts }) => (volumeMounts ?? []).length > 0)).toEqual([false, true]);
  });
  it('keeps the mounts to the containers that ask by resource, if it asks both ways', () => {
    const pod = aPod({
      spec: {
        resourceClaims: [{ name: 'device', resourceClaimName: 'gpu' }],
        containers: [
          { name: 'claim', resources: { claims: [{ name: 'device' }] } },
          { name: 'resource', resources: { limits: { 'nvidia.com/gpu': '1' } } },
        ],
      },
    });
    const policy = aPolicy({ injection: { ...SCHEDULER, driverVolumesPreset: 'GKE' } });
    const admission = injected(decided(pod, policy));
    expect(admission.injected).toContain('runtimeClassName');
    const { containers = [] } = applied(pod, admission.operations).spec ?? {};
    expect(containers.map(({ volumeMounts }) => (volumeMounts ?? []).length > 0)).toEqual([false, true]);
  });

  it('by a resource gets no runtime class where the policy allocates by claim: an image could see every GPU', () => {
    const pod = aPod({
      spec: { containers: [{ name: 'c', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
    });
    const by = (allocation: string): readonly string[] =>
      injected(decided(pod, aPolicy({ allocation, injection: SCHEDULER }))).injected;
    expect(by('DRA')).toEqual(['readinessGate', 'schedulerName']);
    expect(by('DevicePlugin')).toContain('runtimeClassName');
  });

  it.each(['GateOnly', 'Full'])('is not changed by a second call under %s', (claimPods) => {
    const policy = aPolicy({ injection: { ...FULL, claimPods } });
    const pod = claimPod({ resourceClaimName: 'gpu' });
    const once = applied(pod, injected(decided(pod, policy)).operations);
    expect(decided(once, policy)).toMatchObject({ kind: 'leave', reason: 'already-injected' });
  });
});

describe('a pod whose claim or template is not known yet', () => {
  it.each([
    ['template', { resourceClaimTemplateName: 'late' }, 'ResourceClaimTemplate late is not known yet'],
    ['claim', { resourceClaimName: 'late' }, 'ResourceClaim late is not known yet'],
  ])('a %s: gets the scheduler that asks again, and no readiness gate', (_, how, because) => {
    const admission = injected(decided(claimPod(how)));
    expect(admission.injected).toEqual(['schedulerName']);
    expect(admission.skipped).toEqual([{ what: 'readinessGate', because }]);
    expect(admission.warnings).toEqual([`gpu-gate: ${because}, no readiness gate was added`]);
  });
  it('is left alone without a policy, or with one that does not enforce', () => {
    const pod = claimPod({ resourceClaimName: 'late' });
    expect(decide(pod, { ...factsWithout() })).toMatchObject({ kind: 'leave', reason: 'no-policy' });
    expect(decided(pod, aPolicy({}, { status: {} }))).toMatchObject({ kind: 'leave', reason: 'auditing' });
  });
});

const factsWithout = () => ({
  policies: new Map<string, GpuPolicy>(),
  runtimeClasses: new Map<string, never>(),
  devices: DEVICES,
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set<string>(),
});

describe('a pod with other devices', () => {
  it.each([
    ['a claim of another class', claimPod({ resourceClaimName: 'fpga' })],
    ['a template of another class', claimPod({ resourceClaimTemplateName: 'fpga' })],
    ['a resource of another class', aPod({ container: { resources: { limits: { 'example.com/fpga': '1' } } } })],
  ])('is left alone: %s', (_, pod) => expect(decided(pod)).toMatchObject({ kind: 'leave', reason: 'no-gpu' }));
});
