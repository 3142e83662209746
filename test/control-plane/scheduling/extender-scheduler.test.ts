// The extender under the real scheduler: 1,000 nodes of which few are open, pre-emption, outages.
import { writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { parse } from 'yaml';
import { issueCa } from '../../../certs/issue.ts';
import { STRATEGIC_PATCH } from '../../../platform/kube.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { freePort } from '../../../lab/cluster/control-plane.ts';
import {
  schedulerClient,
  startGate,
  startSecondScheduler,
  until,
  type Gate,
  type SchedulerConfig,
} from '../../../lab/cluster/gate.ts';
import { askExtender } from '../../../lab/cluster/ask-extender.ts';
import { named } from '../../support/schedulers.ts';
import { tcpProxy } from '../../support/tcp-proxy.ts';
import { viewOf } from '../../builders/view.ts';

const NODES = 1000;
let cluster: Cluster;
let gate: Gate;

interface Pod {
  metadata: { name: string; uid: string };
  spec: { nodeName?: string };
  status: { conditions?: { type: string; message?: string }[] };
}
const pods = async (app: string): Promise<Pod[]> =>
  (
    await cluster.admin.request<{ items: Pod[] }>('GET', '/api/v1/namespaces/default/pods', {
      query: { labelSelector: `app=${app}` },
    })
  ).items;
const bound = async (app: string): Promise<Pod[]> => (await pods(app)).filter((pod) => pod.spec.nodeName !== undefined);
const waitsBecause = (pod: Pod): string =>
  pod.status.conditions?.find((condition) => condition.type === 'PodScheduled')?.message ?? '';
const make = (app: string, name: string, spec: object = {}, gpus = 1): Promise<Pod> =>
  cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, labels: { app } },
      spec: {
        terminationGracePeriodSeconds: 0,
        containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': String(gpus) } } }],
        ...spec,
      },
    },
  });
const clear = async (app: string): Promise<void> => {
  await cluster.kubectl(['delete', 'pods', '-l', `app=${app}`, '--force', '--grace-period=0', '--wait=false']);
  await until(`pods of ${app} to go`, async () => (await pods(app)).length === 0);
};
const { kubectl, restore } = viewOf(() => cluster);
const ASKED = ['gpu-0', 'gpu-5'];
const scheduler = (name: string, change: Parameters<typeof named>[1], port = gate.extenderPort): Promise<void> =>
  startSecondScheduler(cluster, port, name, named(name, change));

beforeAll(async () => {
  cluster = await startCluster({
    nodes: NODES,
    // Leases of 1,000 nodes would be a hundred writes a second.
    leaseSeconds: 600,
  });
  // Every node offers GPUs, so that nothing but the extender keeps pods off those that are not
  // open.
  const queue = Array.from({ length: NODES }, (_, i) => `gpu-${i}`);
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (let node = queue.pop(); node !== undefined; node = queue.pop())
        await cluster.admin.request('PATCH', `/api/v1/nodes/${node}/status`, {
          contentType: STRATEGIC_PATCH,
          body: { status: { capacity: { 'nvidia.com/gpu': '8' }, allocatable: { 'nvidia.com/gpu': '8' } } },
        });
    }),
  );
  // Another installer's GPUs would fail the preflight: gpu-0 and gpu-1 are walked from bare.
  for (const node of ['gpu-0', 'gpu-1'])
    await cluster.admin.request('PATCH', `/api/v1/nodes/${node}/status`, {
      contentType: STRATEGIC_PATCH,
      body: { status: { capacity: { 'nvidia.com/gpu': null }, allocatable: { 'nvidia.com/gpu': null } } },
    });
  gate = await startGate(cluster, {
    values: { policy: { spec: { unmanagedNodes: 'Deny' } } },
    // Low, so that all that follows shows a scheduler whose connections are given up again and
    // again.
    flags: ['--calls-per-connection', '10'],
  });
  await restore('gpu-0');
});
afterEach(async () => {
  await gate.allRunning();
  await empty();
});
afterAll(async () => cluster?.stop());

/** Without any pod. */
async function empty(): Promise<void> {
  const collection = '/api/v1/namespaces/default/pods';
  await cluster.admin.request('DELETE', collection, { query: { gracePeriodSeconds: 0 } });
  await until(
    'all pods to go',
    async () => (await cluster.admin.request<{ items: Pod[] }>('GET', collection)).items.length === 0,
  );
}

