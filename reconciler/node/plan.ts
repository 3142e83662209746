// One opted-in node: what is observed → what its Node should say, and the pods to make or remove. Pure. stages.ts finds the
// first stage that is not done, retry.ts times it, this file says what that means for the proof, marks.ts makes writes of it.
import { CLOSED, GPU_VALIDATED, MANAGED, PROOF, RETRY, STATE, WALK } from '../../core/keys.ts';
import { isOurs, parseProof, type ComponentEvidence, type Proof } from '../../gate/node-proof.ts';
import { STAGES, type Component } from '../../core/stages.ts';
import type { Action, Condition } from '../actions.ts';
import {
  allocatable,
  COMPUTED,
  evidenceOf,
  hasPciLabel,
  operandPod,
  RUNNING,
  sameEvidence,
  unusable,
} from './findings.ts';
import { newWalk, parseWalk, rebooted, type Walk } from '../walk.ts';
import { driverVersion } from '../manifests/driver.ts';
import { type Desired, deployedOn, hasOurTaint, withoutOurs, setTaints, differences } from './marks.ts';
import {
  type NodeInput,
  type NodePlan,
  NOTHING,
  isOursHere,
  iso,
  camel,
  gpuUsers,
  type Pass,
  type WithPolicy,
  type Stop,
} from './pass.ts';
import { planRemoval } from './removal.ts';
import { type Timing, clockOf } from './clock.ts';
import { elsewhere, firstUndone } from './climb.ts';

/** The actions that bring one node a step nearer to validated, or out of our hands. */
export function planNode(input: NodeInput): NodePlan {
  const { node, policy } = input;
  if (!isOurs(node) || node.metadata.deletionTimestamp !== undefined) return NOTHING;
  const deployed = deployedOn(node);
  if (node.metadata.labels?.[MANAGED] !== 'true') return planRemoval(input, deployed, true);
  if (policy === undefined || policy.deleting) return planRemoval(input, deployed, false);
  if (policy.spec.suspend) {
    const taints = withoutOurs(node);
    return taints.length === (node.spec?.taints ?? []).length
      ? NOTHING
      : { ...NOTHING, actions: [setTaints(node, taints)] };
  }
  return planWalk({ ...input, policy }, deployed);
}

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
  const walk = noteLosses(remembered.boot === boot ? remembered : rebooted(remembered, boot, now), input, proof);
  const pass: Pass = {
    input,
    boot,
    proof,
    settled: walk.once && walk.renew !== true,
    walk,
    deploy: { ...deployed },
    evidence: {},
    actions: [],
  };

  const stop = firstUndone(pass);
  if (pass.deploy.driver !== undefined && pass.deploy.driver === input.revisions.driver)
    pass.walk = { ...pass.walk, driver: driverVersion(input.policy) };
  const timing = stop === undefined ? { failure: false, wakeAt: undefined, message: '' } : clockOf(pass, stop);
  const lost = lossOf(pass, stop);
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
    // A replacement that was asked for is no loss that the breaker should wonder at.
    withdraws: proof !== undefined && lost === 'withdraw' && input.keep === undefined && walk.renew !== true,
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
function noteLosses(walk: Walk, input: WithPolicy, proof: Proof | undefined): Walk {
  const { node, now, policy } = input;
  const next: { -readonly [K in keyof Walk]: Walk[K] } = { ...walk };
  const ready = node.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true;
  if (ready) delete next.notReady;
  else next.notReady ??= iso(now);
  if (hasPciLabel(node) || (walk.stage === 'preflight' && !walk.once)) delete next.labelGone;
  else next.labelGone ??= iso(now);
  const { 'driver-validation': driver, 'device-plugin-validation': plugin } = walk.passed;
  // Whatever the stage is: rounds that passed before a loss prove nothing after it. Forgetting them is what makes it count once.
  if (plugin !== undefined && Object.keys(allocatable(node, policy.spec.resources)).length === 0) {
    next.gpuEpoch = walk.gpuEpoch + 1;
    next.passed = driver === undefined ? {} : { 'driver-validation': driver };
  }
  const { interval } = policy.spec.validation;
  const idle = gpuUsers(input).length === 0;
  const old =
    interval > 0 && walk.stage === 'done' && idle && proof !== undefined && now - Date.parse(proof.at) >= interval;
  const outOfSight = !ready && now - Date.parse(next.notReady ?? iso(now)) >= input.notReadyGrace;
  if ((driver !== undefined || plugin !== undefined) && (outOfSight || old)) {
    next.epoch = walk.epoch + 1;
    next.passed = {};
  }
  return next;
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
  return stop.stage === 'driver-validation' && saysBroken(pass, stop) ? 'withdraw' : 'close';
}

