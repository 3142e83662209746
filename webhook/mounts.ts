// The policy's driver volumes and variables for the containers that request a GPU, and the variable
// that hides GPUs from all others. What the pod has wins. What the pod already has is recognised by
// its content (host path, mount path, variable), never by a record that an author could have
// written. Pure.
import { driverMounts, isBelow, plainPath, type DriverMounts } from '../core/driver-mounts.ts';
import type { DriverVolume, EnvVar, GpuPolicy } from '../core/gpu-policy.ts';
import { amountOf } from '../core/quantity.ts';
import type { GpuRequest, RawContainer, RawPod } from '../gate/gpu-request.ts';
import { carries, cut, skip, warn, type Draft } from './draft.ts';
import { append, type AddOperation } from './patch.ts';

const ENFORCE = 'pod-security.kubernetes.io/enforce';
const VISIBLE = { name: 'NVIDIA_VISIBLE_DEVICES', value: 'void' } as const;
/**
 * Bytes of an operation beside its value:
 * `{"op":"add","path":"/spec/initContainers/10000/volumeMounts/-","value":}`.
 */
const OPERATION = 80;

interface Target {
  readonly path: string;
  readonly container: RawContainer;
}

/**
 * What a policy mounts, and how much of the patch that takes: once per pod, and once per container
 * that requests a GPU.
 */
interface Mounts extends DriverMounts {
  readonly bytes: { readonly pod: number; readonly container: number };
}

export const NO_MOUNTS: Mounts = { volumes: [], env: [], bytes: { pod: 0, container: 0 } };

/** Bytes of the operations that add these values at most. */
const sizeOf = (values: readonly object[]): number =>
  values.reduce((sum: number, value) => sum + OPERATION + Buffer.byteLength(JSON.stringify(value)), 0);
const VISIBLE_BYTES = sizeOf([VISIBLE]);

/** A policy's mounts are the same in every call. */
const prepared = new WeakMap<GpuPolicy, Mounts>();
function mountsOfPolicy(policy: GpuPolicy): Mounts {
  const known = prepared.get(policy);
  if (known !== undefined) return known;
  const { volumes, env } = driverMounts(policy);
  const bytes = {
    pod: sizeOf(volumes.map(volumeOf)),
    container: sizeOf(volumes.map(mountOf)) + sizeOf(env),
  };
  const mounts = { volumes, env, bytes };
  prepared.set(policy, mounts);
  return mounts;
}

const volumeOf = ({ name, hostPath, type }: DriverVolume): object => ({ name, hostPath: { path: hostPath, type } });
const mountOf = ({ name, mountPath, readOnly }: DriverVolume): object => ({ name, mountPath, readOnly });

/** What of the policy's mounts this pod may have at all. */
export function mountsFor(
  draft: Draft,
  pod: RawPod,
  policy: GpuPolicy,
  where: {
    /** The pod may go to unmanaged nodes. */
    readonly everywhere: boolean;
    /** The namespace's; `undefined` if the cache does not have it. */
    readonly labels: Readonly<Record<string, string>> | undefined;
    /** The pod's runtime class gives it a kernel of its own. */
    readonly sandboxed: boolean;
  },
): Mounts {
  const mounts = mountsOfPolicy(policy);
  const { volumes, env } = mounts;
  if (volumes.length === 0 && env.length === 0) return NO_MOUNTS;
  const what = 'driverVolumes';
  if (where.everywhere) {
    skip(draft, what, 'the policy allows unmanaged nodes');
    return NO_MOUNTS;
  }
  if (where.sandboxed) {
    skip(draft, what, "the pod's runtime class runs it in a sandbox");
    return NO_MOUNTS;
  }
  if (volumes.length === 0) return mounts;
  const { labels } = where;
  const level = labels === undefined ? 'restricted' : (labels[ENFORCE] ?? policy.spec.injection.podSecurityDefault);
  if (level !== 'privileged') {
    skip(
      draft,
      what,
      `the namespace enforces Pod Security ${level}`,
      `no driver volumes, Pod Security ${cut(level, 20)} forbids hostPath; use the runtime class alone`,
    );
    return NO_MOUNTS;
  }
  const present = volumesOf(pod);
  return {
    ...mounts,
    volumes: volumes.filter(({ name, hostPath }) => {
      if (!present.has(name) || present.get(name) === hostPath) return true;
      skip(
        draft,
        `volume ${name}`,
        'the pod has a volume of that name',
        `volume ${cut(name, 50)} is the pod's own, the driver's was left out`,
      );
      return false;
    }),
  };
}

