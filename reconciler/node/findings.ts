// What a node's pods and labels show about one state: done, waiting for what, or failed and why.
import { digestOf } from '../../core/digest.ts';
import type { Selector } from '../../core/gpu-policy.ts';
import { amountOf } from '../../core/quantity.ts';
import { isGpuResource } from '../../gate/devices.ts';
import { NFD_PCI_LABEL } from '../../core/keys.ts';
import type { ComponentEvidence } from '../../gate/node-proof.ts';
import { PREREQUISITES } from '../manifests/driver.ts';
import type { ContainerStatus, NodeObject, PodObject } from '../model.ts';
import type { Accepted } from '../walk.ts';
import { adviceOn, outcomeOf, type Outcome } from './outcome.ts';
import { isUnwatched, UNWATCHED } from './target.ts';
import { lastWords } from './words.ts';

/** What one state shows. */
export type Finding =
  | { readonly kind: 'done'; readonly evidence?: ComponentEvidence }
  | {
      readonly kind: 'waiting';
      readonly reason: string;
      readonly message: string;
      /** Runs no clock: what is awaited is not up to this node. */
      readonly untimed?: boolean;
      /** RFC 3339; its clock runs from then on. */
      readonly since?: string;
      /** When to look again, ms since the epoch. */
      readonly wakeAt?: number;
      /** What was awaited in vain says more than that time ran out. */
      readonly telling?: true;
      /** It was reported why it does not go on. */
      readonly trouble?: true;
      /** Its pods are Ready, so that waiting for them does not help. */
      readonly healthy?: true;
      /** The validation's own program has begun and not ended. */
      readonly computing?: true;
    }
  | {
      readonly kind: 'failed';
      readonly reason: string;
      readonly message: string;
      /** The validation's own program says that the stack does not work. */
      readonly disproves?: true;
    };

export const waiting = (reason: string, message: string): Finding => ({ kind: 'waiting', reason, message });
export const failed = (reason: string, message: string): Finding => ({ kind: 'failed', reason, message });

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

/**
 * Is it the same pod with the same containers as is known? What was never watched has no pod to
 * compare.
 */
export const isAsKnown = (seen: ComponentEvidence | undefined, known: ComponentEvidence | undefined): boolean =>
  seen !== undefined &&
  known !== undefined &&
  (isUnwatched(known)
    ? !(Date.parse(seen.started) > Date.parse(known.started))
    : seen.pod === known.pod && seen.started === known.started);

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
      `image ${status.image ?? '?'} of ${pod.name} cannot be pulled (${lastWords(stuck?.message) || reason}): check name, tag and pull secret in the GPUPolicy`,
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
      `a kernel module that the driver needs cannot be loaded (${lastWords(last.message) || `exit code ${last.exitCode ?? '?'}`}): install it on the host, on Ubuntu from linux-modules-extra of the running kernel`,
    );
  }
  if (reason === 'CrashLoopBackOff' && last?.reason === 'OOMKilled') {
    return failed(
      'OOMKilled',
      `container ${status.name} of ${pod.name} keeps being killed (OOMKilled): raise resources.limits.memory of that component in the GPUPolicy`,
    );
  }
  if (reason === 'CrashLoopBackOff') {
    return failed(
      'CrashLoop',
      `container ${status.name} of ${pod.name} keeps crashing (exit code ${last?.exitCode ?? '?'}${last?.message === undefined ? '' : `: ${lastWords(last.message)}`}): see 'kubectl logs -n ${pod.namespace} ${pod.name} -c ${status.name} --previous'`,
    );
  }
  if (
    /no runtime for "[^"]*" is configured/.test(stuck?.message ?? '') ||
    /no runtime for "[^"]*" is configured/.test(pod.message)
  )
    return handlerMissing(pod);
  if (reason === 'CreateContainerConfigError' || reason === 'CreateContainerError' || reason === 'RunContainerError') {
    return failed(
      'ContainerCreate',
      `container ${status.name} of ${pod.name} cannot be created: ${lastWords(stuck?.message) || reason}`,
    );
  }
  return undefined;
}

