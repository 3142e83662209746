// A roll-out on a real control plane: 20 nodes, GPU pods behind a Service and a disruption budget,
// a version that fails on one node, the way back, and a canary that a person approves.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { MERGE_PATCH } from '../../../platform/kube.ts';
import { jsonLog } from '../../../platform/log.ts';
import { reflector } from '../../../platform/reflector.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, untilEnforcing, type Gate } from '../../../lab/cluster/gate.ts';
import { conditionOf, viewOf, type Node, type Pod } from '../../builders/view.ts';

const NODES = Array.from({ length: 20 }, (_, i) => `gpu-${i}`);
const REPLICAS = 4;
const BUDGET = 3;
const [OLD, NEW] = ['595.91.07', '596.10.01'];
const STARTED = 'gpu-gate.dev/node-validated';

let cluster: Cluster;
let gate: Gate;
const { node, kubectl, annotate } = viewOf(() => cluster);

const edit = (spec: object): Promise<unknown> =>
  cluster.admin.request('PATCH', '/apis/gpu-gate.dev/v1alpha1/gpupolicies/default', {
    contentType: MERGE_PATCH,
    body: { spec },
  });
const toDriver = (version: string, maxUnavailable: number | string): Promise<unknown> =>
  edit({ components: { driver: { version } }, upgrade: { maxUnavailable } });
const rollingOut = async (): Promise<{ status: string; reason: string; message: string } | undefined> => {
  const { status } = await cluster.admin.request<{
    status?: { conditions?: { type: string; status: string; reason: string; message: string }[] };
  }>('GET', '/apis/gpu-gate.dev/v1alpha1/gpupolicies/default');
  return status?.conditions?.find(({ type }) => type === 'RollingOut');
};
const driverOf = ({ metadata }: Node): string =>
  (JSON.parse(metadata.annotations['gpu-gate.dev/proof'] ?? '{}') as { driver?: string }).driver ?? '';
const isOpenOn = (one: Node, version: string): boolean =>
  driverOf(one) === version && one.metadata.annotations['gpu-gate.dev/closed'] === undefined;
const allNodes = async (): Promise<ReadonlyMap<string, Node>> => {
  const { items } = await cluster.admin.request<{ items: (Node & { metadata: { name: string } })[] }>(
    'GET',
    '/api/v1/nodes',
  );
  return new Map(items.map((item) => [item.metadata.name, item]));
};
const states = async (): Promise<string> =>
  [...(await allNodes())]
    .map(([name, { metadata, status }]) => {
      const said = status.conditions.find(({ type }) => type === 'GPUValidated');
      return `${name} ${metadata.labels['gpu-gate.dev/state']}: ${said?.message}`;
    })
    .join('\n');
/** Names of the driver's pods by node. */
const drivers = async (): Promise<ReadonlyMap<string, string>> => {
  const { items } = await cluster.admin.request<{ items: Pod[] }>(
    'GET',
    '/api/v1/namespaces/gpu-gate-operands/pods?labelSelector=app.kubernetes.io/component=driver',
  );
  return new Map(items.map(({ metadata, spec }) => [spec.nodeName ?? '', metadata.uid]));
};

/** What must hold at every moment, from the watches. */
const seen = { closed: 0, fewestEndpoints: Infinity, gatesLost: new Set<string>() };
const stop = new AbortController();

async function watchAll(): Promise<void> {
  const log = jsonLog('error', () => undefined);
  const inTurn = new Set<string>();
  const nodes = reflector<boolean>({
    kube: cluster.admin,
    log,
    path: '/api/v1/nodes',
    trim: ({ metadata }: Node) => {
      const walk = JSON.parse(metadata.annotations?.['gpu-gate.dev/walk'] ?? '{}') as { rollOut?: { spare?: true } };
      return walk.rollOut !== undefined && walk.rollOut.spare !== true;
    },
    onChange(name, _, after) {
      if (after === true) inTurn.add(name);
      else inTurn.delete(name);
      seen.closed = Math.max(seen.closed, inTurn.size);
    },
  });
  const slices = reflector<number>({
    kube: cluster.admin,
    log,
    path: '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices',
    query: { labelSelector: 'kubernetes.io/service-name=serve' },
    trim: (raw: { endpoints?: { conditions: { ready?: boolean } }[] }) =>
      (raw.endpoints ?? []).filter(({ conditions }) => conditions.ready === true).length,
    onChange: (_, __, after) => {
      seen.fewestEndpoints = Math.min(seen.fewestEndpoints, after ?? 0);
    },
  });
  const pods = reflector<{ gate: string; ends: boolean }>({
    kube: cluster.admin,
    log,
    path: '/api/v1/namespaces/default/pods',
    trim: (raw: Pod & { metadata: { deletionTimestamp?: string } }) => ({
      gate: conditionOf(raw, STARTED)?.status ?? '',
      ends: raw.metadata.deletionTimestamp !== undefined,
    }),
    onChange(name, before, after) {
      if (before?.gate === 'True' && after !== undefined && !after.ends && after.gate !== 'True')
        seen.gatesLost.add(name);
    },
  });
  for (const watch of [nodes, slices, pods]) watch.start(stop.signal);
  await Promise.all([nodes, slices, pods].map((watch) => watch.whenSynced()));
}

