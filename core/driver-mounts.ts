// Which driver volumes and environment a policy gives to containers that ask for a GPU. Validation
// pods get them too, because they must prove what users will have. Paths come from the policy
// alone.
import type { DriverVolume, EnvVar, GpuPolicy, GpuPolicySpec } from './gpu-policy.ts';

export interface DriverMounts {
  readonly volumes: readonly DriverVolume[];
  readonly env: readonly EnvVar[];
}

const LIBRARIES = '/usr/local/nvidia/lib64';
const ENV: readonly EnvVar[] = [{ name: 'LD_LIBRARY_PATH', value: LIBRARIES }];

/** The libraries that belong to a driver and change with it. */
const DRIVER_FILES = ['libcuda.so.1', 'libnvidia-ml.so.1', 'libnvidia-ptxjitcompiler.so.1'] as const;
/** Where Debian, Ubuntu and NVIDIA's driver images have them on x86_64. */
const MULTIARCH = '/usr/lib/x86_64-linux-gnu';

/**
 * The driver's own files, one by one: its folder is the distribution's too, and a libc of the node
 * on LD_LIBRARY_PATH would be loaded into programs that were built for another.
 */
const filesIn = (root: string): DriverMounts => ({
  volumes: DRIVER_FILES.map((file) => ({
    name: `gpu-gate-${file.replaceAll('.', '-')}`,
    hostPath: `${root}${MULTIARCH}/${file}`,
    mountPath: `${LIBRARIES}/${file}`,
    type: 'File',
    readOnly: true,
  })),
  env: ENV,
});

const presetOf = ({ injection, hostPaths }: GpuPolicySpec): DriverMounts => {
  switch (injection.driverVolumesPreset) {
    case 'None':
      return { volumes: [], env: [] };
    case 'GKE':
      return {
        volumes: [
          {
            name: 'gpu-gate-driver',
            hostPath: '/home/kubernetes/bin/nvidia',
            mountPath: '/usr/local/nvidia',
            type: 'Directory',
            readOnly: true,
          },
        ],
        env: ENV,
      };
    case 'DriverContainer':
      return filesIn(barePath(hostPaths.driverRoot));
    case 'Host':
      return filesIn('');
  }
};

/** A mount path without the slash that means nothing at its end. */
export const barePath = (path: string): string => path.replace(/(?<=.)\/$/, '');

/**
 * The policy's own volumes and variables, then its preset's where the policy names none of that
 * name or path: a pod may hold a volume's name, a mount's path and a variable's name once only, and
 * what we inject must never be why a pod is refused.
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
