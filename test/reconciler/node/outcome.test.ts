// What a validation says, and what became of its pod: tables over the kubelet's reasons.
import { describe, expect, it } from 'vitest';
import type { PodObject } from '../../../reconciler/model.ts';
import { validationFinding } from '../../../reconciler/node/findings.ts';
import { adviceOn, outcomeOf } from '../../../reconciler/node/outcome.ts';
import { lastWords } from '../../../reconciler/node/words.ts';
import { keptPod, verdict } from '../../builders/objects.ts';
import { World } from './world.ts';

type Terminated = NonNullable<NonNullable<PodObject['containers'][number]['state']>['terminated']>;
const ended = (terminated: Terminated | undefined, more: Partial<PodObject> = {}): PodObject =>
  keptPod({
    phase: 'Failed',
    containers: [
      { name: 'c', ready: false, restartCount: 0, ...(terminated === undefined ? {} : { state: { terminated } }) },
    ],
    ...more,
  });
const startedAt = '2026-11-28T10:00:00Z';

describe('what a kubelet or another controller did to the pod', () => {
  it.each([
    // Of the kubelet's admission, in its own order.
    'PodOSSelectorNodeLabelDoesNotMatch',
    'PodOSNotSupported',
    'InvalidNodeInfo',
    'InitContainerRestartPolicyForbidden',
    'SupplementalGroupsPolicyNotSupported',
    'UnexpectedAdmissionError',
    'UnknownReason',
    'UnexpectedPredicateFailureType',
    'PodFeatureUnsupported',
    'PodLevelResourcesNotSupported',
    'VolumeAttachmentLimitExceeded',
    'SMTAlignmentError',
    'TaintToleration',
    'NodeName',
    'OutOfpods',
    'OutOfcpu',
    'OutOfmemory',
    'OutOfephemeral-storage',
    'OutOfnvidia.com/gpu',
    'TopologyAffinityError',
    'NodeAffinity',
    'NodePorts',
    'Evicted',
    'Preempting',
    'NodeShutdown',
    'Terminated',
    'NodeLost',
    'DeadlineExceeded',
    'SysctlForbidden',
    'AppArmor',
    'AReasonOfTomorrow',
  ])('%s before the container began: it never ran; afterwards: it was killed', (reason) => {
    expect(outcomeOf(ended(undefined, { reason, message: 'm' }))).toEqual({
      kind: 'NeverRan',
      what: reason,
      words: 'm',
    });
    expect(outcomeOf(ended({ exitCode: 137, startedAt }, { reason }))).toMatchObject({ kind: 'Killed', what: reason });
    expect(outcomeOf(ended({ exitCode: 1, startedAt }, { reason }))).toMatchObject({ kind: 'Killed' });
  });
  it.each<[string, Terminated, string, string]>([
    ['an OOM kill', { exitCode: 137, reason: 'OOMKilled', startedAt }, 'Killed', 'OOMKilled'],
    ['SIGKILL', { exitCode: 137, reason: 'Error', startedAt }, 'Killed', 'exit code 137'],
    ['SIGTERM', { exitCode: 143, reason: 'Error', startedAt }, 'Killed', 'exit code 143'],
    ['a lost status', { exitCode: 137, reason: 'ContainerStatusUnknown' }, 'Killed', 'exit code 137'],
    [
      'another machine',
      { exitCode: 255, message: 'exec /bin/sh: exec format error' },
      'NotTheProgram',
      'exit code 255',
    ],
    ['no shell', { exitCode: 128, reason: 'StartError', message: 'no such file' }, 'NotTheProgram', 'StartError'],
    [
      'an exit code alone',
      { exitCode: 1, reason: 'Error', message: 'Test PASSED', startedAt },
      'NotTheProgram',
      'Error',
    ],
  ])('%s', (_, terminated, kind, what) => expect(outcomeOf(ended(terminated))).toMatchObject({ kind, what }));
  it('says Test PASSED with no verdict: it is another program', () =>
    expect(outcomeOf(ended({ exitCode: 0, message: 'Test PASSED', startedAt }, { phase: 'Succeeded' }))).toMatchObject({
      kind: 'NotTheProgram',
    }));
  it('has not ended', () => {
    for (const phase of ['Pending', 'Running']) expect(outcomeOf(keptPod({ phase }))).toBeUndefined();
  });
  it.each(['', '{', '{"gpuGate":1,', '{"gpuGate":1,"verdict":7}', '{"gpuGate":2,"verdict":"pass"}', '["gpuGate"]'])(
    '%j is not a verdict',
    (message) => expect(outcomeOf(ended({ exitCode: 0, message, startedAt }))?.kind).toBe('NotTheProgram'),
  );
  it('the verdict stands whatever became of the pod afterwards', () =>
    expect(outcomeOf(ended({ exitCode: 0, message: verdict(true), startedAt }, { reason: 'Evicted' }))).toMatchObject({
      kind: 'Verdict',
      passed: true,
    }));
  it('tells what to do where that is known', () => {
    expect(adviceOn('OutOfnvidia.com/gpu')).toContain('no room');
    expect(adviceOn('OOMKilled')).toBe('raise validation.resources.limits.memory in the GPUPolicy');
    expect(adviceOn('AReasonOfTomorrow')).toBe('');
  });
});

