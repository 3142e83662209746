// Raw pod + facts → what to do with it. Pure, an ordered list of rules; every addition is a small value, so that a
// MutatingAdmissionPolicy could be generated from the same model. Paths, class names and env come from the policy alone.
import { isEnforcing, type GpuPolicy } from '../core/gpu-policy.ts';
import { namespaceRule, optsOut } from '../gate/namespaces.ts';
import { gpuRequest, wishesOf, type GpuRequest, type RawPod } from '../gate/gpu-request.ts';
import { DEFAULT_POLICY, INJECT, INJECTED, INJECTION, MIRROR, NODE_VALIDATED, POLICY } from '../core/keys.ts';
import {
  add,
  append,
  carries,
  cut,
  emptyDraft,
  put,
  skip,
  type AddOperation,
  type Draft,
  type Skipped,
} from './draft.ts';
import { addMounts } from './mounts.ts';

export interface RuntimeClassFacts {
  readonly nodeSelector: Readonly<Record<string, string>>;
}

/** All that a decision may rest on, from memory. */
export interface Facts {
  readonly policies: { get(name: string): GpuPolicy | undefined };
  readonly runtimeClasses: { get(name: string): RuntimeClassFacts | undefined };
  /** Labels of the pod's namespace; undefined: not in the cache. */
  readonly namespaceLabels: Readonly<Record<string, string>> | undefined;
  readonly namespace: string;
  readonly excludedNamespaces: ReadonlySet<string>;
}

/** Bounded: it is a metric's label. */
export type Leave =
  | 'no-gpu'
  | 'excluded-namespace'
  | 'opted-out'
  | 'mirror-pod'
  | 'node-name-set'
  | 'no-policy'
  | 'suspended'
  | 'auditing'
  | 'already-injected'
  | 'internal-error';
export type Refuse = 'unknown-policy' | 'malformed-annotation' | 'node-selector-conflict';

export type Admission =
  | { readonly kind: 'leave'; readonly reason: Leave; readonly warnings: readonly string[] }
  | {
      readonly kind: 'inject';
      readonly policy: string;
      /** The pod carries a record already: this is a second call, or a copy of an injected pod. */
      readonly again: boolean;
      readonly operations: readonly AddOperation[];
      readonly injected: readonly string[];
      readonly skipped: readonly Skipped[];
      readonly warnings: readonly string[];
    }
  | { readonly kind: 'refuse'; readonly reason: Refuse; readonly because: string };

const leave = (reason: Leave, ...warnings: string[]): Admission => ({ kind: 'leave', reason, warnings });
const refuse = (reason: Refuse, because: string): Admission => ({ kind: 'refuse', reason, because });

/** What the API server lets a pod's annotations hold, keys and values together. */
const MAX_ANNOTATIONS = 256 * 1024;

/** What to do with a pod that is about to be created. */
export function decide(pod: RawPod, facts: Facts): Admission {
  const rule = namespaceRule(facts.namespace, optsOut(facts.namespaceLabels), facts.excludedNamespaces);
  if (rule === 'excluded') return leave('excluded-namespace');
  const read = wishesOf(pod);
  const { wishes } = read;
  const named = wishes.policy ?? DEFAULT_POLICY;
  const policy = facts.policies.get(named);
  // Without a policy there is no list of resources; the widest one says whether this is any of our business.
  const request = gpuRequest(pod, policy?.spec.resources ?? ['nvidia.com/*']);
  if (request === undefined) return leave('no-gpu');
  if (pod.metadata?.annotations?.[MIRROR] !== undefined)
    return leave('mirror-pod', 'gpu-gate: a static pod passes every gate; its node may not be validated');
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
  if (policy.spec.suspend) return leave('suspended');
  if (!isEnforcing(policy)) return leave('auditing');
  // Only here: a policy that does not enforce refuses nothing, this neither.
  if (!read.ok) return refuse('malformed-annotation', read.because);
  if (pod.spec?.nodeName !== undefined && pod.spec.nodeName !== '')
    return leave(
      'node-name-set',
      'gpu-gate: spec.nodeName passes the scheduler and so the gate; use node affinity instead',
    );
  return inject(pod, request, policy, facts);
}

