// The policy's driver volumes and environment, into the containers that ask for a GPU. What the pod has already wins, unless it is
// what we would add: that is told by name, host path and mount, never by a record that an author could have written. Pure.
import { barePath, driverMounts } from '../core/driver-mounts.ts';
import type { DriverVolume, EnvVar, GpuPolicy } from '../core/gpu-policy.ts';
import type { GpuRequest, RawContainer, RawPod } from '../gate/gpu-request.ts';
import { append, carries, cut, skip, type AddOperation, type Draft } from './draft.ts';

const ENFORCE = 'pod-security.kubernetes.io/enforce';

interface Target {
  readonly path: string;
  readonly container: RawContainer;
}

/** Adds to the draft what the policy mounts. `everywhere`: the pod may go to nodes that we do not manage. `labels`: the namespace's; undefined: not in the cache. */
export function addMounts(
  draft: Draft,
  pod: RawPod,
  request: GpuRequest,
  policy: GpuPolicy,
  everywhere: boolean,
  labels: Readonly<Record<string, string>> | undefined,
): void {
  const { volumes, env } = driverMounts(policy);
  if (volumes.length === 0 && env.length === 0) return;
  if (everywhere) return skip(draft, 'driverVolumes', 'the policy allows unmanaged nodes');
  if (volumes.length > 0) {
    const level = labels === undefined ? 'restricted' : (labels[ENFORCE] ?? policy.spec.injection.podSecurityDefault);
    if (level !== 'privileged')
      return skip(
        draft,
        'driverVolumes',
        `the namespace enforces Pod Security ${level}`,
        `no driver volumes, Pod Security ${cut(level, 20)} forbids hostPath; use the runtime class alone`,
      );
  }
  const present = new Map((pod.spec?.volumes ?? []).map((volume) => [volume?.name, volume]));
  const usable = volumes.filter(({ name, hostPath }) => {
    if (!present.has(name) || present.get(name)?.hostPath?.path === hostPath) return true;
    skip(
      draft,
      `volume ${name}`,
      'the pod has a volume of that name',
      `volume ${cut(name, 50)} is the pod's own, the driver's was left out`,
    );
    return false;
  });
  const mounted = new Set<string>();
  const perContainer = targetsOf(pod, request).flatMap((target) => [
    ...mountsOf(draft, target, usable, mounted),
    ...envOf(draft, target, env),
  ]);
  const missing = usable
    .filter(({ name }) => mounted.has(name) && !present.has(name))
    .map(({ name, hostPath, type }) => ({ name, hostPath: { path: hostPath, type } }));
  if (missing.length > 0) draft.operations.push(...append('/spec/volumes', pod.spec?.volumes, missing));
  if (mounted.size > 0) {
    const added = perContainer.some(({ path }) => path.includes('/volumeMounts'));
    carries(draft, 'driverVolumes', added || missing.length > 0 ? 'added' : 'already');
  }
  draft.operations.push(...perContainer);
  return undefined;
}

const targetsOf = ({ spec }: RawPod, request: GpuRequest): Target[] => [
  ...request.initContainers.map((index) => ({
    path: `/spec/initContainers/${index}`,
    container: spec?.initContainers?.[index] ?? {},
  })),
  ...request.containers.map((index) => ({
    path: `/spec/containers/${index}`,
    container: spec?.containers?.[index] ?? {},
  })),
];

/** `mounted` collects the names of the volumes that some container mounts. */
function mountsOf(
  draft: Draft,
  { path, container }: Target,
  volumes: readonly DriverVolume[],
  mounted: Set<string>,
): AddOperation[] {
  const mounts = container.volumeMounts ?? [];
  const at = (wanted: string, has: string | undefined): boolean =>
    has !== undefined && barePath(has) === barePath(wanted);
  const added: { name: string; mountPath: string; readOnly: boolean }[] = [];
  for (const { name, mountPath, readOnly } of volumes) {
    const there = mounts.find((mount) => at(mountPath, mount?.mountPath));
    const device = (container.volumeDevices ?? []).some((entry) => at(mountPath, entry?.devicePath));
    if (there === undefined && !device) {
      added.push({ name, mountPath, readOnly });
      mounted.add(name);
    } else if (there?.name === name && (there.readOnly ?? false) === readOnly) {
      mounted.add(name);
    } else {
      const who = container.name ?? '?';
      skip(
        draft,
        `mount ${mountPath} in ${who}`,
        'the container mounts something there',
        `${cut(mountPath, 30)} in ${cut(who, 20)} is the pod's own mount, the driver's was left out`,
      );
    }
  }
  return added.length === 0 ? [] : append(`${path}/volumeMounts`, container.volumeMounts, added);
}

function envOf(draft: Draft, { path, container }: Target, env: readonly EnvVar[]): AddOperation[] {
  const present = container.env ?? [];
  const added = env
    .filter(({ name }) => !present.some((variable) => variable?.name === name))
    .map(({ name, value }) => ({ name, value }));
  if (env.some((ours) => present.some((its) => its?.name === ours.name && its.value === ours.value)))
    carries(draft, 'env', 'already');
  if (added.length === 0) return [];
  carries(draft, 'env', 'added');
  // What a ConfigMap or Secret holds is not in the pod: whether it sets the variable too cannot be seen.
  if ((container.envFrom ?? []).length > 0)
    draft.warnings.push(
      `gpu-gate: ${cut(added[0]?.name ?? '', 30)} in ${cut(container.name ?? '?', 20)} beats what envFrom sets; set it in env to keep yours`,
    );
  return append(`${path}/env`, container.env, added);
}
