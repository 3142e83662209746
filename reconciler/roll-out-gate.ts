// May nodes close for a roll-out now, and how many: the maintenance window and the canary of their
// policy. Pure.
import { Cron } from 'croner';
import type { GpuPolicy, RollOutStatus, WindowSpec } from '../core/gpu-policy.ts';
import { APPROVE } from '../core/keys.ts';

export type WindowState =
  /** `until`: ms since the epoch; `undefined` if the policy has no window. */
  | { readonly kind: 'open'; readonly until: number | undefined }
  /** `opensAt`: ms since the epoch; `undefined` if no day meets the schedule. */
  | { readonly kind: 'shut'; readonly opensAt: number | undefined }
  | { readonly kind: 'unreadable'; readonly because: string };

const ALWAYS: WindowState = { kind: 'open', until: undefined };

/** Cron counts in seconds. */
const SECOND_MS = 1000;

export function windowAt(window: WindowSpec | undefined, now: number): WindowState {
  if (window === undefined) return ALWAYS;
  const { schedule, timeZone, duration } = window;
  if (!isTimeZone(timeZone))
    return {
      kind: 'unreadable',
      because: `spec.upgrade.window.timeZone ${JSON.stringify(timeZone)} is not a time zone: write an IANA name, such as UTC or Europe/Berlin`,
    };
  let cron: Cron;
  try {
    cron = new Cron(schedule, { timezone: timeZone, mode: '5-part', paused: true });
  } catch (error) {
    const why = (error as Error).message.replace(/^CronPattern: /, '');
    return {
      kind: 'unreadable',
      because: `spec.upgrade.window.schedule ${JSON.stringify(schedule)} is not a cron schedule of five fields (${why})`,
    };
  }
  // A window that opens in this second is open.
  const [opened] = cron.previousRuns(1, new Date(Math.floor(now / SECOND_MS) * SECOND_MS + SECOND_MS));
  const until = opened === undefined ? now : opened.getTime() + duration;
  if (until > now) return { kind: 'open', until };
  return { kind: 'shut', opensAt: cron.nextRun(new Date(now))?.getTime() };
}

function isTimeZone(name: string): boolean {
  try {
    return name !== '' && new Intl.DateTimeFormat('en', { timeZone: name }).format(0) !== '';
  } catch {
    return false;
  }
}

/** When the window changes by itself, ms since the epoch. */
export const changesAt = (state: WindowState): number | undefined =>
  state.kind === 'open' ? state.until : state.kind === 'shut' ? state.opensAt : undefined;

/** The time as people of that zone write it: `2026-11-29 02:00 Europe/Berlin`. */
export function timeIn(timeZone: string, at: number): string {
  const format = new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'short' });
  return `${format.format(at)} ${timeZone}`;
}

/** Nodes of the policy, counted. */
export interface OnStack {
  /** Are validated now, on the stack that the policy says. */
  readonly validated: number;
  /** Were validated once, on whatever stack. */
  readonly settled: number;
}

export type CanaryState =
  | { readonly kind: 'over' }
  /** Nodes are still to be validated on the stack. */
  | { readonly kind: 'moving'; readonly first: number; readonly validated: number }
  /** `until`: ms since the epoch; `undefined` if a person is awaited. */
  | { readonly kind: 'waiting'; readonly first: number; readonly since: number; readonly until: number | undefined };

/** May any node take the stack, whatever is counted now? */
export const isPassed = ({ spec, status, annotations }: GpuPolicy, stackId: string): boolean =>
  spec.upgrade.canary.first === 0 ||
  annotations[APPROVE] === stackId ||
  status.rollOut?.ran?.includes(stackId) === true ||
  (status.rollOut?.canary?.stack === stackId && status.rollOut.canary.passed === true);

export function canaryOf(policy: GpuPolicy, stackId: string, counted: OnStack, now: number): CanaryState {
  if (isPassed(policy, stackId)) return { kind: 'over' };
  const { canary } = policy.spec.upgrade;
  const first = Math.min(canary.first, counted.settled);
  if (counted.validated < first) return { kind: 'moving', first, validated: counted.validated };
  const known = policy.status.rollOut?.canary;
  const since = known?.stack === stackId ? Math.min(now, Date.parse(known.since) || now) : now;
  if (canary.wait === 0) return { kind: 'waiting', first, since, until: undefined };
  const until = since + canary.wait;
  return now >= until ? { kind: 'over' } : { kind: 'waiting', first, since, until };
}

/** How many nodes may be in their turn while `share` is what `maxUnavailable` allows. */
export const mostInTurn = (policy: GpuPolicy, stackId: string, onIt: number, share: number): number =>
  isPassed(policy, stackId) ? share : Math.min(share, Math.max(0, policy.spec.upgrade.canary.first - onIt));

/** How many stacks that all nodes ran are remembered. */
const REMEMBERED = 5;

/** What the policy's status remembers of its roll-outs. `isDone`: all nodes run the stack. */
export function rollOutMemory(
  policy: GpuPolicy,
  stackId: string,
  canary: CanaryState,
  isDone: boolean,
): RollOutStatus | undefined {
  const { ran = [], canary: known } = policy.status.rollOut ?? {};
  const all = isDone && ran.at(-1) !== stackId ? [...ran.filter((one) => one !== stackId), stackId] : ran;
  const since = known?.stack === stackId ? known.since : undefined;
  const waits =
    canary.kind === 'waiting'
      ? { stack: stackId, since: new Date(canary.since).toISOString() }
      : canary.kind === 'over' && since !== undefined && !all.includes(stackId)
        ? { stack: stackId, since, passed: true as const }
        : undefined;
  if (all.length === 0 && waits === undefined) return undefined;
  return { ran: all.slice(-REMEMBERED), ...(waits === undefined ? {} : { canary: waits }) };
}