beforeAll(async () => {
  cluster = await startCluster({ nodes: NODES.length, say: console.log });
  gate = await startGate(cluster, {
    values: {
      policy: {
        spec: {
          components: { driver: { version: OLD } },
          bringUp: { maxConcurrent: '100%' },
          upgrade: { drain: { mode: 'Evict' } },
          validation: { backoff: { initial: '2s', max: '10s' } },
        },
      },
    },
  });
  await kubectl('label', 'nodes', ...NODES, 'gpu-gate.dev/managed=true');
  await until(
    'all nodes to be validated',
    async () => [...(await allNodes()).values()].every((one) => isOpenOn(one, OLD)),
    undefined,
    states,
  );
  await untilEnforcing(cluster);
  const labels = { app: 'serve' };
  const { admin } = cluster;
  await admin.request('POST', '/api/v1/namespaces/default/services', {
    body: {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'serve' },
      spec: { selector: labels, ports: [{ port: 80 }] },
    },
  });
  await admin.request('POST', '/apis/policy/v1/namespaces/default/poddisruptionbudgets', {
    body: {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: 'serve' },
      spec: { minAvailable: BUDGET, selector: { matchLabels: labels } },
    },
  });
  await admin.request('POST', '/apis/apps/v1/namespaces/default/deployments', {
    body: {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'serve' },
      spec: {
        replicas: REPLICAS,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            terminationGracePeriodSeconds: 0,
            containers: [{ name: 'c', image: 'example/serve:1', resources: { limits: { 'nvidia.com/gpu': '8' } } }],
          },
        },
      },
    },
  });
  await until('the Deployment to be available', async () => {
    const { status } = await admin.request<{ status: { availableReplicas?: number } }>(
      'GET',
      '/apis/apps/v1/namespaces/default/deployments/serve',
    );
    return status.availableReplicas === REPLICAS;
  });
  await watchAll();
});
afterAll(async () => {
  stop.abort();
  await cluster?.stop();
});

it('a version that fails on one node stops there; the edit back moves back what moved; repaired, it reaches all once its canary is approved', async () => {
  const before = await drivers();
  await annotate('gpu-2', 'sim.gpu-gate.dev/driver-fails=boom', `sim.gpu-gate.dev/driver-fails-version=${NEW}`);
  await toDriver(NEW, 2);
  const stopped = await until(
    'the roll-out to stop',
    async () => {
      const condition = await rollingOut();
      return condition?.reason === 'Stopped' ? condition : undefined;
    },
    undefined,
    states,
  );
  expect(stopped.message).toMatch(/^stopped: node gpu-2 failed on the new revision: driver: .*boom/);
  await until('the others to be open', async () =>
    [...(await allNodes())].every(([name, one]) => name === 'gpu-2' || isOpenOn(one, OLD) || isOpenOn(one, NEW)),
  );
  const failed = (await node('gpu-2')).status.conditions.find(({ type }) => type === 'GPUValidated');
  expect(failed).toMatchObject({ status: 'False', message: expect.stringContaining('this stops the roll-out') });
  expect(await kubectl('get', 'events', '--field-selector', 'reason=RollOutStopped', '-A')).toContain('node gpu-2');
  expect(await gate.metrics()).toMatch(
    /gpu_gate_rollout_stopped\{policy="default",node="gpu-2",reason="driver: \w+"\} 1/,
  );
  expect(seen.closed).toBe(2);
  const moved = [...(await allNodes())].filter(([, one]) => isOpenOn(one, NEW)).map(([name]) => name);

  await toDriver(OLD, 2);
  await until(
    'all nodes to be back',
    async () => [...(await allNodes()).values()].every((one) => isOpenOn(one, OLD)),
    undefined,
    states,
  );
  const after = await drivers();
  const replaced = NODES.filter((name) => before.get(name) !== after.get(name));
  expect(new Set(replaced)).toEqual(new Set([...moved, 'gpu-2']));
  expect(seen.closed).toBe(2);

  await annotate('gpu-2', 'sim.gpu-gate.dev/driver-fails-', 'sim.gpu-gate.dev/driver-fails-version-');
  await edit({ components: { driver: { version: NEW } }, upgrade: { maxUnavailable: '25%', canary: { first: 2 } } });
  const awaiting = await until(
    'the canary to wait for its approval',
    async () => {
      const condition = await rollingOut();
      return condition?.reason === 'CanaryAwaitsApproval' ? condition : undefined;
    },
    undefined,
    states,
  );
  expect(awaiting.message).toMatch(/^canary: 2 of 2 nodes validated, waits for approval: kubectl /);
  expect([...(await allNodes()).values()].filter((one) => !isOpenOn(one, OLD))).toHaveLength(2);
  expect(await kubectl('get', 'events', '--field-selector', 'reason=RollOutWaits', '-A')).toContain(
    'waits for approval',
  );
  const [, command = ''] = /kubectl ([^;]+);/.exec(awaiting.message) ?? [];
  await kubectl(...command.split(' '));
  await until(
    'all nodes to be on the new version',
    async () => [...(await allNodes()).values()].every((one) => isOpenOn(one, NEW)),
    undefined,
    states,
  );
  await until('the policy to say so', async () => (await rollingOut())?.reason === 'UpToDate');
  expect(seen.closed).toBeLessThanOrEqual(5);
  expect(await kubectl('get', 'gpupolicies', '-o', 'wide')).toMatch(/UPTODATE +ROLLING +ROLLOUT[\s\S]* 20 +UpToDate/);
  // Pods were evicted, as many as the budget lets go; none lost its readiness while it stayed.
  expect(await gate.metrics()).toMatch(/gpu_gate_evictions_total\{result="done"\} [1-9]/);
  expect(seen.fewestEndpoints).toBeGreaterThanOrEqual(BUDGET);
  expect([...seen.gatesLost]).toEqual([]);
});
