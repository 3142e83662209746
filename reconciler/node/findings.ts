// What a node's pods prove about one stage: done, waiting for what, or failed and why. Pure; the freshness of evidence is
// judged here: a container that started before the reboot, or a pod of another revision, proves nothing.
import { namesOf } from '../../core/components.ts';
import { digestOf } from '../../core/digest.ts';
import type { ComponentSpec } from '../../core/gpu-policy.ts';
import { isGpuResource } from '../../gate/gpu-request.ts';
import {
  COMPONENT,
  GPU_OPERATOR_DEPLOY_PREFIX,
  NFD_OS_RELEASE,
  NFD_PCI_LABELS,
  NFD_PREFIX,
  REVISION,
} from '../../core/keys.ts';
import type { ComponentEvidence } from '../../gate/node-proof.ts';
import { POD_COMPONENT, type Component } from '../../core/stages.ts';
import { PREREQUISITES } from '../manifests/driver.ts';
import type { ContainerStatus, NodeObject, PodObject } from '../model.ts';

/** What stands for a component that somebody else installs, in place of a revision of ours. */
export const EXTERNAL = 'external';

/** What one stage shows. */
export type Finding =
  | { readonly kind: 'done'; readonly evidence?: ComponentEvidence }
  | {
      readonly kind: 'waiting';
      readonly reason: string;
      readonly message: string;
      readonly untimed?: boolean;
      readonly since?: string;
    }
  | { readonly kind: 'failed'; readonly reason: string; readonly message: string };

const waiting = (reason: string, message: string): Finding => ({ kind: 'waiting', reason, message });
const failed = (reason: string, message: string): Finding => ({ kind: 'failed', reason, message });

export const digest = (...parts: readonly unknown[]): string => digestOf(JSON.stringify(parts), 12);

/** Start of the newest running container, RFC 3339; empty where none runs. */
const startedOf = (pod: PodObject): string =>
  pod.containers.map((c) => c.state?.running?.startedAt ?? '').reduce((a, b) => (a > b ? a : b), '');

const isReady = (pod: PodObject): boolean => pod.conditions.some((c) => c.type === 'Ready' && c.status === 'True');

export const evidenceOf = (pod: PodObject, revision: string): ComponentEvidence => ({
  revision,
  pod: pod.uid,
  started: startedOf(pod),
});

/** The same pod with the same containers, or another one? */
export const sameEvidence = (a: ComponentEvidence | undefined, b: ComponentEvidence | undefined): boolean =>
  a !== undefined && b !== undefined && a.pod === b.pod && a.started === b.started;

const oneLine = (text: string | undefined): string =>
  (text ?? '')
    .trim()
    .split('\n')
    .findLast((line) => line.trim() !== '')
    ?.trim()
    .slice(0, 200) ?? '';

/** Container troubles that no waiting mends, with what a person can do. */
function trouble(pod: PodObject): Finding | undefined {
  for (const status of [...pod.initContainers, ...pod.containers]) {
    const found = troubleOf(pod, status);
    if (found !== undefined) return found;
  }
  return undefined;
}

