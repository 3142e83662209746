// Users' pods leave a node before its stack changes: who is waited for, who is evicted, and until
// when. A roll-out, an opt-out and the deletion of a policy ask it.
import type { DrainSpec } from '../../core/gpu-policy.ts';
import { keyOf, type PodObject } from '../model.ts';
import type { PodAction } from './states/state.ts';

/** What became of the last try to evict a pod. */
export interface Eviction {
  /** ms since the epoch */
  readonly at: number;
  /** The API server's words; `undefined` if it took the eviction. */
  readonly refused?: string;
}

export interface DrainInput {
  readonly users: readonly PodObject[];
  readonly spec: DrainSpec;
  /** Since when the node takes no new pods, ms since the epoch. */
  readonly since: number;
  readonly now: number;
  /** The driver goes. Otherwise pods that run may stay. */
  readonly isDriverTouched: boolean;
  /** Namespaces whose pods are left alone. */
  readonly optedOut: ReadonlySet<string>;
  /** By UID of the pod. */
  readonly evictions: ReadonlyMap<string, Eviction>;
}

export interface Drain {
  /** Pods that are waited for. */
  readonly awaited: readonly PodObject[];
  /** The time is over, and pods are still there. */
  readonly isExpired: boolean;
  readonly evict: readonly PodObject[];
  /** When to look again though nothing changes, ms since the epoch. */
  readonly wakeAt: number | undefined;
  /** `waiting for 2 GPU pods to end (team/a, team/b)`. */
  readonly text: string;
}

/** How long an eviction that was refused, or that nothing was heard of, is left alone, ms. */
export const EVICT_AGAIN_MS = 5000;
/** How many pods a sentence names. */
const NAMED = 3;

/**
 * Opted-out pods, and pods that a kubelet runs from a file, are waited for whatever the policy
 * says.
 */
const isSpared = (pod: PodObject, optedOut: ReadonlySet<string>): boolean =>
  pod.wants.read.wishes.optedOut || optedOut.has(pod.namespace) || pod.controller?.kind === 'Node';

export function drainOf({ users, spec, since, now, isDriverTouched, optedOut, evictions }: DrainInput): Drain {
  if (users.length === 0 || (spec.mode === 'None' && !isDriverTouched))
    return { awaited: [], isExpired: false, evict: [], wakeAt: undefined, text: '' };
  const evictable = spec.mode === 'Evict' ? users.filter((pod) => !isSpared(pod, optedOut)) : [];
  const standing = evictable.filter((pod) => !pod.deleting);
  const dueAt = (pod: PodObject): number => {
    const last = evictions.get(pod.uid);
    return last === undefined ? now : last.at + EVICT_AGAIN_MS;
  };
  const end = spec.timeout > 0 ? since + spec.timeout : Infinity;
  const isExpired = now >= end;
  const next = Math.min(...[end, ...standing.map(dueAt)].filter((at) => at > now));
  return {
    awaited: users,
    isExpired,
    evict: isExpired ? [] : standing.filter((pod) => dueAt(pod) <= now),
    wakeAt: Number.isFinite(next) ? next : undefined,
    text: textOf(users, evictable, evictions),
  };
}

function textOf(
  users: readonly PodObject[],
  evictable: readonly PodObject[],
  evictions: ReadonlyMap<string, Eviction>,
): string {
  const spared = users.filter((pod) => !evictable.includes(pod));
  const refusals = evictable.flatMap((pod) => {
    const words = pod.deleting ? undefined : evictions.get(pod.uid)?.refused;
    return words === undefined ? [] : [`the API server refuses to evict ${keyOf(pod)}: ${words}`];
  });
  return [
    ...(evictable.length === 0 ? [] : [`evicting ${counted(evictable)} (${listed(evictable)})`]),
    ...(spared.length === 0
      ? []
      : [
          `waiting for ${counted(spared)} to end${evictable.length === 0 ? '' : ', never evicted'} (${listed(spared)})`,
        ]),
    ...refusals.slice(0, 1),
  ].join('; ');
}

export const counted = (pods: readonly PodObject[]): string => `${pods.length} GPU pod${pods.length === 1 ? '' : 's'}`;
/** `team/a, team/b, …`. */
export const listed = (pods: readonly PodObject[]): string =>
  `${pods.slice(0, NAMED).map(keyOf).join(', ')}${pods.length > NAMED ? ', …' : ''}`;

export const evictionsOf = (drain: Drain | undefined, because: string): readonly PodAction[] =>
  (drain?.evict ?? []).map(({ namespace, name, uid }) => ({ kind: 'evict-pod', namespace, name, uid, because }));
