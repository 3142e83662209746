// Raw pod + facts → what to do with it. Pure, an ordered list of rules; every addition is a small value, so that a
// MutatingAdmissionPolicy could be generated from the same model. Paths, class names and env come from the policy alone.
import { barePath, driverMounts } from '../core/driver-mounts.ts';
import { isEnforcing, type DriverVolume, type GpuPolicy } from '../core/gpu-policy.ts';
import { gpuRequest, wishesOf, type GpuRequest, type RawContainer, type RawPod } from '../core/gpu-request.ts';
import { DEFAULT_POLICY, INJECT, INJECTED, INJECTION, NODE_VALIDATED } from '../core/keys.ts';

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

export interface AddOperation {
  readonly op: 'add';
  readonly path: string;
  readonly value: unknown;
}

export interface Skipped {
  readonly what: string;
  readonly because: string;
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
      readonly operations: readonly AddOperation[];
      readonly injected: readonly string[];
      readonly skipped: readonly Skipped[];
      readonly warnings: readonly string[];
    }
  | { readonly kind: 'refuse'; readonly reason: Refuse; readonly because: string };

const leave = (reason: Leave, ...warnings: string[]): Admission => ({
  kind: 'leave',
  reason,
  warnings: warnings.map(short),
});
const refuse = (reason: Refuse, because: string): Admission => ({ kind: 'refuse', reason, because });

/** Kubernetes asks for warnings below 120 characters. */
const short = (text: string): string => (text.length < 120 ? text : `${text.slice(0, 118)}…`);

const MIRROR = 'kubernetes.io/config.mirror';
const ENFORCE = 'pod-security.kubernetes.io/enforce';

/** What to do with a pod that is about to be created. */
export function decide(pod: RawPod, facts: Facts): Admission {
  if (facts.excludedNamespaces.has(facts.namespace)) return leave('excluded-namespace');
  const read = wishesOf(pod);
  const named = read.ok ? (read.wishes.policy ?? DEFAULT_POLICY) : DEFAULT_POLICY;
  const policy = facts.policies.get(named);
  // Without a policy there is no list of resources; the widest one says whether this is any of our business.
  const request = gpuRequest(pod, policy?.spec.resources ?? ['nvidia.com/*']);
  if (request === undefined) return leave('no-gpu');
  if (pod.metadata?.annotations?.[MIRROR] !== undefined)
    return leave('mirror-pod', 'gpu-gate: a static pod passes every gate; its node may not be validated');
  if ((read.ok && read.wishes.optedOut) || facts.namespaceLabels?.[INJECT] === 'false') return leave('opted-out');
  if (!read.ok) return refuse('malformed-annotation', read.because);
  if (policy === undefined) {
    return read.wishes.policy === undefined
      ? leave('no-policy')
      : refuse(
          'unknown-policy',
          `GPUPolicy ${JSON.stringify(named)} does not exist: name one of 'kubectl get gpupolicies', or leave the annotation gpu-gate.dev/policy out`,
        );
  }
  if (policy.spec.suspend) return leave('suspended');
  if (!isEnforcing(policy)) return leave('auditing');
  if (pod.spec?.nodeName !== undefined && pod.spec.nodeName !== '')
    return leave(
      'node-name-set',
      'gpu-gate: spec.nodeName passes the scheduler and so the gate; use node affinity instead',
    );
  return inject(pod, request, policy, facts);
}

/** Collects additions; the order of rules is the order of the patch. */
interface Draft {
  readonly operations: AddOperation[];
  readonly injected: string[];
  readonly skipped: Skipped[];
  readonly warnings: string[];
}

