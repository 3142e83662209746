// The API server is away for longer than a Lease, a watch and the grace time of nodes; then all
// nodes reboot at once. What shows no change keeps its proof, and everything goes on by itself.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, startSecondScheduler, until, type Gate } from '../../../lab/cluster/gate.ts';
import { viewOf } from '../../builders/view.ts';

const NODES = ['gpu-0', 'gpu-1', 'gpu-2', 'gpu-3', 'gpu-4'];
const LATE = 'gpu-5';
/** The node-lifecycle controller takes nodes for lost after 50 s without their leases. */
const AWAY_MS = 60_000;

let cluster: Cluster;
let gate: Gate;
const { annotate, gpuPod, kubectl, node, pod, validated } = viewOf(() => cluster);
const proofOf = async (name: string): Promise<string | undefined> =>
  (await node(name)).metadata.annotations['gpu-gate.dev/proof'];
const proofs = (): Promise<(string | undefined)[]> => Promise.all(NODES.map((name) => proofOf(name)));
const optIn = (...names: string[]): Promise<string> => kubectl('label', 'nodes', ...names, 'gpu-gate.dev/managed=true');

beforeAll(async () => {
  cluster = await startCluster({ nodes: NODES.length + 1, say: console.log });
  gate = await startGate(cluster, { values: { policy: { spec: { bringUp: { maxConcurrent: '100%' } } } } });
  await optIn(...NODES);
  for (const name of NODES) await validated(name);
});
afterAll(async () => cluster?.stop());

it('an API server that is away takes no proof; a reboot of all nodes takes every one, and all come back', async () => {
  const before = await proofs();
  await cluster.stopApiServer();
  await sleep(AWAY_MS);
  await cluster.startApiServer();
  // A kube-scheduler ends when it loses its Lease; its Deployment would start it again.
  await startSecondScheduler(cluster, gate.extenderPort);
  // It goes on by itself: a node walks, and pods are placed.
  await optIn(LATE);
  await validated(LATE);
  for (const name of NODES) await validated(name);
  expect(await proofs()).toEqual(before);
  await gpuPod('after', 'gpu-0');
  await until('a pod to be placed', async () => (await pod('after')).spec.nodeName === 'gpu-0');

  await Promise.all(NODES.map((name) => annotate(name, 'sim.gpu-gate.dev/reboot=together')));
  await until('all nodes to be proven again', async () =>
    (await proofs()).every((proof, i) => proof !== undefined && proof !== before[i]),
  );
  for (const name of NODES) await validated(name);
  const boots = (await proofs()).map((proof) => (JSON.parse(proof ?? '{}') as { boot: string }).boot);
  const now = await Promise.all(
    NODES.map(
      async (name) => ((await node(name)).status as unknown as { nodeInfo: { bootID: string } }).nodeInfo.bootID,
    ),
  );
  expect(boots).toEqual(now);
});
