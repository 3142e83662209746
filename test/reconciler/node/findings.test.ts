// What a pod that does not run says of it, and what a person can do: the texts of the condition
// GPUValidated, of Events and of `kubectl gpu-gate node`.
import { describe, expect, it } from 'vitest';
import type { ContainerStatus, PodObject } from '../../../reconciler/model.ts';
import { operandFinding, validationFinding, type Freshness } from '../../../reconciler/node/findings.ts';
import { keptPod, NOW, verdict } from '../../builders/objects.ts';

const FRESH: Freshness = { known: undefined, boot: 'boot-1', booted: undefined, now: NOW };
const found = (pod: PodObject | undefined) => operandFinding(pod, 'driver', 'abc', FRESH);
const aContainer = (more: Partial<ContainerStatus>): ContainerStatus => ({
  name: 'main',
  ready: false,
  restartCount: 0,
  ...more,
});
const container = (more: Partial<ContainerStatus>): PodObject =>
  keptPod({ name: 'driver-x', phase: 'Pending', containers: [aContainer(more)] });
const waits = (reason: string, message?: string, more: Partial<ContainerStatus> = {}): PodObject =>
  container({ state: { waiting: { reason, ...(message === undefined ? {} : { message }) } }, ...more });
const prerequisites = (terminated: object): PodObject =>
  keptPod({ name: 'driver-x', initContainers: [aContainer({ name: 'prerequisites', state: { terminated } })] });
const NO_HANDLER = 'no runtime for "nvidia" is configured';

describe('an operand’s pod fails', () => {
  it.each<[what: string, pod: PodObject, reason: string, message: RegExp]>([
    [
      'whose image cannot be pulled',
      waits('ImagePullBackOff', 'manifest unknown', { image: 'example/driver:9' }),
      'ImagePull',
      /^image example\/driver:9 of driver-x cannot be pulled \(manifest unknown\): check name, tag and pull secret in the GPUPolicy$/,
    ],
    [
      'whose image’s name is malformed',
      waits('InvalidImageName'),
      'ImagePull',
      /^image \? of driver-x cannot be pulled \(InvalidImageName\)/,
    ],
    [
      'that misses a kernel module',
      prerequisites({ exitCode: 1, message: 'i2c_core: not found' }),
      'KernelModuleMissing',
      /\(i2c_core: not found\): install it on the host/,
    ],
    [
      'that misses one without a word',
      prerequisites({ exitCode: 1 }),
      'KernelModuleMissing',
      /\(exit code 1\): install it on the host/,
    ],
    [
      'whose container crashes',
      waits('CrashLoopBackOff', undefined, { lastState: { terminated: { exitCode: 2, message: 'no device' } } }),
      'CrashLoop',
      /^container main of driver-x .*exit code 2: no device\): see 'kubectl logs -n gpu-gate-operands driver-x -c main --previous'$/,
    ],
    [
      'whose container crashes without a word',
      waits('CrashLoopBackOff'),
      'CrashLoop',
      /exit code \?\): see 'kubectl logs/,
    ],
    [
      'whose container is killed for its memory',
      waits('CrashLoopBackOff', undefined, { lastState: { terminated: { exitCode: 137, reason: 'OOMKilled' } } }),
      'OOMKilled',
      /^container main of driver-x keeps being killed \(OOMKilled\): raise resources.limits.memory of that component in the GPUPolicy$/,
    ],
    [
      'whose runtime has no handler',
      waits('CreateContainerError', NO_HANDLER),
      'RuntimeHandlerMissing',
      /no handler for driver-x/,
    ],
    [
      'whose sandbox has no handler',
      keptPod({ name: 'driver-x', message: NO_HANDLER, containers: [aContainer({})] }),
      'RuntimeHandlerMissing',
      /no handler for driver-x/,
    ],
    [
      'whose container cannot be created',
      waits('CreateContainerConfigError', 'secret "x" not found'),
      'ContainerCreate',
      /^container main of driver-x cannot be created: secret "x" not found$/,
    ],
    [
      'whose container cannot be created without a word',
      waits('RunContainerError'),
      'ContainerCreate',
      /cannot be created: RunContainerError$/,
    ],
  ])('%s', (_, pod, reason, message) =>
    expect(found(pod)).toEqual({ kind: 'failed', reason, message: expect.stringMatching(message) as string }),
  );
});

