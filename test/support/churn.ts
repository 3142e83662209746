// What the tests of random churn share: probes that end with their test, and namespaces for pods.
import { onTestFinished } from 'vitest';
import { startProbes, type Probes } from '../../lab/churn/probes.ts';
import type { Cluster } from '../../lab/cluster/cluster.ts';
import { schedulerClient, until, type Gate } from '../../lab/cluster/gate.ts';

/** One extender call after the other, from now to the end of the test or `stop`. */
export async function probesInto(
  file: string,
  cluster: Cluster,
  gate: Gate,
  nodes: readonly string[],
): Promise<Probes> {
  const probes = startProbes({ port: gate.extenderPort, client: await schedulerClient(cluster), nodes, file });
  onTestFinished(() => probes.stop());
  return probes;
}

/** Makes a namespace that takes pods; returns its name. */
export async function namespaceFor(cluster: Cluster, name: string): Promise<string> {
  await cluster.kubectl(['create', 'namespace', name]);
  await until(
    'its ServiceAccount',
    async () => (await cluster.kubectl(['get', 'sa', 'default', '-n', name])).code === 0,
  );
  return name;
}
