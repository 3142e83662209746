// NVIDIA's container toolkit: puts the `nvidia` runtime handler into the container runtime's
// configuration. It runs before the driver here, so everything that needs a driver is off: no CDI
// specs, no device nodes.
import type { GpuPolicy, ToolkitSpec } from '../../core/gpu-policy.ts';
import { containerExtras, envOf, HANDLER, hostPath, imageOf, pullSecrets } from './parts.ts';

const dirname = (path: string): string => path.replace(/\/[^/]*$/, '') || '/';
const basename = (path: string): string => path.replace(/^.*\//, '');

const DEFAULTS = {
  containerd: {
    config: '/etc/containerd/config.toml',
    dropIn: '/etc/containerd/conf.d/99-nvidia.toml',
    socket: '/run/containerd/containerd.sock',
  },
  crio: {
    config: '/etc/crio/config.toml',
    dropIn: '/etc/crio/crio.conf.d/99-nvidia.conf',
    socket: '/var/run/crio/crio.sock',
  },
} as const;

/**
 * Where the runtime's files are on the host; k3s and RKE2 by the policy's configPath and
 * socketPath.
 */
function runtimePaths(spec: ToolkitSpec): {
  readonly config: string;
  readonly dropIn: string;
  readonly socket: string;
} {
  const defaults = DEFAULTS[spec.runtime];
  const config = spec.configPath ?? defaults.config;
  // A runtime with a configuration elsewhere has its drop-ins beside it.
  const dropIn =
    spec.configPath === undefined
      ? defaults.dropIn
      : `${dirname(config)}/${spec.runtime === 'crio' ? 'crio.conf.d' : 'conf.d'}/${basename(defaults.dropIn)}`;
  return { config, dropIn, socket: spec.socketPath ?? defaults.socket };
}

/**
 * Is the toolkit's change in effect, as far as its container can see? The stock toolkit writes its
 * PID file first, then installs, writes the runtime's configuration (also where nothing changes)
 * and restarts the runtime, which creates a new socket when it starts. So the restart is complete
 * once the socket is older neither than the PID file nor than the drop-in. Where a toolkit makes no
 * drop-in, the PID file alone decides. `! -nt`: some shells compare whole seconds. Which handlers
 * the runtime then has, the kubelet says (../stages.ts); what is behind them, driver-validation.
 */
function inEffect(env: Readonly<Record<string, string>>, install: string): string {
  const { TOOLKIT_PID_FILE: pid, RUNTIME_SOCKET: socket, RUNTIME_DROP_IN_CONFIG: dropIn } = env;
  const installed = `test -s ${pid} && test -x ${install}/toolkit/nvidia-container-runtime`;
  // With restarts disabled, another tool restarts the runtime, possibly long ago. So the socket's
  // age proves nothing.
  if (env['RUNTIME_RESTART_MODE'] === 'none') return installed;
  return `${installed} && test -S ${socket} && ! test ${pid} -nt ${socket} && ! test ${dropIn} -nt ${socket}`;
}

export function toolkit(policy: GpuPolicy): Readonly<Record<string, unknown>> {
  const spec = policy.spec.components.toolkit;
  const { hostPaths } = policy.spec;
  const paths = runtimePaths(spec);
  // One path in the container and on the host: the runtime's configuration names it.
  const folder = spec.installDir ?? '/usr/local/nvidia';
  const install = hostPaths.root === '/' ? folder : `${hostPaths.root}${folder}`;
  const env = {
    ROOT: install,
    RUNTIME: spec.runtime,
    RUNTIME_CONFIG: `/runtime/config-dir/${basename(paths.config)}`,
    RUNTIME_DROP_IN_CONFIG: `/runtime/config-dir.d/${basename(paths.dropIn)}`,
    RUNTIME_DROP_IN_CONFIG_HOST_PATH: paths.dropIn,
    RUNTIME_SOCKET: `/runtime/sock-dir/${basename(paths.socket)}`,
    ...(spec.runtime === 'containerd' ? { CONTAINERD_RUNTIME_CLASS: HANDLER } : { CRIO_CONFIG_MODE: 'config' }),
    NVIDIA_RUNTIME_SET_AS_DEFAULT: 'false',
    CDI_ENABLED: 'false',
    CREATE_DEVICE_NODES: 'none',
    NVIDIA_VISIBLE_DEVICES: 'void',
    NVIDIA_DRIVER_ROOT: hostPaths.driverRoot,
    DRIVER_ROOT_CTR_PATH: '/driver-root',
    TOOLKIT_PID_FILE: '/run/nvidia/toolkit/toolkit.pid',
  };
  const merged = envOf(env, spec);
  return {
    hostPID: true,
    ...pullSecrets(spec),
    containers: [
      {
        name: 'toolkit',
        image: imageOf(spec, 'nvcr.io/nvidia/k8s/container-toolkit', 'v1.20.0'),
        env: merged,
        ...containerExtras(spec),
        securityContext: { privileged: true },
        readinessProbe: {
          exec: {
            command: [
              'sh',
              '-c',
              inEffect(Object.fromEntries(merged.map(({ name, value }) => [name, value])), install),
            ],
          },
          periodSeconds: 5,
        },
        volumeMounts: [
          { name: 'toolkit-run', mountPath: '/run/nvidia/toolkit' },
          { name: 'toolkit-install', mountPath: install },
          { name: 'driver-root', mountPath: '/driver-root', mountPropagation: 'HostToContainer' },
          { name: 'host-root', mountPath: '/host', readOnly: true, mountPropagation: 'HostToContainer' },
          { name: 'runtime-config', mountPath: '/runtime/config-dir' },
          { name: 'runtime-drop-in', mountPath: '/runtime/config-dir.d' },
          { name: 'runtime-socket', mountPath: '/runtime/sock-dir' },
        ],
      },
    ],
    volumes: [
      hostPath('toolkit-run', `${hostPaths.run}/toolkit`),
      hostPath('toolkit-install', install),
      hostPath('driver-root', hostPaths.driverRoot),
      hostPath('host-root', hostPaths.root, 'Directory'),
      hostPath('runtime-config', dirname(paths.config)),
      hostPath('runtime-drop-in', dirname(paths.dropIn)),
      hostPath('runtime-socket', dirname(paths.socket), 'Directory'),
    ],
  };
}