const handlerMissing = (pod: PodObject): Finding =>
  failed(
    'RuntimeHandlerMissing',
    `the container runtime has no handler for ${pod.name}: the toolkit's configuration has not taken effect; check its runtime, configPath and socketPath in the GPUPolicy`,
  );

/**
 * How long a kubelet may take to publish its pods after a boot, ms. What it says then is believed.
 */
const STALE_MS = 120_000;

/** What evidence is compared with to see whether it is from before a reboot. */
export interface Freshness {
  /** What was accepted last. */
  readonly known: Accepted | undefined;
  readonly boot: string;
  /** RFC 3339; since when the node is Ready on this boot. */
  readonly booted: string | undefined;
  readonly now: number;
}

/** A stack that was proven on another boot cannot run on this one with the same start. */
function stale(evidence: ComponentEvidence, pod: string, { known, boot, booted, now }: Freshness): Finding | undefined {
  if (known?.proven !== true || known.boot === boot || booted === undefined) return undefined;
  if (known.pod !== evidence.pod || known.started !== evidence.started) return undefined;
  const until = Date.parse(booted) + STALE_MS;
  if (now >= until) return undefined;
  const message = `waiting for ${pod} to start again after the reboot`;
  return { kind: 'waiting', reason: 'StaleEvidence', message, wakeAt: until };
}

/** What a managed component's pod shows. */
export function operandFinding(
  pod: PodObject | undefined,
  component: string,
  revision: string,
  freshness: Freshness,
): Finding {
  if (pod === undefined) return waiting('PodMissing', `waiting for the ${component} pod to be created`);
  if (!isReady(pod)) return trouble(pod) ?? waiting('PodNotReady', `waiting for ${pod.name} to be Ready`);
  const evidence = evidenceOf(pod, revision);
  if (evidence.started === '') return waiting('PodNotReady', `waiting for ${pod.name} to run`);
  return stale(evidence, pod.name, freshness) ?? { kind: 'done', evidence };
}

/**
 * Pods that the selector of an external component means, in one order: which was heard of last is
 * not a restart.
 */
const selectedBy = (selector: Selector, pods: readonly PodObject[]): readonly PodObject[] =>
  pods
    .filter(
      (pod) =>
        pod.namespace === selector.namespace &&
        !pod.deleting &&
        pod.phase !== 'Succeeded' &&
        pod.phase !== 'Failed' &&
        (selector.ownerKind === undefined || pod.controller?.kind === selector.ownerKind) &&
        Object.entries(selector.matchLabels).every(([key, value]) => pod.labels[key] === value),
    )
    .toSorted((a, b) => a.uid.localeCompare(b.uid));

/** The evidence of an external component, Ready or not; `undefined` if none of its pods runs. */
export function externalEvidence(
  selector: Selector | 'unwatched',
  pods: readonly PodObject[],
): ComponentEvidence | undefined {
  if (selector === 'unwatched') return UNWATCHED;
  const selected = selectedBy(selector, pods);
  return selected.length === 0
    ? undefined
    : {
        revision: UNWATCHED.revision,
        pod: selected.map(({ uid }) => uid).join(','),
        started: selected.map(startedOf).reduce((a, b) => (a > b ? a : b), ''),
      };
}

/**
 * What an external component shows: all its pods on the node where the policy names some, else it
 * is taken as given.
 */
export function externalFinding(
  pods: readonly PodObject[],
  selector: Selector | 'unwatched',
  component: string,
  freshness: Freshness,
): Finding {
  const evidence = externalEvidence(selector, pods);
  if (evidence === undefined || selector === 'unwatched')
    return evidence === undefined
      ? waiting('ExternalPodMissing', `waiting for a pod of the external ${component} (${JSON.stringify(selector)})`)
      : { kind: 'done', evidence };
  const selected = selectedBy(selector, pods);
  const unready = selected.find((pod) => !isReady(pod));
  if (unready !== undefined)
    return (
      trouble(unready) ??
      waiting(
        'ExternalPodNotReady',
        `waiting for ${unready.namespace}/${unready.name} of the external ${component} to be Ready`,
      )
    );
  return stale(evidence, selected[0]?.name ?? component, freshness) ?? { kind: 'done', evidence };
}