/** Host path of each volume of the pod by its name; `undefined` if the volume is not a hostPath. */
const volumesOf = ({ spec }: RawPod): ReadonlyMap<string, string | undefined> =>
  new Map(
    (spec?.volumes ?? []).map((volume): [string, string | undefined] => {
      const path = volume.hostPath?.path ?? '';
      return [volume.name ?? '', path === '' ? undefined : plainPath(path)];
    }),
  );

/**
 * At most so many bytes the operations on containers take, from counts alone. It bounds the work of
 * the functions below too, because each thing that they look at is worth some bytes.
 */
export function bytesOf({ spec }: RawPod, request: GpuRequest, { bytes }: Mounts, hides: boolean): number {
  const gpu = request.containers.length + request.initContainers.length;
  const all = (spec?.containers?.length ?? 0) + (spec?.initContainers?.length ?? 0);
  return bytes.pod + gpu * bytes.container + (hides ? (all - gpu) * VISIBLE_BYTES : 0);
}

/** Mounts the volumes and sets the variables in every container that requests a GPU. */
export function addMounts(draft: Draft, pod: RawPod, request: GpuRequest, { volumes, env }: DriverMounts): void {
  if (volumes.length === 0 && env.length === 0) return;
  const present = volumesOf(pod);
  // A volume that the pod names and does not have will be the policy's.
  const known = new Map([...volumes.map(({ name, hostPath }) => [name, hostPath] as const), ...present]);
  const mounted = new Set<string | undefined>();
  const named = new Set<string | undefined>();
  const perContainer: AddOperation[] = [];
  let already = false;
  for (const target of targetsOf(pod, request)) {
    for (const { name } of target.container.volumeMounts ?? []) named.add(name);
    const { added, has } = mountsOf(draft, target, volumes, known);
    for (const { name } of added) mounted.add(name);
    already ||= has;
    const values = added.map(mountOf);
    if (values.length > 0)
      perContainer.push(...append(`${target.path}/volumeMounts`, target.container.volumeMounts, values));
    perContainer.push(...envOf(draft, target, env));
  }
  const missing = volumes
    .filter(({ name }) => (mounted.has(name) || named.has(name)) && !present.has(name))
    .map(volumeOf);
  if (missing.length > 0) draft.operations.push(...append('/spec/volumes', pod.spec?.volumes, missing));
  if (mounted.size > 0 || already) carries(draft, 'driverVolumes', mounted.size > 0 ? 'added' : 'already');
  draft.operations.push(...perContainer);
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

/** A mount of the container's own, or a block device. */
interface OwnMount {
  readonly path: string;
  /** The node's path that is seen there; `undefined` if it is anything else. */
  readonly hostPath: string | undefined;
}

const ownMounts = (container: RawContainer, volumes: ReadonlyMap<string, string | undefined>): OwnMount[] => [
  ...(container.volumeMounts ?? []).map(({ name, mountPath, subPath, subPathExpr }) => {
    const hostPath = (subPathExpr ?? '') === '' ? volumes.get(name ?? '') : undefined;
    return {
      path: plainPath(mountPath ?? ''),
      hostPath: hostPath === undefined ? undefined : plainPath(`${hostPath}/${subPath ?? ''}`),
    };
  }),
  ...(container.volumeDevices ?? []).map(({ devicePath }) => ({
    path: plainPath(devicePath ?? ''),
    hostPath: undefined,
  })),
];

type Found =
  | { readonly kind: 'free' }
  /** The container sees the driver's files there, or a part of them. */
  | { readonly kind: 'present' }
  /**
   * Another mount is there, below or above. Below a read-only folder a runtime cannot create the
   * mount point; above, it would have to write into the pod's volume.
   */
  | { readonly kind: 'conflict'; readonly nested: boolean; readonly path: string };

/** What a container has where a volume of the policy would be mounted. */
function lookAt(wanted: { readonly path: string; readonly hostPath: string }, mounts: readonly OwnMount[]): Found {
  let nested: Found = { kind: 'free' };
  for (const { path, hostPath } of mounts) {
    if (path === wanted.path)
      return hostPath === wanted.hostPath ? { kind: 'present' } : { kind: 'conflict', nested: false, path };
    const same = isBelow(path, wanted.path)
      ? hostPath === wanted.hostPath + path.slice(wanted.path.length)
      : isBelow(wanted.path, path)
        ? hostPath !== undefined && wanted.hostPath === hostPath + wanted.path.slice(path.length)
        : undefined;
    if (same === true && nested.kind === 'free') nested = { kind: 'present' };
    else if (same === false) nested = { kind: 'conflict', nested: true, path };
  }
  return nested;
}

function mountsOf(
  draft: Draft,
  { container }: Target,
  volumes: readonly DriverVolume[],
  known: ReadonlyMap<string, string | undefined>,
): { readonly added: readonly DriverVolume[]; readonly has: boolean } {
  const mounts = ownMounts(container, known);
  const added: DriverVolume[] = [];
  let has = false;
  for (const volume of volumes) {
    const found = lookAt({ path: volume.mountPath, hostPath: volume.hostPath }, mounts);
    if (found.kind === 'free') added.push(volume);
    else if (found.kind === 'present') has = true;
    else {
      const who = cut(container.name ?? '?', 20);
      const what = `mount ${volume.mountPath} in ${container.name ?? '?'}`;
      if (found.nested)
        skip(
          draft,
          what,
          `the container mounts ${found.path}`,
          `${cut(found.path, 30)} in ${who} is nested with the driver's mount, which was left out`,
        );
      else
        skip(
          draft,
          what,
          'the container mounts something there',
          `${cut(volume.mountPath, 30)} in ${who} is the pod's own mount, the driver's was left out`,
        );
    }
  }
  return { added, has };
}

/** Value by name; of two with one name the last counts, as for the kubelet. */
const variablesOf = ({ env }: RawContainer): ReadonlyMap<string | undefined, string | undefined> =>
  new Map((env ?? []).map(({ name, value }) => [name, value]));

function envOf(draft: Draft, { path, container }: Target, env: readonly EnvVar[]): AddOperation[] {
  if (env.length === 0) return [];
  const present = variablesOf(container);
  const added = env.filter(({ name }) => !present.has(name)).map(({ name, value }) => ({ name, value }));
  if (env.some(({ name, value }) => present.get(name) === value)) carries(draft, 'env', 'already');
  if (added.length === 0) return [];
  carries(draft, 'env', 'added');
  // What a ConfigMap or Secret holds is not in the pod, so it may set the variable too.
  if ((container.envFrom ?? []).length > 0)
    warn(
      draft,
      `${cut(added[0]?.name ?? '', 30)} in ${cut(container.name ?? '?', 20)} beats what envFrom sets; set it in env to keep yours`,
    );
  return append(`${path}/env`, container.env, added);
}

/** Resources of NVIDIA's, and those by which other device plugins share GPUs. */
const GPU_LIKE = /^nvidia\.com\/|gpu|cuda/i;

/** Does the container get devices by something else than the policy's resources? */
const getsDevices = ({ resources }: RawContainer): boolean =>
  (resources?.claims ?? []).length > 0 ||
  [resources?.limits, resources?.requests].some((list) =>
    Object.entries(list ?? {}).some(([name, quantity]) => GPU_LIKE.test(name) && amountOf(quantity) > 0),
  );

/**
 * Hides the node's GPUs from the containers that request none and do not say what they want to see.
 * Under the class `nvidia` an image that sets NVIDIA_VISIBLE_DEVICES=all, as all CUDA images do,
 * would get every GPU of the node.
 */
export function addHidden(draft: Draft, { spec }: RawPod, request: GpuRequest): void {
  const what = 'hiddenGpus';
  for (const kind of ['initContainers', 'containers'] as const) {
    const asking = new Set(request[kind]);
    for (const [index, container] of (spec?.[kind] ?? []).entries()) {
      if (asking.has(index) || getsDevices(container)) continue;
      const present = variablesOf(container);
      if (!present.has(VISIBLE.name)) {
        draft.operations.push(...append(`/spec/${kind}/${index}/env`, container.env, [VISIBLE]));
        carries(draft, what, 'added');
      } else if (present.get(VISIBLE.name) === VISIBLE.value) carries(draft, what, 'already');
    }
  }
}
