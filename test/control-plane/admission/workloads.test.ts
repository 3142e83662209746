// Pods as people and controllers make them, on a real API server: every way of creating one, what
// its author sees, and the AdmissionReviews of usual GPU workloads with our answers
// (test/golden/admission; GPU_GATE_TEST_UPDATE=1 captures them again).
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { APPLY, MERGE_PATCH, STRATEGIC_PATCH } from '../../../platform/kube.ts';
import { explainError } from '../../../platform/log.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { addPools } from '../../../lab/cluster/pools.ts';
import { foreignWebhook } from '../../support/mutating-webhook.ts';
import { WORKLOADS } from '../../builders/workloads.ts';

const GOLDEN = join(import.meta.dirname, '..', '..', 'golden', 'admission');
const PODS = '/api/v1/namespaces/default/pods';
const GATE = 'gpu-gate.dev/node-validated';
const SPEC = {
  terminationGracePeriodSeconds: 0,
  tolerations: [{ operator: 'Exists' }],
  containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
};

const RESOURCES = ['nvidia.com/gpu', 'nvidia.com/gpu.shared', 'nvidia.com/mig-*'];

interface Container {
  name: string;
  volumeMounts?: { name: string }[];
  env?: { name: string; value?: string }[];
}
interface Pod {
  metadata: { name: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    readinessGates?: { conditionType: string }[];
    runtimeClassName?: string;
    schedulerName?: string;
    ephemeralContainers?: object[];
    volumes?: { name: string; hostPath?: object }[];
    containers: Container[];
    initContainers?: Container[];
  };
}
let cluster: Cluster;
let gate: Gate;

beforeAll(async () => {
  cluster = await startCluster({ nodes: 0, scheduler: false, say: console.log });
  gate = await startGate(cluster, {
    scheduler: false,
    // The chart's list says which pods the webhook is called for.
    values: { policy: { spec: { nodeSelector: { pool: 'default' }, resources: RESOURCES } } },
  });
  await addPools(cluster, { pool: {}, volumes: { driverVolumesPreset: 'GKE' } }, { resources: RESOURCES });
});
afterAll(async () => cluster?.stop());

const annotations = { 'gpu-gate.dev/policy': 'pool' };
const manifest = (metadata: object, more: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { annotations, ...metadata },
  spec: { ...SPEC, ...more },
});
const expectInjected = (pod: Pod): void => {
  expect(pod.spec.readinessGates).toEqual([{ conditionType: GATE }]);
  expect([pod.spec.runtimeClassName, pod.metadata.labels?.['gpu-gate.dev/injected']]).toEqual(['nvidia', 'true']);
};
const calls = async (): Promise<number> =>
  (await gate.metrics())
    .split('\n')
    .filter((line) => line.startsWith('gpu_gate_admission_total'))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);

