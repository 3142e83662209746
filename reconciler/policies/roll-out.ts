// How far the roll-out of a policy is: the figures of its nodes, and the condition RollingOut.
// Pure.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { APPROVE, RETRY } from '../../core/keys.ts';
import type { Fleet } from '../fleet.ts';
import { canaryOf, timeIn, windowAt, type CanaryState, type WindowState } from '../roll-out-gate.ts';

/** A node that failed on the new stack, and why. */
export interface Stopping {
  readonly node: string;
  readonly stage: string;
  readonly reason: string;
  readonly message: string;
}

/** What is known beside the fleet's figures. */
export interface RollOutFacts {
  /** What the policy says, as `stackIdOf` and `modesOf` give it. */
  readonly stackId: string;
  readonly modes: string;
  readonly stopping: readonly Stopping[];
  readonly now: number;
}

/** May nodes begin? */
export interface RollOutGate {
  readonly window: WindowState;
  readonly canary: CanaryState;
}

export const rollOutGate = (
  policy: GpuPolicy,
  nodes: Pick<Fleet, 'count'>,
  { stackId, now }: Pick<RollOutFacts, 'stackId' | 'now'>,
): RollOutGate => ({
  window: windowAt(policy.spec.upgrade.window, now),
  canary: canaryOf(
    policy,
    stackId,
    {
      validated: nodes.count('validated on', policy.name, stackId),
      settled: nodes.count('settled', policy.name),
    },
    now,
  ),
});

export interface RollOutFigures {
  /** Nodes that were validated once. */
  readonly settled: number;
  readonly upToDate: number;
  /** Closed for it, or being moved because they had failed. */
  readonly rolling: number;
  readonly leftOut: number;
  readonly waiting: number;
  /** Validated with components that others install, or that the policy leaves to others since. */
  readonly kept: number;
}

export function rollOutFigures(
  policy: string,
  nodes: Pick<Fleet, 'count'>,
  { stackId, modes }: Pick<RollOutFacts, 'stackId' | 'modes'>,
): RollOutFigures {
  const settled = nodes.count('settled', policy);
  const upToDate = nodes.count('stack', policy, stackId);
  const rolling = nodes.count('rolling', policy);
  const leftOut = nodes.count('left out', policy);
  // A node that has drained and taken nothing yet may run what the policy says again.
  const kept = settled - nodes.count('installed', policy, modes);
  const waiting = Math.max(0, settled - upToDate - rolling - leftOut - kept);
  return { settled, upToDate, rolling, leftOut, waiting, kept };
}

export interface Progress {
  readonly isRolling: boolean;
  readonly reason:
    | 'UpToDate'
    | 'Progressing'
    | 'Paused'
    | 'Stopped'
    | 'NodesLeftOut'
    | 'WindowUnreadable'
    | 'WaitingForWindow'
    | 'Canary'
    | 'CanaryWaits'
    | 'CanaryAwaitsApproval';
  readonly message: string;
}

/** How many nodes a message names. */
const NAMED = 3;

export function rollOutProgress(
  policy: GpuPolicy,
  nodes: Pick<Fleet, 'count' | 'names'>,
  { stopping, ...facts }: RollOutFacts,
  gate: RollOutGate = rollOutGate(policy, nodes, facts),
): Progress {
  const { settled, upToDate, rolling, leftOut, waiting, kept } = rollOutFigures(policy.name, nodes, facts);
  const all = `${upToDate} of ${settled} validated nodes run what the policy says${kept === 0 ? '' : `, ${kept} keep who installs what (mode, allocation) until they are opted out and in again`}`;
  if (rolling + leftOut + waiting === 0) return { isRolling: false, reason: 'UpToDate', message: all };
  const now = [
    ...(rolling === 0 ? [] : [`${rolling} in their turn`]),
    ...(waiting === 0 ? [] : [`${waiting} waiting for theirs`]),
    ...(leftOut === 0 ? [] : [leftOutText(nodes.names('left out', policy.name), leftOut)]),
  ].join(', ');
  const progress = `${all}; ${now}`;
  const [first] = stopping;
  if (first !== undefined) {
    const more = stopping.length > 1 ? ` and ${stopping.length - 1} more` : '';
    return {
      isRolling: true,
      reason: 'Stopped',
      message: `stopped: node ${first.node}${more} failed on the new revision: ${first.stage}: ${first.message}; ${progress}; edit the policy back to roll back, or try the node again: kubectl annotate node ${first.node} --overwrite ${RETRY}=$(date +%s)`,
    };
  }
  if (policy.spec.upgrade.paused && waiting > 0)
    return {
      isRolling: true,
      reason: 'Paused',
      message: `spec.upgrade.paused is true: no further node closes; ${progress}`,
    };
  const wait = waiting === 0 ? undefined : waitOf(policy, facts.stackId, gate);
  if (wait !== undefined) return { isRolling: true, ...wait, message: `${wait.message}; ${progress}` };
  const isOver = rolling + waiting === 0;
  return { isRolling: true, reason: isOver ? 'NodesLeftOut' : 'Progressing', message: progress };
}

/** What the nodes that have not begun wait for, apart from their turn. */
function waitOf(
  { name, spec }: GpuPolicy,
  stackId: string,
  { window, canary }: RollOutGate,
): Pick<Progress, 'reason' | 'message'> | undefined {
  if (window.kind === 'unreadable')
    return { reason: 'WindowUnreadable', message: `no node closes, because ${window.because}` };
  if (window.kind === 'shut')
    return {
      reason: 'WaitingForWindow',
      message:
        window.opensAt === undefined
          ? 'waiting for a window that never opens, because no day meets spec.upgrade.window.schedule'
          : `waiting for the window that opens at ${timeIn(spec.upgrade.window?.timeZone ?? 'UTC', window.opensAt)}`,
    };
  if (canary.kind === 'over') return undefined;
  const approve = `kubectl annotate gpupolicy ${name} --overwrite ${APPROVE}=${stackId}`;
  if (canary.kind === 'moving')
    return { reason: 'Canary', message: `canary: ${canary.validated} of ${canary.first} nodes validated` };
  const done = `canary: ${canary.first} of ${canary.first} nodes validated`;
  return canary.until === undefined
    ? { reason: 'CanaryAwaitsApproval', message: `${done}, waits for approval: ${approve}` }
    : {
        reason: 'CanaryWaits',
        message: `${done}, the others wait until ${new Date(canary.until).toISOString()} or for approval: ${approve}`,
      };
}

function leftOutText(names: Iterable<string>, count: number): string {
  const named: string[] = [];
  for (const name of names) {
    if (named.length === NAMED) break;
    named.push(name);
  }
  const which = `${named.join(', ')}${count > NAMED ? ', …' : ''}`;
  return `${count} left out because pods did not end in time (${which}): kubectl annotate node ${named[0] ?? 'NODE'} --overwrite ${RETRY}=$(date +%s)`;
}
