// Pods' readiness condition on a real control plane: how soon it follows the node, and that nothing
// confuses it.
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { fill, followTimes } from '../../../lab/cluster/readiness.ts';
import { conditionOf, isReady, viewOf } from '../../builders/view.ts';

const PODS = 64;
let cluster: Cluster;
let gate: Gate;
const { pod, annotate, kubectl, gpuPod, gone, goneIfThere, restore } = viewOf(() => cluster);
const says = async (name: string): Promise<string | undefined> =>
  conditionOf(await pod(name), 'gpu-gate.dev/node-validated')?.status;

const readyPods = async (): Promise<number> => {
  const { stdout } = await cluster.kubectl(['get', 'pods', '-l', 'full=true', '--no-headers']);
  return stdout.split('\n').filter((line) => / 1\/1 +Running/.test(line)).length;
};

beforeAll(async () => {
  cluster = await startCluster({ nodes: 2, say: console.log });
  gate = await startGate(cluster, { values: { policy: { spec: { bringUp: { maxConcurrent: '2' } } } } });
  await annotate('gpu-0', `sim.gpu-gate.dev/gpus=${PODS}`);
  await restore('gpu-0', 'gpu-1');
  await fill(cluster, ['gpu-0'], PODS);
});
afterEach(async () => {
  await gate.allRunning();
  for (const name of ['same', 'past']) await goneIfThere(name);
  await restore('gpu-0', 'gpu-1');
  await until('all to be Ready again', async () => (await readyPods()) === PODS);
});
afterAll(async () => cluster?.stop());

// How fast is a benchmark's business: `npm run bench -- readiness`.
it('64 pods of one node follow it, and come back with it', async () => {
  const times = await followTimes(cluster, ['gpu-0'], PODS);
  console.log(`64 pods follow their node: p50 ${times[32]?.toFixed(0)} ms, p99 ${times[63]?.toFixed(0)} ms`);
  expect(times).toHaveLength(PODS);
  await until('all to be Ready again', async () => (await readyPods()) === PODS);
});

it('what happened while no reconciler ran is reported when one runs again', async () => {
  await gate.stopReconciler();
  try {
    await annotate('gpu-0', 'sim.gpu-gate.dev/not-ready=true');
    await sleep(1500);
    expect(await says('full-gpu-0-0')).toBe('True');
  } finally {
    await gate.startReconciler();
  }
  try {
    await until('the condition to follow', async () => (await says('full-gpu-0-0')) === 'False');
  } finally {
    await annotate('gpu-0', 'sim.gpu-gate.dev/not-ready-');
  }
  await until('it to come back', async () => isReady(await pod('full-gpu-0-0')));
});

it('a pod re-created under the same name starts over, also while the previous pod’s state is still being written', async () => {
  await gpuPod('same', 'gpu-1');
  await until('the first to be Ready', async () => isReady(await pod('same')));
  const { uid } = (await pod('same')).metadata;
  // Its node stops serving and it goes at the same moment: the write for the old one must not
  // land on the new one.
  await Promise.all([annotate('gpu-1', 'sim.gpu-gate.dev/not-ready=true'), gone('same')]);
  await annotate('gpu-1', 'gpu-gate.dev/hold=test', 'sim.gpu-gate.dev/not-ready-');
  await gpuPod('same', 'gpu-1');
  expect((await pod('same')).metadata.uid).not.toBe(uid);
  await sleep(1500);
  // The pod is not placed, so there must be no report about its node.
  expect(await says('same')).toBeUndefined();
  await kubectl('annotate', 'node', 'gpu-1', 'gpu-gate.dev/hold-');
  await until('the second to be Ready', async () => isReady(await pod('same')));
});

const noPromtool = spawnSync('promtool', ['--version']).status !== 0;
if (noPromtool) console.log('promtool check metrics: skipped, promtool is not here (apt-get install prometheus)');

it.skipIf(noPromtool)('promtool finds nothing wrong with the metrics of either process', async () => {
  for (const url of Object.values(gate.metricsUrls)) {
    const input = await (await fetch(url)).text();
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' });
    expect([status, stdout + stderr], url).toEqual([0, '']);
  }
});

it('a GPU pod that bypasses the gate is counted and reported', async () => {
  const counted = async (): Promise<number> =>
    Number(/^gpu_gate_pods_past_gate_total (\d+)$/m.exec(await gate.metrics())?.[1] ?? 0);
  const before = await counted();
  await annotate('gpu-1', 'gpu-gate.dev/hold=test');
  await cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'past', labels: { 'gpu-gate.dev/inject': 'false' } },
      spec: {
        schedulerName: 'default-scheduler',
        terminationGracePeriodSeconds: 0,
        nodeSelector: { 'kubernetes.io/hostname': 'gpu-1' },
        containers: [{ name: 'c', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
      },
    },
  });
  await until('the Event', async () =>
    (
      await kubectl('get', 'events', '--field-selector', 'reason=GPUPodPastGate', '-o', 'jsonpath={.items[*].message}')
    ).includes('bound to gpu-1 by default-scheduler'),
  );
  await until('the count', async () => (await counted()) === before + 1);
});
