// One opted-in node: what is observed → what its Node should say, and the pods to make or remove. Pure. It first decides
// the desired marks of the Node as a whole, then `differences` turns them into the fewest writes, in the safe order: what
// takes trust away is written first, what gives it is written last.
import type { ComponentSpec, GpuPolicy } from '../core/gpu-policy.ts';
import {
  CLOSED,
  COMPONENT,
  DEPLOY_PREFIX,
  GPU_VALIDATED,
  MANAGED,
  NODE_POLICY,
  PROOF,
  RETRY,
  STARTUP_TAINT,
  STATE,
  WAKE,
  WALK,
} from '../core/keys.ts';
import { isOurs, parseProof, type ComponentEvidence, type Proof } from '../core/node-proof.ts';
import { COMPONENTS, POD_COMPONENT, STAGES, type Component, type Stage, type State } from '../core/stages.ts';
import type { Action, Condition, Manifest } from './actions.ts';
import {
  allocatable,
  componentPods,
  digest,
  evidenceOf,
  externalFinding,
  hasPciLabel,
  operandFinding,
  operandPod,
  preflightFinding,
  sameEvidence,
  validationFinding,
  type Finding,
} from './evidence.ts';
import { newWalk, parseWalk, rebooted, type Walk } from './memory.ts';
import type { NodeObject, PodObject, Taint } from './model.ts';
import { DRIVER_VERSION } from './operands/driver.ts';
import { validationPod } from './operands/validation-pod.ts';

export interface NodeInput {
  readonly node: NodeObject;
  /** Every kept pod on the node. */
  readonly pods: readonly PodObject[];
  /** Validation pods of the operand namespace by name, unbound ones too. */
  readonly validationPods: ReadonlyMap<string, PodObject>;
  readonly policy: GpuPolicy | undefined;
  /** Names of the other policies that select the node too. */
  readonly conflicts: readonly string[];
  /** Newest revision of each component that the policy deploys. */
  readonly revisions: Readonly<Partial<Record<Component, string>>>;
  /** May this node begin its first walk? */
  readonly slotFree: boolean;
  /** The circuit breaker holds: proofs are kept, nodes closed. */
  readonly breakerTripped: boolean;
  readonly operandNamespace: string;
  /** How long a node may be not Ready before its proof goes, ms. */
  readonly notReadyGrace: number;
  readonly now: number;
}

export interface NodePlan {
  readonly actions: readonly Action[];
  /** When to look again though nothing changes, ms since the epoch. */
  readonly wakeAt: number | undefined;
  /** Holds one of `bringUp.maxConcurrent`. */
  readonly holdsSlot: boolean;
  /** A proof is about to be withdrawn with no reboot behind it: what the circuit breaker counts. */
  readonly withdraws: boolean;
}

/** The marks that a Node of ours should carry. */
interface Desired {
  readonly state: State | undefined;
  readonly deploy: Readonly<Partial<Record<Component, string>>>;
  readonly proof: Proof | undefined;
  readonly closed: string | undefined;
  readonly walk: Walk | undefined;
  readonly policy: string | undefined;
  readonly condition: Condition | undefined;
  readonly taint: boolean;
}

const NOTHING: NodePlan = { actions: [], wakeAt: undefined, holdsSlot: false, withdraws: false };

const KEY_OF: Readonly<Record<Component, keyof GpuPolicy['spec']['components']>> = {
  toolkit: 'toolkit',
  driver: 'driver',
  'device-plugin': 'devicePlugin',
  'dcgm-exporter': 'dcgmExporter',
  'feature-discovery': 'featureDiscovery',
};
export const specOf = (policy: GpuPolicy, component: Component): ComponentSpec =>
  policy.spec.components[KEY_OF[component]];
export const isDeployed = (spec: ComponentSpec): boolean => spec.mode === 'managed' && spec.enabled;

const iso = (now: number): string => new Date(now).toISOString();
const camel = (stage: Stage): string => stage.replace(/(^|-)([a-z])/g, (_, __, letter: string) => letter.toUpperCase());

/** Revisions that the Node's deploy labels name. */
export const deployedOn = (node: NodeObject): Partial<Record<Component, string>> =>
  Object.fromEntries(
    COMPONENTS.flatMap((component) => {
      const revision = node.metadata.labels?.[DEPLOY_PREFIX + component];
      return revision === undefined ? [] : [[component, revision]];
    }),
  );