describe('an operand’s pod is waited for', () => {
  it.each<[what: string, pod: PodObject | undefined, reason: string, message: string]>([
    ['that is not there', undefined, 'PodMissing', 'waiting for the driver pod to be created'],
    ['that is not Ready', waits('ContainerCreating'), 'PodNotReady', 'waiting for driver-x to be Ready'],
    ['whose modules are loaded', prerequisites({ exitCode: 0 }), 'PodNotReady', 'waiting for driver-x to be Ready'],
    [
      'that is Ready before its containers are reported',
      keptPod({ name: 'driver-x', conditions: [{ type: 'Ready', status: 'True' }] }),
      'PodNotReady',
      'waiting for driver-x to run',
    ],
  ])('%s', (_, pod, reason, message) => expect(found(pod)).toEqual({ kind: 'waiting', reason, message }));
});

describe('a validation pod', () => {
  const AT = '2026-11-24T09:59:00Z';
  const scheduled = (status: string, more: object = {}) => ({
    conditions: [{ type: 'PodScheduled', status, ...more }],
  });
  const ended = (terminated: object): PodObject =>
    keptPod({ name: 'v', phase: 'Failed', containers: [aContainer({ state: { terminated } })] });
  it.each<[what: string, pod: PodObject | undefined, expected: object]>([
    [
      'is waited for until it is there',
      undefined,
      { reason: 'PodMissing', message: 'waiting for validation pod v to start' },
    ],
    [
      'is waited for until it starts',
      keptPod({ name: 'v', phase: 'Pending', ...scheduled('True', { lastTransitionTime: AT }) }),
      { reason: 'Starting', message: 'waiting for v to start', since: AT },
    ],
    [
      'is waited for until it ends',
      keptPod({ name: 'v', ...scheduled('True', { lastTransitionTime: AT }) }),
      { reason: 'Running', message: 'waiting for v to end', since: AT, computing: true },
    ],
    [
      'waits for a free GPU on a full node, and no clock runs',
      keptPod({
        name: 'v',
        phase: 'Pending',
        ...scheduled('False', { reason: 'Unschedulable', message: '0/1 nodes: Insufficient nvidia.com/gpu.' }),
      }),
      {
        reason: 'WaitingForFreeGPU',
        message: 'v cannot be scheduled: 0/1 nodes: Insufficient nvidia.com/gpu.',
        untimed: true,
      },
    ],
    [
      'says why it cannot be scheduled',
      keptPod({
        name: 'v',
        phase: 'Pending',
        ...scheduled('False', { reason: 'Unschedulable', message: 'node(s) had untolerated taint' }),
      }),
      { reason: 'Unschedulable', message: 'v cannot be scheduled: node(s) had untolerated taint', telling: true },
    ],
    [
      'cannot start where its image is missing',
      { ...waits('ErrImagePull', 'not found', { image: 'cuda:1' }), name: 'v' },
      { kind: 'failed', reason: 'ImagePull' },
    ],
    [
      'passed',
      keptPod({
        name: 'v',
        phase: 'Succeeded',
        containers: [aContainer({ state: { terminated: { exitCode: 0, message: verdict(true) } } })],
      }),
      { kind: 'done' },
    ],
    [
      'failed with its words',
      ended({ exitCode: 1, message: verdict(false, 'no CUDA device') }),
      { reason: 'VectorAdd', message: 'v failed: no CUDA device', disproves: true },
    ],
    [
      'failed without a word',
      ended({ exitCode: 1, message: verdict(false) }),
      { reason: 'VectorAdd', message: 'v failed: no output' },
    ],
    ['was killed for its memory', ended({ exitCode: 137, reason: 'OOMKilled' }), { reason: 'OOMKilled' }],
    ['did not run the program', ended({ exitCode: 127, reason: 'ContainerCannotRun' }), { reason: 'NotTheProgram' }],
  ])('%s', (_, pod, expected) => expect(validationFinding(pod, 'v')).toMatchObject(expected));
});
