// What a pod becomes on a real API server, with every other part of admission taking part:
// RuntimeClass, Pod Security, LimitRange, ResourceQuota, foreign webhooks. The law: what we inject
// is never why a pod is refused, but for the refusals that we name.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MERGE_PATCH } from '../../../platform/kube.ts';
import { explainError } from '../../../platform/log.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { addPools } from '../../../lab/cluster/pools.ts';
import { foreignWebhook, type ForeignReview, type ForeignWebhook } from '../../support/mutating-webhook.ts';

interface Container {
  name: string;
  volumeMounts?: { name: string; mountPath: string }[];
  env?: { name: string; value: string }[];
  resources?: { requests?: Record<string, string>; limits?: Record<string, string> };
}
interface Pod {
  metadata: { name?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    runtimeClassName?: string;
    overhead?: Record<string, string>;
    nodeSelector?: Record<string, string>;
    schedulerName?: string;
    tolerations?: { key?: string }[];
    volumes?: { name: string; hostPath?: { path: string } }[];
    readinessGates?: { conditionType: string }[];
    containers: Container[];
  };
}
type Outcome = { readonly pod: Pod } | { readonly refused: string };

let cluster: Cluster;
let gate: Gate;

const CLASSES = {
  plain: {},
  overhead: { overhead: { podFixed: { cpu: '100m', memory: '64Mi' } } },
  selector: { scheduling: { nodeSelector: { zone: 'a' } } },
  tolerations: { scheduling: { tolerations: [{ key: 'gpu', operator: 'Exists', effect: 'NoSchedule' }] } },
};
/** What clouds put on pools of GPU nodes. */
const POOL_TAINT = { key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' };
const VOLUMES = { runtimeClassName: '', driverVolumesPreset: 'GKE' };

beforeAll(async () => {
  cluster = await startCluster({ nodes: 0, scheduler: false, say: console.log });
  gate = await startGate(cluster, {
    scheduler: false,
    values: { policy: { spec: { nodeSelector: { pool: 'default' } } } },
  });
  for (const [name, more] of Object.entries(CLASSES))
    await cluster.admin.request('POST', '/apis/node.k8s.io/v1/runtimeclasses', {
      body: { apiVersion: 'node.k8s.io/v1', kind: 'RuntimeClass', metadata: { name }, handler: 'nvidia', ...more },
    });
  const withClass = (runtimeClassName: string): object => ({ runtimeClassName });
  await addPools(cluster, {
    absent: withClass('absent'),
    ...Object.fromEntries(Object.keys(CLASSES).map((name) => [name, withClass(name)])),
    volumes: VOLUMES,
    scheduled: { schedulerName: 'gpu-gate-scheduler' },
    greedy: { schedulerName: 'gpu-gate-scheduler', othersResources: [] },
    tolerant: { tolerations: [POOL_TAINT] },
    both: { ...VOLUMES, runtimeClassName: 'overhead' },
  });
  await addPools(cluster, { limited: {} }, { allowedNamespaces: ['privileged'] });
  for (const level of ['privileged', 'baseline', 'restricted']) await namespace(level, level);
});
afterAll(async () => cluster?.stop());

const namespace = (name: string, level?: string): Promise<unknown> =>
  cluster.admin.request('POST', '/api/v1/namespaces', {
    body: {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels: level === undefined ? {} : { 'pod-security.kubernetes.io/enforce': level } },
    },
  });

interface Ask {
  readonly policy: string;
  readonly spec?: object;
  readonly container?: object;
  readonly namespace?: string;
  readonly optedOut?: boolean;
  readonly dryRun?: boolean;
}

/** A GPU pod as the API server would store it, or why it refuses it. */
const create = async (ask: Ask): Promise<Outcome> => {
  const body = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      generateName: 'matrix-',
      annotations: { 'gpu-gate.dev/policy': ask.policy },
      labels: ask.optedOut === true ? { 'gpu-gate.dev/inject': 'false' } : {},
    },
    spec: {
      containers: [{ name: 'main', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } }, ...ask.container }],
      ...ask.spec,
    },
  };
  try {
    const path = `/api/v1/namespaces/${ask.namespace ?? 'default'}/pods`;
    return {
      pod: await cluster.admin.request<Pod>('POST', path, {
        ...(ask.dryRun === false ? {} : { query: { dryRun: 'All' } }),
        body,
      }),
    };
  } catch (error) {
    return { refused: explainError(error) };
  }
};
/**
 * Why the API server refused, without the generated name of the pod. An overhead of the pod's own
 * is wrong with no class and with one that has another: the words differ, the fault is the same.
 */
