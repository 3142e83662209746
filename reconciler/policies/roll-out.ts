// How far the roll-out of a policy is: the figures of its nodes, and the condition RollingOut.
// Pure.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { RETRY } from '../../core/keys.ts';
import type { Fleet } from '../fleet.ts';

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
}

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
  readonly reason: 'UpToDate' | 'Progressing' | 'Paused' | 'Stopped' | 'NodesLeftOut';
  readonly message: string;
}

/** How many nodes a message names. */
const NAMED = 3;

export function rollOutProgress(
  policy: GpuPolicy,
  nodes: Pick<Fleet, 'count' | 'names'>,
  { stopping, ...facts }: RollOutFacts,
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
  const isOver = rolling + waiting === 0;
  return { isRolling: true, reason: isOver ? 'NodesLeftOut' : 'Progressing', message: progress };
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
