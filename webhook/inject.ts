// Raw pod and facts → what to do with it: an ordered list of rules, of which the first that holds
// decides. Every addition is a small value. Paths, class names and variables come from the policy
// alone. Pure.
import { isEnforcing, type GpuPolicy, type InjectedToleration, type InjectionSpec } from '../core/gpu-policy.ts';
import { namespaceRule, namingRefused, optsOut } from '../gate/namespaces.ts';
import type { Devices } from '../gate/devices.ts';
import {
  askedOf,
  gpuKindsOf,
  indicesOf,
  requestedAmong,
  requestOf,
  wishesOf,
  type Asked,
  type RawPod,
} from '../gate/gpu-request.ts';
import { DEFAULT_POLICY, INJECT, INJECTED, INJECTION, MIRROR, NODE_VALIDATED, POLICY } from '../core/keys.ts';
import { carries, cut, emptyDraft, skip, skippedOf, warn, warningsOf, type Draft, type Skipped } from './draft.ts';
import { addHidden, addMounts, bytesOf, mountsFor, NO_MOUNTS } from './mounts.ts';
import { add, append, put, type AddOperation } from './patch.ts';

export interface RuntimeClassFacts {
  readonly nodeSelector: Readonly<Record<string, string>>;
  /** Name of the container runtime's handler. */
  readonly handler?: string;
}

/** All that a decision may depend on, from memory. */
export interface Facts {
  readonly policies: { get(name: string): GpuPolicy | undefined };
  readonly runtimeClasses: { get(name: string): RuntimeClassFacts | undefined };
  readonly devices: Devices;
  /** Labels of the pod's namespace; `undefined` if the cache does not have it. */
  readonly namespaceLabels: Readonly<Record<string, string>> | undefined;
  readonly namespace: string;
  readonly excludedNamespaces: ReadonlySet<string>;
}

/** A closed set, because it is a metric's label. */
export const LEAVES = [
  'no-gpu',
  'excluded-namespace',
  'opted-out',
  'mirror-pod',
  'node-name-set',
  'no-policy',
  'suspended',
  'auditing',
  'already-injected',
  'internal-error',
] as const;
export type Leave = (typeof LEAVES)[number];
export const REFUSALS = [
  'unknown-policy',
  'policy-not-allowed',
  'malformed-annotation',
  'node-selector-conflict',
  'too-large',
] as const;
export type Refuse = (typeof REFUSALS)[number];

export type Admission =
  | { readonly kind: 'leave'; readonly reason: Leave; readonly warnings: readonly string[] }
  | {
      readonly kind: 'inject';
      readonly policy: string;
      /**
       * The pod carries a record already, so this is a second call or a copy of an injected pod.
       */
      readonly again: boolean;
      readonly operations: readonly AddOperation[];
      readonly injected: readonly string[];
      readonly skipped: readonly Skipped[];
      readonly warnings: readonly string[];
    }
  | { readonly kind: 'refuse'; readonly reason: Refuse; readonly because: string };

const leave = (reason: Leave, ...warnings: string[]): Admission => ({ kind: 'leave', reason, warnings });
const refuse = (reason: Refuse, because: string): Admission => ({ kind: 'refuse', reason, because });

/** The API server's limit for a pod's annotations, keys and values together. */
const MAX_ANNOTATIONS = 256 * 1024;
/**
 * An API server stores no object above 1.5 MiB, so a pod that would grow by more than this would be
 * rejected in any case.
 */
const MAX_PATCH = 1024 * 1024;

/** What to do with a pod that is about to be created. */
export function decide(pod: RawPod, facts: Facts): Admission {
  const rule = namespaceRule(facts.namespace, optsOut(facts.namespaceLabels), facts.excludedNamespaces);
  if (rule === 'excluded') return leave('excluded-namespace');
  const read = wishesOf(pod);
  const { wishes } = read;
  const named = wishes.policy ?? DEFAULT_POLICY;
  const policy = facts.policies.get(named);
  const asked = askedOf(requestOf(pod, facts.namespace), gpuKindsOf(policy), facts.devices);
  if (asked.kind === 'nothing') return leave('no-gpu');
  if (pod.metadata?.annotations?.[MIRROR] !== undefined)
    return leave('mirror-pod', 'gpu-gate: a static pod bypasses gpu-gate; its node may not be validated');
  if (wishes.optedOut || rule === 'opted-out') return leave('opted-out');
  if (!read.ok && read.annotation === POLICY) return refuse('malformed-annotation', read.because);
  if (policy === undefined) {
    return wishes.policy === undefined
      ? leave('no-policy')
      : refuse(
          'unknown-policy',
          `GPUPolicy ${JSON.stringify(named)} does not exist: name one of 'kubectl get gpupolicies', or leave the annotation gpu-gate.dev/policy out`,
        );
  }
  const refused = namingRefused(wishes.policy, facts.namespace, policy);
  if (refused !== undefined) return refuse('policy-not-allowed', refused);
  if (policy.spec.suspend) return leave('suspended');
  if (!isEnforcing(policy)) return leave('auditing');
  // A policy that does not enforce refuses nothing, so this comes after.
  if (!read.ok) return refuse('malformed-annotation', read.because);
  if ((pod.spec?.nodeName ?? '') !== '')
    return leave(
      'node-name-set',
      'gpu-gate: spec.nodeName bypasses the scheduler and so the gate; use node affinity instead',
    );
  return asked.kind === 'unknown' ? injectUnknown(pod, asked, policy) : inject(pod, asked, policy, facts);
}