function inject(pod: RawPod, request: GpuRequest, policy: GpuPolicy, facts: Facts): Admission {
  const draft: Draft = { operations: [], injected: [], skipped: [], warnings: [] };
  const { injection, unmanagedNodes } = policy.spec;
  // On nodes that we do not manage nobody knows whether handler and paths exist.
  const everywhere = unmanagedNodes === 'Allow' && !injection.alsoOnUnmanaged;
  const skip = (what: string, because: string, warning?: string): void => {
    draft.skipped.push({ what, because });
    if (warning !== undefined) draft.warnings.push(warning);
  };
  const done = alreadyInjected(pod);

  if (injection.runtimeClassName !== '') {
    const wanted = injection.runtimeClassName;
    const present = pod.spec?.runtimeClassName;
    const facts_ = facts.runtimeClasses.get(wanted);
    if (present !== undefined && present !== '') {
      if (present !== wanted) skip('runtimeClassName', `already ${present}`);
    } else if (everywhere) skip('runtimeClassName', 'the policy allows unmanaged nodes');
    else if (facts_ === undefined)
      skip(
        'runtimeClassName',
        `RuntimeClass ${wanted} does not exist`,
        `gpu-gate: RuntimeClass ${wanted} does not exist, the pod runs without it`,
      );
    else {
      const clash = Object.entries(facts_.nodeSelector).find(
        ([key, value]) => pod.spec?.nodeSelector?.[key] !== undefined && pod.spec.nodeSelector[key] !== value,
      );
      if (clash !== undefined) {
        return refuse(
          'node-selector-conflict',
          `spec.nodeSelector ${clash[0]}=${pod.spec?.nodeSelector?.[clash[0]] ?? ''} contradicts RuntimeClass ${wanted}, which needs ${clash[0]}=${clash[1]}: change the selector, or opt the pod out with the label ${INJECT}: "false"`,
        );
      }
      draft.operations.push(add('/spec/runtimeClassName', wanted));
      draft.injected.push('runtimeClassName');
    }
  }
  mounts(pod, request, policy, facts, everywhere, draft, skip);
  if (
    injection.readinessGate &&
    pod.spec?.readinessGates?.some((gate) => gate?.conditionType === NODE_VALIDATED) !== true
  ) {
    draft.operations.push(
      ...append('/spec/readinessGates', pod.spec?.readinessGates, [{ conditionType: NODE_VALIDATED }]),
    );
    draft.injected.push('readinessGate');
  }
  const scheduler = pod.spec?.schedulerName;
  if (injection.schedulerName !== '' && scheduler !== injection.schedulerName) {
    if (scheduler === undefined || scheduler === '' || scheduler === 'default-scheduler') {
      draft.operations.push(add('/spec/schedulerName', injection.schedulerName));
      draft.injected.push('schedulerName');
    } else skip('schedulerName', `already ${scheduler}`);
  }
  if (done && draft.operations.length === 0)
    return { kind: 'leave', reason: 'already-injected', warnings: draft.warnings.map(short) };
  if (pod.metadata?.labels?.[INJECTED] !== 'true')
    draft.operations.push(...put('/metadata/labels', pod.metadata?.labels, INJECTED, 'true'));
  if (!done) {
    const record = JSON.stringify({ policy: policy.name, injected: draft.injected, skipped: draft.skipped });
    draft.operations.push(...put('/metadata/annotations', pod.metadata?.annotations, INJECTION, record));
  }
  return { kind: 'inject', policy: policy.name, ...draft, warnings: draft.warnings.map(short) };
}

const alreadyInjected = (pod: RawPod): boolean => pod.metadata?.annotations?.[INJECTION] !== undefined;