/** The actions that bring one node a step nearer to validated, or out of our hands. */
export function planNode(input: NodeInput): NodePlan {
  const { node, policy } = input;
  if (!isOurs(node) || node.metadata.deletionTimestamp !== undefined) return NOTHING;
  const deployed = deployedOn(node);
  if (node.metadata.labels?.[MANAGED] !== 'true') return planRemoval(input, deployed, true);
  if (policy === undefined) {
    return Object.keys(deployed).length > 0 ? planRemoval(input, deployed, false) : planUnassigned(input);
  }
  if (policy.deleting) return planRemoval(input, deployed, false);
  if (policy.spec.suspend) {
    const taints = withoutOurs(node);
    return taints.length === (node.spec?.taints ?? []).length
      ? NOTHING
      : { ...NOTHING, actions: [setTaints(node, taints)] };
  }
  return planWalk({ ...input, policy }, deployed);
}

const planUnassigned = (input: NodeInput): NodePlan => ({
  ...NOTHING,
  actions: differences(input.node, {
    state: 'preflight',
    deploy: {},
    proof: undefined,
    closed: undefined,
    walk: undefined,
    policy: undefined,
    condition: {
      type: GPU_VALIDATED,
      status: 'False',
      reason: 'NoPolicy',
      message: "no GPUPolicy selects this node: see 'kubectl get gpupolicies' and their spec.nodeSelector",
    },
    taint: false,
  }),
});

/** Everything that one pass of a walk finds out, kept while it goes through the stages. */
interface Pass {
  readonly input: NodeInput & { readonly policy: GpuPolicy };
  readonly boot: string;
  readonly proof: Proof | undefined;
  /** Proven on this boot: keeps the revisions that it runs. */
  readonly settled: boolean;
  walk: Walk;
  deploy: Partial<Record<Component, string>>;
  evidence: Record<string, ComponentEvidence>;
  actions: Action[];
}

type WithPolicy = NodeInput & { readonly policy: GpuPolicy };

function planWalk(input: WithPolicy, deployed: Partial<Record<Component, string>>): NodePlan {
  const { node, now } = input;
  const boot = node.status?.nodeInfo?.bootID ?? '';
  if (node.metadata.labels?.[STATE] === undefined && node.metadata.annotations?.[WALK] === undefined)
    return begin(input, boot);
  const remembered =
    parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid) ?? newWalk(node.metadata.uid, boot, now);
  const written = parseProof(node.metadata.annotations?.[PROOF]);
  const proof =
    written !== undefined && written.node === node.metadata.uid && written.boot === boot && boot !== ''
      ? written
      : undefined;
  const walk = noteLosses(
    remembered.boot === boot ? remembered : rebooted(remembered, boot, now),
    input,
    proof !== undefined,
  );
  const pass: Pass = {
    input,
    boot,
    proof,
    settled: proof !== undefined || walk.proven === boot,
    walk,
    deploy: { ...deployed },
    evidence: {},
    actions: [],
  };

  const stop = firstUndone(pass);
  const lost = lossOf(pass, stop);
  const timing = stop === undefined ? { failure: false, wakeAt: undefined, message: '' } : clockOf(pass, stop);
  const desired = stop === undefined ? validated(pass) : underway(pass, stop, timing, lost);
  const wakeAts = [
    timing.wakeAt,
    graceEnd(pass.walk.notReady, input.notReadyGrace),
    graceEnd(pass.walk.labelGone, input.policy.spec.labelHold),
    intervalEnd(pass, stop),
  ];
  return {
    actions: [...differences(node, desired), ...pass.actions, ...events(input, desired, pass.walk, remembered)],
    wakeAt: wakeAts
      .filter((at) => at !== undefined && at > now)
      .reduce((a: number | undefined, b) => (a === undefined || (b as number) < a ? b : a), undefined),
    holdsSlot:
      stop !== undefined && !pass.walk.once && pass.walk.stage !== 'preflight' && pass.walk.failed === undefined,
    withdraws: proof !== undefined && lost === 'withdraw' && !input.breakerTripped,
  };
}

/** The first mark: from here on the node is ours, also if the operator's label goes again. */
const begin = (input: WithPolicy, boot: string): NodePlan => {
  const walk = newWalk(input.node.metadata.uid, boot, input.now);
  const condition: Condition = {
    type: GPU_VALIDATED,
    status: 'False',
    reason: 'Preflight',
    message: `preflight: begun, since ${walk.since}`,
  };
  const desired: Desired = {
    state: 'preflight',
    deploy: deployedOn(input.node),
    proof: undefined,
    closed: undefined,
    walk,
    policy: input.policy.name,
    condition,
    taint: hasOurTaint(input.node),
  };
  return { ...NOTHING, actions: [...differences(input.node, desired), ...events(input, desired, walk, walk)] };
};

const graceEnd = (since: string | undefined, grace: number): number | undefined =>
  since === undefined ? undefined : Date.parse(since) + grace;