/**
 * The claim or its template is not known yet, so the pod may ask for a GPU or for another device.
 * It gets what harms neither: the scheduler, which asks again once the claim is there.
 */
function injectUnknown(
  pod: RawPod,
  { claim: { claim, template } }: Extract<Asked, { kind: 'unknown' }>,
  policy: GpuPolicy,
): Admission {
  const draft = emptyDraft();
  const { injection } = policy.spec;
  const what = claim === undefined ? `ResourceClaimTemplate ${template ?? ''}` : `ResourceClaim ${claim}`;
  if (injection.readinessGate)
    skip(
      draft,
      'readinessGate',
      `${what} is not known yet`,
      `${cut(what, 50)} is not known yet, no readiness gate was added`,
    );
  if (injection.schedulerName !== '') addScheduler(draft, pod, injection);
  return finished(draft, pod, policy);
}

const NO_CONTAINERS: Extract<Asked, { kind: 'gpus' }>['byResource'] = [];

function inject(pod: RawPod, asked: Extract<Asked, { kind: 'gpus' }>, policy: GpuPolicy, facts: Facts): Admission {
  const draft = emptyDraft();
  const { injection, unmanagedNodes, allocation } = policy.spec;
  // Where no device plugin serves the resource, Kubernetes makes a claim of it. Under NVIDIA's
  // runtime an image that says so would be given every GPU of the node.
  const byPlugin = allocation === 'DRA' ? NO_CONTAINERS : asked.byResource;
  const gateOnly = injection.claimPods === 'GateOnly' && byPlugin.length === 0;
  const request = indicesOf(injection.claimPods === 'GateOnly' ? byPlugin : asked.containers);
  // On unmanaged nodes the class's handler and the driver's paths may not exist.
  const everywhere = unmanagedNodes === 'Allow' && !injection.alsoOnUnmanaged;
  const runtime = gateOnly
    ? withoutRuntimeClass(draft, pod, injection.runtimeClassName)
    : addRuntimeClass(draft, pod, injection.runtimeClassName, everywhere, facts);
  if (!runtime.ok) return refuse('node-selector-conflict', runtime.because);
  const mounts = gateOnly
    ? NO_MOUNTS
    : mountsFor(draft, pod, policy, {
        everywhere,
        labels: facts.namespaceLabels,
        sandboxed: isSandboxed(runtime.name, facts),
      });
  const injectedClass = runtime.name !== '' && runtime.name === injection.runtimeClassName;
  const hides = injectedClass && injection.hideUnrequestedGpus;
  const bytes = bytesOf(pod, request, mounts, hides);
  if (bytes > MAX_PATCH)
    return refuse(
      'too-large',
      `GPUPolicy ${policy.name} would add ${Math.ceil(bytes / 1024)} KiB to the containers of this pod, more than the ${MAX_PATCH / 1024} KiB that fit: use fewer containers`,
    );
  if (injectedClass && pod.spec?.hostUsers === false)
    warn(draft, "hostUsers: false, the NVIDIA runtime's hook does not work in a user namespace; leave hostUsers out");
  addMounts(draft, pod, request, mounts);
  if (hides) addHidden(draft, pod, request);
  if (injection.readinessGate) addGate(draft, pod);
  if (injection.schedulerName !== '') addScheduler(draft, pod, injection);
  if (injection.tolerations.length > 0) addTolerations(draft, pod, injection.tolerations);
  return finished(draft, pod, policy);
}

/** The draft with the marks that every injected pod gets. */
function finished(draft: Draft, pod: RawPod, policy: GpuPolicy): Admission {
  const again = pod.metadata?.annotations?.[INJECTION] !== undefined;
  // Label and record are the webhook's: what an author wrote there is replaced.
  if (pod.metadata?.labels?.[INJECTED] !== 'true')
    draft.operations.push(...put('/metadata/labels', pod.metadata?.labels, INJECTED, 'true'));
  addRecord(draft, pod, policy.name);
  const { operations, injected } = draft;
  const [skipped, warnings] = [skippedOf(draft), warningsOf(draft)];
  if (operations.length === 0) return { kind: 'leave', reason: 'already-injected', warnings };
  return { kind: 'inject', policy: policy.name, again, operations, injected, skipped, warnings };
}

/**
 * Runtimes that give a pod a kernel of its own: a driver's files of the node are of no use there,
 * or cannot be mounted.
 */
const SANDBOX = /(^|[^a-z])(kata|gvisor|runsc|firecracker)([^a-z]|$)/;

