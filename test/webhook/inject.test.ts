import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { RawContainer } from '../../core/gpu-request.ts';
import { decide, type Admission, type Facts } from '../../webhook/inject.ts';
import { applied } from '../../webhook/patch.ts';
import { aPod, aPolicy } from '../support/objects.ts';

const VOLUMES = {
  injection: {
    driverVolumes: [{ name: 'driver', hostPath: '/run/nvidia/driver', mountPath: '/usr/local/nvidia' }],
    env: [{ name: 'LD_LIBRARY_PATH', value: '/usr/local/nvidia/lib64' }],
  },
};

const facts = (policy: GpuPolicy | undefined = aPolicy(), more: Partial<Facts> = {}): Facts => ({
  policies: new Map(policy === undefined ? [] : [[policy.name, policy]]),
  runtimeClasses: new Map([['nvidia', { nodeSelector: {} }]]),
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set(['gpu-gate', 'kube-system']),
  ...more,
});

const said = (admission: Admission): string =>
  admission.kind === 'inject' ? `inject ${admission.injected.join(',')}` : `${admission.kind} ${admission.reason}`;

describe('a pod that is about to be created', () => {
  it.each([
    ['asks for no GPU', aPod(), facts(), 'leave no-gpu'],
    ['asks for zero GPUs', aPod({ gpus: '0' }), facts(), 'leave no-gpu'],
    ['asks for a GPU', aPod({ gpus: '1' }), facts(), 'inject runtimeClassName,readinessGate'],
    ['asks in an init container', aPod({ initGpus: '1' }), facts(), 'inject runtimeClassName,readinessGate'],
    [
      'is in an excluded namespace',
      aPod({ gpus: '1' }),
      facts(aPolicy(), { namespace: 'kube-system' }),
      'leave excluded-namespace',
    ],
    ['is opted out', aPod({ gpus: '1', labels: { 'gpu-gate.dev/inject': 'false' } }), facts(), 'leave opted-out'],
    [
      'is in an opted-out namespace',
      aPod({ gpus: '1' }),
      facts(aPolicy(), { namespaceLabels: { 'gpu-gate.dev/inject': 'false' } }),
      'leave opted-out',
    ],
    [
      'is a mirror pod',
      aPod({ gpus: '1', annotations: { 'kubernetes.io/config.mirror': 'x' } }),
      facts(),
      'leave mirror-pod',
    ],
    ['names its node', aPod({ gpus: '1', spec: { nodeName: 'n' } }), facts(), 'leave node-name-set'],
    ['finds no policy', aPod({ gpus: '1' }), facts(aPolicy({}, { metadata: { name: 'other' } })), 'leave no-policy'],
    [
      'names an unknown policy',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/policy': 'nope' } }),
      facts(),
      'refuse unknown-policy',
    ],
    [
      'has a malformed annotation',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': 'x' } }),
      facts(),
      'refuse malformed-annotation',
    ],
    [
      'has a malformed annotation but no GPU',
      aPod({ annotations: { 'gpu-gate.dev/min-driver': 'x' } }),
      facts(),
      'leave no-gpu',
    ],
    ['meets a suspended policy', aPod({ gpus: '1' }), facts(aPolicy({ suspend: true })), 'leave suspended'],
    ['meets an auditing policy', aPod({ gpus: '1' }), facts(aPolicy({}, { status: {} })), 'leave auditing'],
    ['has a runtime class', aPod({ gpus: '1', spec: { runtimeClassName: 'kata' } }), facts(), 'inject readinessGate'],
    [
      'meets no RuntimeClass',
      aPod({ gpus: '1' }),
      facts(aPolicy(), { runtimeClasses: new Map() }),
      'inject readinessGate',
    ],
    [
      'contradicts the class',
      aPod({ gpus: '1', spec: { nodeSelector: { pool: 'a' } } }),
      facts(aPolicy(), { runtimeClasses: new Map([['nvidia', { nodeSelector: { pool: 'b' } }]]) }),
      'refuse node-selector-conflict',
    ],
    [
      'gets volumes where the policy has some',
      aPod({ gpus: '1' }),
      facts(aPolicy(VOLUMES)),
      'inject runtimeClassName,env,driverVolumes,readinessGate',
    ],
    [
      'gets none under baseline',
      aPod({ gpus: '1' }),
      facts(aPolicy(VOLUMES), { namespaceLabels: { 'pod-security.kubernetes.io/enforce': 'baseline' } }),
      'inject runtimeClassName,readinessGate',
    ],
    [
      'gets none in an unknown namespace',
      aPod({ gpus: '1' }),
      facts(aPolicy(VOLUMES), { namespaceLabels: undefined }),
      'inject runtimeClassName,readinessGate',
    ],
    [
      'gets nothing that could break where unmanaged nodes are allowed',
      aPod({ gpus: '1' }),
      facts(aPolicy({ ...VOLUMES, unmanagedNodes: 'Allow' })),
      'inject readinessGate',
    ],
    [
      'gets the policy’s scheduler',
      aPod({ gpus: '1', spec: { schedulerName: 'default-scheduler' } }),
      facts(aPolicy({ injection: { schedulerName: 's' } })),
      'inject runtimeClassName,readinessGate,schedulerName',
    ],
    [
      'keeps its own scheduler',
      aPod({ gpus: '1', spec: { schedulerName: 'mine' } }),
      facts(aPolicy({ injection: { schedulerName: 's' } })),
      'inject runtimeClassName,readinessGate',
    ],
  ])('%s', (_, pod, given, expected) => expect(said(decide(pod, given))).toBe(expected));

  it('keeps its own mount and volume, with a warning below 120 characters', () => {
    const pod = aPod({
      gpus: '1',
      container: { volumeMounts: [{ name: 'own', mountPath: '/usr/local/nvidia/' }] },
      spec: { volumes: [{ name: 'own' }] },
    });
    const admission = decide(pod, facts(aPolicy(VOLUMES)));
    expect(admission).toMatchObject({ kind: 'inject', warnings: [expect.stringContaining('own mount')] });
    expect(
      admission.kind === 'inject' &&
        admission.operations.some((operation) => operation.path.startsWith('/spec/volumes')),
    ).toBe(false);
    for (const warning of admission.kind === 'inject' ? admission.warnings : [])
      expect(warning.length).toBeLessThan(120);
  });

  it('mounts only in the containers that ask', () => {
    const pod = aPod({
      gpus: '1',
      spec: { containers: [{ name: 'web' }, { name: 'gpu', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
    });
    const admission = decide(pod, facts(aPolicy(VOLUMES)));
    if (admission.kind !== 'inject') throw new Error('not injected');
    const after = applied(pod, admission.operations);
    expect(after.spec?.containers?.map((container) => container.volumeMounts?.length ?? 0)).toEqual([0, 1]);
    expect(decide(after, facts(aPolicy(VOLUMES)))).toMatchObject({ kind: 'leave', reason: 'already-injected' });
  });

  it('called again after another webhook added a GPU container: mounts there too, no second volume, no warning', () => {
    const gpu = (name: string): RawContainer => ({ name, resources: { limits: { 'nvidia.com/gpu': '1' } } });
    const first = decide(aPod({ spec: { containers: [gpu('main')] } }), facts(aPolicy(VOLUMES)));
    if (first.kind !== 'inject') throw new Error('not injected');
    const once = applied(aPod({ spec: { containers: [gpu('main')] } }), first.operations);
    const later = { ...once, spec: { ...once.spec, containers: [...(once.spec?.containers ?? []), gpu('sidecar')] } };
    const second = decide(later, facts(aPolicy(VOLUMES)));
    if (second.kind !== 'inject') throw new Error('not injected');
    expect(second.warnings).toEqual([]);
    const { spec } = applied(later, second.operations);
    expect(spec?.volumes).toHaveLength(1);
    expect(spec?.containers?.map((container) => container.volumeMounts?.length)).toEqual([1, 1]);
  });
});