describe('every way to create a pod', () => {
  it('dry-run: shown injected, nothing stored', async () => {
    const { code, stdout } = await cluster.kubectl(
      ['create', '--dry-run=server', '-o', 'json', '-f', '-'],
      JSON.stringify(manifest({ name: 'dry' })),
    );
    expect(code).toBe(0);
    expectInjected(JSON.parse(stdout) as Pod);
    expect((await cluster.kubectl(['get', 'pod', 'dry'])).code).toBe(1);
  });

  it('generateName', async () => {
    const pod = await cluster.admin.request<Pod>('POST', PODS, { body: manifest({ generateName: 'gen-' }) });
    expectInjected(pod);
    expect(pod.metadata.name).toMatch(/^gen-.+/);
  });

  it('server-side apply, and the same apply again: no conflict, no change', async () => {
    const apply = (): Promise<Pod> =>
      cluster.admin.request('PATCH', `${PODS}/applied`, {
        contentType: APPLY,
        query: { fieldManager: 'team' },
        body: manifest({ name: 'applied' }),
      });
    const first = await apply();
    expectInjected(first);
    const second = await apply();
    expect([second.spec, second.metadata.labels, second.metadata.annotations]).toEqual([
      first.spec,
      first.metadata.labels,
      first.metadata.annotations,
    ]);
  });

  const selector = (app: string): object => ({ matchLabels: { app } });
  const template = (app: string, more: object = {}): object => ({
    metadata: { labels: { app }, annotations },
    spec: { ...SPEC, ...more },
  });
  it.each([
    ['Deployment', 'apps/v1', (app: string) => ({ selector: selector(app), template: template(app) })],
    [
      'StatefulSet',
      'apps/v1',
      (app: string) => ({ selector: selector(app), serviceName: app, template: template(app) }),
    ],
    ['DaemonSet', 'apps/v1', (app: string) => ({ selector: selector(app), template: template(app) })],
    ['Job', 'batch/v1', (app: string) => ({ template: template(app, { restartPolicy: 'Never' }) })],
    [
      'CronJob',
      'batch/v1',
      (app: string) => ({
        schedule: '* * * * *',
        jobTemplate: { spec: { template: template(app, { restartPolicy: 'Never' }) } },
      }),
    ],
  ])('%s', async (kind, apiVersion, spec) => {
    const app = kind.toLowerCase();
    const created = await cluster.kubectl(
      ['create', '-f', '-'],
      JSON.stringify({ apiVersion, kind, metadata: { name: app }, spec: spec(app) }),
    );
    expect(created).toMatchObject({ code: 0 });
    // As if its controller had slept over the last two minutes: it runs it at once.
    if (kind === 'CronJob')
      await cluster.admin.request('PATCH', '/apis/batch/v1/namespaces/default/cronjobs/cronjob/status', {
        contentType: MERGE_PATCH,
        body: { status: { lastScheduleTime: new Date(Date.now() - 120_000).toISOString().replace(/\.\d+/, '') } },
      });
    const pod = await until(`a pod of the ${kind}`, async () => {
      const { items } = await cluster.admin.request<{ items: Pod[] }>('GET', PODS, {
        query: { labelSelector: `app=${app}` },
      });
      return items[0];
    });
    expectInjected(pod);
    await cluster.kubectl(['delete', app, app, '--wait=false']);
  });

  it('an ephemeral container is added without a call, and nothing else changes', async () => {
    const pod = await cluster.admin.request<Pod>('POST', PODS, { body: manifest({ name: 'debugged' }) });
    const before = await calls();
    const debugged = await cluster.admin.request<Pod>('PATCH', `${PODS}/debugged/ephemeralcontainers`, {
      contentType: STRATEGIC_PATCH,
      body: { spec: { ephemeralContainers: [{ name: 'debug', image: 'x' }] } },
    });
    expect(debugged.spec.ephemeralContainers).toHaveLength(1);
    expect(debugged.spec.readinessGates).toEqual(pod.spec.readinessGates);
    expect(debugged.metadata.annotations).toEqual(pod.metadata.annotations);
    expect(await calls()).toBe(before);
  });
});

/** Calls as the API server itself counts them. */
const callsOfServer = async (): Promise<number> =>
  (await cluster.kubectl(['get', '--raw', '/metrics'])).stdout
    .split('\n')
    .filter(
      (line) =>
        line.startsWith('apiserver_admission_webhook_admission_duration_seconds_count{') &&
        line.includes('name="pods.gpu-gate.dev"'),
    )
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
const dryRun = (body: object, namespace = 'default'): Promise<Pod> =>
  cluster.admin.request('POST', `/api/v1/namespaces/${namespace}/pods`, { query: { dryRun: 'All' }, body });
const namespaceWith = (name: string, labels: object): Promise<unknown> =>
  cluster.admin.request('POST', '/api/v1/namespaces', {
    body: { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } },
  });

describe('where a GPU may be asked for', () => {
  const asking = (resource: string, more: object = {}): object => ({
    name: 'gpu',
    image: 'x',
    resources: { limits: { [resource]: '1' } },
    ...more,
  });
  const plain = { name: 'plain', image: 'x' };
  it.each([
    ['an init container', { initContainers: [asking('nvidia.com/gpu')], containers: [plain] }],
    [
      'a native sidecar',
      { initContainers: [asking('nvidia.com/gpu', { restartPolicy: 'Always' })], containers: [plain] },
    ],
    ['a MIG profile', { containers: [asking('nvidia.com/mig-1g.5gb'), plain] }],
    ['a shared GPU', { containers: [asking('nvidia.com/gpu.shared'), plain] }],
  ])('%s: injected, and mounted there only', async (_, spec) => {
    const pod = await dryRun(
      manifest({ generateName: 'asks-', annotations: { 'gpu-gate.dev/policy': 'volumes' } }, spec),
    );
    expectInjected(pod);
    const all = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
    const mounted = all.filter(({ volumeMounts }) => volumeMounts?.some(({ name }) => name === 'gpu-gate-driver'));
    expect(mounted.map(({ name }) => name)).toEqual(['gpu']);
  });
});

