// What the Node should say, by what was observed, reached and judged.
import { BREAKER_RELEASE, RETRY } from '../../core/keys.ts';
import type { Level } from '../../core/levels.ts';
import { amountOf } from '../../core/quantity.ts';
import type { Allocation } from '../../core/gpu-policy.ts';
import type { Said } from '../../core/said.ts';
import { entriesFor, isUsualGpu } from '../../gate/gpu-request.ts';
import type { ComponentEvidence, Proof } from '../../gate/node-proof.ts';
import { BREAKER, type Keep } from '../limits/breaker.ts';
import { driverVersion } from '../manifests/driver.ts';
import type { NodeObject } from '../model.ts';
import { DONE, type Accepted, type RollOut, type Walk } from '../walk.ts';
import type { Climb, Stop } from './climb.ts';
import type { Timed } from './clock.ts';
import { devicesText } from './devices.ts';
import { isAsKnown, lostGpus, offeredBeside } from './findings.ts';
import { secondInstaller } from './installers.ts';
import { isOutOfSight } from './losses.ts';
import type { Judgement } from './judge.ts';
import { hasOurTaint, type Desired } from './marks.ts';
import { offeredOtherwise } from './states/both.ts';
import { iso, isManagedHere, type Observed, type WithPolicy } from './observed.ts';

/** `driver-validation` as part of a condition's reason. */
const camel = (stage: string): string =>
  stage.replace(/(^|-)([a-z])/g, (_, __, letter: string) => letter.toUpperCase());

const retryCommand = (node: NodeObject): string =>
  `kubectl annotate node ${node.metadata.name} --overwrite ${RETRY}=$(date +%s)`;

export const releaseCommand = (policy: string): string =>
  `kubectl annotate gpupolicy ${policy} --overwrite ${BREAKER_RELEASE}=$(date +%s)`;

/** What the condition of a node adds whose proof the circuit breaker keeps. */
export const HELD = '; the circuit breaker keeps its proof, because many nodes lost theirs at once';

/** `keep`: why a proof that is about to be withdrawn is kept all the same. */
export function desiredMarks(
  seen: Observed,
  climb: Climb,
  timed: Timed,
  judgement: Judgement,
  keep: Keep | undefined,
): Desired {
  const isDisproven = judgement === 'withdrawn' && keep === undefined && climb.stop?.state.upholds === true;
  const walk = withInstaller(seen, climb.stop, memory(seen, climb, timed, isDisproven));
  const desired =
    climb.stop === undefined
      ? validated(seen, climb, walk, judgement)
      : underway(seen, climb, climb.stop, walk, timed, judgement, keep);
  return inRollOut(seen, desired, keep);
}

const ROLL_OUT = 'roll-out';

/** What a roll-out adds: why the node is closed, and what is awaited before and while it moves. */
function inRollOut({ turn, input }: Observed, desired: Desired, keep: Keep | undefined): Desired {
  const { walk, condition, proof } = desired;
  if (walk === undefined || condition === undefined) return desired;
  const saying = (text: string, more: Partial<Omit<Said, 'text'>> = {}): Pick<Desired, 'condition'> => ({
    condition: { ...condition, said: { ...condition.said, ...more, text } },
  });
  const { text } = condition.said;
  const { rollOut, skipped } = walk;
  if (rollOut === undefined)
    return skipped === undefined
      ? desired
      : {
          ...desired,
          ...saying(`${text}; left out of the roll-out, because its time to drain ended: ${skipped.text}`, {
            command: retryCommand(input.node),
          }),
        };
  const isHalting = rollOut.failed !== undefined;
  const awaited = turn.drain?.text === undefined || turn.drain.text === '' ? '' : `; ${turn.drain.text}`;
  if (rollOut.phase === 'replace') {
    const moving = `${ROLL_OUT}, ${text}${awaited}${isHalting ? `; this stops the roll-out of GPUPolicy ${input.policy.name}` : ''}`;
    return proof === undefined || keep !== undefined
      ? { ...desired, ...saying(moving) }
      : {
          ...desired,
          state: 'draining',
          closed: ROLL_OUT,
          condition: {
            ...condition,
            reason: condition.reason === 'Closed' ? 'RollOut' : condition.reason,
            said: { ...condition.said, text: moving },
          },
        };
  }
  if (proof === undefined || keep !== undefined) return { ...desired, ...saying(`${text}${awaited}`) };
  const isWhole = condition.reason === 'Validated';
  const what = `${ROLL_OUT} of ${turn.changed.join(', ')}${awaited === '' ? '' : `:${awaited.slice(1)}`}`;
  return {
    ...desired,
    state: 'draining',
    closed: ROLL_OUT,
    condition: {
      ...condition,
      reason: isWhole ? 'RollOutDraining' : condition.reason,
      said: isWhole
        ? { text: `no new GPU pods, ${what}`, at: rollOut.since }
        : { ...condition.said, text: `${text}; ${what}` },
    },
  };
}