function troubleOf(pod: PodObject, status: ContainerStatus): Finding | undefined {
  const { waiting: stuck } = status.state ?? {};
  const reason = stuck?.reason ?? '';
  if (
    reason === 'ImagePullBackOff' ||
    reason === 'ErrImagePull' ||
    reason === 'InvalidImageName' ||
    reason === 'ErrImageNeverPull'
  ) {
    return failed(
      'ImagePull',
      `image ${status.image ?? '?'} of ${pod.name} cannot be pulled (${oneLine(stuck?.message) || reason}): check name, tag and pull secret in the GPUPolicy`,
    );
  }
  const last = status.state?.terminated ?? status.lastState?.terminated;
  if (
    status.name === PREREQUISITES &&
    last !== undefined &&
    last.exitCode !== 0 &&
    status.state?.running === undefined
  ) {
    return failed(
      'KernelModuleMissing',
      `a kernel module that the driver needs cannot be loaded (${oneLine(last.message) || `exit code ${last.exitCode ?? '?'}`}): install it on the host, on Ubuntu from linux-modules-extra of the running kernel`,
    );
  }
  if (reason === 'CrashLoopBackOff') {
    return failed(
      'CrashLoop',
      `container ${status.name} of ${pod.name} ends again and again (exit code ${last?.exitCode ?? '?'}${last?.message === undefined ? '' : `: ${oneLine(last.message)}`}): see 'kubectl logs -n ${pod.namespace} ${pod.name} -c ${status.name} --previous'`,
    );
  }
  if (
    /no runtime for ".*" is configured/.test(stuck?.message ?? '') ||
    /no runtime for ".*" is configured/.test(pod.message)
  )
    return handlerMissing(pod);
  if (reason === 'CreateContainerConfigError' || reason === 'CreateContainerError' || reason === 'RunContainerError') {
    return failed(
      'ContainerCreate',
      `container ${status.name} of ${pod.name} cannot be created: ${oneLine(stuck?.message) || reason}`,
    );
  }
  return undefined;
}

const handlerMissing = (pod: PodObject): Finding =>
  failed(
    'RuntimeHandlerMissing',
    `the container runtime has no handler for ${pod.name}: the toolkit's change is not in effect, check its runtime, configPath and socketPath in the GPUPolicy`,
  );

/** Pods that are evidence for a managed component: of this revision, on this node, not going away. */
export const operandPod = (pods: readonly PodObject[], component: Component, revision: string): PodObject | undefined =>
  pods.find(
    (pod) => pod.labels[COMPONENT] === POD_COMPONENT[component] && pod.labels[REVISION] === revision && !pod.deleting,
  );

/** Is any pod of the component left, of any revision, going away or not? */
export const componentPods = (pods: readonly PodObject[], component: Component): readonly PodObject[] =>
  pods.filter((pod) => pod.labels[COMPONENT] === POD_COMPONENT[component]);

/** What a managed component's pod shows. `stale` is the evidence accepted before the last reboot. */
export function operandFinding(
  pods: readonly PodObject[],
  component: Component,
  revision: string,
  stale: ComponentEvidence | undefined,
): Finding {
  const pod = operandPod(pods, component, revision);
  if (pod === undefined) return waiting('PodMissing', `waiting for the ${POD_COMPONENT[component]} pod to be created`);
  if (isReady(pod)) {
    const evidence = evidenceOf(pod, revision);
    if (evidence.started === '') return waiting('PodNotReady', `waiting for ${pod.name} to run`);
    if (sameEvidence(evidence, stale))
      return waiting('StaleEvidence', `waiting for ${pod.name} to start again after the reboot`);
    return { kind: 'done', evidence };
  }
  return trouble(pod) ?? waiting('PodNotReady', `waiting for ${pod.name} to be Ready`);
}

/** What an external component shows: all its pods on the node where the policy selects some, else it is taken as given. */
export function externalFinding(
  pods: readonly PodObject[],
  spec: ComponentSpec,
  component: Component,
  stale: ComponentEvidence | undefined,
): Finding {
  const wanted = spec.podSelector?.matchLabels;
  if (wanted === undefined) return { kind: 'done', evidence: { revision: EXTERNAL, pod: '', started: '' } };
  // Sorted: which of several was heard of last must not look like a restart.
  const selected = pods
    .filter(
      (p) =>
        !p.deleting &&
        p.phase !== 'Succeeded' &&
        p.phase !== 'Failed' &&
        Object.entries(wanted).every(([key, value]) => p.labels[key] === value),
    )
    .toSorted((a, b) => a.uid.localeCompare(b.uid));
  const [first] = selected;
  if (first === undefined)
    return waiting('ExternalPodMissing', `waiting for a pod of the external ${component} (${JSON.stringify(wanted)})`);
  const unready = selected.find((pod) => !isReady(pod));
  if (unready !== undefined)
    return waiting(
      'ExternalPodNotReady',
      `waiting for ${unready.namespace}/${unready.name} of the external ${component} to be Ready`,
    );
  const evidence: ComponentEvidence = {
    revision: EXTERNAL,
    pod: selected.map(({ uid }) => uid).join(','),
    started: selected.map(startedOf).reduce((a, b) => (a > b ? a : b), ''),
  };
  if (sameEvidence(evidence, stale))
    return waiting('StaleEvidence', `waiting for ${first.name} to start again after the reboot`);
  return { kind: 'done', evidence };
}

