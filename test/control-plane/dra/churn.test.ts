// Random churn on 100 nodes with claims, judged from the API server's audit log by a program that
// shares no code with gpu-gate: neither a pod nor a claim goes to a node that is not open. As in
// the churn of scheduling/, what the reconciler writes on nodes is written by a stand-in, and
// devices are published by hand. No DeviceTaintRules here: the extender is judged.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { churn, judge, openNode, SCHEDULER_LOG } from '../../../lab/churn/churn.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import {
  createClass,
  createClaimPod,
  createTemplate,
  exactly,
  GPU_DRIVER,
  publishSlice,
} from '../../../lab/cluster/devices.ts';
import { startGate, startSecondScheduler, until, untilEnforcing, type Gate } from '../../../lab/cluster/gate.ts';
import { namespaceFor, probesInto } from '../../support/churn.ts';
import { named } from '../../support/schedulers.ts';

const SEED = 11;
let cluster: Cluster;
let gate: Gate;
const nodes = Array.from({ length: 100 }, (_, i) => `gpu-${i}`);

const namespace = async (name: string): Promise<string> => {
  await namespaceFor(cluster, name);
  await createTemplate(cluster.admin, 'gpu', exactly('gpu.nvidia.com'), name);
  return name;
};

beforeAll(async () => {
  cluster = await startCluster({ nodes: nodes.length, schedulerArgs: SCHEDULER_LOG });
  await createClass(cluster.admin, 'gpu.nvidia.com', GPU_DRIVER);
  gate = await startGate(cluster, {
    values: {
      draDriver: { deviceClasses: false },
      policy: { spec: { allocation: 'DRA', deviceTaints: 'Off', unmanagedNodes: 'Deny', startupTaint: 'Off' } },
    },
  });
  await cluster.kubectl(['label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true']);
  await untilEnforcing(cluster);
  await gate.stopReconciler();
  for (let i = 0; i < nodes.length; i += 10)
    await Promise.all(nodes.slice(i, i + 10).map((node) => publishSlice(cluster.admin, node)));
  for (let i = 0; i < 60; i += 10)
    await Promise.all(nodes.slice(i, i + 10).map((node) => openNode(cluster.admin, node)));
});
afterAll(async () => cluster?.stop());

describe('churn with claims', () => {
  it(`30 s, seed ${SEED}: nothing goes to a node that is not open`, async () => {
    const file = join(cluster.dir, 'probes-gated.jsonl');
    const probes = await probesInto(file, cluster, gate, nodes);
    const counts = await churn({
      kube: cluster.admin,
      nodes,
      seed: SEED,
      seconds: 30,
      walkedBy: 'stand-in',
      stepsPerSecond: 15,
      podsPerSecond: 8,
      namespace: await namespace('gated'),
      template: 'gpu',
    });
    await probes.stop();
    const { closings, known, namespaces } = await judge(cluster, file, ['gpu-gate-scheduler']);
    const report = namespaces['gated'];
    console.log(
      `churn with claims, seed ${SEED}: ${JSON.stringify(counts)}; ${report?.bindings} bindings and ${report?.allocations} allocations, ${report?.underWay} under way when the node closed (longest ${report?.longestUnderWayMs} ms), ${report?.violations.length} violations; the extender was seen to know of ${known} of ${closings} closings`,
    );
    expect(report?.violations).toEqual([]);
    expect(report?.byOthers).toBe(0);
    // Otherwise this would show nothing. How many there are depends on the machine.
    expect(report?.bindings).toBeGreaterThan(10);
    expect(report?.allocations).toBeGreaterThan(10);
    expect(known).toBeGreaterThan(10);
  });

  it('claims that a scheduler without the extender allocates are found out', async () => {
    await startSecondScheduler(
      cluster,
      gate.extenderPort,
      'ungated-scheduler',
      named('ungated', () => undefined),
    );
    const closed = nodes.slice(0, 5);
    onTestFinished(() => cluster.kubectl(['annotate', 'node', ...closed, 'gpu-gate.dev/hold-']).then(() => undefined));
    for (const node of closed) await openNode(cluster.admin, node);
    await cluster.kubectl(['annotate', 'node', ...closed, 'gpu-gate.dev/hold=control', '--overwrite']);
    const file = join(cluster.dir, 'probes-ungated.jsonl');
    const probes = await probesInto(file, cluster, gate, nodes);
    await until('the extender to refuse the closed nodes', () => closed.every((node) => probes.refused().has(node)));
    await createTemplate(cluster.admin, 'gpu', exactly('gpu.nvidia.com'));
    for (const node of closed)
      await createClaimPod(
        cluster.admin,
        `pinned-${node}`,
        { resourceClaimTemplateName: 'gpu' },
        { schedulerName: 'ungated', nodeSelector: { 'kubernetes.io/hostname': node } },
      );
    await until('the pinned pods to be bound', async () => {
      const { stdout } = await cluster.kubectl(['get', 'pods', '-o', 'wide', '--no-headers']);
      return stdout.split('\n').filter((line) => /^pinned-.* gpu-/.test(line)).length === closed.length;
    });
    await probes.stop();
    const violations = (await judge(cluster, file, ['ungated-scheduler'])).namespaces['default']?.violations ?? [];
    const of = (kind: 'pod' | 'claim'): readonly string[] =>
      violations.filter((one) => one.kind === kind).map(({ node }) => node);
    expect(of('pod').toSorted((a, b) => a.localeCompare(b))).toEqual(closed);
    expect(of('claim').toSorted((a, b) => a.localeCompare(b))).toEqual(closed);
  });
});
