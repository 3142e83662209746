// `npm run bench -- readiness`: 1,000 GPU pods follow their nodes; as a ratio to a bare patcher
// that knows what to write.
import { setTimeout as sleep } from 'node:timers/promises';
import { STRATEGIC_PATCH } from '../platform/kube.ts';
import { startCluster, type Cluster } from '../lab/cluster/cluster.ts';
import { startGate } from '../lab/cluster/gate.ts';
import { fill, followTimes } from '../lab/cluster/readiness.ts';
import { viewOf } from '../test/builders/view.ts';
import { numberArg, quantile, type BenchContext, type Row } from './rows.ts';

const EACH = 64;

export const about = 'GPU pods follow their nodes, beside a bare patcher';
export const options = {
  '--nodes N': 'nodes of 64 pods each (16)',
};

/** Nodes × 64 pods; default 16 nodes. */
export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const count = numberArg(args, 'nodes', 16);
  const cluster = await startCluster({ nodes: count });
  try {
    await startGate(cluster, { values: { policy: { spec: { bringUp: { maxConcurrent: '100%' } } } } });
    const view = viewOf(() => cluster);
    const nodes = Array.from({ length: count }, (_, i) => `gpu-${i}`);
    for (const name of nodes) {
      await view.annotate(name, `sim.gpu-gate.dev/gpus=${EACH}`);
      await view.kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
    }
    for (const name of nodes) await view.validated(name);
    const pods = count * EACH;
    say(`making ${pods} pods`);
    await fill(cluster, nodes, EACH);
    const times = await followTimes(cluster, nodes, pods);
    await sleep(5000);
    const bare = await barePatcher(cluster, nodes);
    const last = times.at(-1) ?? Number.NaN;
    return [
      { name: `${pods} pods follow their nodes, p99`, value: quantile(times, 0.99), unit: 'ms' },
      {
        name: `${pods} pods, all`,
        value: last,
        unit: 'ms',
        reference: { name: 'bare patcher', value: bare },
        bar: 'at most 3 times a patcher that decides nothing and watches nothing',
        held: last <= 3 * bare,
      },
    ];
  } finally {
    await cluster.stop();
  }
}

/**
 * The same number of condition patches, eight at a time, by a client that decides nothing (ms).
 */
async function barePatcher(cluster: Cluster, nodes: readonly string[]): Promise<number> {
  const queue = nodes.flatMap((node) => Array.from({ length: EACH }, (_, i) => `full-${node}-${i}`));
  const began = performance.now();
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
        const condition = {
          type: 'example.com/bare',
          status: 'False',
          reason: 'Bare',
          message: 'bare patcher',
          lastTransitionTime: new Date().toISOString(),
        };
        await cluster.admin.request('PATCH', `/api/v1/namespaces/default/pods/${name}/status`, {
          contentType: STRATEGIC_PATCH,
          body: { status: { conditions: [condition] } },
        });
      }
    }),
  );
  return performance.now() - began;
}