const intervalEnd = (pass: Pass, stop: Stop | undefined): number | undefined => {
  const { interval } = pass.input.policy.spec.validation;
  return interval > 0 && stop === undefined && pass.proof !== undefined
    ? Date.parse(pass.proof.at) + interval
    : undefined;
};

/** Losses that are no pod's: the node out of sight, NFD's label gone, all GPUs gone, the interval over. */
function noteLosses(walk: Walk, input: WithPolicy, proven: boolean): Walk {
  const { node, now, policy } = input;
  const next: { -readonly [K in keyof Walk]: Walk[K] } = { ...walk };
  const ready = node.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true;
  if (ready) delete next.notReady;
  else next.notReady ??= iso(now);
  if (hasPciLabel(node) || !proven) delete next.labelGone;
  else next.labelGone ??= iso(now);
  if (walk.stage === 'done' && Object.keys(allocatable(node, policy.spec.resources)).length === 0)
    next.gpuEpoch = walk.gpuEpoch + 1;
  if (!ready && walk.stage === 'done' && now - Date.parse(next.notReady ?? iso(now)) >= input.notReadyGrace)
    next.epoch = walk.epoch + 1;
  const { interval } = policy.spec.validation;
  const at = parseProof(node.metadata.annotations?.[PROOF])?.at;
  const idle = !input.pods.some((pod) => usesGpu(pod, input.operandNamespace));
  if (interval > 0 && walk.stage === 'done' && idle && at !== undefined && now - Date.parse(at) >= interval)
    next.epoch = walk.epoch + 1;
  return next;
}

interface Stop {
  readonly stage: Stage;
  readonly finding: Exclude<Finding, { readonly kind: 'done' }>;
}

/** Goes through the stages in order up to the first that is not done; deploys and creates what that one needs. */
function firstUndone(pass: Pass): Stop | undefined {
  for (const stage of STAGES) {
    const finding = findingOf(pass, stage);
    if (finding.kind !== 'done') {
      // All that comes after the stop is stale the moment the stop is mended.
      return { stage, finding };
    }
  }
  for (const component of COMPONENTS) {
    if (component === 'dcgm-exporter' || component === 'feature-discovery') deployOptional(pass, component);
  }
  return undefined;
}

/** Components that gate nothing come after the proof, and follow the policy's switch at once. */
function deployOptional(pass: Pass, component: Component): void {
  const revision = pass.input.revisions[component];
  if (revision === undefined) delete pass.deploy[component];
  else pass.deploy[component] ??= revision;
}

function findingOf(pass: Pass, stage: Stage): Finding {
  switch (stage) {
    case 'preflight':
      return preflight(pass);
    case 'toolkit':
    case 'driver':
      return component(pass, stage);
    case 'device-plugin': {
      const finding = component(pass, stage);
      if (
        finding.kind !== 'done' ||
        Object.keys(allocatable(pass.input.node, pass.input.policy.spec.resources)).length > 0
      )
        return finding;
      return {
        kind: 'waiting',
        reason: 'NoAllocatableGPUs',
        message: `waiting for the kubelet to offer ${pass.input.policy.spec.resources[0] ?? 'GPUs'} on this node`,
      };
    }
    case 'driver-validation':
    case 'device-plugin-validation':
      return validation(pass, stage);
  }
}

function preflight(pass: Pass): Finding {
  const { input, walk } = pass;
  const { spec } = input.policy;
  const managed = COMPONENTS.filter((c) => isDeployed(specOf(input.policy, c)));
  const finding = preflightFinding(input.node, {
    managesAny: managed.length > 0,
    managesPlugin: managed.includes('device-plugin'),
    beenHere: walk.stage !== 'preflight' || walk.once || Object.keys(pass.deploy).length > 0,
    resources: spec.resources,
  });
  // A label that flaps is not believed at once: NFD's worker may only be restarting.
  if (
    finding.kind === 'failed' &&
    pass.settled &&
    walk.labelGone !== undefined &&
    input.now - Date.parse(walk.labelGone) < spec.labelHold
  )
    return { kind: 'done' };
  if (finding.kind === 'done' && pass.boot === '')
    return {
      kind: 'waiting',
      reason: 'NoBootID',
      message: 'waiting for the kubelet to publish a boot ID',
      untimed: true,
    };
  if (finding.kind === 'done' && !input.slotFree && !walk.once && walk.stage === 'preflight') {
    return {
      kind: 'waiting',
      reason: 'WaitingForSlot',
      message: `waiting until fewer nodes are on their way (bringUp.maxConcurrent ${spec.bringUp.maxConcurrent})`,
      untimed: true,
    };
  }
  return finding;
}

