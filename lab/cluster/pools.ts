// A cluster with one GPUPolicy for each variant that a test of the webhook asks about: a pod
// chooses one by annotation. Each policy has an opted-in node of its own, so that it enforces as it
// would in a real cluster.
import type { Cluster } from './cluster.ts';
import { untilEnforcing } from './gate.ts';

const POLICIES = '/apis/gpu-gate.dev/v1alpha1/gpupolicies';

/**
 * Makes the policies, each with its `injection` and what `spec` has for all of them, and resolves
 * once all of them enforce.
 */
export async function addPools(
  cluster: Cluster,
  pools: Readonly<Record<string, object>>,
  spec: object = {},
): Promise<void> {
  for (const [name, injection] of Object.entries(pools)) {
    await cluster.admin.request('POST', POLICIES, {
      body: {
        apiVersion: 'gpu-gate.dev/v1alpha1',
        kind: 'GPUPolicy',
        metadata: { name },
        spec: { nodeSelector: { pool: name }, injection, ...spec },
      },
    });
    await cluster.addNodes(1, { pool: name, 'gpu-gate.dev/managed': 'true' });
  }
  for (const name of Object.keys(pools)) await untilEnforcing(cluster, name);
}
