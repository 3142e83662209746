// The clock of a stage: its timeout, its failure, its backoff, and what ends a failure early. Pure; the time is an argument.
import { TIMEOUT_KEY } from '../../core/components.ts';
import { RETRY } from '../../core/keys.ts';
import type { Stage } from '../../core/stages.ts';
import { digest, hasPciLabel, operandPod } from './findings.ts';
import type { Walk } from '../walk.ts';
import { gpuUsers, iso, type Pass, type Stop } from './pass.ts';

/** Inputs of a stage: a change of them ends a failure at once. */
const inputsOf = (pass: Pass, stage: Stage): string => {
  const { input } = pass;
  return digest(
    stage,
    pass.boot,
    hasPciLabel(input.node),
    input.policy.name,
    input.revisions,
    input.policy.spec.validation,
    input.policy.spec.injection,
    input.policy.spec.resources,
  );
};

/** Is it time to try the failed stage again? */
function retryDue(pass: Pass, stage: Stage): 'operator' | 'inputs' | 'backoff' | undefined {
  const { walk, input } = pass;
  if (walk.failed === undefined || walk.failed.stage !== stage) return undefined;
  if ((input.node.metadata.annotations?.[RETRY] ?? '') !== (walk.retry ?? '')) return 'operator';
  // A first walk that failed has given its place up, and needs one again to go on.
  if (!walk.once && stage !== 'preflight' && !input.slotFree) return undefined;
  if (walk.failed.inputs !== inputsOf(pass, stage)) return 'inputs';
  return input.now >= Date.parse(walk.failed.retryAt) ? 'backoff' : undefined;
}

export const isBackingOff = (pass: Pass, stage: Stage): boolean =>
  pass.walk.failed?.stage === stage && retryDue(pass, stage) === undefined;

export const attemptFor = (pass: Pass, stage: Stage): number =>
  pass.walk.attempt + (retryDue(pass, stage) === undefined ? 0 : 1);

export interface Timing {
  readonly failure: boolean;
  readonly wakeAt: number | undefined;
  readonly message: string;
}

/** What was awaited in vain where that is the failure itself, and more to the point than that time ran out. */
const TELLING: ReadonlySet<string> = new Set(['RuntimeHandlerMissing', 'Unschedulable']);

/** Moves the walk's clock on: a new stage starts it, a failure or a timeout sets the time of the next try. */
export function clockOf(pass: Pass, stop: Stop): Timing {
  const { input } = pass;
  const { now, node } = input;
  const retry = node.metadata.annotations?.[RETRY];
  if (pass.walk.stage !== stop.stage) {
    const { failed: _, untimed: __, ...rest } = pass.walk;
    pass.walk = { ...rest, stage: stop.stage, since: iso(now), streak: 0 };
  }
  const untimed = stop.finding.kind === 'waiting' && stop.finding.untimed === true;
  if (untimed) pass.walk = { ...pass.walk, untimed: true };
  else if (pass.walk.untimed === true) {
    const { untimed: _, ...rest } = pass.walk;
    pass.walk = { ...rest, since: iso(now) };
  }
  const due = retryDue(pass, stop.stage);
  const before = pass.walk.failed;
  if (due !== undefined) {
    const { failed: _, ...rest } = pass.walk;
    pass.walk = {
      ...rest,
      since: iso(now),
      attempt: rest.attempt + 1,
      streak: due === 'backoff' ? rest.streak + 1 : 0,
      ...(retry === undefined ? {} : { retry }),
      // Somebody means to mend it: with no GPU pod in the way the newest revisions are it.
      ...(due === 'backoff' || gpuUsers(input).length > 0 ? {} : { renew: true as const }),
    };
    if (stop.stage !== 'preflight' || stop.finding.kind !== 'failed') {
      if (due === 'operator' || mayDiscard(pass, stop, before)) discardFailedPod(pass, stop.stage);
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
      TELLING.has(stop.finding.reason) ? stop.finding.reason : 'TimedOut',
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
  return from + pass.input.policy.spec.validation.timeouts[TIMEOUT_KEY[stop.stage]];
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

/**
 * An operand that is failing still, or hung until its time was over, may be started afresh; one that is on its feet again, or that pods
 * with GPUs rest upon, is left to the kubelet: a new driver's pod would have to unload a module that is in use.
 */
const mayDiscard = (pass: Pass, stop: Stop, before: Walk['failed']): boolean =>
  (stop.finding.kind === 'failed' || before?.reason === 'TimedOut') &&
  pass.proof === undefined &&
  gpuUsers(pass.input).length === 0;

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
