// Reading a real cluster as its people do, for the tests and the demo.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { COMPONENT } from '../../core/keys.ts';
import type { ControlPlane } from '../cluster/control-plane.ts';
import { until } from '../cluster/gate.ts';
import { NODE } from './world.ts';

export interface ContainerStatus {
  containerID?: string;
  restartCount: number;
  state: { running?: { startedAt: string }; terminated?: { startedAt: string; finishedAt: string; message?: string } };
}

export interface Pod {
  metadata: {
    name: string;
    namespace: string;
    uid: string;
    creationTimestamp: string;
    labels?: Record<string, string>;
    deletionTimestamp?: string;
  };
  spec: {
    nodeName?: string;
    runtimeClassName?: string;
    schedulerName?: string;
    readinessGates?: { conditionType: string }[];
    containers: { image: string; env?: { name: string }[]; volumeMounts?: { name: string; mountPath: string }[] }[];
  };
  status: {
    phase: string;
    reason?: string;
    podIP?: string;
    conditions?: { type: string; status: string; reason?: string; message?: string; lastTransitionTime: string }[];
    containerStatuses?: ContainerStatus[];
    initContainerStatuses?: ContainerStatus[];
  };
}

export interface Node {
  metadata: { uid: string; labels: Record<string, string>; annotations: Record<string, string> };
  spec: { taints?: { key: string }[] };
  status: {
    conditions: { type: string; status: string; reason: string; message: string }[];
    nodeInfo: { bootID: string };
    allocatable: Record<string, string>;
    capacity: Record<string, string>;
    runtimeHandlers?: { name: string }[];
  };
}

export interface Proof {
  boot: string;
  at: string;
}

export function observe(cluster: ControlPlane) {
  const kubectl = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await cluster.kubectl(args);
    if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr.trim()}`);
    return stdout;
  };
  const create = async (manifest: object): Promise<void> => {
    const { code, stderr } = await cluster.kubectl(['create', '-f', '-'], JSON.stringify(manifest));
    if (code !== 0) throw new Error(`kubectl create: ${stderr.trim()}`);
  };
  const node = (): Promise<Node> => cluster.admin.request('GET', `/api/v1/nodes/${NODE}`);
  const pods = async (namespace: string, labels = ''): Promise<Pod[]> =>
    (
      await cluster.admin.request<{ items: Pod[] }>(
        'GET',
        `/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(labels)}`,
      )
    ).items;
  const state = async (): Promise<string | undefined> => (await node()).metadata.labels['gpu-gate.dev/state'];
  const condition = async () => (await node()).status.conditions.find(({ type }) => type === 'GPUValidated');
  const proof = async (): Promise<Proof | undefined> => {
    const text = (await node()).metadata.annotations['gpu-gate.dev/proof'];
    return text === undefined ? undefined : (JSON.parse(text) as Proof);
  };
  /**
   * Waits for a condition of the node; where it does not come, says what the node and its pods say
   * instead.
   */
  const awaits = async <T>(what: string, check: () => Promise<T | undefined | false>, seconds = 60): Promise<T> => {
    try {
      return await until(what, check, seconds * 1000);
    } catch (error) {
      const said = [
        JSON.stringify(await condition()),
        JSON.stringify((await node()).metadata.annotations),
        await kubectl('get', 'pods', '-A', '-o', 'wide'),
        await kubectl('get', 'events', '-A', '--sort-by=.lastTimestamp'),
      ];
      throw new Error(`${(error as Error).message}\n${said.join('\n').slice(-9000)}`, { cause: error });
    }
  };
  return {
    kubectl,
    create,
    node,
    pods,
    state,
    condition,
    proof,
    awaits,
    /** Open, by a proof of this boot. */
    validated: (seconds = 90): Promise<Proof> =>
      awaits(
        `${NODE} to be validated and open`,
        async () => {
          const { metadata, status } = await node();
          const found = await proof();
          return (
            metadata.labels['gpu-gate.dev/state'] === 'validated' &&
            metadata.annotations['gpu-gate.dev/closed'] === undefined &&
            found?.boot === status.nodeInfo.bootID &&
            found
          );
        },
        seconds,
      ),
    /** The pods of an operand on the node, by component. */
    operand: (component: string): Promise<Pod[]> => pods('gpu-gate-operands', `${COMPONENT}=${component}`),
    /** Addresses of a Service that take traffic. */
    endpoints: async (service: string): Promise<readonly string[]> => {
      const slices = await cluster.admin.request<{
        items: { endpoints?: { addresses: string[]; conditions: { ready?: boolean } }[] }[];
      }>(
        'GET',
        `/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3D${service}`,
      );
      return slices.items.flatMap(({ endpoints = [] }) =>
        endpoints.filter(({ conditions }) => conditions.ready === true).flatMap(({ addresses }) => addresses),
      );
    },
    /** What a pod answers on port 8080. */
    ask: async (address: string): Promise<Record<string, unknown>> => {
      const answer = await fetch(`http://${address}:8080/`, { signal: AbortSignal.timeout(3000) });
      return (await answer.json()) as Record<string, unknown>;
    },
  };
}

/** What the stack leaves on the host: empty where nothing of it is in effect. */
export function hostTraces(): readonly string[] {
  const found: string[] = [];
  for (const path of [
    '/etc/containerd/conf.d/99-nvidia.toml',
    '/run/nvidia/toolkit/toolkit.pid',
    '/run/nvidia/driver/version',
    '/var/lib/kubelet/device-plugins/nvidia-gpu.sock',
  ]) {
    if (existsSync(path)) found.push(path);
  }
  if (existsSync('/run/nvidia/validations'))
    found.push(...readdirSync('/run/nvidia/validations').map((name) => `/run/nvidia/validations/${name}`));
  const mounts = readFileSync('/proc/self/mounts', 'utf8');
  if (mounts.includes(' /run/nvidia/driver ')) found.push('mount at /run/nvidia/driver');
  return found;
}

/**
 * Every path of the host where the stack could leave something: all but what containerd, CNI and
 * the kubelet keep of their own.
 */
export function hostPaths(): readonly string[] {
  const theirs = [
    '/run/containerd',
    '/run/netns',
    '/var/lib/containerd',
    '/var/lib/kubelet',
    '/var/lib/cni',
    '/var/log/pods',
    '/var/log/containers',
  ];
  const places = ['/etc', '/usr/local', '/opt', '/run', '/var/lib', '/var/log'];
  const { stdout } = spawnSync(
    'find',
    [
      ...places,
      '(',
      ...theirs.flatMap((path, i) => [...(i === 0 ? [] : ['-o']), '-path', path]),
      ')',
      '-prune',
      '-o',
      '-print',
    ],
    { encoding: 'utf8', maxBuffer: 64 << 20 },
  );
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .toSorted();
}

/** A Deployment of one GPU pod behind a Service of the same name. */
export const gpuDeployment = (name: string, image: string): object => ({
  apiVersion: 'v1',
  kind: 'List',
  items: [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name, namespace: 'default' },
      spec: {
        replicas: 1,
        selector: { matchLabels: { app: name } },
        template: {
          metadata: { labels: { app: name } },
          spec: {
            terminationGracePeriodSeconds: 1,
            containers: [
              {
                name: 'app',
                image,
                imagePullPolicy: 'Never',
                readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
                resources: { limits: { 'nvidia.com/gpu': '1' } },
              },
            ],
          },
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: 'default' },
      spec: { selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }] },
    },
  ],
});
