// Every way past webhook or extender (docs/extender.md), and the line behind it: the startup taint,
// or a report.
import { afterAll, afterEach, beforeAll, expect, it, onTestFinished } from 'vitest';
import { STRATEGIC_PATCH } from '../../../platform/kube.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, startSecondScheduler, until, type Gate } from '../../../lab/cluster/gate.ts';
import { named } from '../../support/schedulers.ts';
import { conditionOf, viewOf } from '../../builders/view.ts';

let cluster: Cluster;
let gate: Gate;
const { node, pod, kubectl, annotate, state, validated, gpuPod, gone, goneIfThere, restore } = viewOf(() => cluster);

const figure = async (name: string): Promise<number> =>
  Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(await gate.metrics())?.[1] ?? 0);
const make = (name: string, metadata: object, spec: object): Promise<unknown> =>
  cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, ...metadata },
      spec: {
        terminationGracePeriodSeconds: 0,
        containers: [{ name: 'c', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
        ...spec,
      },
    },
  });
const on = (name: string): object => ({ nodeSelector: { 'kubernetes.io/hostname': name } });
/**
 * A node in the midst of its bring-up whose GPUs are on offer all the same, so that nothing but the
 * taint keeps pods off.
 */
async function stuck(): Promise<string> {
  const [name] = await cluster.addNodes(1);
  if (name === undefined) throw new Error('no node');
  onTestFinished(() => kubectl('delete', 'node', name).then(() => undefined));
  await annotate(name, 'sim.gpu-gate.dev/driver-fails=boom');
  await kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
  await until('the driver to fail', async () => (await state(name)) === 'failed');
  expect((await node(name)).spec.taints?.map(({ key }) => key)).toContain(
    'startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate',
  );
  const gpus = { 'nvidia.com/gpu': '8' };
  await cluster.admin.request('PATCH', `/api/v1/nodes/${name}/status`, {
    contentType: STRATEGIC_PATCH,
    body: { status: { capacity: gpus, allocatable: gpus } },
  });
  return name;
}
const waitsForTaint = (name: string): Promise<unknown> =>
  until(`${name} to wait for the taint`, async () =>
    conditionOf(await pod(name), 'PodScheduled')?.message?.includes('untolerated taint'),
  );
const isBound = (name: string): Promise<unknown> =>
  until(`${name} to be bound`, async () => (await pod(name)).spec.nodeName);
const reports = (name: string): Promise<unknown> =>
  until(`the report on ${name}`, async () =>
    (
      await kubectl(
        'get',
        'events',
        '--field-selector',
        `reason=GPUPodPastGate,involvedObject.name=${name}`,
        '-o',
        'name',
      )
    ).includes('event'),
  );

/** A scheduler of another product: with the chart's rights, and without the extender. */
const startOther = (): Promise<void> =>
  startSecondScheduler(
    cluster,
    gate.extenderPort,
    'other',
    named('other', () => undefined),
  );
beforeAll(async () => {
  cluster = await startCluster({ nodes: 1 });
  gate = await startGate(cluster, {
    values: { policy: { spec: { validation: { backoff: { initial: '1s', max: '2s' } } } } },
  });
  await startOther();
  await restore('gpu-0');
});
afterEach(async () => {
  await gate.allRunning();
  for (const name of ['opted-out', 'other', 'missed', 'named', 'mirror', 'alone']) await goneIfThere(name);
  await restore('gpu-0');
});
afterAll(async () => cluster?.stop());

it('opted out, missed by the webhook, of another scheduler: the startup taint keeps them off until the proof', async () => {
  const name = await stuck();
  const missed = await figure('gpu_gate_missed_pods_total');
  await make('opted-out', { labels: { 'gpu-gate.dev/inject': 'false' } }, on(name));
  await make('other', {}, { ...on(name), schedulerName: 'other' });
  await gate.stopRequestPath();
  await make('missed', {}, on(name));
  await gate.startRequestPath();
  const names = ['opted-out', 'other', 'missed'];
  for (const each of names) await waitsForTaint(each);
  await until('the missed pod to be counted', async () => (await figure('gpu_gate_missed_pods_total')) === missed + 1);
  for (const each of names) expect((await pod(each)).spec.nodeName).toBeUndefined();
  await annotate(name, 'sim.gpu-gate.dev/driver-fails-');
  await validated(name);
  for (const each of names) await isBound(each);
});

it('spec.nodeName and mirror pods pass every scheduler: a warning, and a report where the node takes no GPU pods', async () => {
  await annotate('gpu-0', 'gpu-gate.dev/hold=test');
  const before = await figure('gpu_gate_pods_past_gate_total');
  const named_ = await cluster.kubectl([
    'run',
    'named',
    '--image=example/train:1',
    `--overrides=${JSON.stringify({ spec: { nodeName: 'gpu-0', containers: [{ name: 'named', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }] } })}`,
  ]);
  expect(named_.stderr).toContain('spec.nodeName bypasses the scheduler and so the gate');
  await make('mirror', { annotations: { 'kubernetes.io/config.mirror': 'hash' } }, { nodeName: 'gpu-0' });
  for (const name of ['named', 'mirror']) {
    await reports(name);
    expect((await pod(name)).spec.readinessGates).toBeUndefined();
  }
  await until('both to be counted', async () => (await figure('gpu_gate_pods_past_gate_total')) === before + 2);
});

it('without gpu-gate’s scheduler: the startup taint alone keeps an injected pod off until the proof', async () => {
  // As the documents say it: this one value. What the policy named before must go with the
  // scheduler.
  onTestFinished(async () => {
    await gate.upgrade({ scheduler: { create: true } });
    // The account that the previous ones use went with the chart's scheduler.
    await startSecondScheduler(cluster, gate.extenderPort);
    await startOther();
  });
  await gate.upgrade({ scheduler: { create: false } });
  const { spec } = await cluster.admin.request<{ spec: { injection: { schedulerName: string } } }>(
    'GET',
    '/apis/gpu-gate.dev/v1alpha1/gpupolicies/default',
  );
  expect(spec.injection.schedulerName).toBe('');
  expect(await kubectl('get', 'configmaps,serviceaccounts', '-n', 'gpu-gate', '-o', 'name')).not.toMatch(
    /\/gpu-gate-scheduler$/m,
  );
  const name = await stuck();
  await until('the policy to name no scheduler', async () => {
    const { spec } = (await gpuPod('alone', name)) as unknown as { spec: { schedulerName: string } };
    if (spec.schedulerName === 'default-scheduler') return true;
    await gone('alone');
    return false;
  });
  expect((await pod('alone')).spec).toMatchObject({ runtimeClassName: 'nvidia', schedulerName: 'default-scheduler' });
  await waitsForTaint('alone');
  await annotate(name, 'sim.gpu-gate.dev/driver-fails-');
  await validated(name);
  await isBound('alone');
});