function component(pass: Pass, name: 'toolkit' | 'driver' | 'device-plugin'): Finding {
  const { input, walk } = pass;
  const spec = specOf(input.policy, name);
  const finding = isDeployed(spec) ? deployment(pass, name) : externalFinding(input.pods, spec, name, walk.stale[name]);
  if (finding.kind === 'done' && finding.evidence !== undefined) pass.evidence[name] = finding.evidence;
  return finding;
}

/** A label value changes only as: remove, old pods gone, set new; and from the last component back to this one. */
function deployment(pass: Pass, name: Component): Finding {
  const { input } = pass;
  const current = pass.deploy[name];
  const target = pass.settled && current !== undefined ? current : input.revisions[name];
  if (target === undefined)
    return { kind: 'waiting', reason: 'NoRevision', message: `waiting for the ${name} DaemonSet to be rendered` };
  if (current === target) return operandFinding(input.pods, name, target, pass.walk.stale[name]);
  const from = COMPONENTS.indexOf(name);
  for (const later of COMPONENTS.slice(from).toReversed()) {
    if (pass.deploy[later] !== undefined || componentPods(input.pods, later).length > 0) {
      delete pass.deploy[later];
      return {
        kind: 'waiting',
        reason: 'Replacing',
        message: `waiting for the former ${POD_COMPONENT[later]} pod to go`,
      };
    }
  }
  pass.deploy[name] = target;
  return { kind: 'waiting', reason: 'PodMissing', message: `waiting for the ${POD_COMPONENT[name]} pod to be created` };
}

/** What a round of validation stands for: whatever is in here is proven by it, and a change of it asks for a new round. */
const roundOf = (pass: Pass, kind: 'driver-validation' | 'device-plugin-validation'): string => {
  const { evidence, walk, boot, input } = pass;
  const own =
    kind === 'driver-validation'
      ? [evidence['toolkit'], walk.epoch]
      : [evidence['device-plugin'], walk.epoch, walk.gpuEpoch];
  return digest(kind, input.node.metadata.uid, boot, evidence['driver'], own, input.policy.spec.validation.image);
};

function validation(pass: Pass, kind: 'driver-validation' | 'device-plugin-validation'): Finding {
  const { input, walk } = pass;
  const round = roundOf(pass, kind);
  if (walk.passed[kind] === round) return { kind: 'done' };
  if (walk.notReady !== undefined)
    return { kind: 'waiting', reason: 'NodeNotReady', message: 'waiting for the node to be Ready', untimed: true };
  const resource = Object.keys(allocatable(input.node, input.policy.spec.resources))[0];
  const manifest: Manifest = validationPod({
    kind,
    policy: input.policy,
    namespace: input.operandNamespace,
    node: { name: input.node.metadata.name, uid: input.node.metadata.uid },
    round,
    attempt: attemptFor(pass, kind),
    ...(kind === 'device-plugin-validation' && resource !== undefined ? { resource } : {}),
    ...(kind === 'device-plugin-validation' && input.policy.spec.injection.schedulerName !== ''
      ? { schedulerName: input.policy.spec.injection.schedulerName }
      : {}),
  });
  const name = manifest.metadata.name;
  const pod = input.validationPods.get(name);
  const finding = validationFinding(pod, name);
  if (finding.kind === 'done') pass.walk = { ...walk, passed: { ...walk.passed, [kind]: round } };
  else if (pod === undefined && !isBackingOff(pass, kind)) {
    for (const old of oldRounds(input, kind, name)) pass.actions.push(old);
    pass.actions.push({ kind: 'create-pod', manifest });
  }
  return finding;
}

/** Former rounds are kept to be looked at until the next one begins. */
const oldRounds = (
  input: NodeInput,
  kind: 'driver-validation' | 'device-plugin-validation',
  except: string,
): Action[] =>
  [...input.validationPods.values()]
    .filter(
      (pod) =>
        pod.name !== except &&
        !pod.deleting &&
        pod.labels[COMPONENT] === POD_COMPONENT[kind] &&
        isOfNode(pod, input.node),
    )
    .map((pod) => ({
      kind: 'delete-pod',
      namespace: pod.namespace,
      name: pod.name,
      uid: pod.uid,
      because: 'a new round of validation begins',
    }));

/** Validation pods are owned by their Node, so that they go with it; unbound ones are found by that owner's pinning. */
const isOfNode = (pod: PodObject, node: NodeObject): boolean =>
  pod.nodeName === node.metadata.name || pod.validates === node.metadata.uid;

/** Inputs of a stage: a change of them ends a failure at once. */
const inputsOf = (pass: Pass, stage: Stage): string => {
  const { input } = pass;
  return digest(
    stage,
    pass.boot,
    hasPciLabel(input.node),
    input.policy.name,
    input.revisions,
    input.policy.spec.validation.image,
    input.policy.spec.validation.command,
    input.policy.spec.resources,
  );
};

