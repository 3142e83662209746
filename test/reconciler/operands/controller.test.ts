// Each operand by itself: what the API server says to one must not keep the others, nor the
// garbage, waiting.
import { describe, expect, it } from 'vitest';
import { KubeError } from '../../../platform/kube.ts';
import { jsonLog } from '../../../platform/log.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { Outcome } from '../../../reconciler/apply.ts';
import type { DaemonSetView } from '../../../reconciler/model.ts';
import { operandController } from '../../../reconciler/operands/controller.ts';
import { NO_DEVICES, classFacts, templateFacts, type Devices } from '../../../gate/devices.ts';
import { cachesOf, OPERANDS } from '../../builders/caches.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';

const old: DaemonSetView = {
  name: 'driver-old',
  uid: 'ds-old',
  generation: 1,
  rendered: 'x',
  ours: true,
  foreign: false,
};

function world(
  answer: (name: string, action: Action) => Outcome | Error,
  present: readonly DaemonSetView[] = [old],
  runtimeClass = { name: '', handler: '' },
  { spec = {}, devices = NO_DEVICES }: { readonly spec?: object; readonly devices?: Devices } = {},
) {
  const done: string[] = [];
  const again: number[] = [];
  const policy = aPolicy(spec);
  let at = NOW;
  const work = operandController({
    caches: cachesOf({ nodes: [aNode()], policies: [policy], daemonSets: present, devices }),
    log: jsonLog('error', () => undefined),
    now: () => at,
    operandNamespace: OPERANDS,
    runtimeClass,
    turns: {
      add: ({ kind }) => void done.push(kind === 'policies' ? 'changed' : kind),
      addAfter: (_, ms) => void again.push(ms),
    },
    apply: {
      apply: async (action) => {
        const name = action.kind === 'apply-daemonset' ? action.manifest.metadata.name.replace(/-\w+$/, '') : '';
        const outcome = answer(name, action);
        if (outcome instanceof Error) throw new Error('apply-daemonset', { cause: outcome });
        if (outcome.kind === 'refused') return outcome;
        if (action.kind === 'apply-daemonset') done.push(`${action.wholeAt === undefined ? '' : 'whole '}${name}`);
        else done.push(action.kind === 'event' ? action.reason : action.kind);
        return outcome;
      },
    },
  });
  return { work, done, again, policy, later: (ms: number) => (at += ms) };
}
const fine: Outcome = { kind: 'done', generation: 1, resourceVersion: '5' };
const OTHERS = ['container-toolkit', 'device-plugin', 'dcgm-exporter'];

it('a refused operand stops neither the others nor garbage collection, is reported, and is tried again later', async () => {
  const { work, done, again, policy, later } = world((name) =>
    name === 'driver' ? { kind: 'refused', because: 'it is invalid' } : fine,
  );
  expect(work.refusals(policy)).toBeUndefined();
  await work.handlers.operands('');
  expect(done).toEqual([
    'container-toolkit',
    'OperandRefused',
    'device-plugin',
    'dcgm-exporter',
    'delete-daemonset',
    'changed',
  ]);
  expect(work.refusals(policy)).toEqual([expect.stringMatching(/^DaemonSet driver-\w+: it is invalid$/)]);
  expect(again).toEqual([60_000]);
  done.length = 0;
  await work.handlers.operands('');
  expect(done).not.toContain('OperandRefused');
  later(61_000);
  await work.handlers.operands('');
  expect(done).toContain('OperandRefused');
});

it('one that could not be sent stops no other either, and is tried again at once', async () => {
  const { work, done, policy } = world((name) =>
    name === 'driver' ? new KubeError(503, '', 'PATCH /apis/x', 'busy') : fine,
  );
  await expect(work.handlers.operands('')).rejects.toThrow('apply-daemonset');
  expect(done).toEqual([...OTHERS, 'delete-daemonset', 'changed']);
  expect(work.refusals(policy)).toEqual([]);
});

it('an operand with another writer’s fields is written whole, and that is reported; one without is not', async () => {
  const { work, done } = world((name, action) =>
    name === 'driver' && action.kind === 'apply-daemonset' && action.wholeAt === undefined
      ? { ...fine, foreign: true }
      : fine,
  );
  await work.handlers.operands('');
  expect(done.filter((what) => what !== 'delete-daemonset')).toEqual([
    'container-toolkit',
    'driver',
    'whole driver',
    'OperandPutBack',
    'device-plugin',
    'dcgm-exporter',
    'changed',
  ]);
});

