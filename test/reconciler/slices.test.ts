// ResourceSlices as DRA drivers publish them: what is kept, which pools are whole, who holds a
// device.
import { describe, expect, it } from 'vitest';
import { claimFacts } from '../../gate/devices.ts';
import { deviceIndex } from '../../reconciler/devices/device-index.ts';
import { holdsGpus, isPublished, poolsOf, trimSlice, type SliceView } from '../../reconciler/slices.ts';

const raw = (spec: object, name = 'a'): unknown => ({
  metadata: { name },
  spec: {
    driver: 'gpu.nvidia.com',
    nodeName: 'gpu-1',
    pool: { name: 'gpu-1', generation: 3, resourceSliceCount: 1 },
    devices: [{ name: 'gpu-0' }],
    ...spec,
  },
});
const slice = (spec: object = {}, name = 'a'): SliceView => {
  const view = trimSlice(raw(spec, name));
  if (view === undefined) throw new Error('not kept');
  return view;
};
const pool = (generation: number, resourceSliceCount: number, name = 'gpu-1') => ({
  pool: { name, generation, resourceSliceCount },
});

describe('of a slice is kept', () => {
  it('its node, driver, pool and devices with their taints', () =>
    expect(
      slice({
        devices: [{ name: 'gpu-0', taints: [{ key: 'gpu.nvidia.com/xid', value: '79', effect: 'NoSchedule' }] }],
      }),
    ).toEqual({
      name: 'a',
      node: 'gpu-1',
      driver: 'gpu.nvidia.com',
      pool: 'gpu-1',
      generation: 3,
      count: 1,
      devices: [{ name: 'gpu-0', taints: [{ key: 'gpu.nvidia.com/xid', value: '79', effect: 'NoSchedule' }] }],
    }));
  it.each([
    ['of no node by name', raw({ nodeName: undefined, allNodes: true })],
    ['that is null', null],
    ['that is a number', 7],
    ['without a spec', {}],
    ['whose spec is a list', { spec: [] }],
  ])('nothing of one %s', (_, value) => expect(trimSlice(value)).toBeUndefined());
  it('what can be read, where the rest is malformed', () =>
    expect(trimSlice({ spec: { nodeName: 'x', pool: 5, devices: [7, { taints: 'x' }] } })).toMatchObject({
      node: 'x',
      pool: '',
      generation: 0,
      count: 0,
      devices: [
        { name: '', taints: [] },
        { name: '', taints: [] },
      ],
    }));
});

it.each([
  ['NVIDIA’s driver with devices', {}, true],
  ['NVIDIA’s driver without a device', { devices: [] }, false],
  ['another driver', { driver: 'dra.example.com' }, false],
])('GPUs are in a slice of %s', (_, spec, holds) => expect(holdsGpus(slice(spec))).toBe(holds));

describe('the devices of a node are published', () => {
  const published = (...slices: SliceView[]) => isPublished(poolsOf(slices), ['gpu.nvidia.com']);
  it.each<[what: string, slices: readonly SliceView[], published: boolean]>([
    ['by one slice of one', [slice()], true],
    ['by none', [], false],
    ['by one of two', [slice(pool(3, 2))], false],
    ['by two of two', [slice(pool(3, 2)), slice({ ...pool(3, 2), devices: [{ name: 'gpu-1' }] }, 'b')], true],
    ['by one of each of two generations', [slice(pool(3, 1)), slice({ ...pool(4, 2) }, 'b')], false],
    ['by the newest generation beside an older one', [slice(pool(3, 1)), slice({ ...pool(4, 1) }, 'b')], true],
    ['while a second pool is half there', [slice(), slice({ ...pool(1, 2, 'other') }, 'b')], false],
    ['by another driver alone', [slice({ driver: 'dra.example.com' })], false],
    [
      'while another driver’s pool is half there',
      [slice(), slice({ ...pool(1, 2), driver: 'dra.example.com' }, 'b')],
      true,
    ],
    ['by a slice without a device', [slice({ devices: [] })], false],
  ])('%s', (_, slices, expected) => expect(published(...slices)).toBe(expected));
  it('of a cluster that serves no slices', () => expect(isPublished(undefined, ['gpu.nvidia.com'])).toBe(false));
  it('devices of older slices are of the past', () =>
    expect(
      poolsOf([slice(pool(3, 1)), slice({ ...pool(4, 1), devices: [{ name: 'gpu-10' }, { name: 'gpu-2' }] }, 'b')]),
    ).toMatchObject([{ generation: 4, slices: 1, devices: [{ name: 'gpu-2' }, { name: 'gpu-10' }] }]));
});

describe('the index', () => {
  it('has the pools of each node, and says which nodes a change concerns', () => {
    const index = deviceIndex();
    const [first, moved] = [slice(), slice({ nodeName: 'gpu-2' })];
    expect(index.poolsOn('gpu-1')).toEqual([]);
    expect(index.slice(undefined, first)).toEqual(['gpu-1']);
    expect(index.poolsOn('gpu-1')).toMatchObject([{ name: 'gpu-1', generation: 3 }]);
    expect(index.slice(first, slice(pool(4, 1)))).toEqual(['gpu-1']);
    expect(index.poolsOn('gpu-1')).toMatchObject([{ generation: 4 }]);
    expect(index.slice(slice(pool(4, 1)), moved)).toEqual(['gpu-1', 'gpu-2']);
    expect([index.poolsOn('gpu-1'), index.poolsOn('gpu-2').length]).toEqual([[], 1]);
    expect(index.slice(moved, undefined)).toEqual(['gpu-2']);
    expect(index.poolsOn('gpu-2')).toEqual([]);
  });
  it('knows a device as allocated until the last claim lets it go', () => {
    const index = deviceIndex();
    const claim = claimFacts({
      status: { allocation: { devices: { results: [{ driver: 'd', pool: 'p', device: 'gpu-0' }] } } },
    });
    const held = () => index.isAllocated('d', 'p', 'gpu-0');
    expect(held()).toBe(false);
    index.claim(undefined, claim);
    index.claim(undefined, claim);
    index.claim(claim, undefined);
    expect([held(), index.isAllocated('d', 'p', 'gpu-1')]).toEqual([true, false]);
    index.claim(claim, claimFacts({}));
    expect(held()).toBe(false);
  });
});
