// One real node: containerd, CNI, kubelet and kube-proxy on the machine that machine.ts made,
// supervised as systemd would.
import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Binaries } from '../cluster/binaries.ts';
import { runCommand, type ControlPlane } from '../cluster/control-plane.ts';
import { until } from '../cluster/gate.ts';
import { tailOf } from '../cluster/lifetime.ts';
import { service } from '../cluster/service.ts';
import { STACK_IMAGES } from './images.ts';
import { freshRun } from './machine.ts';

const POD_CIDR = '10.244.0.0/24';
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

export interface RealNode {
  readonly name: string;
  restartKubelet(): Promise<void>;
  restartContainerd(): Promise<void>;
  /**
   * Kubelet and containers end, /run is emptied, the boot ID is another one, everything starts
   * again. Returns the new boot ID.
   */
  reboot(): Promise<string>;
}

interface NodeOptions {
  readonly cp: ControlPlane;
  readonly binaries: Binaries;
  readonly name: string;
  readonly address: string;
  /** Image tars to import. */
  readonly images: readonly string[];
  readonly say: (line: string) => void;
}

const CONTAINERD = `version = 3
imports = ['/etc/containerd/conf.d/*.toml']
[grpc]
address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '${STACK_IMAGES.pause}'
[plugins.'io.containerd.cri.v1.runtime']
# What this kind of machine lacks: CAP_SYS_RESOURCE, the hugetlb controller.
restrict_oom_score_adj = true
disable_hugetlb_controller = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni']
`;

const CNI = {
  cniVersion: '1.0.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      isDefaultGateway: true,
      ipMasq: false,
      hairpinMode: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: POD_CIDR }]] },
    },
  ],
};

const kubeletConfig = (address: string): object => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
  address,
  // Nobody else is on this machine's network.
  authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
  authorization: { mode: 'AlwaysAllow' },
  // Nobody answers there: no pod here asks for a name, and without it the kubelet complains of
  // every pod.
  clusterDNS: ['10.96.0.10'],
  failCgroupV1: false,
  cgroupDriver: 'cgroupfs',
  cgroupsPerQOS: false,
  enforceNodeAllocatable: [],
  failSwapOn: false,
  localStorageCapacityIsolation: false,
  nodeStatusUpdateFrequency: '2s',
  nodeStatusReportFrequency: '10s',
  syncFrequency: '10s',
  imageGCHighThresholdPercent: 100,
  evictionHard: { 'memory.available': '50Mi' },
  shutdownGracePeriod: '0s',
  // The default one is on this machine's own /usr.
  volumePluginDir: '/var/lib/kubelet/volume-plugins',
});

