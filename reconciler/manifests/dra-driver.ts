// NVIDIA's DRA driver, the kubelet plugin for GPUs: publishes the node's devices and prepares
// claims. As NVIDIA's chart of version 0.4.1 has it, without compute domains and without sharing by
// MPS.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { containerExtras, envOf, hostPath, imageOf, NODE_NAME, pullPolicy, pullSecrets } from './parts.ts';

const HEALTH_PORT = 51_516;
const health = { grpc: { port: HEALTH_PORT, service: 'liveness' }, timeoutSeconds: 10 };

export function draDriver(policy: GpuPolicy): Readonly<Record<string, unknown>> {
  const spec = policy.spec.components.draDriver;
  const { driverRoot, kubeletRoot } = policy.spec.hostPaths;
  const image = imageOf(spec, 'registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu', 'v0.4.1');
  const plugins = `${kubeletRoot}/plugins`;
  const registry = `${kubeletRoot}/plugins_registry`;
  const shared = {
    NVIDIA_DRIVER_ROOT: driverRoot,
    // Where the host's default runtime is NVIDIA's, it would bring in every device.
    NVIDIA_VISIBLE_DEVICES: 'void',
    KUBELET_REGISTRAR_DIRECTORY_PATH: registry,
    KUBELET_PLUGINS_DIRECTORY_PATH: plugins,
  };
  const env = {
    ...shared,
    CDI_ROOT: '/var/run/cdi',
    NVIDIA_MIG_CONFIG_DEVICES: 'all',
    HEALTHCHECK_PORT: String(HEALTH_PORT),
  };
  const parent = driverRoot.replace(/\/[^/]+\/?$/, '') || '/';
  return {
    ...pullSecrets(spec),
    // Waits until the driver is where it is said to be.
    initContainers: [
      {
        name: 'driver-there',
        image,
        ...pullPolicy(spec),
        command: ['bash', '/usr/bin/kubelet-plugin-prestart.sh'],
        env: envOf(shared, spec),
        securityContext: { privileged: true },
        volumeMounts: [
          { name: 'driver-root-parent', mountPath: '/driver-root-parent', mountPropagation: 'HostToContainer' },
        ],
      },
    ],
    containers: [
      {
        name: 'dra-driver',
        image,
        command: ['gpu-kubelet-plugin'],
        ...containerExtras(spec),
        env: [
          NODE_NAME,
          { name: 'NAMESPACE', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } } },
          ...envOf(env, spec).filter(({ name }) => name !== 'NAMESPACE'),
        ],
        startupProbe: { ...health, periodSeconds: 1, failureThreshold: 600 },
        livenessProbe: { ...health, periodSeconds: 30, failureThreshold: 3 },
        securityContext: { privileged: true },
        volumeMounts: [
          { name: 'plugins-registry', mountPath: registry },
          { name: 'plugins', mountPath: plugins, mountPropagation: 'Bidirectional' },
          { name: 'cdi', mountPath: '/var/run/cdi' },
          { name: 'driver-root', mountPath: '/driver-root', mountPropagation: 'HostToContainer' },
        ],
      },
    ],
    volumes: [
      hostPath('plugins-registry', registry, 'Directory'),
      hostPath('plugins', plugins),
      hostPath('cdi', '/var/run/cdi'),
      hostPath('driver-root-parent', parent),
      hostPath('driver-root', driverRoot),
    ],
  };
}