describe('a validation on a node that serves', () => {
  const after = (change: (pod: PodObject) => PodObject): World => {
    const world = new World().validated();
    world.start('toolkit');
    world.step();
    for (const [name, pod] of world.pods)
      if (name.startsWith('driver-validation') && pod.validates !== undefined) world.pods.set(name, change(pod));
    world.step();
    return world;
  };
  const as = (terminated: Terminated | undefined, more: Partial<PodObject>) => (pod: PodObject) => ({
    ...pod,
    ...ended(terminated, more),
    name: pod.name,
    labels: pod.labels,
    validates: pod.validates,
    deleting: more.deleting ?? false,
  });
  it.each<[string, (pod: PodObject) => PodObject, string]>([
    ['evicted', as(undefined, { reason: 'Evicted', message: 'The node had condition: [DiskPressure].' }), 'Rejected'],
    ['without room', as(undefined, { reason: 'OutOfpods' }), 'Rejected'],
    ['preempted', as(undefined, { reason: 'Preempting' }), 'Rejected'],
    ['without topology', as(undefined, { reason: 'TopologyAffinityError' }), 'Rejected'],
    ['drained', as({ exitCode: 137, startedAt }, { deleting: true }), 'Killed'],
    ['out of memory', as({ exitCode: 137, reason: 'OOMKilled', startedAt }, {}), 'OOMKilled'],
    ['of another machine', as({ exitCode: 255, message: 'exec /bin/sh: exec format error' }, {}), 'NotTheProgram'],
  ])('%s: the proof stays, the node closes, the reason says it, and another round follows', (_, change, reason) => {
    const world = after(change);
    expect([world.condition?.reason, world.trust]).toEqual([`DriverValidationFailed${reason}`, [true, false]]);
    expect(world.condition?.message).not.toContain('?');
    world.now += 15_000;
    world.validated();
    expect(world.trust).toEqual([true, true]);
  });
});

describe('last words', () => {
  it.each([
    [
      'Resolving Linux kernel version...\nCould not resolve Linux kernel version\nStopping NVIDIA persistence daemon...\nUnmounting NVIDIA driver rootfs...',
      'Could not resolve Linux kernel version … Unmounting NVIDIA driver rootfs...',
    ],
    [
      'Failed to allocate device vector A (error code system not yet initialized)!\n[Vector addition of 50000 elements]\n',
      'Failed to allocate device vector A (error code system not yet initialized)! … [Vector addition of 50000 elements]',
    ],
    ['one\n\ntwo\n', 'two'],
    ['panic: x', 'panic: x'],
    ['', ''],
    [undefined, ''],
    ['a\u001b[31mred', 'a\\u001b[31mred'],
  ])('of %j', (text, words) => expect(lastWords(text)).toBe(words));
  it('of a long text are short', () => expect(lastWords('error '.repeat(100_000)).length).toBeLessThan(450));
});

it('a hang of the program is its own verdict only once it runs', () => {
  expect(validationFinding(keptPod({ phase: 'Running' }), 'v')).toMatchObject({ kind: 'waiting', computing: true });
  expect(validationFinding(keptPod({ phase: 'Pending' }), 'v')).not.toHaveProperty('computing');
});