const isSandboxed = (name: string, { runtimeClasses }: Facts): boolean =>
  name !== '' && (SANDBOX.test(name) || SANDBOX.test(runtimeClasses.get(name)?.handler ?? ''));

type Runtime =
  /** Name of the class that the pod ends with, empty if none. */
  { readonly ok: true; readonly name: string } | { readonly ok: false; readonly because: string };

/** Devices of a claim come by CDI, which every runtime handler carries out. */
function withoutRuntimeClass(draft: Draft, pod: RawPod, wanted: string): Runtime {
  const name = pod.spec?.runtimeClassName ?? '';
  if (wanted !== '' && name !== wanted) skip(draft, 'runtimeClassName', 'the GPUs come by claim');
  return { ok: true, name };
}

/** Fails with a sentence if the pod's own selector contradicts the class. */
function addRuntimeClass(draft: Draft, pod: RawPod, wanted: string, everywhere: boolean, facts: Facts): Runtime {
  const present = pod.spec?.runtimeClassName ?? '';
  if (wanted === '') return { ok: true, name: present };
  const what = 'runtimeClassName';
  if (present === wanted) {
    carries(draft, what, 'already');
    return { ok: true, name: present };
  }
  if (present !== '') {
    skip(draft, what, `already ${present}`);
    return { ok: true, name: present };
  }
  if (everywhere) {
    skip(draft, what, 'the policy allows unmanaged nodes');
    return { ok: true, name: '' };
  }
  const known = facts.runtimeClasses.get(wanted);
  if (known === undefined) {
    skip(
      draft,
      what,
      `RuntimeClass ${wanted} does not exist`,
      `RuntimeClass ${cut(wanted, 50)} does not exist, the pod runs without it`,
    );
    return { ok: true, name: '' };
  }
  // Own keys only: every object has a `constructor`.
  const own = pod.spec?.nodeSelector ?? {};
  for (const [key, value] of Object.entries(known.nodeSelector))
    if (Object.hasOwn(own, key) && own[key] !== value)
      return {
        ok: false,
        because: `spec.nodeSelector ${key}=${cut(own[key] ?? '', 63)} contradicts RuntimeClass ${wanted}, which needs ${key}=${value}: change the selector, or opt the pod out with the label ${INJECT}: "false"`,
      };
  draft.operations.push(add('/spec/runtimeClassName', wanted));
  carries(draft, what, 'added');
  return { ok: true, name: wanted };
}

function addGate(draft: Draft, { spec }: RawPod): void {
  const gates = spec?.readinessGates;
  if (gates?.some((gate) => gate?.conditionType === NODE_VALIDATED) === true)
    return carries(draft, 'readinessGate', 'already');
  draft.operations.push(...append('/spec/readinessGates', gates, [{ conditionType: NODE_VALIDATED }]));
  return carries(draft, 'readinessGate', 'added');
}

function addScheduler(draft: Draft, { spec }: RawPod, { schedulerName: wanted, othersResources }: InjectionSpec): void {
  const present = spec?.schedulerName ?? '';
  if (present === wanted) return carries(draft, 'schedulerName', 'already');
  if (present !== '' && present !== 'default-scheduler') return skip(draft, 'schedulerName', `already ${present}`);
  const others = requestedAmong(spec, othersResources);
  if (others !== undefined)
    return skip(draft, 'schedulerName', `the pod requests ${others}, which another scheduler gives out`);
  draft.operations.push(add('/spec/schedulerName', wanted));
  return carries(draft, 'schedulerName', 'added');
}

const keyOfToleration = (toleration: InjectedToleration): string =>
  JSON.stringify([
    toleration.key ?? '',
    toleration.operator ?? 'Equal',
    toleration.value ?? '',
    toleration.effect ?? '',
    toleration.tolerationSeconds ?? '',
  ]);

function addTolerations(draft: Draft, { spec }: RawPod, wanted: readonly InjectedToleration[]): void {
  const present = new Set((spec?.tolerations ?? []).map((each) => keyOfToleration(each as InjectedToleration)));
  const missing = wanted.filter((each) => !present.has(keyOfToleration(each)));
  carries(draft, 'tolerations', missing.length > 0 ? 'added' : 'already');
  if (missing.length > 0) draft.operations.push(...append('/spec/tolerations', spec?.tolerations, missing));
}

/**
 * The record for people and for `explain`. It gives way if annotations are at their limit, because
 * it must not get the pod rejected.
 */
function addRecord(draft: Draft, { metadata }: RawPod, policy: string): void {
  const record = JSON.stringify({ policy, injected: draft.carried, skipped: skippedOf(draft) });
  const { [INJECTION]: present, ...others } = metadata?.annotations ?? {};
  if (present === record) return;
  const size = Object.entries({ ...others, [INJECTION]: record }).reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value),
    0,
  );
  if (size > MAX_ANNOTATIONS)
    warn(
      draft,
      'no annotation gpu-gate.dev/injection, the annotations of the pod are at their limit of 256 KiB; shorten them',
    );
  else draft.operations.push(...put('/metadata/annotations', metadata?.annotations, INJECTION, record));
}