describe('1,000 nodes of which one is open', () => {
  it('of 30 pods all that fit are bound there, the rest wait for the right reason', async () => {
    for (let i = 0; i < 30; i += 1) await make('thirty', `thirty-${i}`);
    const there = await until('8 pods to be bound', async () => {
      const found = await bound('thirty');
      return found.length >= 8 && found;
    });
    expect(there.map((pod) => pod.spec.nodeName)).toEqual(Array.from({ length: 8 }, () => 'gpu-0'));
    const waiting = await until('the others to have been tried', async () => {
      const others = (await pods('thirty')).filter((pod) => pod.spec.nodeName === undefined);
      return others.length === 22 && others.every((pod) => waitsBecause(pod) !== '') && others;
    });
    // The open node is full, gpu-1 has no device plugin yet; a simulated kubelet's lease may be
    // late on a busy machine (taint).
    for (const pod of waiting) {
      const reason = waitsBecause(pod);
      expect(reason).toMatch(new RegExp(`^0/${NODES} nodes are available: .*2 Insufficient nvidia.com/gpu`));
      expect(Number(/(\d+) node not opted in to gpu-gate/.exec(reason)?.[1])).toBeGreaterThan(NODES / 2);
    }
    // As pods end the others follow: none is lost, whatever sample of nodes a scheduler would have
    // drawn.
    for (const pod of there)
      await cluster.admin.request('DELETE', `/api/v1/namespaces/default/pods/${pod.metadata.name}`, {
        query: { gracePeriodSeconds: 0 },
      });
    await until('8 more', async () => (await bound('thirty')).length === 8);
  });
});

it('a scheduler that looks at a sample only: none is lost where the sample misses the one open node', async () => {
  await startSecondScheduler(cluster, gate.extenderPort, 'sampling', (configuration) => {
    const { percentageOfNodesToScore: _, ...rest } = named(
      'sampling',
      (extender) => extender,
    )(configuration) as SchedulerConfig;
    return rest;
  });
  for (let i = 0; i < 8; i += 1) await make('sample', `sample-${i}`, { schedulerName: 'sampling' });
  // A pod that was refused is tried again with what happens in the cluster, and then looks at the
  // nodes that come next. Here nothing happens, where any cluster has such changes all the time;
  // it would else take the scheduler's five minutes.
  let changes = 0;
  let missed = 0;
  await until('all of them', async () => {
    missed = Math.max(
      missed,
      (await pods('sample')).filter((pod) => waitsBecause(pod).startsWith('0/1000 nodes')).length,
    );
    await kubectl('annotate', 'node', 'gpu-999', '--overwrite', `example.com/change=${(changes += 1)}`);
    return (await bound('sample')).length === 8;
  });
  console.log(
    `default sampling: ${missed} of 8 pods missed the open node at first; ${changes} changes until all were bound`,
  );
  expect((await bound('sample')).map((pod) => pod.spec.nodeName)).toEqual(Array.from({ length: 8 }, () => 'gpu-0'));
});

it('NVIDIA_REQUIRE_CUDA on a node that was walked: its proof names no CUDA, its driver does', async () => {
  const proof = JSON.parse(
    await kubectl('get', 'node', 'gpu-0', '-o', 'jsonpath={.metadata.annotations.gpu-gate\\.dev/proof}'),
  ) as object;
  expect(proof).toHaveProperty('driver');
  expect(proof).not.toHaveProperty('cuda');
  const requiring = (name: string, value: string): Promise<Pod> =>
    make('cuda', name, {
      containers: [
        {
          name: 'c',
          image: 'x',
          env: [{ name: 'NVIDIA_REQUIRE_CUDA', value }],
          resources: { limits: { 'nvidia.com/gpu': '1' } },
        },
      ],
    });
  await requiring('too-new', 'cuda>=99');
  await requiring('fine', 'cuda>=12.4');
  const [there] = await until('the one to be bound', async () => {
    const found = await bound('cuda');
    return found.length === 1 && found;
  });
  expect([there?.metadata.name, there?.spec.nodeName]).toEqual(['fine', 'gpu-0']);
  await until('the other pod to have its reason', async () =>
    (await pods('cuda')).some((pod) =>
      waitsBecause(pod).includes("1 driver/CUDA version does not satisfy the pod's NVIDIA_REQUIRE_CUDA"),
    ),
  );
});