const fault = (refused: string): string =>
  /overhead/i.test(refused) ? 'its overhead' : refused.replaceAll(/pods? \\?"[^"]*"/gi, 'the pod');
const created = async (ask: Ask): Promise<Pod> => {
  const outcome = await create(ask);
  if ('refused' in outcome) throw new Error(outcome.refused);
  return outcome.pod;
};
const gates = (pod: Pod): number =>
  (pod.spec.readinessGates ?? []).filter((entry) => entry.conditionType === 'gpu-gate.dev/node-validated').length;

const PODS: Readonly<Record<string, object>> = {
  'nothing set': {},
  'the same class set': { runtimeClassName: 'overhead' },
  'another class set': { runtimeClassName: 'plain' },
  'the overhead of the class set': { overhead: { cpu: '100m', memory: '64Mi' } },
  'another overhead set': { overhead: { cpu: '1' } },
  'a class and its overhead set': { runtimeClassName: 'overhead', overhead: { cpu: '100m', memory: '64Mi' } },
  'the selector of the class set': { nodeSelector: { zone: 'a' } },
  'a selector against the class': { nodeSelector: { zone: 'b' } },
  'a class and a selector against it': { runtimeClassName: 'selector', nodeSelector: { zone: 'b' } },
  'the toleration of the class set': { tolerations: [{ key: 'gpu', operator: 'Exists', effect: 'NoSchedule' }] },
  'the gate set': { readinessGates: [{ conditionType: 'gpu-gate.dev/node-validated' }] },
  'another gate set': { readinessGates: [{ conditionType: 'example.com/ready' }] },
  'the host network': { hostNetwork: true },
};

/** How often our webhook is called for one pod. */
const callsFor = async (ask: Ask): Promise<number> => {
  const calls = async (): Promise<number> =>
    (await gate.metrics())
      .split('\n')
      .filter((line) => line.startsWith('gpu_gate_admission_total'))
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  const before = await calls();
  await created(ask);
  return (await calls()) - before;
};

describe.each([
  ['Never', 1],
  ['IfNeeded', 2],
])('reinvocation %s', (reinvocationPolicy, calls) => {
  let other: ForeignWebhook;
  // A change after ours is what makes the API server call again.
  beforeAll(async () => {
    await gate.upgrade({ webhook: { reinvocationPolicy } });
    other = await foreignWebhook(cluster.admin, 'zzz-touches', 'default', () => [
      { op: 'add', path: '/metadata/annotations/touched', value: 'true' },
    ]);
    // Configurations reach the API server by watch.
    await until(`${calls} calls for a pod`, async () => (await callsFor({ policy: 'plain' })) === calls);
  });
  afterAll(async () => other?.remove());

  it('is as it is called', async () => expect(await callsFor({ policy: 'plain' })).toBe(calls));

  describe.each(['absent', ...Object.keys(CLASSES)])('RuntimeClass %s', (policy) => {
    it.each(Object.entries(PODS))('pod with %s', async (_, spec) => {
      const [ours, theirs] = await Promise.all([create({ policy, spec }), create({ policy, spec, optedOut: true })]);
      const own = (spec as Pod['spec']).runtimeClassName;
      const zone = (spec as Pod['spec']).nodeSelector?.['zone'];
      if (own === undefined && policy === 'selector' && zone === 'b') {
        expect(ours).toEqual({ refused: expect.stringContaining('contradicts RuntimeClass selector') });
        return;
      }
      // The pod's own fault stays its own: refused without us, and for the same reason, is the only
      // way to be refused with us.
      if ('refused' in ours) return expect('refused' in theirs && fault(theirs.refused)).toBe(fault(ours.refused));
      const { pod } = ours;
      const name = own ?? (policy === 'absent' ? undefined : policy);
      expect([pod.spec.runtimeClassName, gates(pod)]).toEqual([name, 1]);
      expect(pod.metadata.labels?.['gpu-gate.dev/injected']).toBe('true');
      // What belongs to a class the API server merges, and once.
      expect(pod.spec.overhead).toEqual(name === 'overhead' ? { cpu: '100m', memory: '64Mi' } : undefined);
      if (name === 'selector') expect(pod.spec.nodeSelector).toEqual({ zone: 'a' });
      expect((pod.spec.tolerations ?? []).filter(({ key }) => key === 'gpu')).toHaveLength(
        name === 'tolerations' || 'tolerations' in spec ? 1 : 0,
      );
      return undefined;
    });
  });
});