describe('the RuntimeClass', () => {
  const NVIDIA = { name: 'nvidia', handler: 'nvidia' };
  const worldWith = (outcome: Outcome | Error, runtimeClass = NVIDIA) =>
    world((_, action) => (action.kind === 'create-runtime-class' ? outcome : fine), [], runtimeClass);
  const times = (done: readonly string[]): number => done.filter((what) => what === 'create-runtime-class').length;

  it.each<[string, Outcome, number]>([
    ['is created', fine, 1],
    ['of another installer stays as it is', { kind: 'stale' }, 1],
  ])('%s; it is looked for again every ten minutes, and no operand waits for it', async (_, outcome, expected) => {
    const { work, done, again, later } = worldWith(outcome);
    await work.handlers.operands('');
    expect([times(done), done.includes('driver'), again]).toEqual([expected, true, [600_000]]);
    await work.handlers.operands('');
    expect(times(done)).toBe(1);
    later(600_001);
    await work.handlers.operands('');
    expect(times(done)).toBe(2);
  });
  it('that is refused is reported, and operands come all the same', async () => {
    const { work, done, again } = worldWith({ kind: 'refused', because: 'may not' });
    await work.handlers.operands('');
    expect([done.includes('driver'), again]).toEqual([true, [600_000]]);
  });
  it('that could not be sent is tried again at once, and operands come all the same', async () => {
    const { work, done } = worldWith(new KubeError(503, '', 'POST /apis/x', 'busy'));
    await expect(work.handlers.operands('')).rejects.toThrow('apply-daemonset');
    expect(done).toContain('driver');
  });
  it('is not created where the operator says so', async () => {
    const { work, done } = worldWith(fine, { name: '', handler: 'nvidia' });
    await work.handlers.operands('');
    expect(times(done)).toBe(0);
  });
});

describe('the claim template of validation pods', () => {
  const by = { spec: { allocation: 'DRA' } };
  const devicesOf = (...templates: readonly string[]): Devices => ({
    ...NO_DEVICES,
    classes: new Map([['gpu.nvidia.com', classFacts({})]]),
    templates: new Map(templates.map((name) => [`${OPERANDS}/${name}`, templateFacts({})])),
  });
  const claims = (done: readonly string[]): readonly string[] => done.filter((what) => what.includes('claim-template'));
  /** The name that it gets. */
  const made = async (): Promise<string> => {
    const names: string[] = [];
    const { work } = world(
      (_, action) => {
        if (action.kind === 'create-claim-template') names.push(action.manifest.metadata.name);
        return fine;
      },
      [],
      undefined,
      { ...by, devices: devicesOf() },
    );
    await work.handlers.operands('');
    return names.join(' ');
  };

  it('is made where a policy allocates by claim and its class is there, and is used once it is there', async () => {
    const name = await made();
    expect(name).toMatch(/^dra-validation-\w{10}$/);
    const before = world(() => fine, [], undefined, { ...by, devices: devicesOf() });
    expect(before.work.claimTemplateOf(before.policy)).toBeUndefined();
    const after = world(() => fine, [], undefined, { ...by, devices: devicesOf(name) });
    await after.work.handlers.operands('');
    expect([claims(after.done), after.work.claimTemplateOf(after.policy)]).toEqual([[], name]);
    expect(after.work.claimTemplateOf(undefined)).toBeUndefined();
  });
  it('is not made before its class is there', async () => {
    const { work, done } = world(() => fine, [], undefined, by);
    await work.handlers.operands('');
    expect(claims(done)).toEqual([]);
  });
  it('goes where no policy wants it', async () => {
    const { work, done } = world(() => fine, [], undefined, { devices: devicesOf('dra-validation-old') });
    await work.handlers.operands('');
    expect(claims(done)).toEqual(['delete-claim-template']);
  });
  it('that is refused is reported, and tried again', async () => {
    let outcome: Outcome = { kind: 'refused', because: 'may not' };
    const { work, policy, again } = world(
      (_, action) => (action.kind === 'create-claim-template' ? outcome : fine),
      [],
      undefined,
      { ...by, devices: devicesOf() },
    );
    await work.handlers.operands('');
    expect(work.refusals(policy)).toEqual([
      expect.stringMatching(/^ResourceClaimTemplate dra-validation-\w+: may not$/),
    ]);
    expect(again).toEqual([60_000]);
    outcome = fine;
    await work.handlers.operands('');
    expect(work.refusals(policy)).toEqual([]);
  });
});