/** Is it time to try the failed stage again? */
function retryDue(pass: Pass, stage: Stage): 'operator' | 'inputs' | 'backoff' | undefined {
  const { walk, input } = pass;
  if (walk.failed === undefined || walk.failed.stage !== stage) return undefined;
  if ((input.node.metadata.annotations?.[RETRY] ?? '') !== (walk.retry ?? '')) return 'operator';
  if (walk.failed.inputs !== inputsOf(pass, stage)) return 'inputs';
  return input.now >= Date.parse(walk.failed.retryAt) ? 'backoff' : undefined;
}

const isBackingOff = (pass: Pass, stage: Stage): boolean =>
  pass.walk.failed?.stage === stage && retryDue(pass, stage) === undefined;

const attemptFor = (pass: Pass, stage: Stage): number =>
  pass.walk.attempt + (retryDue(pass, stage) === undefined ? 0 : 1);

const TIMEOUT_OF = {
  toolkit: 'toolkit',
  driver: 'driver',
  'driver-validation': 'driverValidation',
  'device-plugin': 'devicePlugin',
  'device-plugin-validation': 'devicePluginValidation',
} as const satisfies Record<Exclude<Stage, 'preflight'>, keyof GpuPolicy['spec']['validation']['timeouts']>;

interface Timing {
  readonly failure: boolean;
  readonly wakeAt: number | undefined;
  readonly message: string;
}

/** Moves the walk's clock on: a new stage starts it, a failure or a timeout sets the time of the next try. */
function clockOf(pass: Pass, stop: Stop): Timing {
  const { input } = pass;
  const { now, node } = input;
  const retry = node.metadata.annotations?.[RETRY];
  if (pass.walk.stage !== stop.stage) {
    const { failed: _, ...rest } = pass.walk;
    pass.walk = { ...rest, stage: stop.stage, since: iso(now), streak: 0 };
  }
  const due = retryDue(pass, stop.stage);
  if (due !== undefined) {
    const { failed: _, ...rest } = pass.walk;
    pass.walk = {
      ...rest,
      since: iso(now),
      attempt: rest.attempt + 1,
      streak: due === 'backoff' ? rest.streak + 1 : 0,
      ...(retry === undefined ? {} : { retry }),
    };
    if (stop.stage !== 'preflight' || stop.finding.kind !== 'failed') {
      discardFailedPod(pass, stop.stage);
      return { failure: false, wakeAt: timeoutEnd(pass, stop), message: 'trying again' };
    }
  }
  if (pass.walk.failed?.stage === stop.stage)
    return { failure: true, wakeAt: Date.parse(pass.walk.failed.retryAt), message: pass.walk.failed.message };
  const end = timeoutEnd(pass, stop);
  if (stop.finding.kind === 'failed') return fail(pass, stop.stage, stop.finding.reason, stop.finding.message);
  if (end !== undefined && now >= end) {
    return fail(
      pass,
      stop.stage,
      'TimedOut',
      `timed out after ${seconds(end - Date.parse(pass.walk.since))}: still ${stop.finding.message}`,
    );
  }
  return { failure: false, wakeAt: end, message: stop.finding.message };
}