describe('switches of the injection', () => {
  const driver = (pod: Pod): string[] =>
    (pod.spec.volumes ?? []).flatMap((v) => (v.hostPath === undefined ? [] : v.name));
  const env = (pod: Pod): string[] => (pod.spec.containers[0]?.env ?? []).map(({ name }) => name);
  const files = (prefix: string): string[] =>
    ['libcuda', 'libnvidia-ml', 'libnvidia-ptxjitcompiler'].map((library) => `${prefix}-${library}-so-1`);
  const allow = { unmanagedNodes: 'Allow' };
  const switches: readonly (readonly [string, object, object, (pod: Pod) => unknown, unknown])[] = [
    ['gateless', { readinessGate: false }, {}, ({ spec }) => spec.readinessGates, undefined],
    ['classless', { runtimeClassName: '' }, {}, ({ spec }) => spec.runtimeClassName, undefined],
    ['scheduled', { schedulerName: 'special' }, {}, ({ spec }) => spec.schedulerName, 'special'],
    ['unscheduled', { schedulerName: '' }, {}, ({ spec }) => spec.schedulerName, 'default-scheduler'],
    [
      'own-volume',
      { driverVolumes: [{ name: 'own', hostPath: '/opt/driver', mountPath: '/opt/driver', type: 'Directory' }] },
      {},
      driver,
      ['own'],
    ],
    ['own-env', { env: [{ name: 'EXTRA', value: 'x' }] }, {}, env, ['EXTRA']],
    ['no-preset', { driverVolumesPreset: 'None' }, {}, driver, []],
    ['host-preset', { driverVolumesPreset: 'Host' }, {}, driver, [...files('gpu-gate'), ...files('gpu-gate-lib64')]],
    ['default-level', { driverVolumesPreset: 'GKE', podSecurityDefault: 'baseline' }, {}, driver, []],
    [
      'everywhere',
      { driverVolumesPreset: 'GKE' },
      allow,
      (pod) => [pod.spec.runtimeClassName, driver(pod), pod.spec.readinessGates?.length],
      [undefined, [], 1],
    ],
    [
      'also-there',
      { driverVolumesPreset: 'GKE', alsoOnUnmanaged: true },
      allow,
      (pod) => [pod.spec.runtimeClassName, driver(pod), pod.spec.readinessGates?.length],
      ['nvidia', ['gpu-gate-driver', ...files('gpu-gate'), ...files('gpu-gate-lib64')], 1],
    ],
    [
      'hidden',
      {},
      {},
      ({ spec }) => spec.initContainers?.[0]?.env,
      [{ name: 'NVIDIA_VISIBLE_DEVICES', value: 'void' }],
    ],
    ['shown', { hideUnrequestedGpus: false }, {}, ({ spec }) => spec.initContainers?.[0]?.env, undefined],
  ];
  beforeAll(async () => {
    for (const [name, injection, spec] of switches) await addPools(cluster, { [name]: injection }, spec);
  });
  it.each(switches)('%s %j %j', async (name, _, __, seen, expected) => {
    const metadata = { generateName: 'switch-', annotations: { 'gpu-gate.dev/policy': name } };
    const pod = await dryRun(manifest(metadata, { initContainers: [{ name: 'fetch', image: 'x' }] }));
    expect(pod.metadata.labels?.['gpu-gate.dev/injected']).toBe('true');
    expect(seen(pod)).toEqual(expected);
  });
});