/** What the validation pod of one round shows. */
export function validationFinding(pod: PodObject | undefined, name: string): Finding {
  if (pod === undefined) return waiting('PodMissing', `waiting for validation pod ${name} to start`);
  const outcome = outcomeOf(pod);
  if (outcome !== undefined) return findingOf(outcome, pod.name);
  const scheduled = pod.conditions.find((c) => c.type === 'PodScheduled');
  if (scheduled?.status === 'False' && scheduled.reason === 'Unschedulable') {
    const isFull = /Insufficient nvidia\.com\//.test(scheduled.message ?? '');
    const message = `${pod.name} cannot be scheduled: ${lastWords(scheduled.message)}`;
    // On a full node no new pod could come anyway: waiting for a free GPU is not a failure and runs
    // no clock.
    return isFull
      ? { kind: 'waiting', reason: 'WaitingForFreeGPU', message, untimed: true }
      : { kind: 'waiting', reason: 'Unschedulable', message, telling: true };
  }
  const since = scheduled?.status === 'True' ? scheduled.lastTransitionTime : undefined;
  const isRunning = pod.phase === 'Running';
  return (
    trouble(pod) ?? {
      kind: 'waiting',
      reason: isRunning ? 'Running' : 'Starting',
      message: `waiting for ${pod.name} to ${isRunning ? 'end' : 'start'}`,
      ...(since === undefined ? {} : { since }),
      ...(isRunning ? { computing: true } : {}),
    }
  );
}

function findingOf(outcome: Outcome, name: string): Finding {
  const words = outcome.words === '' ? '' : `: ${outcome.words}`;
  switch (outcome.kind) {
    case 'Verdict':
      return outcome.passed
        ? { kind: 'done' }
        : { kind: 'failed', reason: 'VectorAdd', message: `${name} failed${words || ': no output'}`, disproves: true };
    case 'NeverRan':
      return failed('Rejected', `${name} never ran (${outcome.what})${words}${advised(outcome.what)}`);
    case 'Killed':
      return failed(
        outcome.what === 'OOMKilled' ? 'OOMKilled' : 'Killed',
        `${name} was killed (${outcome.what})${words}${advised(outcome.what)}`,
      );
    case 'NotTheProgram':
      return failed(
        'NotTheProgram',
        `${name} did not run vectorAdd (${outcome.what})${words}; check validation.image and validation.command in the GPUPolicy`,
      );
  }
}

const advised = (what: string): string => {
  const advice = adviceOn(what);
  return advice === '' ? '' : `; ${advice}`;
};

/** GPUs that the kubelet knows of and does not offer, by resource. */
export const lostGpus = (node: NodeObject, resources: readonly string[]): Readonly<Record<string, number>> =>
  Object.fromEntries(
    Object.entries(node.status?.capacity ?? {}).flatMap(([name, all]) => {
      const lost = amountOf(all) - amountOf(node.status?.allocatable?.[name]);
      return isGpuResource(name, resources) && lost > 0 ? [[name, lost]] : [];
    }),
  );

/** GPUs that the node offers to Kubernetes, by resource. */
export const allocatable = (node: NodeObject, resources: readonly string[]): Readonly<Record<string, number>> =>
  Object.fromEntries(
    Object.entries(node.status?.allocatable ?? {}).flatMap(([name, amount]) =>
      isGpuResource(name, resources) && amountOf(amount) > 0 ? [[name, amountOf(amount)]] : [],
    ),
  );

/** Resources of NVIDIA's that the node offers and the policy does not list. */
export const offeredBeside = (node: NodeObject, resources: readonly string[]): readonly string[] =>
  Object.entries(node.status?.allocatable ?? {}).flatMap(([name, amount]) =>
    !isGpuResource(name, resources) && amountOf(amount) > 0 ? [name] : [],
  );

/** Does NFD say that an NVIDIA device is there? */
export const hasPciLabel = (node: NodeObject): boolean =>
  Object.entries(node.metadata.labels ?? {}).some(([key, value]) => value === 'true' && NFD_PCI_LABEL.test(key));