describe('Pod Security', () => {
  const compliant = {
    securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
  };
  const container = { securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } } };
  const levels = ['privileged', 'baseline', 'restricted'];
  it.each(levels.flatMap((level) => [[level, 'volumes'] as const, [level, 'plain'] as const]))(
    '%s, policy %s: accepted, hostPath only where it may be',
    async (level, policy) => {
      const ask = { policy, namespace: level, spec: compliant, container };
      // The webhook learns of the namespace by watch.
      const pod = await until('the namespace to be known', async () => {
        const made = await created(ask);
        return (made.spec.volumes ?? []).some(({ hostPath }) => hostPath !== undefined) ===
          (policy === 'volumes' && level === 'privileged')
          ? made
          : undefined;
      });
      expect(gates(pod)).toBe(1);
      const record = pod.metadata.annotations?.['gpu-gate.dev/injection'] ?? '';
      if (policy === 'volumes' && level !== 'privileged') expect(record).toContain(`enforces Pod Security ${level}`);
      else expect(record).not.toContain('Pod Security');
    },
  );

  it('the control: such a hostPath of the pod’s own is refused in baseline', async () => {
    const spec = { ...compliant, volumes: [{ name: 'v', hostPath: { path: '/home/kubernetes/bin/nvidia' } }] };
    expect(await create({ policy: 'plain', namespace: 'baseline', spec, container })).toEqual({
      refused: expect.stringContaining('PodSecurity "baseline'),
    });
  });
});

describe('LimitRange and ResourceQuota', () => {
  it('defaults of a LimitRange, and its maximum, with the overhead of a class', async () => {
    await namespace('limited');
    await cluster.admin.request('POST', '/api/v1/namespaces/limited/limitranges', {
      body: {
        apiVersion: 'v1',
        kind: 'LimitRange',
        metadata: { name: 'limits' },
        spec: { limits: [{ type: 'Container', default: { cpu: '1' }, max: { cpu: '1' } }] },
      },
    });
    const pod = await until('the LimitRange', async () => {
      const made = await created({ policy: 'both', namespace: 'limited' });
      return made.spec.containers[0]?.resources?.requests?.['cpu'] === '1' && made;
    });
    expect([pod.spec.runtimeClassName, gates(pod), pod.spec.volumes?.some(({ hostPath }) => hostPath)]).toEqual([
      'overhead',
      1,
      true,
    ]);
  });

  it('a quota of two GPUs: two pods, and the third is refused by the quota alone', async () => {
    await namespace('quota');
    await cluster.admin.request('POST', '/api/v1/namespaces/quota/resourcequotas', {
      body: {
        apiVersion: 'v1',
        kind: 'ResourceQuota',
        metadata: { name: 'gpus' },
        spec: { hard: { 'requests.nvidia.com/gpu': '2', pods: '10' } },
      },
    });
    await until('the quota', async () => {
      const quota = await cluster.admin.request<{ status?: { used?: object } }>(
        'GET',
        '/api/v1/namespaces/quota/resourcequotas/gpus',
      );
      return quota.status?.used !== undefined;
    });
    const ask = { policy: 'both', namespace: 'quota', dryRun: false };
    expect(gates(await created(ask))).toBe(1);
    expect(gates(await created(ask))).toBe(1);
    expect(await create(ask)).toEqual({ refused: expect.stringContaining('exceeded quota: gpus') });
  });
});

describe('a quota that only the overhead of the class exceeds', () => {
  it('is the exception: the pod is refused, as it would be had its author named the class', async () => {
    await namespace('tight');
    await cluster.admin.request('POST', '/api/v1/namespaces/tight/resourcequotas', {
      body: {
        apiVersion: 'v1',
        kind: 'ResourceQuota',
        metadata: { name: 'cpu' },
        spec: { hard: { 'requests.cpu': '1' } },
      },
    });
    await until('the quota', async () => {
      const quota = await cluster.admin.request<{ status?: { used?: object } }>(
        'GET',
        '/api/v1/namespaces/tight/resourcequotas/cpu',
      );
      return quota.status?.used !== undefined;
    });
    const ask = {
      namespace: 'tight',
      dryRun: false,
      container: { resources: { limits: { 'nvidia.com/gpu': '1' }, requests: { cpu: '1' } } },
    };
    expect(await create({ ...ask, policy: 'overhead' })).toEqual({
      refused: expect.stringContaining('exceeded quota: cpu'),
    });
    expect(await create({ ...ask, policy: 'absent', spec: { runtimeClassName: 'overhead' } })).toEqual({
      refused: expect.stringContaining('exceeded quota: cpu'),
    });
    expect(gates(await created({ ...ask, policy: 'plain' }))).toBe(1);
  });
});

