// Is this pod a user of its node's GPUs, whether it asks Kubernetes for one or not? Nothing is
// taken from under such a pod. What a privileged process does beside its pod's own fields cannot be
// seen.
import { driverMounts } from '../core/driver-mounts.ts';
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { list, object, text, type Raw } from '../core/raw.ts';
import { occupied, type PodWants, type RawPod } from './gpu-request.ts';

/** What a pod shows of its use, beside the amounts that it asks for. */
export interface GpuUse {
  /** GPUs that it asks for, by resource. */
  readonly gpus: Readonly<Record<string, number>>;
  /** It has a resource claim; which device that is stands in another object. */
  readonly claims: boolean;
  /** Empty if it names none. */
  readonly runtimeClass: string;
  /** Its hostPath volumes that show a device or a driver. */
  readonly hostPaths: readonly string[];
  /** A DaemonSet's pod never ends by itself. */
  readonly daemon: boolean;
}

const DEVICE = '/dev/nvidia';

const within = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`);

/**
 * Where a policy's driver stands on the host. A driver in the host's own root has no folder of its
 * own.
 */
export const driverPathsOf = (policy: GpuPolicy): readonly string[] =>
  [
    policy.spec.hostPaths.run,
    policy.spec.hostPaths.driverRoot,
    ...driverMounts(policy).volumes.map(({ hostPath }) => hostPath),
  ]
    .map(withoutLastSlashes)
    .filter((path) => path !== '');

const withoutLastSlashes = (path: string): string => {
  let end = path.length;
  while (path.endsWith('/', end)) end -= 1;
  return path.slice(0, end);
};

/** Does a mount of this path of the host bring in a GPU's device or driver? */
const showsGpu = (path: string, driverPaths: Iterable<string>): boolean => {
  if (path.startsWith(DEVICE)) return true;
  for (const folder of driverPaths) if (within(path, folder)) return true;
  return false;
};

/** Paths of the host that a raw pod spec mounts and that show a GPU. */
const gpuHostPaths = (spec: unknown, driverPaths: Iterable<string>): readonly string[] =>
  list<unknown>(object(spec)['volumes']).flatMap((volume) => {
    const path = object(object(volume)['hostPath'])['path'];
    return typeof path === 'string' && showsGpu(path, driverPaths) ? [path] : [];
  });

/** Raw pod → its use, as far as any of these driver's folders shows it. */
export function useOf(
  pod: RawPod,
  wants: Pick<PodWants, 'containers' | 'claims'>,
  driverPaths: Iterable<string>,
): GpuUse {
  const spec: Raw = object(pod.spec);
  return {
    gpus: occupied(wants),
    claims: wants.claims.length > 0,
    runtimeClass: text(spec['runtimeClassName'], ''),
    hostPaths: gpuHostPaths(spec, driverPaths),
    daemon: list<unknown>(pod.metadata?.ownerReferences).some(
      (owner) => object(owner)['controller'] === true && object(owner)['kind'] === 'DaemonSet',
    ),
  };
}

/**
 * Does the pod use GPUs on a node of this policy? A DaemonSet's pod counts by what it asks of
 * Kubernetes alone: exporters and other installers' components hold the runtime class or a mount,
 * and waiting for them would be for ever.
 */
export function usesGpus(use: GpuUse, policy: GpuPolicy | undefined): boolean {
  if (Object.values(use.gpus).some((amount) => amount > 0) || use.claims) return true;
  if (use.daemon) return false;
  const runtimeClass = policy?.spec.injection.runtimeClassName ?? 'nvidia';
  if (use.runtimeClass !== '' && use.runtimeClass === runtimeClass) return true;
  const paths = policy === undefined ? [] : driverPathsOf(policy);
  return use.hostPaths.some((path) => showsGpu(path, paths));
}
