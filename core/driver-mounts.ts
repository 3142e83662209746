// Which driver volumes and environment a policy gives to containers that ask for a GPU: what the webhook injects, and what the
// validation pods get too, because they must prove what users will have. Paths come from the policy alone.
import type { DriverVolume, EnvVar, GpuPolicy, GpuPolicySpec } from './gpu-policy.ts';

export interface DriverMounts {
  readonly volumes: readonly DriverVolume[];
  readonly env: readonly EnvVar[];
}

const ONE_VOLUME = 'gpu-gate-driver';
const mount = (hostPath: string, mountPath: string): readonly DriverVolume[] => [
  { name: ONE_VOLUME, hostPath, mountPath, type: 'Directory', readOnly: true },
];
const libraries = (...paths: readonly string[]): readonly EnvVar[] => [
  { name: 'LD_LIBRARY_PATH', value: paths.join(':') },
];

const presetOf = ({ injection, hostPaths }: GpuPolicySpec): DriverMounts => {
  const { driverRoot } = hostPaths;
  switch (injection.driverVolumesPreset) {
    case 'None':
      return { volumes: [], env: [] };
    case 'GKE':
      return {
        volumes: mount('/home/kubernetes/bin/nvidia', '/usr/local/nvidia'),
        env: libraries('/usr/local/nvidia/lib64'),
      };
    case 'DriverContainer':
      return {
        volumes: mount(driverRoot, '/run/nvidia/driver'),
        env: libraries('/run/nvidia/driver/usr/lib/x86_64-linux-gnu', '/run/nvidia/driver/usr/lib64'),
      };
    case 'Host':
      return {
        volumes: mount('/usr/lib/x86_64-linux-gnu', '/usr/local/nvidia/lib64'),
        env: libraries('/usr/local/nvidia/lib64'),
      };
  }
};

/** A mount path without the slash that means nothing at its end. */
export const barePath = (path: string): string => path.replace(/(?<=.)\/$/, '');

/**
 * The policy's own volumes and variables, then its preset's where the policy names none of that name or path: a pod may hold a
 * volume's name, a mount's path and a variable's name once only, and what we inject must never be why a pod is refused.
 */
export function driverMounts(policy: GpuPolicy): DriverMounts {
  const preset = presetOf(policy.spec);
  const { driverVolumes, env } = policy.spec.injection;
  const names = new Set<string>();
  const paths = new Set<string>();
  const variables = new Set<string>();
  const volumes: DriverVolume[] = [];
  for (const volume of [...driverVolumes, ...preset.volumes]) {
    const path = barePath(volume.mountPath);
    if (names.has(volume.name) || paths.has(path)) continue;
    names.add(volume.name);
    paths.add(path);
    volumes.push(volume);
  }
  const all: EnvVar[] = [];
  for (const variable of [...env, ...preset.env]) {
    if (variables.has(variable.name)) continue;
    variables.add(variable.name);
    all.push(variable);
  }
  return { volumes, env: all };
}
