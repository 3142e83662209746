// Sends actions, one attempt at a time while this replica leads, and says whether the object was as
// the action expected it.
import { isAlreadyExists, isConflict, isNotFound, KubeError, type Kube } from '../platform/kube.ts';
import type { Action, EventAction } from './actions.ts';
import type { ReconcilerMetrics } from './metrics.ts';
import { hasForeignFields, type ManagedFields, type Taint } from './model.ts';
import { repeatOf, requestOf, targetOf, type Request } from './requests.ts';

/** `stale`: the object is not what the action was planned for; look again. */
export type Outcome =
  | {
      readonly kind: 'done';
      readonly resourceVersion?: string | undefined;
      readonly generation?: number | undefined;
      readonly taints?: readonly Taint[] | undefined;
      /** A DaemonSet: another manager has fields in its spec. */
      readonly foreign?: boolean;
      /** An Event that was there already. */
      readonly known?: boolean;
    }
  | { readonly kind: 'stale' }
  /** The API server does not take the object, and will not take the same again. */
  | { readonly kind: 'refused'; readonly because: string };

export interface Applier {
  /** `at`: resourceVersion that a Node must still have. */
  apply(action: Action, at?: string): Promise<Outcome>;
}

interface Written {
  readonly metadata?: {
    readonly resourceVersion?: string;
    readonly generation?: number;
    readonly managedFields?: readonly ManagedFields[];
  };
  readonly spec?: { readonly taints?: readonly Taint[] };
  readonly count?: number;
}

export class NotLeading extends Error {}

export interface ApplierDeps {
  readonly kube: Kube;
  readonly metrics: ReconcilerMetrics;
  readonly leads: () => boolean;
  readonly now: () => number;
  readonly instance: string;
  /** Status of the condition that the action writes, as the caches have it. */
  readonly standing: (action: Action) => string | undefined;
}

export function applier({ kube, metrics, leads, now, instance, standing }: ApplierDeps): Applier {
  /**
   * Also before each retry of a request that the server put off: an old leader must not write late.
   */
  const beforeAttempt = (action: Action) => (): void => {
    if (!leads()) throw new NotLeading(`not leading any more: ${action.kind} is left to the next leader`);
  };
  const send = (action: Action, { method, path, ...rest }: Request): Promise<Written> =>
    kube.request<Written>(method, path, { ...rest, beforeAttempt: beforeAttempt(action) });

  const perform = async (action: Action, at: string | undefined): Promise<Outcome> => {
    const request = requestOf(action, { now: now(), instance, at, standing: standing(action) });
    if (action.kind === 'event') return report(action, request);
    const { metadata, spec } = await send(action, request);
    return {
      kind: 'done',
      resourceVersion: metadata?.resourceVersion,
      generation: metadata?.generation,
      taints: spec?.taints,
      foreign: action.kind === 'apply-daemonset' && hasForeignFields(metadata?.managedFields),
    };
  };
  const report = async (action: EventAction, first: Request): Promise<Outcome> => {
    try {
      await send(action, first);
      return { kind: 'done' };
    } catch (error) {
      if (isNotFound(error)) return { kind: 'done' };
      if (!isAlreadyExists(error)) throw error;
      if (action.once === true) return { kind: 'done', known: true };
      const again = repeatOf(first, now());
      const { count = 1 } = await send(action, again.seen);
      await send(action, again.counted(count));
      return { kind: 'done', known: true };
    }
  };
  return {
    async apply(action, at) {
      try {
        const outcome = await perform(action, at);
        metrics.writes.inc({ kind: action.kind, result: 'ok' });
        return outcome;
      } catch (error) {
        if (error instanceof NotLeading) throw error;
        // The object is gone, or changed, or is there already: not an error but news that the watch
        // brings too.
        const stale = isConflict(error) || isNotFound(error) || isAlreadyExists(error);
        metrics.writes.inc({ kind: action.kind, result: stale ? 'stale' : 'error' });
        if (stale) return { kind: 'stale' };
        const because =
          action.kind === 'evict-pod'
            ? heldBack(error)
            : ['create-pod', 'apply-daemonset', 'create-claim-template'].includes(action.kind)
              ? refusalOf(error)
              : undefined;
        if (because !== undefined) return { kind: 'refused', because };
        throw new Error(`${action.kind} ${targetOf(action)}`, { cause: error });
      }
    },
  };
}

/**
 * An eviction is refused while a disruption budget holds it back, where two budgets select the pod
 * (500), or without the right to it.
 */
const heldBack = (error: unknown): string | undefined =>
  error instanceof KubeError && (error.status === 429 || /PodDisruptionBudget/.test(error.sentence))
    ? error.sentence
    : refusalOf(error);

/**
 * The API server's own sentence where it will not have the object; `undefined` where trying again
 * may help.
 */
export function refusalOf(error: unknown): string | undefined {
  if (!(error instanceof KubeError)) return undefined;
  const { sentence } = error;
  // Server-side apply answers 500 for a field that the schema does not have, or a value that it
  // cannot be.
  const isRefused =
    [400, 403, 422].includes(error.status) ||
    (error.status === 500 && /^failed to (create typed patch|convert new) object/.test(sentence));
  return isRefused ? sentence : undefined;
}
