// `kubectl gpu-gate wait`: from what is seen of a node now and before, whether the wait is over,
// and the line to print. Pure.
import { GPU_VALIDATED } from '../core/keys.ts';
import { isOurs, open, policyOf, stateOf, walkingSince, walkOf, type NodeView } from '../gate/node-proof.ts';
import type { UsualTimes } from './usual.ts';

export type Outcome = 'validated' | 'failed' | 'waiting';

export interface Progress {
  readonly node: string;
  readonly outcome: Outcome;
  /** The state, and for a closed or failed node what the condition says. */
  readonly line: string;
  /** How long the stage usually takes, ms; absent if unknown, or if the node is at none. */
  readonly usualMs?: number;
}

/** Where one node stands. `undefined`: there is no node of that name. */
export function progressOf(name: string, node: NodeView | undefined, usual: UsualTimes): Progress {
  if (node === undefined)
    return { node: name, outcome: 'failed', line: 'there is no node of that name: kubectl gpu-gate nodes lists them' };
  if (!isOurs(node))
    return {
      node: name,
      outcome: 'failed',
      line: `not opted in: kubectl label node ${name} gpu-gate.dev/managed=true`,
    };
  const answer = open(node);
  if (answer.yes) return { node: name, outcome: 'validated', line: `validated at ${answer.proof.at}` };
  const message = node.status?.conditions?.find((c) => c.type === GPU_VALIDATED)?.message ?? answer.because.sentence;
  const state = stateOf(node) ?? 'preflight';
  if (state === 'failed') return { node: name, outcome: 'failed', line: `failed, ${message}` };
  const since = walkingSince(node);
  const stage = walkOf(node)?.stage;
  const usualMs = stage === undefined || stage === 'done' ? undefined : usual[policyOf(node) ?? '']?.[stage];
  return {
    node: name,
    outcome: 'waiting',
    ...(usualMs === undefined ? {} : { usualMs }),
    line: `${state}${since === undefined ? '' : ` since ${since}`}${state === 'validated' ? ` (${answer.because.sentence})` : ''}`,
  };
}

/** Lines that differ from those printed before: one a node and change. */
export const news = (before: readonly Progress[], now: readonly Progress[]): readonly Progress[] =>
  now.filter(({ node, line }) => before.find((old) => old.node === node)?.line !== line);

/** 0: all validated. 1: one failed. `undefined`: go on waiting. */
export function exitCode(now: readonly Progress[]): 0 | 1 | undefined {
  if (now.some(({ outcome }) => outcome === 'failed')) return 1;
  return now.every(({ outcome }) => outcome === 'validated') ? 0 : undefined;
}