/** Did vectorAdd itself fail, or hang until its time was over? A validation that never ran says nothing about the driver. */
function saysBroken({ walk }: Pass, { stage, finding }: Stop): boolean {
  if (finding.kind === 'failed') return COMPUTED.has(finding.reason);
  return walk.failed?.stage === stage && walk.failed.reason === 'TimedOut' && finding.reason === RUNNING;
}

/** The driver's evidence even where an earlier stage stopped the pass: a toolkit's restart must not hide a driver's. */
function driverAsSeen(pass: Pass): ComponentEvidence | undefined {
  const { input } = pass;
  if (!isOursHere(pass, 'driver')) {
    const finding = elsewhere(pass, 'driver');
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
  const { failed: _, renew: __, untimed: ___, ...rest } = walk;
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
      message: `driver and device plugin validated at ${next.at}${next.driver === undefined ? '' : `, driver ${next.driver}`}${lostText(input)}${conflictText(input)}`,
    },
    taint: false,
  };
}

/** Some of several GPUs lost: open, and told. */
const lostText = ({ node, policy }: WithPolicy): string => {
  const lost = unusable(node, policy.spec.resources);
  return lost === '' ? '' : `; ${lost}: see the device plugin's log for what became of the others`;
};

const conflictText = (input: NodeInput): string =>
  input.conflicts.length === 0
    ? ''
    : `; also selected by ${input.conflicts.join(', ')}, which the older policy ${input.policy?.name ?? ''} keeps off`;

function proofOf(pass: Pass, components: Readonly<Record<string, ComponentEvidence>>): Proof {
  const { input, boot } = pass;
  const labels = input.node.metadata.labels ?? {};
  // What we installed we know; NFD's label may be of the driver before.
  const driver =
    (isOursHere(pass, 'driver') ? pass.walk.driver : undefined) ?? labels['nvidia.com/cuda.driver-version.full'];
  const cuda =
    labels['nvidia.com/cuda.runtime-version.full'] ?? (pass.proof?.driver === driver ? pass.proof?.cuda : undefined);
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
  const kept: Proof | undefined = lost === 'withdraw' && input.keep === undefined ? undefined : proof;
  // With no reboot since, a driver that computes again is all that pods already there need.
  const restored =
    proof === undefined && pass.walk.proven === boot && order > STAGES.indexOf('driver-validation')
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
        lost === 'withdraw' && input.keep !== undefined
          ? input.keep
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

/** Texts of Events carry no time: equal ones are counted as one. */
const timeless = (message: string): string => message.replaceAll(/,? (?:since|at) \d{4}-\d\d-\d\dT[\d:.]+Z/g, '');

/** Events on the Node: each change of state, each new failure, GPUs lost. */
function events(input: WithPolicy, desired: Desired, walk: Walk, before: Walk): Action[] {
  const { node } = input;
  const about = { kind: 'Node' as const, name: node.metadata.name, uid: node.metadata.uid };
  const event = (type: 'Normal' | 'Warning', reason: string, message: string): Action[] => [
    { kind: 'event', about, type, reason, message: timeless(message) },
  ];
  const said = desired.condition?.message ?? '';
  if (walk.failed !== undefined && walk.failed.at !== before.failed?.at)
    return event('Warning', desired.condition?.reason ?? 'Failed', `${walk.failed.stage}: ${walk.failed.message}`);
  const closed = node.metadata.annotations?.[CLOSED];
  if (desired.closed !== undefined && closed !== desired.closed) return event('Warning', 'GPUNodeClosed', said);
  if (closed !== undefined && desired.closed === undefined && desired.proof !== undefined)
    return event('Normal', 'GPUNodeOpen', said);
  const proven = desired.proof !== undefined && node.metadata.annotations?.[PROOF] === undefined;
  if (desired.state !== node.metadata.labels?.[STATE] || proven)
    return event('Normal', desired.state === 'validated' ? 'GPUValidated' : 'GPUStage', said);
  const lost = unusable(node, input.policy.spec.resources);
  const known = node.status?.conditions?.find((c) => c.type === GPU_VALIDATED)?.message ?? '';
  if (desired.state === 'validated' && desired.closed === undefined && lost !== '' && !known.includes(lost))
    return event('Warning', 'GPUsLost', said);
  return [];
}
