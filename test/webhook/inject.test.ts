import { NO_DEVICES } from '../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { RawContainer, RawPod } from '../../gate/gpu-request.ts';
import { decide, type Admission, type Facts } from '../../webhook/inject.ts';
import { applied } from '../support/applied.ts';
import { encode } from '../../webhook/review.ts';
import { aPod, aPolicy } from '../builders/objects.ts';

const VOLUMES = {
  injection: {
    driverVolumes: [{ name: 'driver', hostPath: '/run/nvidia/driver', mountPath: '/usr/local/nvidia' }],
    env: [{ name: 'LD_LIBRARY_PATH', value: '/usr/local/nvidia/lib64' }],
  },
};

const facts = (policy: GpuPolicy | undefined = aPolicy(), more: Partial<Facts> = {}): Facts => ({
  policies: new Map(policy === undefined ? [] : [[policy.name, policy]]),
  runtimeClasses: new Map([['nvidia', { nodeSelector: {} }]]),
  devices: NO_DEVICES,
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set(['gpu-gate', 'kube-system']),
  ...more,
});

const outcomeOf = (admission: Admission): string =>
  admission.kind === 'inject' ? `inject ${admission.injected.join(',')}` : `${admission.kind} ${admission.reason}`;

describe('a pod that is about to be created', () => {
  it.each([
    ['asks for no GPU', aPod(), facts(), 'leave no-gpu'],
    ['asks for zero GPUs', aPod({ gpus: '0' }), facts(), 'leave no-gpu'],
    ['asks for a GPU', aPod({ gpus: '1' }), facts(), 'inject runtimeClassName,readinessGate'],
    ['asks in an init container', aPod({ initGpus: '1' }), facts(), 'inject runtimeClassName,hiddenGpus,readinessGate'],
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
      'has a malformed driver version under a suspended policy',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': 'x' } }),
      facts(aPolicy({ suspend: true })),
      'leave suspended',
    ],
    [
      'has a malformed driver version under an auditing policy',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': 'x' } }),
      facts(aPolicy({}, { status: {} })),
      'leave auditing',
    ],
    [
      'has a malformed driver version and finds no policy',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': 'x' } }),
      facts(aPolicy({}, { metadata: { name: 'other' } })),
      'leave no-policy',
    ],
    [
      'has a malformed driver version and names a policy that is suspended, while the default one enforces',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': 'x', 'gpu-gate.dev/policy': 'pool' } }),
      facts(aPolicy(), {
        policies: new Map([
          ['default', aPolicy()],
          ['pool', aPolicy({ suspend: true }, { metadata: { name: 'pool' } })],
        ]),
      }),
      'leave suspended',
    ],
    [
      'has a malformed policy name',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/policy': 'No Name' } }),
      facts(),
      'refuse malformed-annotation',
    ],
    [
      'has a malformed policy name in a namespace that is opted out',
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/policy': 'No Name' } }),
      facts(aPolicy(), { namespaceLabels: { 'gpu-gate.dev/inject': 'false' } }),
      'leave opted-out',
    ],
    [
      'meets a class whose selector has the name of a method',
      aPod({ gpus: '1', spec: { nodeSelector: {} } }),
      facts(aPolicy(), { runtimeClasses: new Map([['nvidia', { nodeSelector: { constructor: 'a' } }]]) }),
      'inject runtimeClassName,readinessGate',
    ],
    [
      'has a malformed annotation but no GPU',
      aPod({ annotations: { 'gpu-gate.dev/min-driver': 'x' } }),
      facts(),
      'leave no-gpu',
    ],
    ['meets a suspended policy', aPod({ gpus: '1' }), facts(aPolicy({ suspend: true })), 'leave suspended'],
    ['meets an auditing policy', aPod({ gpus: '1' }), facts(aPolicy({}, { status: {} })), 'leave auditing'],
    [
      'has the class of the policy already',
      aPod({ gpus: '1', spec: { runtimeClassName: 'nvidia' } }),
      facts(),
      'inject readinessGate',
    ],
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
  ])('%s', (_, pod, given, expected) => expect(outcomeOf(decide(pod, given))).toBe(expected));

  const schedulerOf = (resources: object, injection: object = {}, spec: object = {}) => {
    const pod = aPod({ gpus: '1', spec: { ...spec, initContainers: [{ name: 'i', resources }] } });
    const admission = decide(pod, facts(aPolicy({ injection: { schedulerName: 's', ...injection } })));
    if (admission.kind !== 'inject') throw new Error('not injected');
    const because = admission.skipped.find(({ what }) => what === 'schedulerName')?.because;
    return [admission.injected.includes('schedulerName') ? 's' : 'kept', because];
  };
  const given = (name: string): string => `the pod requests ${name}, which another scheduler gives out`;
  it.each<[string, object, object | undefined, readonly (string | undefined)[]]>([
    [
      'HAMi’s memory, which every policy lists',
      { limits: { 'nvidia.com/gpumem': '3000' } },
      undefined,
      ['kept', given('nvidia.com/gpumem')],
    ],
    [
      'HAMi’s cores by a request alone',
      { requests: { 'nvidia.com/gpucores': 30 } },
      undefined,
      ['kept', given('nvidia.com/gpucores')],
    ],
    ['none of it', { limits: { 'nvidia.com/gpumem': '0' } }, undefined, ['s', undefined]],
    ['what no policy lists', { limits: { 'example.com/vgpu': '1' } }, undefined, ['s', undefined]],
    [
      'what the policy lists by its beginning',
      { limits: { 'example.com/vgpu-memory': '1k' } },
      { othersResources: ['example.com/vgpu-*'] },
      ['kept', given('example.com/vgpu-memory')],
    ],
    [
      'HAMi’s memory where the list is empty',
      { limits: { 'nvidia.com/gpumem': '1' } },
      { othersResources: [] },
      ['s', undefined],
    ],
  ])('its scheduler where it requests %s', (_, resources, injection, expected) =>
    expect(schedulerOf(resources, injection)).toEqual(expected),
  );
  it('keeps the scheduler of gpu-gate where its author names it, whatever it requests', () => {
    const [, because] = schedulerOf({ limits: { 'nvidia.com/gpumem': '1' } }, {}, { schedulerName: 's' });
    expect(because).toBeUndefined();
  });

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

const LABEL = 'gpu-gate.dev/injected';
const RECORD = 'gpu-gate.dev/injection';
/** The pod as the webhook makes it, and what it reports. */
const injected = (
  pod: RawPod,
  given: Facts = facts(),
): { after: RawPod; warnings: readonly string[]; record: object } => {
  const admission = decide(pod, given);
  if (admission.kind !== 'inject') throw new Error(outcomeOf(admission));
  const after = applied(pod, admission.operations);
  return {
    after,
    warnings: admission.warnings,
    record: JSON.parse(after.metadata?.annotations?.[RECORD] ?? '{}') as object,
  };
};

describe('a record that the pod brings along', () => {
  const honest = { policy: 'default', injected: ['runtimeClassName', 'readinessGate'], skipped: [] };

  it('does not keep the label away where class and gate are set too', () => {
    const spec = {
      runtimeClassName: 'nvidia',
      readinessGates: [{ conditionType: 'gpu-gate.dev/node-validated' }],
    };
    const { after } = injected(aPod({ gpus: '1', spec, annotations: { [RECORD]: JSON.stringify(honest) } }));
    expect(after.metadata?.labels).toEqual({ [LABEL]: 'true' });
  });

  it.each(['{"policy":"nope"}', '{}', 'junk', ''])('%j is replaced by what holds', (forged) => {
    const { after, record } = injected(aPod({ gpus: '1', annotations: { [RECORD]: forged, other: 'kept' } }));
    expect(record).toEqual(honest);
    expect(after.metadata?.annotations?.['other']).toBe('kept');
    expect(decide(after, facts())).toMatchObject({ kind: 'leave', reason: 'already-injected' });
  });

  it('does not silence the warning on a volume and a mount of the pod’s own', () => {
    const own = {
      gpus: '1',
      container: { volumeMounts: [{ name: 'x', mountPath: '/usr/local/nvidia' }] },
      spec: { volumes: [{ name: 'x' }] },
    };
    const annotations = { [RECORD]: '{}' };
    expect(injected(aPod({ ...own, annotations }), facts(aPolicy(VOLUMES))).warnings).toHaveLength(1);
    const volume = { gpus: '1', spec: { volumes: [{ name: 'driver', emptyDir: {} }] }, annotations };
    expect(injected(aPod(volume), facts(aPolicy(VOLUMES))).warnings).toEqual([
      "gpu-gate: volume driver is the pod's own, the driver's was left out",
    ]);
  });

  it('is brought up to date by a second call that finds more to do', () => {
    const before = facts(aPolicy(), { runtimeClasses: new Map() });
    const first = injected(aPod({ gpus: '1' }), before);
    expect(first.record).toMatchObject({ injected: ['readinessGate'], skipped: [{ what: 'runtimeClassName' }] });
    expect(injected(first.after).record).toEqual(honest);
  });

  it('copied with its pod: nothing to do, and a label of the author’s is put right', () => {
    const { after } = injected(aPod({ gpus: '1', labels: { [LABEL]: 'false' } }), facts(aPolicy(VOLUMES)));
    expect(after.metadata?.labels?.[LABEL]).toBe('true');
    expect(outcomeOf(decide(after, facts(aPolicy(VOLUMES))))).toBe('leave already-injected');
  });
});

describe('what the API server would refuse is not injected', () => {
  it('a mount where the container has a block device', () => {
    const container = { volumeDevices: [{ name: 'disk', devicePath: '/usr/local/nvidia' }] };
    const { after, warnings } = injected(aPod({ gpus: '1', container }), facts(aPolicy(VOLUMES)));
    expect([after.spec?.containers?.[0]?.volumeMounts, after.spec?.volumes]).toEqual([undefined, undefined]);
    expect(warnings).toEqual([expect.stringContaining("is the pod's own mount")]);
  });

  it('a record that would not fit among the annotations', () => {
    const annotations = { big: 'é'.repeat(131_040) };
    const { after, warnings } = injected(aPod({ gpus: '1', annotations }));
    expect(after.metadata?.annotations).toEqual(annotations);
    expect(after.metadata?.labels).toEqual({ [LABEL]: 'true' });
    expect(warnings).toEqual([expect.stringContaining('at their limit of 256 KiB')]);
    const room = injected(aPod({ gpus: '1', annotations: { big: 'é'.repeat(130_000) } }));
    expect(room.warnings).toEqual([]);
    expect(room.record).toMatchObject({ policy: 'default' });
  });
});

describe('warnings', () => {
  it('tell that a variable beats envFrom, and only where there is one', () => {
    const withFrom = aPod({ gpus: '1', container: { envFrom: [{ configMapRef: { name: 'c' } }] } });
    expect(injected(withFrom, facts(aPolicy(VOLUMES))).warnings).toEqual([
      'gpu-gate: LD_LIBRARY_PATH in main beats what envFrom sets; set it in env to keep yours',
    ]);
    const own = { envFrom: [{}], env: [{ name: 'LD_LIBRARY_PATH', value: '/mine' }] };
    expect(injected(aPod({ gpus: '1', container: own }), facts(aPolicy(VOLUMES))).warnings).toEqual([]);
  });

  it('stay below 120 characters with names of any length, and keep their advice', () => {
    const long = 'x'.repeat(253);
    const policy = aPolicy({
      injection: {
        runtimeClassName: long,
        driverVolumes: [
          { name: 'v'.repeat(63), hostPath: '/a', mountPath: '/a' },
          { name: 'w', hostPath: '/b', mountPath: `/${long}` },
        ],
        env: [{ name: 'E'.repeat(200), value: 'x' }],
      },
    });
    const pod = aPod({
      spec: {
        volumes: [{ name: 'v'.repeat(63) }],
        containers: [
          {
            name: 'c'.repeat(63),
            resources: { limits: { 'nvidia.com/gpu': '1' } },
            envFrom: [{}],
            volumeMounts: [{ name: 'other', mountPath: `/${long}` }],
          },
        ],
      },
    });
    const { warnings } = injected(pod, facts(policy));
    expect(warnings).toEqual([
      expect.stringMatching(/does not exist, the pod runs without it$/),
      expect.stringMatching(/is the pod's own, the driver's was left out$/),
      expect.stringMatching(/is the pod's own mount, the driver's was left out$/),
      expect.stringMatching(/beats what envFrom sets; set it in env to keep yours$/),
    ]);
    for (const warning of warnings) expect(warning.length).toBeLessThan(120);
    const restricted = facts(policy, { namespaceLabels: { 'pod-security.kubernetes.io/enforce': 'restricted' } });
    for (const warning of injected(pod, restricted).warnings) expect(warning.length).toBeLessThan(120);
  });
});

describe('the answer', () => {
  it('keeps the audit annotation of a first call: a second has its own key', () => {
    const keys = (admission: Admission): string[] => {
      const { response } = JSON.parse(encode('u', admission)) as { response: { auditAnnotations: object } };
      return Object.entries(response.auditAnnotations).map(([key, value]) => `${key}=${String(value)}`);
    };
    const pod = aPod({ gpus: '1' });
    expect(keys(decide(pod, facts()))).toEqual(['decision=injected by default: runtimeClassName, readinessGate']);
    const { after } = injected(pod);
    expect(keys(decide(after, facts()))).toEqual(['decision-again=left alone: already-injected']);
    const later = { ...after, spec: { ...after.spec, runtimeClassName: '' } };
    expect(keys(decide(later, facts()))).toEqual(['decision-again=injected by default: runtimeClassName']);
    expect(keys(decide(aPod(), facts()))).toEqual(['decision=left alone: no-gpu']);
  });
});