/** The walk with what was accepted in this look. */
function memory(seen: Observed, climb: Climb, timed: Timed, isDisproven: boolean): Walk {
  const { input, boot } = seen;
  const accepted = Object.entries(climb.evidence).map(([name, evidence]): [string, Accepted] => {
    const known = seen.walk.evidence[name];
    const isProven =
      climb.proven.has(name) || (known?.proven === true && known.boot === boot && isAsKnown(evidence, known));
    return [name, { ...evidence, boot, ...(isProven ? { proven: true } : {}) }];
  });
  const { failure } = timed;
  const walk = withoutOld(timed.walk, climb.evidence);
  const isMoving = walk.rollOut?.phase === 'replace' && walk.rollOut.spare !== true;
  // A revision that takes whole nodes down must not reach the next one.
  const stopping = isMoving ? (failure ?? lostOnItsWay(seen, walk)) : undefined;
  const isNewest = climb.deploy.driver !== undefined && climb.deploy.driver === input.revisions.driver;
  return {
    ...walk,
    // A driver that does not compute leaves nothing proven beyond it.
    passed: isDisproven ? {} : climb.passed,
    evidence: { ...walk.evidence, ...Object.fromEntries(accepted) },
    ...(stopping !== undefined && walk.rollOut !== undefined
      ? {
          rollOut: {
            ...walk.rollOut,
            failed: { stage: stopping.stage, reason: stopping.reason, message: stopping.message },
          },
        }
      : {}),
    ...(isNewest ? { driver: driverVersion(input.policy) } : {}),
  };
}

/** Preflight refuses a second installer; one that comes later is remembered, and so reported. */
function withInstaller(seen: Observed, stop: Stop | undefined, walk: Walk): Walk {
  const { installer: _, ...rest } = walk;
  const installer = stop?.state.name === 'preflight' ? '' : secondInstaller(seen);
  return installer === '' ? rest : { ...rest, installer };
}

/** The node went out of sight while its stack was being replaced. */
const lostOnItsWay = ({ input }: Observed, walk: Walk): NonNullable<RollOut['failed']> | undefined =>
  isOutOfSight(walk, input)
    ? {
        stage: walk.stage,
        reason: 'NodeLost',
        message: `the node is not Ready since ${walk.notReady ?? ''}, in the middle of its replacement: look at its console and kubelet, and delete the Node if it does not come back`,
      }
    : undefined;
/** By which validation users' way to GPUs is proven, and what it proves. */
const VALIDATION: Readonly<Record<Allocation, string>> = {
  DevicePlugin: 'device-plugin-validation',
  DRA: 'dra-validation',
};
const ALLOCATOR_WORDS: Readonly<Record<Allocation, string>> = { DevicePlugin: 'device plugin', DRA: 'DRA driver' };

/** A DRA driver that has started again looks at its devices again. */
function withoutOld(walk: Walk, evidence: Climb['evidence']): Walk {
  const driver = evidence['dra-driver'];
  const known = walk.evidence['dra-driver'];
  if (driver === undefined || known === undefined || isAsKnown(driver, known)) return walk;
  const { leftOut: _, trial: __, ...rest } = walk;
  return rest;
}

