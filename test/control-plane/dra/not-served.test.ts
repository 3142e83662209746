// A cluster whose API server does not serve claims, classes and rules, as older versions do not.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { createPod } from '../../../lab/cluster/devices.ts';
import { startGate, untilEnforcing } from '../../../lab/cluster/gate.ts';
import { viewOf } from '../../builders/view.ts';

let cluster: Cluster;
const { kubectl, pod } = viewOf(() => cluster);

beforeAll(async () => {
  cluster = await startCluster({
    nodes: 1,
    say: console.log,
    scheduler: false,
    // The API server's own authorizer reads ResourceSlices, so that they stay.
    apiServerArgs: [
      '--runtime-config',
      ['deviceclasses', 'resourceclaims', 'resourceclaimtemplates', 'devicetaintrules']
        .map((kind) => `resource.k8s.io/v1/${kind}=false`)
        .join(','),
    ],
  });
  await startGate(cluster, { scheduler: false });
  await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
  await untilEnforcing(cluster);
});
afterAll(async () => cluster?.stop());

it('pods of device plugins are injected as before, and one line says that claims are not seen', async () => {
  await expect(cluster.admin.request('GET', '/apis/resource.k8s.io/v1/deviceclasses')).rejects.toThrow();
  await createPod(cluster.admin, 'plugin', { resources: { limits: { 'nvidia.com/gpu': '1' } } });
  expect((await pod('plugin')).spec.runtimeClassName).toBe('nvidia');
  const log = readFileSync(join(cluster.dir, 'gpu-gate.log'), 'utf8');
  expect(log.split('\n').filter((line) => line.includes('does not serve resource.k8s.io/v1'))).toHaveLength(1);
});
