// What one state sees and wants, as values: DRA, validation pods, and whether a walk may begin.
import { describe, expect, it } from 'vitest';
import { observe, type NodeInput, type Observed, type WithPolicy } from '../../../reconciler/node/observed.ts';
import { draDriver } from '../../../reconciler/node/states/dra-driver.ts';
import { draValidation } from '../../../reconciler/node/states/dra-validation.ts';
import { devicePluginValidation } from '../../../reconciler/node/states/device-plugin-validation.ts';
import { preflight } from '../../../reconciler/node/states/preflight.ts';
import type { Look, WalkState } from '../../../reconciler/node/states/state.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import type { Pool } from '../../../reconciler/slices.ts';
import type { Walk } from '../../../reconciler/walk.ts';
import { aPolicy } from '../../builders/objects.ts';
import { aPool, NFD, World } from './world.ts';

interface Parts {
  readonly input?: Partial<NodeInput>;
  readonly walk?: Partial<Walk>;
}
const worldOf = (spec: object): Observed => observe(new World(aPolicy(spec)).validated().input() as WithPolicy);
const dra = worldOf({ allocation: 'DRA' });
const lookAt = (state: WalkState, seen: Observed, { input = {}, walk = {} }: Parts): Look => {
  const both: Observed = {
    ...seen,
    input: { ...seen.input, ...input } as WithPolicy,
    walk: { ...seen.walk, ...walk },
  };
  return state.look(both, { deploy: seen.deployed, evidence: both.walk.evidence });
};

describe('the DRA driver', () => {
  it.each<[what: string, pools: readonly Pool[] | undefined, finding: object]>([
    ['is done when its devices are published', [aPool()], { kind: 'done' }],
    [
      'says that the API server does not serve slices, more than that time ran out',
      undefined,
      { reason: 'NoResourceSlices', telling: true, healthy: true },
    ],
    ['is Ready for nothing where no slice comes', [], { reason: 'NoResourceSlices', healthy: true }],
    [
      'has another reason where slices are missing',
      [aPool({ generation: 5, count: 2 })],
      { reason: 'ResourceSlicesIncomplete', healthy: true },
    ],
    [
      'has that reason not where slices are empty',
      [aPool({ devices: [] })],
      { reason: 'NoResourceSlices', healthy: true },
    ],
  ])('%s', (_, pools, finding) => expect(lookAt(draDriver, dra, { input: { pools } }).finding).toMatchObject(finding));
});

/** Another round: nothing has passed. */
const again = { passed: {} };
const specOf = (look: Look) => {
  const created = look.pods?.find((action) => action.kind === 'create-pod');
  return created?.manifest['spec'] as
    | { readonly schedulerName?: string; readonly resourceClaims?: unknown }
    | undefined;
};
const podOf = (look: Look, more: Partial<PodObject>): PodObject => {
  const created = look.pods?.find((action) => action.kind === 'create-pod');
  return {
    ...(dra.input.pods[0] as PodObject),
    uid: 'validation',
    name: created?.manifest.metadata.name ?? '',
    validates: 'node-uid',
    containers: [],
    conditions: [],
    ...more,
  };
};

describe('a validation’s pod', () => {
  it('asks by the claim template', () =>
    expect(specOf(lookAt(draValidation, dra, { walk: again }))?.resourceClaims).toEqual([
      { name: 'gpu', resourceClaimTemplateName: 'template' },
    ]));
  it.each([
    ['dra-validation', draValidation, { allocation: 'DRA' }],
    ['device-plugin-validation', devicePluginValidation, {}],
  ] as const)('of %s goes by the scheduler that users’ pods go by', (_, state, spec) => {
    const named = worldOf({ ...spec, injection: { schedulerName: 'gpu-gate-scheduler' } });
    expect(specOf(lookAt(state, named, { walk: again }))?.schedulerName).toBe('gpu-gate-scheduler');
    const unnamed = worldOf({ ...spec, injection: { schedulerName: '' } });
    expect(specOf(lookAt(state, unnamed, { walk: again }))).not.toHaveProperty('schedulerName');
  });
});