/** Findings by which vectorAdd itself says that the stack does not work. */
export const COMPUTED: ReadonlySet<string> = new Set(['VectorAdd', 'NoPass']);
/** It has begun and not ended. */
export const RUNNING = 'Running';

/** What the validation pod of one round shows. */
export function validationFinding(pod: PodObject | undefined, name: string): Finding {
  if (pod === undefined) return waiting('PodMissing', `waiting for validation pod ${name} to start`);
  const ended = pod.containers[0]?.state?.terminated;
  if (pod.phase === 'Succeeded') {
    if ((ended?.message ?? '').includes('Test PASSED')) return { kind: 'done' };
    return failed(
      'NoPass',
      `${pod.name} ended without "Test PASSED" (${oneLine(ended?.message) || 'no output'}): the validation image is not vectorAdd, check validation.image in the GPUPolicy`,
    );
  }
  if (pod.phase === 'Failed') {
    const said = oneLine(ended?.message) || oneLine(pod.message) || pod.reason || 'no output';
    return failed(
      pod.reason === 'UnexpectedAdmissionError' ? 'Rejected' : 'VectorAdd',
      `${pod.name} failed (exit code ${ended?.exitCode ?? '?'}): ${said}`,
    );
  }
  const scheduled = pod.conditions.find((c) => c.type === 'PodScheduled');
  if (scheduled?.status === 'False' && scheduled.reason === 'Unschedulable') {
    const full = /Insufficient nvidia\.com\//.test(scheduled.message ?? '');
    const message = `${pod.name} cannot be scheduled: ${oneLine(scheduled.message)}`;
    // On a full node no new pod could come anyway: waiting for a free GPU is not a failure and runs no clock.
    return full
      ? { kind: 'waiting', reason: 'WaitingForFreeGPU', message, untimed: true }
      : waiting('Unschedulable', message);
  }
  const since = scheduled?.status === 'True' ? scheduled.lastTransitionTime : undefined;
  return (
    trouble(pod) ?? {
      kind: 'waiting',
      reason: pod.phase === 'Running' ? RUNNING : 'Starting',
      message: `waiting for ${pod.name} to ${pod.phase === 'Running' ? 'end' : 'start'}`,
      ...(since === undefined ? {} : { since }),
    }
  );
}

/** `6 of 8 nvidia.com/gpu allocatable`, where the kubelet knows of GPUs that it does not offer; empty where it offers all. */
export const unusable = (node: NodeObject, resources: readonly string[]): string =>
  Object.entries(node.status?.capacity ?? {})
    .filter(([name]) => isGpuResource(name, resources))
    .map(([name, all]) => ({ name, all: Number(all), offered: Number(node.status?.allocatable?.[name] ?? 0) }))
    .filter(({ all, offered }) => offered < all)
    .map(({ name, all, offered }) => `${offered} of ${all} ${name} allocatable`)
    .join(', ');

/** GPUs that the node offers to Kubernetes, by resource. */
export const allocatable = (node: NodeObject, resources: readonly string[]): Readonly<Record<string, number>> =>
  Object.fromEntries(
    Object.entries(node.status?.allocatable ?? {}).flatMap(([name, amount]) =>
      isGpuResource(name, resources) && Number(amount) > 0 ? [[name, Number(amount)]] : [],
    ),
  );

/** Does NFD say that an NVIDIA device is there? */
export const hasPciLabel = (node: NodeObject): boolean =>
  NFD_PCI_LABELS.some((key) => node.metadata.labels?.[key] === 'true');

