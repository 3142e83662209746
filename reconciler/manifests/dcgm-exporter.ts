// NVIDIA's DCGM exporter: GPU metrics for Prometheus. Gates nothing, comes last, goes first (it
// holds the kernel module).
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { containerExtras, envOf, hostPath, imageOf, NODE_NAME, pullSecrets, runtimeClass } from './parts.ts';

export function dcgmExporter(policy: GpuPolicy): Readonly<Record<string, unknown>> {
  const spec = policy.spec.components.dcgmExporter;
  const { hostPaths } = policy.spec;
  const env = {
    DCGM_EXPORTER_LISTEN: ':9400',
    DCGM_EXPORTER_KUBERNETES: 'true',
    DCGM_EXPORTER_COLLECTORS: '/etc/dcgm-exporter/dcp-metrics-included.csv',
    NVIDIA_VISIBLE_DEVICES: 'all',
  };
  const health = { httpGet: { path: '/health', port: 9400 } };
  return {
    ...pullSecrets(spec),
    ...runtimeClass(policy),
    containers: [
      {
        name: 'dcgm-exporter',
        image: imageOf(spec, 'nvcr.io/nvidia/k8s/dcgm-exporter', '4.6.0-4.8.3-distroless'),
        ...containerExtras(spec),
        env: [NODE_NAME, ...envOf(env, spec)],
        ports: [{ name: 'metrics', containerPort: 9400 }],
        securityContext: { privileged: true },
        livenessProbe: { ...health, initialDelaySeconds: 45, periodSeconds: 15 },
        readinessProbe: { ...health, initialDelaySeconds: 45 },
        volumeMounts: [{ name: 'pod-resources', mountPath: '/var/lib/kubelet/pod-resources', readOnly: true }],
      },
    ],
    volumes: [hostPath('pod-resources', `${hostPaths.kubeletRoot}/pod-resources`)],
  };
}