/** Starts it; resolves when the Node is Ready. */
export async function startRealNode(options: NodeOptions): Promise<RealNode> {
  const { cp, binaries, name, address, say } = options;
  const { dir, lifetime } = cp;
  mkdirSync('/etc/containerd/conf.d', { recursive: true });
  mkdirSync('/etc/cni/net.d', { recursive: true });
  writeFileSync('/etc/containerd/config.toml', CONTAINERD);
  writeFileSync('/etc/cni/net.d/10-pods.conflist', JSON.stringify(CNI));
  const bootFile = join(dir, 'boot_id');
  const newBoot = (): string => {
    const boot = randomUUID();
    writeFileSync(bootFile, `${boot}\n`);
    return boot;
  };
  newBoot();
  await command('mount', '--bind', bootFile, BOOT_ID);

  const env = { PATH: `${join(binaries('containerd'), '..')}:/usr/sbin:/usr/bin:/sbin:/bin`, TMPDIR: tmpdir() };
  // containerd ends on the toolkit's SIGHUP, a kubelet ends where it finds no runtime, and both
  // come back, as under systemd.
  const containerd = service(
    lifetime,
    'containerd',
    binaries('containerd'),
    ['--config', '/etc/containerd/config.toml'],
    env,
  );
  const runtimeUp = async (): Promise<void> => {
    await until(
      'containerd to answer',
      async () => (await runCommand(binaries('ctr'), ['-n', 'k8s.io', 'version'], env)).code === 0,
    );
  };
  const config = join(dir, 'kubelet.json');
  writeFileSync(config, JSON.stringify(kubeletConfig(address)));
  const kubelet = service(
    lifetime,
    'kubelet',
    binaries('kubelet'),
    [
      '--config',
      config,
      '--kubeconfig',
      cp.userKubeconfig(`system:node:${name}`),
      '--root-dir',
      '/var/lib/kubelet',
      '--hostname-override',
      name,
      '--node-ip',
      address,
    ],
    env,
  );
  const startProxy = (): void => {
    const proxyConfig = join(dir, 'kube-proxy.json');
    writeFileSync(
      proxyConfig,
      JSON.stringify({
        apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
        kind: 'KubeProxyConfiguration',
        mode: 'iptables',
        clusterCIDR: '10.244.0.0/16',
        clientConnection: { kubeconfig: cp.kubeconfig },
        conntrack: { maxPerCore: 0, min: 0 },
        // A pod that reaches a pod of the same bridge by a Service's address needs its answers to
        // come back this way.
        iptables: { masqueradeAll: true, minSyncPeriod: '100ms' },
        bindAddress: address,
        healthzBindAddress: `${address}:10256`,
        metricsBindAddress: `${address}:10249`,
      }),
    );
    lifetime.start('kube-proxy', binaries('kube-proxy'), ['--config', proxyConfig, '--hostname-override', name], env);
  };

  say('starting containerd, kubelet and kube-proxy');
  containerd.start();
  await runtimeUp();
  for (const image of options.images) await command(binaries('ctr'), '-n', 'k8s.io', 'images', 'import', image);
  await command('ip', 'route', 'add', '10.96.0.0/16', 'dev', 'lo');
  startProxy();
  kubelet.start();
  /** Ready as the kubelet itself said after `since`, under the present boot ID. */
  const ready = async (since: number): Promise<void> => {
    await explained(
      dir,
      `node ${name} to be Ready`,
      async () => {
        const node = await cp.admin.request<{
          status: {
            nodeInfo: { bootID: string };
            conditions: { type: string; status: string; lastHeartbeatTime: string }[];
          };
        }>('GET', `/api/v1/nodes/${name}`);
        return (
          node.status.nodeInfo.bootID === readFileSync(bootFile, 'utf8').trim() &&
          node.status.conditions.some(
            ({ type, status, lastHeartbeatTime }) =>
              type === 'Ready' && status === 'True' && Date.parse(lastHeartbeatTime) > since,
          )
        );
      },
      60_000,
    );
  };
  await ready(0);

  return {
    name,
    async restartKubelet() {
      await kubelet.end(10_000);
      await ready(Date.now());
    },
    async restartContainerd() {
      await containerd.end(10_000);
      const since = Date.now();
      await runtimeUp();
      await ready(since);
    },
    async reboot() {
      await kubelet.stop(0);
      await containerd.stop(0);
      await killContainers();
      await emptyRun();
      await runCommand('ip', ['link', 'delete', 'cni0'], env);
      const boot = newBoot();
      const since = Date.now();
      containerd.start();
      await runtimeUp();
      kubelet.start();
      await ready(since);
      return boot;
    },
  };
}

/** `until` with the end of the kubelet's log where what is awaited does not come. */
const explained = (dir: string, ...args: Parameters<typeof until>): Promise<unknown> =>
  until(...args).catch((error: unknown) => {
    throw new Error(`${(error as Error).message}; the kubelet said:\n${tailOf(join(dir, 'kubelet.log'))}`, {
      cause: error,
    });
  });

async function command(program: string, ...args: string[]): Promise<void> {
  const { code, stderr } = await runCommand(program, args, {});
  if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr.trim()}`);
}

/**
 * Everything that runs in a container or keeps one: shims, and what has a cgroup below the
 * machine's own.
 */
async function killContainers(): Promise<void> {
  for (;;) {
    const alive = readdirSync('/proc')
      .filter((entry) => /^\d+$/.test(entry))
      .filter((pid) => isContainers(pid));
    if (alive.length === 0) break;
    for (const pid of alive) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
    await sleep(50);
  }
  // Their cgroups too: a kubelet looks at each that it finds, for seconds.
  await runCommand(
    'sh',
    [
      '-c',
      "find /sys/fs/cgroup -depth -type d -regextype egrep -regex '.*/[0-9a-f]{64}.*' -exec rmdir {} + 2>/dev/null",
    ],
    {},
  );
}

function isContainers(pid: string): boolean {
  try {
    if (readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.startsWith('Z') === true) return false;
    if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('containerd-shim')) return true;
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8')
      .split('\n')
      .some((line) => /[0-9a-f]{64}/.test(line));
  } catch {
    return false;
  }
}

/**
 * What a power cut does to tmpfs and mounts: pods' volumes, sandboxes and everything under /run are
 * gone.
 */
async function emptyRun(): Promise<void> {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter(
      (path) =>
        path.startsWith('/run') || path.startsWith('/var/lib/kubelet/') || path.startsWith('/var/lib/containerd/'),
    );
  for (const path of mounts.toReversed()) await runCommand('umount', ['-l', path], {});
  freshRun();
}