describe('another mutating webhook', () => {
  const sidecar = {
    name: 'sidecar',
    image: 'x',
    resources: { limits: { 'nvidia.com/gpu': '1' }, requests: { 'nvidia.com/gpu': '1' } },
  };
  const addSidecar = ({
    request: {
      object: { spec },
    },
  }: ForeignReview): readonly object[] =>
    (spec['containers'] as Container[]).some(({ name }) => name === 'sidecar')
      ? []
      : [{ op: 'add', path: '/spec/containers/-', value: sidecar }];
  const mounted = (pod: Pod): string[] =>
    pod.spec.containers
      .filter(({ volumeMounts }) => volumeMounts?.some(({ name }) => name === 'gpu-gate-driver'))
      .map(({ name }) => name);

  it.each([
    ['before ours', 'a-first', 'Never', ['main', 'sidecar'], 1],
    ['after ours, no reinvocation', 'zzz-last', 'Never', ['main'], 1],
    ['after ours, reinvocation', 'zzz-last', 'IfNeeded', ['main', 'sidecar'], 2],
  ])('adds a GPU sidecar %s', async (_, name, reinvocationPolicy, expected, calls) => {
    await gate.upgrade({ webhook: { reinvocationPolicy } });
    const other = await foreignWebhook(cluster.admin, name, 'default', addSidecar);
    try {
      // Configurations reach the API server by watch too.
      const pod = await until(`mounts in ${expected.join(', ')}`, async () => {
        const made = await created({ policy: 'volumes' });
        return made.spec.containers.length === 2 && String(mounted(made)) === String(expected) ? made : undefined;
      });
      expect(gates(pod)).toBe(1);
      expect(pod.spec.volumes?.filter((volume) => volume.name === 'gpu-gate-driver')).toHaveLength(1);
      expect(other.calls()).toBeGreaterThan(0);
      expect(await callsFor({ policy: 'volumes' })).toBe(calls);
      // The record tells what holds after the last call.
      expect(JSON.parse(pod.metadata.annotations?.['gpu-gate.dev/injection'] ?? '')).toEqual({
        policy: 'volumes',
        injected: ['driverVolumes', 'readinessGate'],
        skipped: [],
      });
    } finally {
      await other.remove();
    }
  });
});

describe('the webhook of another GPU scheduler, which takes pods that have the default one and adds their GPU', () => {
  const MEMORY = 'nvidia.com/gpumem';
  const take = ({
    request: {
      object: { spec },
    },
  }: ForeignReview): readonly object[] => {
    const { containers, schedulerName } = spec as unknown as Pod['spec'];
    if (containers[0]?.resources?.limits?.[MEMORY] === undefined || schedulerName !== 'default-scheduler') return [];
    const asks = containers[0].resources.limits['nvidia.com/gpu'] !== undefined;
    const quantities = ['limits', 'requests'].map((list) => ({
      op: 'add',
      path: `/spec/containers/0/resources/${list}/nvidia.com~1gpu`,
      value: '1',
    }));
    return [{ op: 'add', path: '/spec/schedulerName', value: 'hami-scheduler' }, ...(asks ? [] : quantities)];
  };
  const asking = (policy: string, ...resources: string[]): Ask => {
    const quantities = Object.fromEntries(resources.map((name) => [name, name === MEMORY ? '3000' : '1']));
    return { policy, container: { resources: { limits: quantities, requests: quantities } } };
  };

  it.each([
    // Its pods stay its own, and are gated: whatever it adds, gpu-gate's entry comes after.
    ['hami', 'scheduled', 'GPU and memory', ['nvidia.com/gpu', MEMORY], 'hami-scheduler', 1],
    ['hami', 'scheduled', 'memory alone', [MEMORY], 'hami-scheduler', 1],
    // One that sorts after gpu-gate's finds its pods as they came, by the policy's list of others'
    // resources; without that list the scheduler is taken.
    ['zzz-hami', 'scheduled', 'GPU and memory', ['nvidia.com/gpu', MEMORY], 'hami-scheduler', 1],
    ['zzz-hami', 'greedy', 'GPU and memory', ['nvidia.com/gpu', MEMORY], 'gpu-gate-scheduler', 1],
    // A GPU request that it adds is seen by nobody; the reconciler reports such a pod.
    ['zzz-hami', 'scheduled', 'memory alone', [MEMORY], 'hami-scheduler', 0],
  ])('configuration %s, policy %s, a pod that requests %s', async (name, policy, _, resources, scheduler, gated) => {
    const other = await foreignWebhook(cluster.admin, name, 'default', take);
    try {
      const pod = await until('the other webhook to take part', async () => {
        const made = await created(asking(policy, ...resources));
        return other.calls() > 0 && made;
      });
      expect([pod.spec.schedulerName, gates(pod)]).toEqual([scheduler, gated]);
      expect(pod.spec.runtimeClassName).toBe(gated === 1 ? 'nvidia' : undefined);
      expect(pod.spec.containers[0]?.resources?.limits?.['nvidia.com/gpu']).toBe('1');
    } finally {
      await other.remove();
    }
  });
});

