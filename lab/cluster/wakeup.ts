// How long a pod that was refused waits once its node opens: the node is rebooted, a pod asks for
// it meanwhile and is refused, the node is proven again. Measured from watches, so that no figure
// is that of polling.
import { jsonLog } from '../../platform/log.ts';
import { isNotFound } from '../../platform/kube.ts';
import { reflector } from '../../platform/reflector.ts';
import type { Cluster } from './cluster.ts';
import { PROOF, WAKE } from '../../core/keys.ts';
import { until } from './gate.ts';

interface Node {
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
}
/** One node that opened while a pod waited for it. */
export interface Try {
  /** From the proof to the binding; Infinity if the pod was left behind. */
  readonly ms: number;
  /** How often the node was written in between to wake the scheduler. */
  readonly wakes: number;
}
interface Seen {
  readonly proof: string | undefined;
  readonly wake: string | undefined;
}
interface Pod {
  readonly spec: { readonly nodeName?: string };
}

const quick = (driverSeconds: number): readonly string[] => [
  ...['reboot', 'toolkit', 'plugin', 'validation', 'pod'].map((what) => `sim.gpu-gate.dev/${what}-seconds=0.1`),
  `sim.gpu-gate.dev/driver-seconds=${driverSeconds}`,
];

/** Tries on one node. A pod is left behind if it waits for `patience` ms. */
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
): Promise<readonly Try[]> {
  const annotate = async (...annotations: readonly string[]): Promise<void> => {
    const { code, stderr } = await cluster.kubectl(['annotate', 'node', name, '--overwrite', ...annotations]);
    if (code !== 0) throw new Error(`kubectl annotate: ${stderr}`);
  };
  let proven = 0;
  let lost = 0;
  let bound = 0;
  let wakes = 0;
  const stop = new AbortController();
  const log = jsonLog('error', () => undefined);
  const proofs = reflector<Seen>({
    kube: cluster.admin,
    log,
    path: '/api/v1/nodes',
    trim: ({ metadata: { annotations = {} } }: Node) => ({ proof: annotations[PROOF], wake: annotations[WAKE] }),
    // The first write of the proof, not what is written to the node afterwards.
    onChange: (key, before, after) => {
      if (key !== name) return;
      if (before?.proof !== undefined && after?.proof === undefined) lost += 1;
      if (before?.proof === undefined && after?.proof !== undefined) [proven, wakes] = [performance.now(), 0];
      else if (before?.wake !== after?.wake && bound === 0) wakes += 1;
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
  const made: Try[] = [];
  try {
    for (let i = 0; i < tries; i += 1) {
      const pod = `wake-${name}-${i}`;
      bound = 0;
      const before = lost;
      await annotate(`sim.gpu-gate.dev/reboot=${pod}`);
      await until('the proof to go', () => lost > before);
      await cluster.admin.request('POST', '/api/v1/namespaces/default/pods', { body: waiting(pod, name) });
      await until('the node to be proven', () => proofs.get(name)?.proof !== undefined).catch(
        async (error: unknown) => {
          const { stdout } = await cluster.kubectl(['describe', 'node', name]);
          throw new Error(`${(error as Error).message}; the node says:\n${stdout}`, { cause: error });
        },
      );
      const came = await until('the pod to be bound', () => bound > 0, patience).catch(() => false);
      made.push({ ms: came ? Math.round(bound - proven) : Infinity, wakes });
      await cluster.admin.request('DELETE', `/api/v1/namespaces/default/pods/${pod}`, {
        query: { gracePeriodSeconds: 0 },
      });
      await until('the pod to be gone', () =>
        cluster.admin.request('GET', `/api/v1/namespaces/default/pods/${pod}`).then(() => false, isNotFound),
      );
    }
  } finally {
    stop.abort();
    await annotate(...quick(driverSeconds).map((pair) => pair.replace(/=.*/, '-')));
  }
  return made;
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
