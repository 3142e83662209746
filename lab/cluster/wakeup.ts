// How long a pod that was refused waits once its node opens: the node is rebooted, a pod asks for
// it meanwhile and is refused, the node is proven again. Measured from watches, so that no figure
// is that of polling.
import { jsonLog } from '../../platform/log.ts';
import { reflector } from '../../platform/reflector.ts';
import type { Cluster } from './cluster.ts';
import { until } from './gate.ts';

interface Node {
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
}
interface Pod {
  readonly spec: { readonly nodeName?: string };
}

const quick = (driverSeconds: number): readonly string[] => [
  ...['reboot', 'toolkit', 'plugin', 'validation', 'pod'].map((what) => `sim.gpu-gate.dev/${what}-seconds=0.1`),
  `sim.gpu-gate.dev/driver-seconds=${driverSeconds}`,
];

/**
 * Milliseconds from proof to bound of each try on a node; Infinity where the pod was left behind
 * for `patience` ms.
 */
export async function wakeUps(
  cluster: Cluster,
  name: string,
  tries: number,
  patience: number,
  /**
   * Longer than an extender's lag: it must have seen the node closed before it can be late in
   * seeing it open.
   */
  driverSeconds = 0.1,
): Promise<readonly number[]> {
  const annotate = async (...annotations: readonly string[]): Promise<void> => {
    const { code, stderr } = await cluster.kubectl(['annotate', 'node', name, '--overwrite', ...annotations]);
    if (code !== 0) throw new Error(`kubectl annotate: ${stderr}`);
  };
  let proven = 0;
  let bound = 0;
  const stop = new AbortController();
  const log = jsonLog('error', () => undefined);
  const proofs = reflector<string>({
    kube: cluster.admin,
    log,
    path: '/api/v1/nodes',
    trim: (raw: Node) => raw.metadata.annotations?.['gpu-gate.dev/proof'],
    // The first write of the proof, not what is written to the node afterwards.
    onChange: (key, before, after) => {
      if (key === name && before === undefined && after !== undefined) proven = performance.now();
    },
  });
  const places = reflector<string>({
    kube: cluster.admin,
    log,
    path: '/api/v1/namespaces/default/pods',
    trim: (raw: Pod) => raw.spec.nodeName,
    onChange: (_, __, after) => void (after === name ? (bound = performance.now()) : 0),
  });
  proofs.start(stop.signal);
  places.start(stop.signal);
  await Promise.all([proofs.whenSynced(), places.whenSynced()]);
  await annotate(...quick(driverSeconds));
  const times: number[] = [];
  try {
    for (let i = 0; i < tries; i += 1) {
      const pod = `wake-${name}-${i}`;
      bound = 0;
      await annotate(`sim.gpu-gate.dev/reboot=${pod}`);
      await until('the proof to go', () => proofs.get(name) === undefined);
      await cluster.admin.request('POST', '/api/v1/namespaces/default/pods', { body: waiting(pod, name) });
      await until('the node to be proven', () => proofs.get(name) !== undefined, 60_000).catch(
        async (error: unknown) => {
          const { stdout } = await cluster.kubectl(['describe', 'node', name]);
          throw new Error(`${(error as Error).message}; the node says:\n${stdout}`, { cause: error });
        },
      );
      const came = await until('the pod to be bound', () => bound > 0, patience).catch(() => false);
      times.push(came ? Math.round(bound - proven) : Infinity);
      await cluster.admin.request('DELETE', `/api/v1/namespaces/default/pods/${pod}`, {
        query: { gracePeriodSeconds: 0 },
      });
      await until('the pod to be gone', async () => (await cluster.kubectl(['get', 'pod', pod])).code !== 0);
    }
  } finally {
    stop.abort();
    await annotate(...quick(driverSeconds).map((pair) => pair.replace(/=.*/, '-')));
  }
  return times;
}

const waiting = (name: string, on: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: {
    terminationGracePeriodSeconds: 0,
    nodeSelector: { 'kubernetes.io/hostname': on },
    containers: [{ name: 'c', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
  },
});
