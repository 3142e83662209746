// Reading and steering a test cluster as its people do: what tests on the control plane share.
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { isNotFound, MERGE_PATCH } from '../../platform/kube.ts';
import type { Cluster } from '../../lab/cluster/cluster.ts';
import { until } from '../../lab/cluster/gate.ts';

export interface Node {
  metadata: { resourceVersion: string; labels: Record<string, string>; annotations: Record<string, string> };
  spec: { taints?: { key: string }[] };
  status: {
    conditions: { type: string; status: string; reason: string; message: string; lastTransitionTime: string }[];
  };
}
export interface Pod {
  metadata: { name: string; uid: string };
  spec: { nodeName?: string; runtimeClassName?: string; readinessGates?: unknown[] };
  status: {
    phase: string;
    conditions?: { type: string; status: string; reason?: string; message?: string; lastTransitionTime: string }[];
  };
}

export const conditionOf = (pod: Pod, type: string) => pod.status.conditions?.find((c) => c.type === type);
export const isReady = (pod: Pod): boolean => conditionOf(pod, 'Ready')?.status === 'True';

const sim = (name: string): string => `sim.gpu-gate.dev/${name}`;
/** Faults of the simulated hardware. A reboot or a restart that was asked for is over. */
const FAULTS = [
  'driver-fails',
  'image-pull-fails',
  'validation-fails',
  'lost-gpus',
  'missing-slices',
  'device-taint',
  'device-fails',
  'not-ready',
].map(sim);
const PACES = ['toolkit', 'driver', 'plugin', 'dra', 'exporter', 'validation', 'pod'].map((what) =>
  sim(`${what}-seconds`),
);
const all = (keys: readonly string[], value: string | null): Readonly<Record<string, string | null>> =>
  Object.fromEntries(keys.map((key) => [key, value]));

/** `cluster` is a function, because a suite has its cluster only once it runs. */
export function viewOf(cluster: () => Cluster) {
  const node = (name: string): Promise<Node> => cluster().admin.request('GET', `/api/v1/nodes/${name}`);
  const kubectl = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await cluster().kubectl(args);
    if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const validated = (name: string): Promise<unknown> =>
    until(
      `${name} to be validated and open`,
      () => isOpen(name),
      undefined,
      async () => {
        const { conditions } = (await node(name)).status;
        return JSON.stringify(conditions.filter(({ type }) => type === 'Ready' || type === 'GPUValidated'));
      },
    );
  const isOpen = async (name: string): Promise<boolean> => {
    const { metadata } = await node(name);
    return (
      metadata.labels['gpu-gate.dev/state'] === 'validated' &&
      metadata.annotations['gpu-gate.dev/proof'] !== undefined &&
      metadata.annotations['gpu-gate.dev/closed'] === undefined
    );
  };
  const mark = (name: string, metadata: object): Promise<unknown> =>
    cluster().admin.request('PATCH', `/api/v1/nodes/${name}`, { contentType: MERGE_PATCH, body: { metadata } });
  /**
   * Opts nodes in, or brings them back, whatever a test did to them and wherever it failed:
   * resolves once they are validated and open. They hurry, because this is not what a test looks
   * at.
   */
  const restore = async (...names: readonly string[]): Promise<void> => {
    const managed = { 'gpu-gate.dev/managed': 'true' };
    for (const name of names) {
      const failed = (await node(name)).metadata.labels['gpu-gate.dev/state'] === 'failed';
      const retry = failed ? { 'gpu-gate.dev/retry': randomUUID() } : {};
      const annotations = { ...all([...FAULTS, 'gpu-gate.dev/hold'], null), ...all(PACES, '0.1'), ...retry };
      await mark(name, { labels: managed, annotations });
    }
    for (const name of names) await validated(name);
    for (const name of names) await mark(name, { annotations: all(PACES, null) });
  };
  const isThere = async (name: string): Promise<boolean> => {
    try {
      await cluster().admin.request('GET', `/api/v1/namespaces/default/pods/${name}`);
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  };
  const gone = async (name: string): Promise<void> => {
    await cluster().admin.request('DELETE', `/api/v1/namespaces/default/pods/${name}`, {
      query: { gracePeriodSeconds: 0 },
    });
    await until(`pod ${name} to be gone`, async () => !(await isThere(name)));
  };
  return {
    node,
    kubectl,
    /** What `explain` prints for a pod. */
    explain: (name: string): string =>
      spawnSync(process.execPath, ['main.ts', 'explain', name, '-n', 'default'], {
        cwd: join(import.meta.dirname, '../..'),
        encoding: 'utf8',
        env: { ...process.env, KUBECONFIG: cluster().kubeconfig },
      }).stdout,
    pod: (name: string): Promise<Pod> => cluster().admin.request('GET', `/api/v1/namespaces/default/pods/${name}`),
    /** As `kubectl annotate --overwrite` has them: `key=value`, or `key-`. */
    annotate: (name: string, ...annotations: string[]): Promise<unknown> =>
      mark(name, {
        annotations: Object.fromEntries(
          annotations.map((text) => {
            const at = text.indexOf('=');
            return at < 0 ? [text.replace(/-$/, ''), null] : [text.slice(0, at), text.slice(at + 1)];
          }),
        ),
      }),
    state: async (name: string): Promise<string | undefined> =>
      (await node(name)).metadata.labels['gpu-gate.dev/state'],
    /** Open by a proof; where that does not come, says what the node says of itself. */
    validated,
    /** A pod that asks for GPUs; on one node, or wherever there is one. */
    gpuPod: (name: string, on?: string, gpus = 1): Promise<Pod> =>
      cluster().admin.request('POST', '/api/v1/namespaces/default/pods', {
        body: {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name },
          spec: {
            terminationGracePeriodSeconds: 0,
            ...(on === undefined ? {} : { nodeSelector: { 'kubernetes.io/hostname': on } }),
            containers: [
              { name: 'c', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': String(gpus) } } },
            ],
          },
        },
      }),
    gone,
    /** If it is there. */
    goneIfThere: async (name: string): Promise<void> => {
      if (await isThere(name)) await gone(name);
    },
    restore,
  };
}