/** All states done: the proof, and no reason to stay closed. */
function validated(seen: Observed, climb: Climb, walk: Walk, judgement: Judgement): Desired {
  const { input, proof, boot } = seen;
  const isUnchanged =
    judgement === 'stands' &&
    proof !== undefined &&
    // A node that was only closed for a while has not been validated again.
    (walk.stage === DONE || hasSameRounds(climb.passed, seen.walk.passed)) &&
    Object.entries(climb.evidence).every(([name, evidence]) => isAsKnown(evidence, proof.components[name]));
  const next: Proof = isUnchanged
    ? { ...proof, components: climb.evidence }
    : validatedAgain(seen, walk, climb, judgement);
  const { lost: _, ...rest } = walk;
  const lost = lostGpus(input.node, input.policy.spec.resources);
  const told = Object.keys(lost).length === 0 ? {} : { lost };
  return {
    state: 'validated',
    deploy: climb.deploy,
    proof: next,
    closed: undefined,
    walk: {
      ...(rest.stage === DONE && rest.rollOut?.phase !== 'replace' ? rest : ended(rest, boot, input.now)),
      ...told,
    },
    policy: input.policy.name,
    condition: {
      status: 'True',
      reason: 'Validated',
      said: {
        text: `driver and ${ALLOCATOR_WORDS[seen.allocation]} validated${next.driver === undefined ? '' : `, driver ${next.driver}`}${lostText(input)}${devicesText(walk)}${bothText(seen)}${unlistedText(input)}${labelText(seen)}${conflictText(input)}`,
        at: next.at,
      },
    },
    taint: false,
  };
}

/** Where the driver validation alone ran again, what was proven beyond it is as old as it was. */
function validatedAgain(seen: Observed, walk: Walk, { passed, evidence }: Climb, judgement: Judgement): Proof {
  const { proof, input } = seen;
  const { 'driver-validation': again, ...beyond } = passed;
  const isDriverAlone =
    judgement === 'stands' &&
    proof?.level === 'full' &&
    again !== seen.walk.passed['driver-validation'] &&
    hasSameRounds(beyond, seen.walk.passed) &&
    Object.entries(evidence).every(([name, one]) => isAsKnown(one, proof.components[name]));
  return isDriverAlone
    ? { ...proof, components: evidence, driverAt: iso(input.now) }
    : proofOf(seen, walk, evidence, 'full');
}

const hasSameRounds = (now: Walk['passed'], before: Walk['passed']): boolean =>
  Object.entries(now).every(([state, round]) => before[state] === round);

function ended(walk: Walk, boot: string, now: number): Walk {
  const { failed: _, renew: __, untimed: ___, restarted: ____, rollOut, ...rest } = walk;
  return {
    ...rest,
    ...(rollOut?.phase === 'drain' ? { rollOut } : {}),
    stage: DONE,
    since: iso(now),
    streak: 0,
    proven: boot,
  };
}

/** Some of several GPUs lost: open, and reported. */
const lostText = ({ node, policy }: WithPolicy): string => {
  const lost = Object.entries(lostGpus(node, policy.spec.resources)).map(([name, amount]) => {
    const all = amountOf(node.status?.capacity?.[name]);
    return `${all - amount} of ${all} ${name} allocatable`;
  });
  return lost.length === 0 ? '' : `; ${lost.join(', ')}: see the device plugin's log for what became of the others`;
};

/** Served in both ways since it was validated: running pods hold it open. */
const bothText = (seen: Observed): string => {
  const other = offeredOtherwise(seen);
  return other === undefined
    ? ''
    : `; ${other} on this node as well, so that two pods may be given one GPU: remove it, or set allocation in the GPUPolicy`;
};

/** GPUs that nothing gates, because the policy does not list their resource. */
const unlistedText = ({ node, policy }: WithPolicy): string => {
  const names = offeredBeside(node, policy.spec.resources).filter(isUsualGpu);
  return names.length === 0
    ? ''
    : `; ${names.join(', ')} of this node is not gated, because the GPUPolicy does not list it: add ${entriesFor(names).join(', ')} to its spec.resources, and to the chart's policy.spec.resources`;
};

