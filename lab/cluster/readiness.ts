// How soon pods' readiness condition follows their node: many GPU pods, the node stops serving,
// each pod's condition must say so. Measured from watches.
import { jsonLog } from '../../platform/log.ts';
import { reflector } from '../../platform/reflector.ts';
import type { Cluster } from './cluster.ts';
import { until } from './gate.ts';

const GATE = 'gpu-gate.dev/node-validated';
interface Node {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}
interface Pod {
  readonly spec: { readonly nodeName?: string };
  readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/**
 * Makes `each` GPU pods on each of the nodes, which are proven and have that many GPUs; resolves
 * when all are Ready.
 */
export async function fill(cluster: Cluster, nodes: readonly string[], each: number): Promise<void> {
  const names = nodes.flatMap((node) => Array.from({ length: each }, (_, i) => [node, `full-${node}-${i}`] as const));
  const queue = [...names];
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const [node, name] = next;
        await cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
          body: {
            apiVersion: 'v1',
            kind: 'Pod',
            metadata: { name, labels: { full: 'true' } },
            spec: {
              terminationGracePeriodSeconds: 0,
              nodeSelector: { 'kubernetes.io/hostname': node },
              containers: [{ name: 'c', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
            },
          },
        });
      }
    }),
  );
  await until(
    `${names.length} pods to be Ready`,
    async () => {
      const { stdout } = await cluster.kubectl(['get', 'pods', '-l', 'full=true', '--no-headers']);
      return stdout.split('\n').filter((line) => / 1\/1 +Running/.test(line)).length === names.length;
    },
    240_000,
  );
}

/**
 * Takes the nodes' Ready away; milliseconds from a node's change to each of its pods' condition,
 * sorted. Puts it back.
 */
export async function followTimes(
  cluster: Cluster,
  nodes: readonly string[],
  pods: number,
): Promise<readonly number[]> {
  const stop = new AbortController();
  const log = jsonLog('error', () => undefined);
  const changed = new Map<string, number>();
  const followed = new Map<string, { readonly node: string; readonly at: number }>();
  const nodeWatch = reflector<boolean>({
    kube: cluster.admin,
    log,
    path: '/api/v1/nodes',
    trim: (raw: Node) =>
      raw.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true,
    onChange: (name, before, after) => {
      if (before === true && after === false) changed.set(name, performance.now());
    },
  });
  const podWatch = reflector<{ readonly node: string; readonly says: string }>({
    kube: cluster.admin,
    log,
    path: '/api/v1/namespaces/default/pods',
    query: { labelSelector: 'full=true' },
    trim: (raw: Pod) => ({
      node: raw.spec.nodeName ?? '',
      says: raw.status.conditions?.find(({ type }) => type === GATE)?.status ?? '',
    }),
    onChange: (name, before, after) => {
      if (before?.says === 'True' && after?.says === 'False')
        followed.set(name, { node: after.node, at: performance.now() });
    },
  });
  nodeWatch.start(stop.signal);
  podWatch.start(stop.signal);
  await Promise.all([nodeWatch.whenSynced(), podWatch.whenSynced()]);
  const steer = async (annotation: string): Promise<void> => {
    const { code, stderr } = await cluster.kubectl(['annotate', 'node', ...nodes, '--overwrite', annotation]);
    if (code !== 0) throw new Error(`kubectl annotate: ${stderr}`);
  };
  try {
    await steer('sim.gpu-gate.dev/not-ready=true');
    await until('every pod to say that its node does not serve', () => followed.size === pods);
    return [...followed.values()]
      .map(({ node, at }) => at - (changed.get(node) ?? Number.NaN))
      .toSorted((a, b) => a - b);
  } finally {
    stop.abort();
    await steer('sim.gpu-gate.dev/not-ready-');
  }
}