function mounts(
  pod: RawPod,
  request: GpuRequest,
  policy: GpuPolicy,
  facts: Facts,
  everywhere: boolean,
  draft: Draft,
  skip: (what: string, because: string, warning?: string) => void,
): void {
  const { volumes, env } = driverMounts(policy);
  if (volumes.length === 0 && env.length === 0) return;
  if (everywhere) return skip('driverVolumes', 'the policy allows unmanaged nodes');
  if (volumes.length > 0) {
    const level =
      facts.namespaceLabels === undefined
        ? 'restricted'
        : (facts.namespaceLabels[ENFORCE] ?? policy.spec.injection.podSecurityDefault);
    if (level !== 'privileged') {
      return skip(
        'driverVolumes',
        `the namespace enforces Pod Security ${level}`,
        `gpu-gate: no driver volumes, Pod Security ${level} forbids hostPath; use the runtime class alone`,
      );
    }
  }
  const present = new Map((pod.spec?.volumes ?? []).map((volume) => [volume?.name, volume]));
  // Called again after another webhook added a container: the volume is there already, and is ours.
  const isOurs = ({ name, hostPath }: DriverVolume): boolean =>
    alreadyInjected(pod) && present.get(name)?.hostPath?.path === hostPath;
  const usable = volumes.filter((volume) => {
    if (!present.has(volume.name) || isOurs(volume)) return true;
    if (!alreadyInjected(pod))
      skip(
        `volume ${volume.name}`,
        'the pod has a volume of that name',
        `gpu-gate: volume ${volume.name} is the pod's own, the driver's was left out`,
      );
    return false;
  });
  const used = new Set<string>();
  const targets = [
    ...request.initContainers.map((index) => ({
      path: `/spec/initContainers/${index}`,
      container: pod.spec?.initContainers?.[index] ?? {},
    })),
    ...request.containers.map((index) => ({
      path: `/spec/containers/${index}`,
      container: pod.spec?.containers?.[index] ?? {},
    })),
  ];
  const perContainer: AddOperation[] = [];
  for (const { path, container } of targets) {
    perContainer.push(...mountsOf(path, container, usable, used, draft, alreadyInjected(pod)));
    const names = new Set((container.env ?? []).map((variable) => variable?.name));
    const missing = env.filter(({ name }) => !names.has(name)).map(({ name, value }) => ({ name, value }));
    if (missing.length > 0) {
      perContainer.push(...append(`${path}/env`, container.env, missing));
      note(draft.injected, 'env');
    }
  }
  const volumesUsed = usable
    .filter(({ name }) => used.has(name) && !present.has(name))
    .map(({ name, hostPath, type }) => ({ name, hostPath: { path: hostPath, type } }));
  if (volumesUsed.length > 0) {
    draft.operations.push(...append('/spec/volumes', pod.spec?.volumes, volumesUsed));
    note(draft.injected, 'driverVolumes');
  }
  draft.operations.push(...perContainer);
}

function mountsOf(
  path: string,
  container: RawContainer,
  volumes: readonly DriverVolume[],
  used: Set<string>,
  draft: Draft,
  again: boolean,
): AddOperation[] {
  const taken = new Set(
    (container.volumeMounts ?? []).map((mount) =>
      mount?.mountPath === undefined ? undefined : barePath(mount.mountPath),
    ),
  );
  const added: { name: string; mountPath: string; readOnly: boolean }[] = [];
  for (const { name, mountPath, readOnly } of volumes) {
    if (taken.has(barePath(mountPath))) {
      // The first call has warned; what is there may be what it added.
      if (again) continue;
      draft.skipped.push({
        what: `mount ${mountPath} in ${container.name ?? '?'}`,
        because: 'the container mounts something there',
      });
      draft.warnings.push(
        `gpu-gate: ${mountPath} in ${(container.name ?? '?').slice(0, 40)} is the pod's own mount, the driver's was left out`,
      );
      continue;
    }
    used.add(name);
    added.push({ name, mountPath, readOnly });
  }
  return added.length === 0 ? [] : append(`${path}/volumeMounts`, container.volumeMounts, added);
}

const note = (list: string[], what: string): void => {
  if (!list.includes(what)) list.push(what);
};

const add = (path: string, value: unknown): AddOperation => ({ op: 'add', path, value });

/** Adds to a list, which is made where there is none (null counts as none). */
const append = (
  path: string,
  present: readonly unknown[] | null | undefined,
  values: readonly unknown[],
): AddOperation[] => (Array.isArray(present) ? values.map((value) => add(`${path}/-`, value)) : [add(path, values)]);

/** Adds a key to a map, which is made where there is none. */
const put = (
  path: string,
  present: Readonly<Record<string, string>> | null | undefined,
  key: string,
  value: string,
): AddOperation[] =>
  typeof present === 'object' && present !== null
    ? [add(`${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, value)]
    : [add(path, { [key]: value })];
