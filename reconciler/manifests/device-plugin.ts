// NVIDIA's device plugin: registers nvidia.com/gpu with the kubelet. `envvar`, because the toolkit
// ran before the driver and made no CDI specs.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { containerExtras, envOf, hostPath, imageOf, NODE_NAME, pullSecrets, runtimeClass } from './parts.ts';

export function devicePlugin(policy: GpuPolicy): Readonly<Record<string, unknown>> {
  const spec = policy.spec.components.devicePlugin;
  const { hostPaths } = policy.spec;
  const env = {
    PASS_DEVICE_SPECS: 'true',
    FAIL_ON_INIT_ERROR: 'true',
    DEVICE_LIST_STRATEGY: 'envvar',
    DEVICE_ID_STRATEGY: 'uuid',
    NVIDIA_VISIBLE_DEVICES: 'all',
    NVIDIA_DRIVER_CAPABILITIES: 'all',
    NVIDIA_DRIVER_ROOT: hostPaths.driverRoot,
    CONTAINER_DRIVER_ROOT: '/driver-root',
    ...(spec.config === undefined ? {} : { CONFIG_FILE: '/config/config.yaml' }),
  };
  const config =
    spec.config === undefined
      ? { mounts: [], volumes: [] }
      : {
          mounts: [{ name: 'config', mountPath: '/config', readOnly: true }],
          volumes: [{ name: 'config', configMap: { name: spec.config } }],
        };
  return {
    ...pullSecrets(spec),
    ...runtimeClass(policy),
    containers: [
      {
        name: 'device-plugin',
        image: imageOf(spec, 'nvcr.io/nvidia/k8s-device-plugin', 'v0.20.0'),
        ...containerExtras(spec),
        env: [NODE_NAME, ...envOf(env, spec)],
        securityContext: { privileged: true },
        volumeMounts: [
          { name: 'device-plugins', mountPath: '/var/lib/kubelet/device-plugins' },
          { name: 'driver-root', mountPath: '/driver-root', readOnly: true, mountPropagation: 'HostToContainer' },
          ...config.mounts,
        ],
      },
    ],
    volumes: [
      hostPath('device-plugins', `${hostPaths.kubeletRoot}/device-plugins`, 'Directory'),
      hostPath('driver-root', hostPaths.driverRoot),
      ...config.volumes,
    ],
  };
}