/** The kubelet's words, until a validation has passed after them. */
const rejectedText = ({ proof }: Observed, { rejected }: Walk): string =>
  rejected === undefined || proof === undefined || Date.parse(rejected.at) <= Date.parse(proof.at)
    ? ''
    : `; the kubelet has rejected ${rejected.count} GPU pods: ${rejected.words}`;

/** Discovery is not evidence, so that the loss of its label is only reported. */
const labelText = ({ walk, input }: Observed): string =>
  walk.labelGone !== undefined && input.now - Date.parse(walk.labelGone) >= input.policy.spec.labelHold
    ? '; Node Feature Discovery no longer reports an NVIDIA device on this node'
    : '';

const conflictText = ({ conflicts, policy }: WithPolicy): string =>
  conflicts.length === 0
    ? ''
    : `; also selected by ${conflicts.join(', ')}, which the older policy ${policy.name} keeps off`;

function proofOf(
  seen: Observed,
  walk: Walk,
  components: Readonly<Record<string, ComponentEvidence>>,
  level: Level,
): Proof {
  const { input, boot, proof } = seen;
  const labels = input.node.metadata.labels ?? {};
  // What we installed we know; NFD's label may be of the previous driver.
  const driver =
    (isManagedHere(seen, 'driver') ? walk.driver : undefined) ?? labels['nvidia.com/cuda.driver-version.full'];
  const cuda = labels['nvidia.com/cuda.runtime-version.full'] ?? (proof?.driver === driver ? proof?.cuda : undefined);
  return {
    node: input.node.metadata.uid,
    boot,
    at: iso(input.now),
    level,
    ...(driver === undefined ? {} : { driver }),
    ...(cuda === undefined ? {} : { cuda }),
    components,
  };
}

/** A state is not done: walking, failed, or serving but closed. */
function underway(
  seen: Observed,
  climb: Climb,
  stop: Stop,
  walk: Walk,
  timed: Timed,
  judgement: Judgement,
  keep: Keep | undefined,
): Desired {
  const { input, boot } = seen;
  const isKept = judgement === 'closed' || (judgement === 'withdrawn' && keep !== undefined);
  // With no reboot since, a driver that computes again is all that pods already there need.
  const isRestored = judgement === 'unproven' && walk.proven === boot && climb.upholds;
  const standing = isKept ? seen.proof : isRestored ? proofOf(seen, walk, climb.evidence, 'driver') : undefined;
  const name = stop.state.name;
  const { failure } = timed;
  const reason = failure === undefined ? camel(name) : `${camel(name)}Failed${failure.reason}`;
  const what = `${name}: ${timed.message}${rejectedText(seen, walk)}${devicesText(walk)}`;
  const command = retryCommand(input.node);
  const isHealthy = stop.finding.kind === 'waiting' && stop.finding.healthy === true;
  const isHeld = judgement === 'withdrawn' && keep === BREAKER;
  const again = isHeld
    ? { command: releaseCommand(input.policy.name) }
    : failure === undefined
      ? isHealthy
        ? { command }
        : {}
      : { retryAt: failure.retryAt, command };
  const shared = { deploy: climb.deploy, walk, policy: input.policy.name };
  if (standing !== undefined) {
    const held = isHeld ? HELD : '';
    const said: Said = { text: `no new GPU pods, ${what}${held}`, at: walk.since, ...again };
    return {
      ...shared,
      state: 'validated',
      proof: standing,
      closed: isRestored
        ? `awaiting ${VALIDATION[seen.allocation]}`
        : judgement === 'withdrawn'
          ? keep
          : `awaiting ${name}`,
      condition: { status: 'True', reason: failure === undefined ? 'Closed' : reason, said },
      taint: false,
    };
  }
  const said: Said = { text: what + conflictText(input), ...(failure === undefined ? { at: walk.since } : again) };
  return {
    ...shared,
    state: failure === undefined ? name : 'failed',
    proof: undefined,
    closed: undefined,
    condition: { status: 'False', reason, said },
    taint:
      input.policy.spec.startupTaint === 'BringUp' &&
      walk.proven !== boot &&
      (name !== 'preflight' || walk.proven !== undefined || hasOurTaint(input.node)),
  };
}