function inject(pod: RawPod, request: GpuRequest, policy: GpuPolicy, facts: Facts): Admission {
  const draft = emptyDraft();
  const { injection, unmanagedNodes } = policy.spec;
  // On nodes that we do not manage nobody knows whether handler and paths exist.
  const everywhere = unmanagedNodes === 'Allow' && !injection.alsoOnUnmanaged;
  const clash = addRuntimeClass(draft, pod, injection.runtimeClassName, everywhere, facts);
  if (clash !== undefined) return refuse('node-selector-conflict', clash);
  addMounts(draft, pod, request, policy, everywhere, facts.namespaceLabels);
  if (injection.readinessGate) addGate(draft, pod);
  if (injection.schedulerName !== '') addScheduler(draft, pod, injection.schedulerName);

  const again = pod.metadata?.annotations?.[INJECTION] !== undefined;
  // Label and record are ours: what is there is put right, whoever wrote it.
  if (pod.metadata?.labels?.[INJECTED] !== 'true')
    draft.operations.push(...put('/metadata/labels', pod.metadata?.labels, INJECTED, 'true'));
  addRecord(draft, pod, policy.name);
  const { operations, injected, skipped, warnings } = draft;
  if (operations.length === 0) return { kind: 'leave', reason: 'already-injected', warnings };
  return { kind: 'inject', policy: policy.name, again, operations, injected, skipped, warnings };
}

/** Returns a sentence where the pod's own selector contradicts the class. */
function addRuntimeClass(
  draft: Draft,
  pod: RawPod,
  wanted: string,
  everywhere: boolean,
  facts: Facts,
): string | undefined {
  if (wanted === '') return undefined;
  const what = 'runtimeClassName';
  const present = pod.spec?.runtimeClassName ?? '';
  if (present === wanted) carries(draft, what, 'already');
  else if (present !== '') skip(draft, what, `already ${present}`);
  else if (everywhere) skip(draft, what, 'the policy allows unmanaged nodes');
  else {
    const known = facts.runtimeClasses.get(wanted);
    if (known === undefined) {
      skip(
        draft,
        what,
        `RuntimeClass ${wanted} does not exist`,
        `RuntimeClass ${cut(wanted, 50)} does not exist, the pod runs without it`,
      );
      return undefined;
    }
    // Own keys only: every object has a `constructor`.
    const own = pod.spec?.nodeSelector ?? {};
    for (const [key, value] of Object.entries(known.nodeSelector))
      if (Object.hasOwn(own, key) && own[key] !== value)
        return `spec.nodeSelector ${key}=${own[key]} contradicts RuntimeClass ${wanted}, which needs ${key}=${value}: change the selector, or opt the pod out with the label ${INJECT}: "false"`;
    draft.operations.push(add('/spec/runtimeClassName', wanted));
    carries(draft, what, 'added');
  }
  return undefined;
}

function addGate(draft: Draft, { spec }: RawPod): void {
  const gates = spec?.readinessGates;
  if (gates?.some((gate) => gate?.conditionType === NODE_VALIDATED) === true)
    return carries(draft, 'readinessGate', 'already');
  draft.operations.push(...append('/spec/readinessGates', gates, [{ conditionType: NODE_VALIDATED }]));
  return carries(draft, 'readinessGate', 'added');
}

function addScheduler(draft: Draft, { spec }: RawPod, wanted: string): void {
  const present = spec?.schedulerName ?? '';
  if (present === wanted) return carries(draft, 'schedulerName', 'already');
  if (present !== '' && present !== 'default-scheduler') return skip(draft, 'schedulerName', `already ${present}`);
  draft.operations.push(add('/spec/schedulerName', wanted));
  return carries(draft, 'schedulerName', 'added');
}

/** The record for people and for `explain`. It must not be why the pod is refused, so it gives way where annotations are at their limit. */
function addRecord(draft: Draft, { metadata }: RawPod, policy: string): void {
  const { carried, skipped } = draft;
  const record = JSON.stringify({ policy, injected: carried, skipped });
  const { [INJECTION]: present, ...others } = metadata?.annotations ?? {};
  if (present === record) return;
  const size = Object.entries({ ...others, [INJECTION]: record }).reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value),
    0,
  );
  if (size > MAX_ANNOTATIONS)
    draft.warnings.push(
      'gpu-gate: no annotation gpu-gate.dev/injection, the annotations of the pod are at their limit of 256 KiB',
    );
  else draft.operations.push(...put('/metadata/annotations', metadata?.annotations, INJECTION, record));
}
