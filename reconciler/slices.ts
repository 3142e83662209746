// ResourceSlices: what DRA drivers publish for nodes. A node with such GPUs is a GPU node though
// its kubelet offers none. Pure.
import { list, object, text } from '../core/raw.ts';

/** NVIDIA's own DRA driver. */
export const GPU_DRIVER = 'gpu.nvidia.com';

export const SLICES_PATH = '/apis/resource.k8s.io/v1/resourceslices';

/** A taint that a driver puts on a device of its own. */
export interface DeviceTaint {
  readonly key: string;
  readonly value: string;
  readonly effect: string;
}

export interface SliceDevice {
  readonly name: string;
  readonly taints: readonly DeviceTaint[];
}

/** A slice of one node. */
export interface SliceView {
  readonly name: string;
  readonly node: string;
  readonly driver: string;
  readonly pool: string;
  readonly generation: number;
  /** How many slices its pool has, as the driver says. */
  readonly count: number;
  readonly devices: readonly SliceDevice[];
}

const numberOf = (value: unknown): number => (typeof value === 'number' ? value : 0);

/** Raw taints of a device → what is kept. */
const taintsOf = (raw: unknown): readonly DeviceTaint[] =>
  list<unknown>(raw).map((one): DeviceTaint => {
    const { key, value, effect } = object(one);
    return { key: text(key, ''), value: text(value, ''), effect: text(effect, '') };
  });

/** Raw ResourceSlice → what is kept; `undefined` if it is not of a node by name. */
export function trimSlice(raw: unknown): SliceView | undefined {
  const { metadata, spec } = object(raw);
  const { driver, nodeName, pool, devices } = object(spec);
  const node = text(nodeName, '');
  if (node === '') return undefined;
  const { name, generation, resourceSliceCount } = object(pool);
  return {
    name: text(object(metadata)['name'], ''),
    node,
    driver: text(driver, ''),
    pool: text(name, ''),
    generation: numberOf(generation),
    count: numberOf(resourceSliceCount),
    devices: list<unknown>(devices).map((device) => ({
      name: text(object(device)['name'], ''),
      taints: taintsOf(object(device)['taints']),
    })),
  };
}

/** Does the slice hold GPUs that NVIDIA's driver offers? */
export const holdsGpus = ({ driver, devices }: SliceView): boolean => driver === GPU_DRIVER && devices.length > 0;

/** What a driver offers on a node under one name. */
export interface Pool {
  readonly driver: string;
  readonly name: string;
  readonly generation: number;
  /** Slices of the newest generation that are there, and how many the driver says there are. */
  readonly slices: number;
  readonly count: number;
  readonly devices: readonly SliceDevice[];
}

/** The slices of a node → its pools. Slices of an earlier generation are of the past. */
export function poolsOf(slices: Iterable<SliceView>): readonly Pool[] {
  const pools = Map.groupBy(slices, ({ driver, pool }) => `${driver}/${pool}`);
  return [...pools.values()].flatMap((all) => {
    const generation = Math.max(...all.map((slice) => slice.generation));
    const newest = all.filter((slice) => slice.generation === generation);
    const [first] = newest;
    return first === undefined
      ? []
      : [
          {
            driver: first.driver,
            name: first.pool,
            generation,
            slices: newest.length,
            count: first.count,
            devices: newest
              .flatMap(({ devices }) => devices)
              .toSorted((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true })),
          },
        ];
  });
}

/** Are all slices there that the driver says there are? The scheduler uses no other pool. */
export const isComplete = ({ slices, count }: Pool): boolean => slices >= count;

/** The pools of these drivers. */
export const poolsBy = (pools: readonly Pool[] | undefined, drivers: readonly string[]): readonly Pool[] =>
  (pools ?? []).filter(({ driver }) => drivers.includes(driver));

/** Do these drivers offer devices on the node, and all that they say? */
export function isPublished(pools: readonly Pool[] | undefined, drivers: readonly string[]): boolean {
  const theirs = poolsBy(pools, drivers);
  return theirs.every(isComplete) && theirs.some(({ devices }) => devices.length > 0);
}