describe('what people see', () => {
  it('Pod Security: a warning that says what was left out and what to do', async () => {
    await namespaceWith('baseline', { 'pod-security.kubernetes.io/enforce': 'baseline' });
    const body = manifest({ generateName: 'secure-', annotations: { 'gpu-gate.dev/policy': 'volumes' } });
    // The webhook learns of the namespace by watch; until then it takes it for a restricted one.
    await until('the warning', async () => {
      const create = ['create', '--dry-run=server', '-n', 'baseline', '-f', '-'];
      const { code, stderr } = await cluster.kubectl(create, JSON.stringify(body));
      return (
        code === 0 &&
        stderr ===
          'Warning: gpu-gate: no driver volumes, Pod Security baseline forbids hostPath; use the runtime class alone\n'
      );
    });
  });

  it('excluded namespaces and mirror pods cause no call, by the API server’s own metric; another pod causes one', async () => {
    await namespaceWith('out', { 'gpu-gate.dev/inject': 'false' });
    const compliant = {
      securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } },
      containers: SPEC.containers.map((container) => ({
        ...container,
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
      })),
    };
    const before = await callsOfServer();
    for (const name of ['out', 'gpu-gate', 'gpu-gate-operands', 'kube-system'])
      await dryRun(manifest({ generateName: 'excluded-' }, compliant), name);
    const mirror = { annotations: { 'kubernetes.io/config.mirror': 'hash' } };
    await dryRun(manifest({ generateName: 'mirror-', ...mirror }, { nodeName: 'gpu-0' }));
    expect(await callsOfServer()).toBe(before);
    await dryRun(manifest({ generateName: 'yes-' }));
    expect(await callsOfServer()).toBe(before + 1);
  });

  it('pods without a GPU cause no call, by our own metrics and the API server’s; one with a GPU causes one', async () => {
    const before = await calls();
    const beforeOfServer = await callsOfServer();
    const dry = { query: { dryRun: 'All' } };
    const container = (limits: object): object => ({ containers: [{ name: 'c', image: 'x', resources: { limits } }] });
    for (const limits of [{}, { cpu: '1' }, { 'nvidia.com/gpu': '0' }, { 'nvidia.com/other': '1' }])
      await cluster.admin.request('POST', PODS, { ...dry, body: manifest({ generateName: 'no-' }, container(limits)) });
    const inject = { labels: { 'gpu-gate.dev/inject': 'false' } };
    await cluster.admin.request('POST', PODS, { ...dry, body: manifest({ generateName: 'out-', ...inject }) });
    await cluster.admin.request('POST', PODS.replace('default', 'kube-system'), {
      ...dry,
      body: manifest({ generateName: 'system-' }),
    });
    expect([await calls(), await callsOfServer()]).toEqual([before, beforeOfServer]);
    await cluster.admin.request('POST', PODS, { ...dry, body: manifest({ generateName: 'yes-' }) });
    expect([await calls(), await callsOfServer()]).toEqual([before + 1, beforeOfServer + 1]);
    // A DeviceClass may map any other extended resource, which CEL cannot see.
    const others = manifest({ generateName: 'other-' }, container({ 'example.com/nvidia.com-gpu': '1' }));
    const left = await cluster.admin.request<Pod>('POST', PODS, { ...dry, body: others });
    expect(left.spec.readinessGates).toBeUndefined();
    expect([await calls(), await callsOfServer()]).toEqual([before + 2, beforeOfServer + 2]);
  });

  it('a warning reaches kubectl, an audit annotation the audit log', async () => {
    const body = manifest(
      { name: 'warned', annotations: { 'gpu-gate.dev/policy': 'volumes' } },
      { volumes: [{ name: 'gpu-gate-driver', emptyDir: {} }] },
    );
    const { code, stderr } = await cluster.kubectl(['create', '-f', '-'], JSON.stringify(body));
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(/^Warning: gpu-gate: volume gpu-gate-driver is the pod's own/),
    ]);
    const line = await until('the audit log', () =>
      readFileSync(cluster.auditLog, 'utf8')
        .split('\n')
        .find((entry) => entry.includes('"name":"warned"') && entry.includes('pods.gpu-gate.dev/decision')),
    );
    expect((JSON.parse(line) as { annotations: Record<string, string> }).annotations).toMatchObject({
      'pods.gpu-gate.dev/decision': expect.stringContaining('injected by volumes: runtimeClassName'),
    });
  });

  it.each([
    ['an unknown policy', { 'gpu-gate.dev/policy': 'nope' }, 'GPUPolicy "nope" does not exist'],
    ['a malformed policy', { 'gpu-gate.dev/policy': 'No Name' }, 'of a GPUPolicy'],
    ['a malformed version', { ...annotations, 'gpu-gate.dev/min-driver': 'new' }, 'driver version'],
  ])('%s is refused in one sentence', async (_, odd, sentence) => {
    const body = JSON.stringify(manifest({ name: 'odd', annotations: odd }));
    const { code, stderr } = await cluster.kubectl(['create', '-f', '-'], body);
    expect([code, stderr]).toEqual([1, expect.stringContaining(sentence)]);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe('usual GPU workloads', () => {
  // What differs from one capture to the next.
  const settled = (review: unknown): unknown =>
    JSON.parse(
      JSON.stringify(review, (key, value: unknown) =>
        key === 'uid' ? 'uid' : key === 'time' ? undefined : value,
      ).replaceAll(/kube-api-access-[a-z0-9]+/g, 'kube-api-access-00000'),
    );
  /** The running webhook's answer to a review. */
  const answerTo = (review: unknown): Promise<{ response: { patch?: string } }> =>
    new Promise((resolve, reject) => {
      const body = JSON.stringify(review);
      const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
      const target = { host: '127.0.0.1', port: gate.webhookPort, path: '/mutate', rejectUnauthorized: false };
      request({ ...target, method: 'POST', headers }, (response) => {
        text(response).then((answer) => resolve(JSON.parse(answer) as { response: { patch?: string } }), reject);
      })
        .on('error', reject)
        .end(body);
    });

  const decoded = ({ response: { patch, ...rest } }: { response: { patch?: string } }): object => ({
    ...rest,
    operations: patch === undefined ? [] : (JSON.parse(Buffer.from(patch, 'base64').toString()) as unknown),
  });

  it('their AdmissionReviews are as they were captured, and our answers too', async () => {
    const captured: unknown[] = [];
    const capture = await foreignWebhook(cluster.admin, 'a-capture', 'default', (review) => {
      captured.push(settled(review));
      return [];
    });
    try {
      const dryRun = (body: unknown): Promise<unknown> =>
        cluster.admin.request('POST', PODS, { query: { dryRun: 'All' }, body });
      await until('the capture', async () => {
        await dryRun(manifest({ generateName: 'first-' }));
        return captured.length > 0;
      });
      for (const [name, workload] of Object.entries(WORKLOADS)) {
        captured.length = 0;
        const before = await calls();
        const { metadata, ...rest } = workload as { metadata: object };
        await dryRun({ metadata: { ...metadata, annotations: { 'gpu-gate.dev/policy': 'volumes' } }, ...rest });
        const review = captured[0];
        const now = JSON.parse(
          JSON.stringify({
            review,
            answer: (await calls()) === before ? 'not called' : decoded(await answerTo(review)),
          }),
        ) as unknown;
        const file = join(GOLDEN, `${name}.json`);
        if (process.env['GPU_GATE_TEST_UPDATE'] === '1') {
          mkdirSync(GOLDEN, { recursive: true });
          writeFileSync(file, `${JSON.stringify(now, undefined, 2)}\n`);
        }
        expect(now, name).toEqual(JSON.parse(readFileSync(file, 'utf8')));
      }
    } finally {
      await capture.remove();
    }
  });
});

describe('a webhook that accepts calls and never answers', () => {
  const missed = async (): Promise<number> =>
    Number(/^gpu_gate_missed_pods_total (\d+)$/m.exec(await gate.metrics())?.[1] ?? 0);
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => sockets.add(socket.on('error', () => undefined)));
  beforeAll(async () => {
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  });
  afterAll(async () => {
    await gate.upgrade({
      webhook: { url: `https://127.0.0.1:${gate.webhookPort}/mutate`, failurePolicy: 'Ignore' },
    });
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const point = async (failurePolicy: string): Promise<void> => {
    const { port } = silent.address() as AddressInfo;
    await gate.upgrade({ webhook: { url: `https://127.0.0.1:${port}/mutate`, failurePolicy } });
  };
  /** Creates pods until the API server knows the silent one and has waited for it. */
  const outcome = (name: string): Promise<Pod | string> => {
    let round = 0;
    return until('the silent webhook to be called', async () => {
      const before = sockets.size;
      round += 1;
      const made = await cluster.admin
        .request<Pod>('POST', PODS, { body: manifest({ name: `${name}-${round}` }), timeoutMs: 60_000 })
        .catch((error: unknown) => explainError(error));
      return sockets.size > before && made;
    });
  };

  it('Ignore: the pod is created when the time is over, as it was, and counted as missed', async () => {
    const before = await missed();
    await point('Ignore');
    const pod = await outcome('slow');
    expect((pod as Pod).spec.readinessGates).toBeUndefined();
    await until('the miss to be counted', async () => (await missed()) === before + 1);
  });

  it('Fail: the pod is refused when the 3 s of the chart are over', async () => {
    await point('Fail');
    expect(await outcome('fail')).toMatch(
      /failed calling webhook "pods\.gpu-gate\.dev": .*\?timeout=3s": context deadline exceeded/,
    );
  });
});