describe('pre-emption', () => {
  const on = (node: string): object => ({ nodeSelector: { 'kubernetes.io/hostname': node } });
  const pairWith = (other: string): object => ({
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: ['gpu-0', other] }] },
          ],
        },
      },
    },
  });
  const victims = async (): Promise<string[]> => (await pods('low')).map((pod) => pod.metadata.name).toSorted();

  it('evicts no pod for a node that would then be refused; without /preempt it does', async () => {
    for (const [name, value] of [
      ['low', 10],
      ['lower', 1],
      ['high', 1000],
    ] as const)
      await cluster.admin.request('POST', '/apis/scheduling.k8s.io/v1/priorityclasses', {
        body: { apiVersion: 'scheduling.k8s.io/v1', kind: 'PriorityClass', metadata: { name }, value },
      });
    const [closed] = await cluster.addNodes(1);
    if (closed === undefined) throw new Error('no node');
    const pair = pairWith(closed);
    onTestFinished(async () => {
      await empty();
      await kubectl('delete', 'node', closed);
    });
    await restore(closed);
    // The closed node's pods matter less: it is the one that the scheduler would rather evict on.
    await make('low', 'on-open', { ...on('gpu-0'), priorityClassName: 'low' }, 8);
    await make('low', 'on-closed', { ...on(closed), priorityClassName: 'lower' }, 8);
    await until('both to be bound', async () => (await bound('low')).length === 2);
    await kubectl('annotate', 'node', closed, 'gpu-gate.dev/hold=test');

    await make('high', 'high', { ...pair, priorityClassName: 'high' }, 8);
    const [high] = await until('the pod to be bound', async () => {
      const found = await bound('high');
      return found.length === 1 && found;
    });
    expect([high?.spec.nodeName, await victims()]).toEqual(['gpu-0', ['on-closed']]);
    await clear('high');

    await make('low', 'on-open', { ...on('gpu-0'), priorityClassName: 'low' }, 8);
    await until('both to be bound', async () => (await bound('low')).length === 2);
    await scheduler('no-preempt', (extender) => ({ ...extender, preemptVerb: undefined }));
    await make('high', 'high', { ...pair, priorityClassName: 'high', schedulerName: 'no-preempt' }, 8);
    // For nothing: the extender refuses that node all the same. (A later attempt may evict on gpu-0
    // as well.)
    await until('the eviction on the closed node', async () => !(await victims()).includes('on-closed'));
    await sleep(1000);
    expect((await bound('high')).map((pod) => pod.spec.nodeName)).not.toContain(closed);
  });
});

it('the snippet for the cluster’s own scheduler: GPU pods are asked about, others are not', async () => {
  const { data } = await cluster.admin.request<{ data: Record<string, string> }>(
    'GET',
    '/api/v1/namespaces/gpu-gate/configmaps/gpu-gate-scheduler-snippet',
  );
  const [entry] = (parse(data['extenders.yaml'] ?? '') as Pick<SchedulerConfig, 'extenders'>).extenders;
  await scheduler('own', ({ urlPrefix, tlsConfig }) => ({ ...entry, urlPrefix, tlsConfig }));
  const asked = async (): Promise<number> =>
    Number(/gpu_gate_extender_calls_total\{verb="filter",result="ok"\} (\d+)/.exec(await gate.metrics())?.[1] ?? 0);
  const before = await asked();
  await make('own', 'plain', { schedulerName: 'own', containers: [{ name: 'c', image: 'x' }] });
  await until('the plain pod', async () => (await bound('own')).length === 1);
  expect(await asked()).toBe(before);
  await make('own', 'gpu', { schedulerName: 'own' });
  await until('the GPU pod', async () => (await bound('own')).length === 2);
  expect(await asked()).toBeGreaterThan(before);
  expect((await bound('own')).find((pod) => pod.metadata.name === 'gpu')?.spec.nodeName).toBe('gpu-0');
});