/** `595.91.07-ubuntu24.04`, or for one kernel alone `595-6.8.0-71-generic-ubuntu24.04`: NVIDIA's way to tag driver images. */
const DRIVER_TAG =
  /:\d[\d.]*(?:-(\d+\.\d+\.\d+-[\w.-]+))?-((?:ubuntu|rhel|rhcos|sles|rocky|flatcar|amzn|centos|fedora)[\d.]*)$/;

/** A driver image made for another operating system or kernel than the node's, as a sentence; undefined where nothing is known against it. */
export function hostMismatch(node: NodeObject, image: string): string | undefined {
  const [, kernel, os] = DRIVER_TAG.exec(image) ?? [];
  const labels = node.metadata.labels ?? {};
  const [id, version] = [labels[`${NFD_OS_RELEASE}ID`], labels[`${NFD_OS_RELEASE}VERSION_ID`]];
  const own = `in a GPUPolicy of these nodes' own (spec.nodeSelector) set components.driver.version to a tag for it, or mode: external`;
  if (os !== undefined && id !== undefined && version !== undefined) {
    const host = id + version;
    // `rhel9` is for every 9.x, `ubuntu24.04` for no other release.
    if (host !== os && !host.startsWith(`${os}.`))
      return `this node runs ${host}, the driver image is for ${os} (${image}): ${own}`;
  }
  const running = node.status?.nodeInfo?.kernelVersion;
  if (kernel !== undefined && running !== undefined && running !== kernel)
    return `this node runs kernel ${running}, the driver image is for ${kernel} (${image}): ${own}`;
  return undefined;
}

/** Another installer's marks, judged only where we install something ourselves and nothing of ours is or was there. */
export function preflightFinding(
  node: NodeObject,
  input: {
    /** Components that we are to install. */
    readonly managed: readonly Component[];
    readonly beenHere: boolean;
    readonly resources: readonly string[];
    /** The driver's image, where we are to install it on this node for the first time. */
    readonly driver: string | undefined;
  },
): Finding {
  const labels = node.metadata.labels ?? {};
  if (!hasPciLabel(node)) {
    return Object.keys(labels).some((key) => key.startsWith(NFD_PREFIX))
      ? failed(
          'NoGPU',
          'Node Feature Discovery found no NVIDIA PCI device on this node: opt it out, or check that its worker runs with the pci source',
        )
      : failed(
          'NoNFD',
          'Node Feature Discovery has not labelled this node: it is not installed, or a taint keeps its worker off',
        );
  }
  const mismatch = input.driver === undefined ? undefined : hostMismatch(node, input.driver);
  if (mismatch !== undefined) return failed('WrongDriverImage', mismatch);
  if (input.beenHere || input.managed.length === 0) return { kind: 'done' };
  const theirs = input.managed.find((component) => {
    const value = labels[GPU_OPERATOR_DEPLOY_PREFIX + namesOf(component).operator];
    return value !== undefined && value !== 'false';
  });
  if (theirs !== undefined) {
    const key = GPU_OPERATOR_DEPLOY_PREFIX + namesOf(theirs).operator;
    return labels[key] === 'pre-installed'
      ? failed(
          'DriverPreInstalled',
          `label ${key}=pre-installed: NVIDIA's driver-manager found a driver on this host; set components.driver.mode: external and hostPaths.driverRoot: / in its GPUPolicy, or remove that driver and the label`,
        )
      : failed(
          'AnotherInstaller',
          `label ${key} shows another installer of the ${theirs} (NVIDIA's GPU Operator): remove it from this node, or set that component to mode: external in the GPUPolicy`,
        );
  }
  if (input.managed.includes('device-plugin') && Object.keys(allocatable(node, input.resources)).length > 0) {
    return failed(
      'AnotherInstaller',
      'this node already offers GPUs: another device plugin runs here; remove it, or set devicePlugin to mode: external in the GPUPolicy',
    );
  }
  return { kind: 'done' };
}