describe('dra-validation', () => {
  const first = lookAt(draValidation, dra, { walk: again });
  const running = podOf(first, { phase: 'Running' });
  const unschedulable = podOf(first, {
    phase: 'Pending',
    nodeName: undefined,
    conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: 'cannot allocate' }],
  });
  const withPod = (pod: PodObject): Partial<NodeInput> => ({ validationPods: new Map([[pod.name, pod]]) });
  const finding = (input: Partial<NodeInput>, walk: Partial<Walk> = {}) =>
    lookAt(draValidation, dra, { input, walk: { ...again, ...walk } }).finding;
  const tried = (...devices: readonly string[]): Pick<Walk, 'leftOut'> => ({
    leftOut: Object.fromEntries(
      devices.map((name) => [`gpu.nvidia.com/n/${name}`, { at: '', because: `${name} is bad`, tried: true as const }]),
    ),
  });

  it('says that a DeviceClass is missing, more than that time ran out', () =>
    expect(finding({ claimTemplate: undefined })).toMatchObject({ reason: 'NoDeviceClass', telling: true }));
  it('goes on with the pod that is there when its template goes', () =>
    expect(finding({ ...withPod(running), claimTemplate: undefined })).toMatchObject({ reason: 'Running' }));
  it('goes on with the pod that is there when the rule goes that leaves a device out', () => {
    const ruledOut = new Set(['gpu.nvidia.com/n/gpu-1']);
    const next = lookAt(draValidation, dra, { input: { ruledOut }, walk: { ...again, ...tried('gpu-1') } });
    const pod = podOf(next, { phase: 'Running' });
    expect(finding({ ...withPod(pod), ruledOut: new Set() }, tried('gpu-1'))).toMatchObject({ reason: 'Running' });
  });

  it.each<[what: string, allocated: readonly string[] | undefined, pools: readonly Pool[], reason: string]>([
    ['all devices are allocated: no failure', ['gpu-0', 'gpu-1'], [aPool()], 'WaitingForFreeGPU'],
    ['one is free', ['gpu-0'], [aPool()], 'Unschedulable'],
    [
      'one of another pool is free',
      ['gpu-0', 'gpu-1'],
      [aPool(), aPool({ name: 'other', devices: [{ name: 'gpu-9', taints: [] }] })],
      'Unschedulable',
    ],
    ['nobody knows what is allocated', undefined, [aPool()], 'Unschedulable'],
  ])('its pod cannot be scheduled, and %s', (_, allocated, pools, reason) => {
    const isAllocated =
      allocated === undefined ? undefined : (_d: string, _p: string, name: string) => allocated.includes(name);
    const seen = finding({ ...withPod(unschedulable), pools, isAllocated } as Partial<NodeInput>);
    expect(seen).toMatchObject({ kind: 'waiting', reason });
    expect('telling' in seen).toBe(reason === 'Unschedulable');
    expect('untimed' in seen && seen.untimed).toBe(reason === 'WaitingForFreeGPU');
  });
  it('that runs is not renamed where all devices are allocated', () =>
    expect(finding({ ...withPod(running), isAllocated: () => true })).toMatchObject({ reason: 'Running' }));

  it('on a device has failed: waits for its rule before the next one', () => {
    const ruledOut = new Set<string>();
    expect(finding({ ruledOut }, tried('gpu-1'))).toMatchObject({ reason: 'DeviceNotLeftOut' });
    expect(finding({ ruledOut: new Set(['gpu.nvidia.com/n/gpu-1']) }, tried('gpu-1'))).toMatchObject({
      reason: 'PodMissing',
    });
  });
  it('on a device has failed, and the API server serves no rules: the next one is tried', () =>
    expect(finding({ ruledOut: undefined }, tried('gpu-1'))).toMatchObject({ reason: 'PodMissing' }));
  it('on each device has failed: the stack does not work', () =>
    expect(finding({}, tried('gpu-0', 'gpu-1'))).toEqual({
      kind: 'failed',
      reason: 'VectorAdd',
      message: 'no device of the node is left: gpu-0 is bad',
      disproves: true,
    }));
  it('says nothing against a node whose devices are out of sight', () =>
    expect(finding({ pools: [] })).toMatchObject({ kind: 'waiting', reason: 'PodMissing' }));
  it('says nothing against devices that the kubelet calls unhealthy', () => {
    const unhealthy = {
      leftOut: {
        'gpu.nvidia.com/n/gpu-0': { at: '', because: 'x' },
        'gpu.nvidia.com/n/gpu-1': { at: '', because: 'x' },
      },
    };
    expect(finding({}, unhealthy)).toMatchObject({ kind: 'waiting', reason: 'PodMissing' });
  });
});

describe('preflight', () => {
  const fresh = observe(new World().input() as WithPolicy);
  const without = { ...fresh.input.node, metadata: { ...fresh.input.node.metadata, labels: {} } };
  const hold = fresh.input.policy.spec.labelHold;
  it.each<[what: string, parts: Parts, finding: object]>([
    ['lets a walk begin', {}, { kind: 'done' }],
    [
      'waits for a place',
      { input: { slotFree: false } },
      { reason: 'WaitingForSlot', untimed: true, wakeAt: fresh.input.now + 60_000 },
    ],
    [
      'needs no place on a node that was proven',
      { input: { slotFree: false }, walk: { proven: 'boot-0' } },
      { kind: 'done' },
    ],
    [
      'needs no other place on the way of a walk',
      { input: { slotFree: false }, walk: { stage: 'driver' } },
      { kind: 'done' },
    ],
    ['fails without NFD’s label', { input: { node: without } }, { kind: 'failed', reason: 'NoNFD' }],
    [
      'gives that label time to come back',
      { input: { node: without }, walk: { labelGone: new Date(fresh.input.now - hold + 1).toISOString() } },
      { kind: 'done' },
    ],
    [
      'gives it no more time than the policy says',
      { input: { node: without }, walk: { labelGone: new Date(fresh.input.now - hold).toISOString() } },
      { kind: 'failed', reason: 'NoNFD' },
    ],
  ])('%s', (_, parts, finding) => expect(lookAt(preflight, fresh, parts).finding).toMatchObject(finding));
  it('leaves another installer’s operand alone that the policy does not install and that gates nothing', () => {
    const policy = { components: { dcgmExporter: { enabled: false } } };
    const labels = { 'nvidia.com/gpu.deploy.dcgm-exporter': 'true' };
    expect(new World(aPolicy(policy), { [NFD]: 'true', ...labels }).validated().trust).toEqual([true, true]);
    const all = { 'nvidia.com/gpu.deploy.dcgm-exporter': 'true', 'nvidia.com/gpu.deploy.new-thing': 'true' };
    const world = new World(aPolicy(policy), all);
    world.settle(4);
    expect(world.condition?.message).toContain('label nvidia.com/gpu.deploy.new-thing shows another installer');
  });
});