describe('outages', () => {
  it('the extender killed and both restarted under load: pods wait, then all are bound', async () => {
    let made = 0;
    const load = (async () => {
      // As many as there is room for on gpu-0.
      for (; made < 8; made += 1) {
        await make('load', `load-${made}`, { schedulerName: 'gpu-gate-scheduler' });
        await sleep(200);
      }
    })();
    await sleep(500);
    await gate.stopRequestPath();
    await load;
    const refused = await until('a refusal that names the outage', async () =>
      (await pods('load')).find((pod) => waitsBecause(pod).includes('connection refused')),
    );
    expect(waitsBecause(refused)).toContain('/filter');
    expect((await bound('load')).length).toBeLessThan(8);
    // The other setting, and its price.
    await scheduler('ignoring', (extender) => ({ ...extender, ignorable: true }));
    await make('ignoring', 'ignoring', { schedulerName: 'ignoring' });
    const astray = await until('the pod to be bound', async () => (await bound('ignoring'))[0]);
    expect(astray.spec.nodeName).not.toMatch(/^gpu-[01]$/);
    await clear('ignoring');
    await gate.startRequestPath();
    await until('all of them', async () => (await bound('load')).length === 8);
  });

  it('two replicas: one killed under load, the other takes over and every pod is bound', async () => {
    const second = await gate.startReplica();
    let serving = second.extenderPort;
    // What a Service does for new connections.
    const service = await tcpProxy(() => serving);
    await scheduler('two-replicas', (extender) => extender, service.port);
    const load = (async () => {
      for (let i = 0; i < 8; i += 1) {
        await make('two', `two-${i}`, { schedulerName: 'two-replicas' });
        await sleep(150);
      }
    })();
    await sleep(600);
    await second.kill();
    serving = gate.extenderPort;
    await load;
    await until('all of them', async () => (await bound('two')).length === 8);
    await service.close();
  });

  it('two replicas restarted under load, one after the other and then both at once: every pod is bound', async () => {
    let [one, two] = await Promise.all([gate.startReplica(), gate.startReplica()]);
    let serving = one.extenderPort;
    const service = await tcpProxy(() => serving);
    await scheduler('restarts', (extender) => extender, service.port);
    const remove = ({ metadata }: Pod): Promise<unknown> =>
      cluster.admin.request('DELETE', `/api/v1/namespaces/default/pods/${metadata.name}`, {
        query: { gracePeriodSeconds: 0 },
      });
    const enough = new AbortController();
    let made = 0;
    const load = (async () => {
      // gpu-0 has room for 8 at a time: those that are bound make room.
      for (; !enough.signal.aborted; made += 1) {
        await make('restart', `restart-${made}`, { schedulerName: 'restarts' });
        const done = await bound('restart');
        if (done.length >= 4) for (const pod of done) await remove(pod);
        await sleep(250);
      }
    })();
    await sleep(1000);
    serving = two.extenderPort;
    await one.kill();
    one = await gate.startReplica();
    serving = one.extenderPort;
    await two.kill();
    two = await gate.startReplica();
    await sleep(500);
    await Promise.all([one.kill(), two.kill()]);
    await until('a refusal that names the outage', async () =>
      (await pods('restart')).some((pod) => /connection re(fused|set)|EOF/.test(waitsBecause(pod))),
    );
    [one, two] = await Promise.all([gate.startReplica(), gate.startReplica()]);
    serving = two.extenderPort;
    enough.abort();
    await load;
    await until('all of them', async () => {
      const left = await pods('restart');
      for (const pod of left.filter(({ spec }) => spec.nodeName !== undefined)) await remove(pod);
      return left.length === 0;
    });
    await Promise.all([one.kill(), two.kill()]);
    await service.close();
  });

  it('an answer that hangs: the attempt ends with the time limit, the pod is bound when it is over', async () => {
    let hangs = true;
    const silent = createServer((socket) => void socket.on('error', () => undefined).resume());
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const address = silent.address();
    const silentPort = typeof address === 'object' && address !== null ? address.port : 0;
    const service = await tcpProxy(() => (hangs ? silentPort : gate.extenderPort));
    await scheduler('hanging', (extender) => ({ ...extender, httpTimeout: '3s' }), service.port);
    await make('hang', 'hang', { schedulerName: 'hanging' });
    await until('the time limit', async () =>
      /Client.Timeout|deadline exceeded/.test((await pods('hang')).map(waitsBecause).join()),
    );
    expect(await bound('hang')).toEqual([]);
    hangs = false;
    service.cut();
    await until('the pod to be bound', async () => (await bound('hang')).length === 1);
    await service.close();
    silent.close();
  });

  it('a replica whose watch is silent for longer than its limit is not ready, and closes the scheduler’s connection', async () => {
    // Nothing changes policies or nodes here but this, so their watches bring only a bookmark a
    // minute.
    let changes = 0;
    const touching = new AbortController();
    const touched = (async () => {
      while (!touching.signal.aborted) {
        const change = `example.com/touched=${(changes += 1)}`;
        await kubectl('annotate', '--overwrite', 'gpupolicy/default', 'node/gpu-999', change);
        await sleep(500);
      }
    })();
    const replica = await gate.startReplica(['--watch-limit', '4s']);
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ...(await schedulerClient(cluster)) });
    await until('a fresh answer', async () => {
      const { headers, answer } = await askExtender(replica.extenderPort, agent, ASKED);
      return headers.connection === 'keep-alive' && String(answer.NodeNames) === 'gpu-0';
    });
    touching.abort();
    await touched;
    const stale = await until('the readiness to fail by a watch that the extender needs', async () => {
      const response = await fetch(replica.readyUrl);
      if (!/the watch of (gpupolicies|nodes) has been silent for \d+ s/.test(await response.text())) return false;
      expect(response.status).toBe(503);
      const answered = await askExtender(replica.extenderPort, agent, ASKED);
      return answered.answer.Error !== '' && answered;
    });
    expect([stale.headers.connection, stale.answer.NodeNames]).toEqual(['close', []]);
    expect(stale.answer.Error).toMatch(/^gpu-gate: the watch of \w+ has been silent for longer than --watch-limit/);
    agent.destroy();
    await replica.kill();
  });

  it('a replica that cannot list nodes is not ready and passes no node, until it can', async () => {
    // What the chart grants, but for nodes.
    await kubectl('create', 'serviceaccount', 'half', '-n', 'gpu-gate');
    const grant = (name: string, ...role: string[]): Promise<string> =>
      kubectl('create', 'clusterrolebinding', name, ...role, '--serviceaccount=gpu-gate:half');
    await kubectl(
      'create',
      'clusterrole',
      'half',
      '--verb=get,list,watch',
      `--resource=${[
        'namespaces',
        'gpupolicies.gpu-gate.dev',
        'runtimeclasses.node.k8s.io',
        ...['deviceclasses', 'resourceclaims', 'resourceclaimtemplates'].map((name) => `${name}.resource.k8s.io`),
      ].join(',')}`,
    );
    await grant('half', '--clusterrole=half');
    await kubectl(
      'create',
      'rolebinding',
      'half',
      '-n',
      'gpu-gate',
      '--role=gpu-gate',
      '--serviceaccount=gpu-gate:half',
    );
    const [webhook, canary, extender, metrics] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const replica = cluster.lifetime.start('half', process.execPath, [
      join(import.meta.dirname, '..', '..', '..', 'main.ts'),
      'run',
      '--roles=webhook,extender',
      `--kubeconfig=${await cluster.serviceAccountKubeconfig('gpu-gate', 'half')}`,
      `--webhook-port=${webhook}`,
      `--canary-port=${canary}`,
      `--extender-port=${extender}`,
      `--metrics-port=${metrics}`,
      '--namespace=gpu-gate',
      '--bind-address=127.0.0.1',
      '--drain=200ms',
    ]);
    const ready = async (): Promise<string> => (await fetch(`http://127.0.0.1:${metrics}/readyz`)).text();
    await until(
      'nodes to be all that is missing',
      async () => (await ready()) === 'the list of nodes is not loaded yet\n',
    );
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ...(await schedulerClient(cluster)) });
    const early = await askExtender(extender, agent, ASKED);
    expect([early.headers.connection, early.answer.NodeNames]).toEqual(['close', []]);
    expect(early.answer.Error).toBe('gpu-gate: the list of nodes is not loaded yet; the pod is retried');
    await grant('half-nodes', '--clusterrole=gpu-gate');
    await until('the replica to be ready', async () => (await ready()) === 'ok\n');
    expect((await askExtender(extender, agent, ASKED)).answer).toMatchObject({ NodeNames: ['gpu-0'], Error: '' });
    agent.destroy();
    await replica.stop();
  });

  it('TLS: an extender of another CA is not believed', async () => {
    const caFile = join(cluster.dir, 'other-ca.crt');
    writeFileSync(caFile, (await issueCa('another', 3_600_000, Date.now())).cert);
    await scheduler('wrong-ca', (extender) => ({ ...extender, tlsConfig: { ...extender.tlsConfig, caFile } }));
    await make('tls', 'tls', { schedulerName: 'wrong-ca' });
    await until('the refusal', async () =>
      (await pods('tls')).map(waitsBecause).join().includes('x509: certificate signed by unknown authority'),
    );
    expect(await bound('tls')).toEqual([]);
  });
});