describe('a webhook that names its own scheduler after gpu-gate has named one', () => {
  it.each([
    ['IfNeeded', ['runtimeClassName', 'readinessGate'], [{ what: 'schedulerName', because: 'already own-scheduler' }]],
    // Not called again, the record shows what gpu-gate left; `explain` shows the pod's scheduler.
    ['Never', ['runtimeClassName', 'readinessGate', 'schedulerName'], []],
  ])('reinvocation %s: the pod is gated, of that scheduler', async (reinvocationPolicy, injected, skipped) => {
    await gate.upgrade({ webhook: { reinvocationPolicy } });
    const other = await foreignWebhook(cluster.admin, 'zzz-own', 'default', () => [
      { op: 'add', path: '/spec/schedulerName', value: 'own-scheduler' },
    ]);
    try {
      await until('the record', async () => {
        const { spec, metadata } = await created({ policy: 'scheduled' });
        const record = JSON.parse(metadata.annotations?.['gpu-gate.dev/injection'] ?? '') as object;
        return (
          spec.schedulerName === 'own-scheduler' &&
          JSON.stringify(record) === JSON.stringify({ policy: 'scheduled', injected, skipped })
        );
      });
    } finally {
      await other.remove();
    }
  });
});

describe('what a policy adds to every GPU pod', () => {
  it('tolerations, once, beside the pod’s own', async () => {
    const own = { key: 'team', operator: 'Exists' };
    for (const tolerations of [[], [own], [own, POOL_TAINT]]) {
      const { spec } = await created({ policy: 'tolerant', spec: { tolerations } });
      const ours = (spec.tolerations ?? []).filter(({ key }) => key === POOL_TAINT.key);
      expect(ours).toEqual([POOL_TAINT]);
      expect((spec.tolerations ?? []).some(({ key }) => key === 'team')).toBe(tolerations.length > 0);
    }
  });

  it('a pod that the webhook finds too large is refused in one sentence, and one of the same size without our mounts is not', async () => {
    // 2,000 containers of which one requests a GPU: hiding GPUs from the others alone is below the
    // limit.
    const containers = Array.from({ length: 2000 }, (_, i) => ({
      name: `c${i}`,
      image: 'x',
      resources: { limits: { 'nvidia.com/gpu': '1' } },
    }));
    expect(await create({ policy: 'volumes', spec: { containers } })).toEqual({
      refused: expect.stringMatching(/GPUPolicy volumes would add \d+ KiB to the containers of this pod/),
    });
    expect(gates(await created({ policy: 'plain', spec: { containers } }))).toBe(1);
  });
});

describe('the policy that an author names', () => {
  it('is refused outside its allowedNamespaces', async () => {
    expect(await create({ policy: 'limited' })).toEqual({
      refused: expect.stringContaining('GPUPolicy limited may not be named in this namespace'),
    });
    // The policy reaches the webhook by watch, as all do, before it enforces.
    const pod = await created({ policy: 'limited', namespace: 'privileged' });
    expect(pod.metadata.labels?.['gpu-gate.dev/injected']).toBe('true');
  });

  it.each(['', '/status'])(
    'cannot be changed, added or taken away later by pods%s; everything else can',
    async (sub) => {
      const named = await created({ policy: 'plain', dryRun: false });
      const path = `/api/v1/namespaces/default/pods/${named.metadata.name ?? ''}${sub}`;
      const annotate = (annotations: Record<string, string | null>): Promise<Pod> =>
        cluster.admin.request('PATCH', path, { contentType: MERGE_PATCH, body: { metadata: { annotations } } });
      const because = 'the annotation gpu-gate.dev/policy of a pod cannot change: create the pod again';
      await expect(annotate({ 'gpu-gate.dev/policy': 'limited' })).rejects.toThrow(because);
      await expect(annotate({ 'gpu-gate.dev/policy': null })).rejects.toThrow(because);
      expect((await annotate({ other: 'x' })).metadata.annotations).toMatchObject({
        other: 'x',
        'gpu-gate.dev/policy': 'plain',
      });
    },
  );
});
