// Random churn on 200 nodes, judged from the API server's audit log by a program that shares no
// code with gpu-gate. Webhook, extender and scheduler are real; what the reconciler writes on nodes
// is written by a stand-in, so that 200 nodes change within seconds (`npm run bench -- churn` has
// gpu-gate walk them, for 20 minutes).
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { churn, judge, openNode, SCHEDULER_LOG } from '../../../lab/churn/churn.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, startSecondScheduler, until, untilEnforcing, type Gate } from '../../../lab/cluster/gate.ts';
import { namespaceFor, probesInto } from '../../support/churn.ts';
import { named } from '../../support/schedulers.ts';

const SEED = 7;
let cluster: Cluster;
let gate: Gate;
const nodes = Array.from({ length: 200 }, (_, i) => `gpu-${i}`);

beforeAll(async () => {
  cluster = await startCluster({ nodes: nodes.length, schedulerArgs: SCHEDULER_LOG });
  gate = await startGate(cluster, { values: { policy: { spec: { unmanagedNodes: 'Deny', startupTaint: 'Off' } } } });
  // Opted in while the reconciler runs, so that the policy enforces by its own rule; from then on
  // the stand-in writes.
  await cluster.kubectl(['label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true']);
  await untilEnforcing(cluster);
  await gate.stopReconciler();
  for (let i = 0; i < 120; i += 10) await Promise.all(nodes.slice(i, i + 10).map((n) => openNode(cluster.admin, n)));
});
afterAll(async () => cluster.stop());

interface HeldNode {
  metadata: { name: string; annotations?: Record<string, string> };
  spec: { unschedulable?: boolean; taints?: unknown[] };
  status: { allocatable?: Record<string, string>; conditions?: { type: string; status: string }[] };
}
/** Held, and nothing else that a scheduler would mind. */
const isUsable = ({ metadata, spec, status }: HeldNode): boolean =>
  metadata.annotations?.['gpu-gate.dev/hold'] !== undefined &&
  spec.unschedulable !== true &&
  (spec.taints ?? []).length === 0 &&
  Number(status.allocatable?.['nvidia.com/gpu'] ?? 0) > 0 &&
  status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true;
const pinned = (node: string): Promise<unknown> =>
  cluster.admin.request('POST', '/api/v1/namespaces/ungated/pods', {
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: `pinned-${node}` },
      spec: {
        schedulerName: 'ungated',
        nodeSelector: { 'kubernetes.io/hostname': node },
        containers: [{ name: 'c', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
      },
    },
  });

describe('churn', () => {
  it(`30 s, seed ${SEED}: no pod is bound to a node that is not open`, async () => {
    const file = join(cluster.dir, 'probes-gated.jsonl');
    const probes = await probesInto(file, cluster, gate, nodes);
    const counts = await churn({
      kube: cluster.admin,
      nodes,
      seed: SEED,
      seconds: 30,
      walkedBy: 'stand-in',
      stepsPerSecond: 20,
      podsPerSecond: 15,
      namespace: await namespaceFor(cluster, 'gated'),
    });
    await probes.stop();
    const { closings, known, namespaces } = await judge(cluster, file, ['gpu-gate-scheduler']);
    const report = namespaces['gated'];
    console.log(
      `churn, seed ${SEED}: ${JSON.stringify(counts)}; ${report?.bindings} bindings, ${report?.underWay} under way when the node closed (longest ${report?.longestUnderWayMs} ms), ${report?.violations.length} violations; the extender was seen to know of ${known} of ${closings} closings`,
    );
    expect(report?.violations).toEqual([]);
    expect(report?.byOthers).toBe(0);
    // Otherwise this would show nothing. How many there are depends on the machine.
    expect(report?.bindings).toBeGreaterThan(20);
    expect(known).toBeGreaterThan(20);
  });

  it('the same with the extender left out: the checker catches it', async () => {
    await startSecondScheduler(
      cluster,
      gate.extenderPort,
      'ungated-scheduler',
      named('ungated', () => undefined),
    );
    // Closes more nodes than the churn itself does. How many of the churn's pods land on one
    // is left to chance and is logged.
    const closed = nodes.slice(0, 60);
    onTestFinished(() => cluster.kubectl(['annotate', 'node', ...closed, 'gpu-gate.dev/hold-']).then(() => undefined));
    await cluster.kubectl(['annotate', 'node', ...closed, 'gpu-gate.dev/hold=control', '--overwrite']);
    const file = join(cluster.dir, 'probes-ungated.jsonl');
    const probes = await probesInto(file, cluster, gate, nodes);
    await until('the extender to refuse the closed nodes', () => closed.every((node) => probes.refused().has(node)));
    await churn({
      kube: cluster.admin,
      nodes,
      seed: SEED,
      seconds: 8,
      walkedBy: 'stand-in',
      stepsPerSecond: 20,
      podsPerSecond: 15,
      namespace: await namespaceFor(cluster, 'ungated'),
      schedulerName: 'ungated',
    });
    // Pods that ask for such a node are no chance: each of them must be found out.
    const held = (await cluster.admin.request<{ items: HeldNode[] }>('GET', '/api/v1/nodes')).items.filter(isUsable);
    for (const { metadata } of held.slice(0, 5)) await pinned(metadata.name);
    await until('the pinned pods to be bound', async () => {
      const { stdout } = await cluster.kubectl(['get', 'pods', '-n', 'ungated', '-o', 'wide', '--no-headers']);
      return stdout.split('\n').filter((line) => /^pinned-.* gpu-/.test(line)).length === 5;
    });
    await probes.stop();
    const report = (await judge(cluster, file, ['ungated-scheduler'])).namespaces['ungated'];
    const byChurn = report?.violations.filter(({ pod }) => pod.startsWith('churn-')).length;
    console.log(
      `without the extender: ${report?.violations.length} of ${report?.bindings} bindings to nodes not open, ${byChurn} of them by the churn's own pods`,
    );
    expect(report?.violations.filter(({ pod }) => pod.startsWith('pinned-'))).toHaveLength(5);
  });
});
