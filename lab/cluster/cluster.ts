// A whole simulated cluster: control plane, kwok, hardware, GPU nodes. What tests, demo, bench and
// `npm run cluster` start.
import { randomUUID } from 'node:crypto';
import { STRATEGIC_PATCH } from '../../platform/kube.ts';
import { beginBinaries, CONTROL_PLANE, ensureBinaries, fromEnvironment, type Binaries } from './binaries.ts';
import { startControlPlane, type ControlPlane, type ControlPlaneOptions } from './control-plane.ts';
import { startHardware, type Hardware } from './hardware.ts';
import { SIMULATED, startKwok } from './kwok.ts';

export interface Cluster extends ControlPlane {
  readonly hardware: Hardware;
  /** Simulated GPU nodes `gpu-N`, NFD's PCI label on them. */
  addNodes(count: number, labels?: Readonly<Record<string, string>>): Promise<readonly string[]>;
}

export interface ClusterOptions extends Omit<ControlPlaneOptions, 'binaries'> {
  readonly nodes: number;
  /**
   * How long a node's lease holds, 40 s as a kubelet's by default; it is renewed four times in
   * that. 5,000 nodes write 500 leases a second otherwise, which two cores do not bear.
   */
  readonly leaseSeconds?: number;
  /** The version of Kubernetes; default as the environment says. */
  readonly kubernetes?: string | undefined;
  /**
   * What can be done with the control plane alone: it runs while the other programs may still be
   * built.
   */
  readonly meanwhile?: (cp: ControlPlane) => Promise<void>;
}

/** Finds or builds the programs as the environment says. */
export const binariesFromEnvironment = (say: (line: string) => void): Promise<Binaries> =>
  ensureBinaries({ modules: CONTROL_PLANE, ...fromEnvironment(), say });

/**
 * On a machine that does much else kwok renews leases late, and nobody takes back what the
 * controller then says of a simulated node.
 */
const NODES_LAST = ['--node-monitor-grace-period', '20m', '--node-startup-grace-period', '20m'];

export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const say = options.say ?? (() => undefined);
  const environment = fromEnvironment();
  const kubernetes = options.kubernetes ?? environment.kubernetes;
  const binaries = beginBinaries({ modules: CONTROL_PLANE, ...environment, kubernetes, say });
  await binaries.ready('control-plane');
  const managerArgs = [...NODES_LAST, ...(options.managerArgs ?? [])];
  const cp = await startControlPlane({ ...options, managerArgs, binaries });
  try {
    await options.meanwhile?.(cp);
    await binaries.ready(...CONTROL_PLANE);
    await startKwok(cp, binaries, options.leaseSeconds ?? 40);
    const hardware = startHardware(cp);
    cp.lifetime.onStop(async () => hardware.stop());
    let made = 0;
    const addNodes: Cluster['addNodes'] = async (count, labels = {}) => {
      const names = Array.from({ length: count }, () => `gpu-${made++}`);
      const queue = [...names];
      await Promise.all(
        Array.from({ length: 16 }, async () => {
          for (let name = queue.shift(); name !== undefined; name = queue.shift())
            await addNode(cp, name, labels, `v${binaries.kubernetes}`);
        }),
      );
      return names;
    };
    const cluster: Cluster = { ...cp, hardware, addNodes };
    await cluster.addNodes(options.nodes);
    return cluster;
  } catch (error) {
    await cp.stop();
    throw error;
  }
}

async function addNode(
  cp: ControlPlane,
  name: string,
  labels: Readonly<Record<string, string>>,
  kubeletVersion: string,
): Promise<void> {
  await cp.admin.request('POST', '/api/v1/nodes', {
    body: {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: {
        name,
        labels: {
          [SIMULATED]: 'true',
          'kubernetes.io/hostname': name,
          'kubernetes.io/os': 'linux',
          'feature.node.kubernetes.io/pci-10de.present': 'true',
          'feature.node.kubernetes.io/system-os_release.ID': 'ubuntu',
          ...labels,
        },
      },
      spec: {},
    },
  });
  const at = new Date().toISOString();
  const resources = { cpu: '64', memory: '512Gi', pods: '110', 'ephemeral-storage': '1Ti' };
  await cp.admin.request('PATCH', `/api/v1/nodes/${name}/status`, {
    contentType: STRATEGIC_PATCH,
    body: {
      status: {
        capacity: resources,
        allocatable: resources,
        addresses: [
          { type: 'InternalIP', address: '127.0.0.1' },
          { type: 'Hostname', address: name },
        ],
        conditions: [
          {
            type: 'Ready',
            status: 'True',
            reason: 'KubeletReady',
            message: 'simulated',
            lastHeartbeatTime: at,
            lastTransitionTime: at,
          },
        ],
        nodeInfo: {
          machineID: name,
          systemUUID: name,
          bootID: randomUUID(),
          kernelVersion: '6.8.0-71-generic',
          osImage: 'Ubuntu 24.04.3 LTS',
          containerRuntimeVersion: 'containerd://2.4.2',
          kubeletVersion,
          kubeProxyVersion: '',
          operatingSystem: 'linux',
          architecture: 'amd64',
        },
      },
    },
  });
}
