// Which driver volumes and variables a policy gives to containers that request a GPU. The webhook
// injects them, and validation pods get them too, because they must prove what users will have.
// Paths come from the policy alone.
import { posix } from 'node:path';
import type { DriverVolume, EnvVar, GpuPolicy, GpuPolicySpec } from './gpu-policy.ts';

export interface DriverMounts {
  readonly volumes: readonly DriverVolume[];
  readonly env: readonly EnvVar[];
}

/** The libraries that belong to a driver and change with it. */
const DRIVER_FILES = ['libcuda.so.1', 'libnvidia-ml.so.1', 'libnvidia-ptxjitcompiler.so.1'] as const;
/** The folder of Debian, Ubuntu and NVIDIA's driver images on x86_64. */
const MULTIARCH = '/usr/lib/x86_64-linux-gnu';
/**
 * Folders that a dynamic linker searches by itself, by the name that a volume gets: Debian's and
 * Ubuntu's, and everybody else's.
 */
const LINKER_FOLDERS = [
  ['gpu-gate', MULTIARCH],
  ['gpu-gate-lib64', '/usr/lib64'],
] as const;

/**
 * The driver's own files, one by one, each where a dynamic linker finds it without being
 * configured. A variable LD_LIBRARY_PATH in the pod would replace the one that an image sets for
 * libraries of its own. And the driver's folder as a whole would not do, because it is the
 * distribution's too: programs of the image would load a libc of the node.
 */
const filesIn = (folder: string): readonly DriverVolume[] =>
  LINKER_FOLDERS.flatMap(([prefix, mountPath]) =>
    DRIVER_FILES.map((file) => ({
      name: `${prefix}-${file.replaceAll('.', '-')}`,
      hostPath: `${folder}/${file}`,
      mountPath: `${mountPath}/${file}`,
      type: 'File',
      readOnly: true,
    })),
  );

const GKE_FOLDER = '/home/kubernetes/bin/nvidia';

const presetOf = ({ injection, hostPaths }: GpuPolicySpec): readonly DriverVolume[] => {
  switch (injection.driverVolumesPreset) {
    case 'None':
      return [];
    case 'GKE':
      return [
        {
          name: 'gpu-gate-driver',
          hostPath: GKE_FOLDER,
          mountPath: '/usr/local/nvidia',
          type: 'Directory',
          readOnly: true,
        },
        ...filesIn(`${GKE_FOLDER}/lib64`),
      ];
    case 'DriverContainer':
      return filesIn(plainPath(`${hostPaths.driverRoot}${MULTIARCH}`));
    case 'Host':
      return filesIn(MULTIARCH);
  }
};

/**
 * An absolute path as container runtimes read it: without '.', '..', '//' or a slash at its end.
 */
export const plainPath = (path: string): string =>
  path.startsWith('/') && !path.endsWith('/') && !path.includes('//') && !path.includes('/.')
    ? path
    : posix.join('/', path).replace(/(?<=.)\/$/, '');

/** Is the plain path `inner` below the plain path `outer`? */
export const isBelow = (inner: string, outer: string): boolean =>
  outer === '/' ? inner !== '/' : inner[outer.length] === '/' && inner.startsWith(outer);

/**
 * Paths are plain ones. The policy's own volumes and variables, then those of its preset that do
 * not meet them: a pod may hold a volume's name, a mount's path and a variable's name only once,
 * and below a read-only mount no other one can be made.
 */
export function driverMounts(policy: GpuPolicy): DriverMounts {
  const { driverVolumes, env } = policy.spec.injection;
  const volumes = new Map<string, DriverVolume>();
  const paths: string[] = [];
  const admit = (volume: DriverVolume, mountPath: string): void => {
    volumes.set(volume.name, { ...volume, hostPath: plainPath(volume.hostPath), mountPath });
    paths.push(mountPath);
  };
  for (const volume of driverVolumes) {
    const path = plainPath(volume.mountPath);
    if (!volumes.has(volume.name) && !paths.includes(path)) admit(volume, path);
  }
  for (const volume of presetOf(policy.spec)) {
    const path = plainPath(volume.mountPath);
    const meets = (other: string): boolean => path === other || isBelow(path, other) || isBelow(other, path);
    if (!volumes.has(volume.name) && !paths.some(meets)) admit(volume, path);
  }
  const variables = new Map<string, EnvVar>();
  for (const variable of env) if (!variables.has(variable.name)) variables.set(variable.name, variable);
  return { volumes: [...volumes.values()], env: [...variables.values()] };
}
