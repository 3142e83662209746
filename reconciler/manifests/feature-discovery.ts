// NVIDIA's GPU feature discovery: labels nodes with model, memory, driver and CUDA version. Off by
// default.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { containerExtras, envOf, hostPath, imageOf, NODE_NAME, pullSecrets, runtimeClass } from './parts.ts';

export function featureDiscovery(policy: GpuPolicy): Readonly<Record<string, unknown>> {
  const spec = policy.spec.components.featureDiscovery;
  return {
    ...pullSecrets(spec),
    ...runtimeClass(policy),
    containers: [
      {
        name: 'feature-discovery',
        image: imageOf(spec, 'nvcr.io/nvidia/k8s-device-plugin', 'v0.20.0'),
        command: ['gpu-feature-discovery'],
        ...containerExtras(spec),
        env: [
          NODE_NAME,
          ...envOf({ GFD_SLEEP_INTERVAL: '60s', GFD_FAIL_ON_INIT_ERROR: 'true', NVIDIA_VISIBLE_DEVICES: 'all' }, spec),
        ],
        securityContext: { privileged: true },
        volumeMounts: [
          { name: 'features', mountPath: '/etc/kubernetes/node-feature-discovery/features.d' },
          { name: 'host-sys', mountPath: '/sys', readOnly: true },
        ],
      },
    ],
    volumes: [
      hostPath('features', '/etc/kubernetes/node-feature-discovery/features.d'),
      hostPath('host-sys', '/sys', 'Directory'),
    ],
  };
}