const seconds = (ms: number): string =>
  ms >= 120_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 1000)} s`;

function timeoutEnd(pass: Pass, stop: Stop): number | undefined {
  if (stop.stage === 'preflight') return undefined;
  const { finding } = stop;
  if (finding.kind === 'waiting' && finding.untimed === true) return undefined;
  const from =
    finding.kind === 'waiting' && finding.since !== undefined
      ? Math.max(Date.parse(finding.since), Date.parse(pass.walk.since))
      : Date.parse(pass.walk.since);
  return from + pass.input.policy.spec.validation.timeouts[TIMEOUT_OF[stop.stage]];
}

function fail(pass: Pass, stage: Stage, reason: string, message: string): Timing {
  const { input, walk } = pass;
  const { initial, max } = input.policy.spec.validation.backoff;
  // Jitter without randomness: nodes that failed together must not all try again together.
  const jitter = 0.8 + (0.4 * Number.parseInt(digest(input.node.metadata.uid, walk.attempt).slice(0, 4), 16)) / 0xffff;
  const retryAt = input.now + Math.min(max, initial * 2 ** walk.streak) * jitter;
  pass.walk = {
    ...walk,
    failed: { stage, reason, message, at: iso(input.now), retryAt: iso(retryAt), inputs: inputsOf(pass, stage) },
    ...(input.node.metadata.annotations?.[RETRY] === undefined
      ? {}
      : { retry: input.node.metadata.annotations[RETRY] }),
  };
  return { failure: true, wakeAt: retryAt, message };
}

/** A crash-looping operand is started afresh; a failed validation gets a new pod by its new attempt. */
function discardFailedPod(pass: Pass, stage: Stage): void {
  if (stage !== 'toolkit' && stage !== 'driver' && stage !== 'device-plugin') return;
  const revision = pass.deploy[stage];
  const pod = revision === undefined ? undefined : operandPod(pass.input.pods, stage, revision);
  if (pod !== undefined)
    pass.actions.push({
      kind: 'delete-pod',
      namespace: pod.namespace,
      name: pod.name,
      uid: pod.uid,
      because: `trying ${stage} again`,
    });
}

/** What a stop means for a proof that stands: nothing here without one. The table is in the design, section 3. */
function lossOf(pass: Pass, stop: Stop | undefined): 'withdraw' | 'close' | undefined {
  const { proof, walk, input } = pass;
  if (proof === undefined) return undefined;
  const loss = pass.evidence['driver'] ?? driverAsSeen(pass);
  if (!sameEvidence(loss, proof.components['driver'])) return 'withdraw';
  if (walk.notReady !== undefined && input.now - Date.parse(walk.notReady) >= input.notReadyGrace) return 'withdraw';
  if (stop === undefined) return undefined;
  if (stop.stage === 'preflight') return 'withdraw';
  if (stop.stage === 'driver-validation' && stop.finding.kind === 'failed') return 'withdraw';
  return 'close';
}

/** The driver's evidence even where an earlier stage stopped the pass: a toolkit's restart must not hide a driver's. */
function driverAsSeen(pass: Pass): ComponentEvidence | undefined {
  const { input } = pass;
  if (!isDeployed(specOf(input.policy, 'driver'))) {
    const finding = externalFinding(input.pods, specOf(input.policy, 'driver'), 'driver', undefined);
    return finding.kind === 'done' ? finding.evidence : pass.proof?.components['driver'];
  }
  const revision = pass.deploy.driver;
  const pod = revision === undefined ? undefined : operandPod(input.pods, 'driver', revision);
  if (pod === undefined || revision === undefined) return undefined;
  return evidenceOf(pod, revision);
}

/** All stages done: the proof, and no reason to stay closed. */
function validated(pass: Pass): Desired {
  const { input, walk, proof, boot } = pass;
  const current = { ...pass.evidence };
  const unchanged =
    proof !== undefined &&
    walk.stage === 'done' &&
    Object.keys(current).every((name) => sameEvidence(current[name], proof.components[name]));
  const next: Proof = unchanged ? proof : proofOf(pass, current);
  const { failed: _, ...rest } = walk;
  pass.walk =
    walk.stage === 'done'
      ? { ...walk, evidence: current }
      : {
          ...rest,
          stage: 'done',
          since: iso(input.now),
          streak: 0,
          evidence: current,
          stale: {},
          proven: boot,
          once: true,
        };
  return {
    state: 'validated',
    deploy: pass.deploy,
    proof: next,
    closed: undefined,
    walk: pass.walk,
    policy: input.policy.name,
    condition: {
      type: GPU_VALIDATED,
      status: 'True',
      reason: 'Validated',
      message: `driver and device plugin validated at ${next.at}${next.driver === undefined ? '' : `, driver ${next.driver}`}${conflictText(input)}`,
    },
    taint: false,
  };
}

const conflictText = (input: NodeInput): string =>
  input.conflicts.length === 0
    ? ''
    : `; also selected by ${input.conflicts.join(', ')}, which the older policy ${input.policy?.name ?? ''} keeps off`;

function proofOf(pass: Pass, components: Readonly<Record<string, ComponentEvidence>>): Proof {
  const { input, boot } = pass;
  const labels = input.node.metadata.labels ?? {};
  const driverSpec = specOf(input.policy, 'driver');
  const driver =
    labels['nvidia.com/cuda.driver-version.full'] ??
    (isDeployed(driverSpec) ? (driverSpec.version ?? DRIVER_VERSION).split('-')[0] : undefined);
  const cuda = labels['nvidia.com/cuda.runtime-version.full'] ?? pass.proof?.cuda;
  return {
    node: input.node.metadata.uid,
    boot,
    at: iso(input.now),
    ...(driver === undefined ? {} : { driver }),
    ...(cuda === undefined ? {} : { cuda }),
    components,
  };
}

/** A stage is not done: walking, failed, or serving but closed. */
function underway(pass: Pass, stop: Stop, timing: Timing, lost: 'withdraw' | 'close' | undefined): Desired {
  const { input, proof, boot } = pass;
  const order = STAGES.indexOf(stop.stage);
  const accepted =
    Object.keys(pass.evidence).length === 0 ? pass.walk.evidence : { ...pass.walk.evidence, ...pass.evidence };
  const kept: Proof | undefined = lost === 'withdraw' && !input.breakerTripped ? undefined : proof;
  // With no reboot since, a driver that computes again is all that pods already there need.
  const restored =
    kept === undefined && pass.walk.proven === boot && order > STAGES.indexOf('driver-validation')
      ? proofOf(pass, pass.evidence)
      : undefined;
  const standing = kept ?? restored;
  pass.walk = { ...pass.walk, evidence: accepted };
  const what = `${stop.stage}: ${timing.message}`;
  const since = `since ${pass.walk.since}`;
  const shared = { deploy: pass.deploy, walk: pass.walk, policy: input.policy.name };
  if (standing !== undefined) {
    return {
      ...shared,
      state: 'validated',
      proof: standing,
      closed:
        lost === 'withdraw'
          ? 'circuit breaker'
          : restored === undefined
            ? `awaiting ${stop.stage}`
            : 'awaiting device-plugin-validation',
      condition: {
        type: GPU_VALIDATED,
        status: 'True',
        reason: timing.failure ? `${camel(stop.stage)}Failed${pass.walk.failed?.reason ?? ''}` : 'Closed',
        message: `no new GPU pods, ${what}, ${since}`,
      },
      taint: false,
    };
  }
  const failure = timing.failure ? pass.walk.failed : undefined;
  return {
    ...shared,
    state: failure === undefined ? stop.stage : 'failed',
    proof: undefined,
    closed: undefined,
    condition: {
      type: GPU_VALIDATED,
      status: 'False',
      reason: failure === undefined ? camel(stop.stage) : `${camel(stop.stage)}Failed${failure.reason}`,
      message:
        (failure === undefined
          ? `${what}, ${since}`
          : `${what}; tried again after ${failure.retryAt}, or now: kubectl annotate node ${input.node.metadata.name} --overwrite ${RETRY}=$(date +%s)`) +
        conflictText(input),
    },
    taint:
      input.policy.spec.startupTaint === 'BringUp' &&
      pass.walk.proven !== boot &&
      (stop.stage !== 'preflight' || pass.walk.once || hasOurTaint(input.node)),
  };
}

/** Is this a pod of users' that holds GPUs on the node now? */
const usesGpu = (pod: PodObject, operandNamespace: string): boolean =>
  pod.namespace !== operandNamespace &&
  Object.keys(pod.gpus).length > 0 &&
  pod.phase !== 'Succeeded' &&
  pod.phase !== 'Failed';

/** Opt-out: closed, the last GPU pod ends, torn down in reverse order, every mark of ours gone. */
function planRemoval(input: NodeInput, deployed: Partial<Record<Component, string>>, final: boolean): NodePlan {
  const { node, now } = input;
  const walk = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid) ?? newWalk(node.metadata.uid, '', now);
  const proof = parseProof(node.metadata.annotations?.[PROOF]);
  const users = input.pods.filter((pod) => usesGpu(pod, input.operandNamespace));
  const base = { policy: input.policy?.name, taint: false, state: 'removing' as const };
  const marks = (message: string, extra: Partial<Desired>): Desired => ({
    ...base,
    deploy: deployed,
    proof: undefined,
    closed: 'opting out',
    walk: { ...walk, stage: 'preflight', passed: {} },
    condition: { type: GPU_VALIDATED, status: 'False', reason: 'Removing', message },
    ...extra,
  });
  if (users.length > 0 && proof !== undefined) {
    const names = users.slice(0, 3).map((pod) => `${pod.namespace}/${pod.name}`);
    const message = `opting out: waiting for ${users.length} GPU pod${users.length === 1 ? '' : 's'} to end (${names.join(', ')}${users.length > 3 ? ', …' : ''})`;
    const condition: Condition = { type: GPU_VALIDATED, status: 'True', reason: 'Removing', message };
    return { ...NOTHING, actions: differences(node, marks(message, { proof, condition })) };
  }
  for (const component of COMPONENTS.toReversed()) {
    if (deployed[component] !== undefined || componentPods(input.pods, component).length > 0) {
      const { [component]: _, ...rest } = deployed;
      return {
        ...NOTHING,
        actions: differences(
          node,
          marks(`removing: waiting for the ${POD_COMPONENT[component]} pod to go`, { deploy: rest }),
        ),
      };
    }
  }
  const validations = [...input.validationPods.values()].filter((pod) => isOfNode(pod, node));
  if (validations.length > 0) {
    const actions: Action[] = validations
      .filter((pod) => !pod.deleting)
      .map((pod) => ({
        kind: 'delete-pod',
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        because: 'the node was opted out',
      }));
    return {
      ...NOTHING,
      actions: [...differences(node, marks('removing: waiting for validation pods to go', { deploy: {} })), ...actions],
    };
  }
  const gone: Desired = {
    state: undefined,
    deploy: {},
    proof: undefined,
    closed: undefined,
    walk: undefined,
    policy: undefined,
    condition: undefined,
    taint: false,
  };
  // The condition goes before the state label: while that label is there, the node is still ours and this runs again.
  return {
    ...NOTHING,
    actions: final ? differences(node, gone).toSorted(conditionFirst) : planUnassigned(input).actions,
  };
}

const RANK: Partial<Record<Action['kind'], number>> = { 'set-node-condition': 0, 'set-taints': 1, 'patch-node': 2 };
const conditionFirst = (a: Action, b: Action): number => (RANK[a.kind] ?? 3) - (RANK[b.kind] ?? 3);

const hasOurTaint = (node: NodeObject): boolean =>
  (node.spec?.taints ?? []).some((taint) => taint.key === STARTUP_TAINT);
const withoutOurs = (node: NodeObject): readonly Taint[] =>
  (node.spec?.taints ?? []).filter((taint) => taint.key !== STARTUP_TAINT);
const setTaints = (node: NodeObject, taints: readonly Taint[]): Action => ({
  kind: 'set-taints',
  node: node.metadata.name,
  uid: node.metadata.uid,
  resourceVersion: node.metadata.resourceVersion,
  taints,
});

/** Desired marks → the fewest writes. Marks, taint on, condition, taint off: trust goes first and comes last. */
function differences(node: NodeObject, desired: Desired): Action[] {
  const actions: Action[] = [];
  const { name, uid } = node.metadata;
  const labels = changes(node.metadata.labels ?? {}, {
    [STATE]: desired.state,
    ...Object.fromEntries(COMPONENTS.map((component) => [DEPLOY_PREFIX + component, desired.deploy[component]])),
  });
  const annotations = changes(node.metadata.annotations ?? {}, {
    [PROOF]: desired.proof === undefined ? undefined : JSON.stringify(desired.proof),
    [CLOSED]: desired.closed,
    [WALK]: desired.walk === undefined ? undefined : JSON.stringify(desired.walk),
    [NODE_POLICY]: desired.policy,
    ...(desired.state === undefined ? { [WAKE]: undefined } : {}),
  });
  if (Object.keys(labels).length + Object.keys(annotations).length > 0)
    actions.push({ kind: 'patch-node', node: name, uid, labels, annotations });
  const tainted = hasOurTaint(node);
  if (desired.taint && !tainted)
    actions.push(setTaints(node, [...withoutOurs(node), { key: STARTUP_TAINT, effect: 'NoSchedule' }]));
  const present = node.status?.conditions?.find((c) => c.type === GPU_VALIDATED);
  const same =
    desired.condition === undefined
      ? present === undefined
      : present?.status === desired.condition.status &&
        present.reason === desired.condition.reason &&
        present.message === desired.condition.message;
  if (!same)
    actions.push({ kind: 'set-node-condition', node: name, uid, type: GPU_VALIDATED, condition: desired.condition });
  if (!desired.taint && tainted) actions.push(setTaints(node, withoutOurs(node)));
  return actions;
}

/** Keys that differ; undefined in `wanted` means that the key must not be there. */
const changes = (
  present: Readonly<Record<string, string>>,
  wanted: Readonly<Record<string, string | undefined>>,
): Record<string, string | null> =>
  Object.fromEntries(
    Object.entries(wanted).flatMap(([key, value]) => (present[key] === value ? [] : [[key, value ?? null]])),
  );

/** Events on the Node: each change of state, each new failure. */
function events(input: NodeInput, desired: Desired, walk: Walk, before: Walk): Action[] {
  const { node } = input;
  const about = { kind: 'Node' as const, name: node.metadata.name, uid: node.metadata.uid };
  if (walk.failed !== undefined && walk.failed.at !== before.failed?.at) {
    return [
      {
        kind: 'event',
        about,
        type: 'Warning',
        reason: desired.condition?.reason ?? 'Failed',
        message: `${walk.failed.stage}: ${walk.failed.message}`,
      },
    ];
  }
  if (desired.closed !== undefined && node.metadata.annotations?.[CLOSED] !== desired.closed) {
    return [
      {
        kind: 'event',
        about,
        type: 'Warning',
        reason: 'GPUNodeClosed',
        message: desired.condition?.message ?? desired.closed,
      },
    ];
  }
  if (
    desired.state !== node.metadata.labels?.[STATE] ||
    (desired.proof !== undefined && node.metadata.annotations?.[PROOF] === undefined)
  ) {
    return [
      {
        kind: 'event',
        about,
        type: 'Normal',
        reason: desired.state === 'validated' ? 'GPUValidated' : 'GPUStage',
        message: desired.condition?.message ?? '',
      },
    ];
  }
  return [];
}
