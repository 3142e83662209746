// Carries out actions: one switch, no decisions. Every write asks first whether we still lead.
import { digestOf } from '../core/digest.ts';
import { FIELD_MANAGER, POLICIES_PATH } from '../core/keys.ts';
import {
  APPLY,
  isAlreadyExists,
  isConflict,
  isNotFound,
  MERGE_PATCH,
  STRATEGIC_PATCH,
  type Kube,
} from '../platform/kube.ts';
import type { Action, Condition } from './actions.ts';
import type { ReconcilerMetrics } from './metrics.ts';
import type { Taint } from './model.ts';
import { hasForeignFields, type ManagedFields } from './operands/wanted.ts';

const JSON_PATCH = 'application/json-patch+json';

/** `stale`: the object is not what the action was planned for; look again. */
export type Outcome =
  | {
      readonly kind: 'done';
      readonly resourceVersion?: string;
      readonly generation?: number;
      readonly taints?: readonly Taint[];
      /** A DaemonSet: somebody else has fields in its spec. */
      readonly foreign?: boolean;
      /** An Event: the same was there already. */
      readonly known?: boolean;
    }
  | { readonly kind: 'stale' };

export interface Applier {
  apply(action: Action): Promise<Outcome>;
}

interface Written {
  readonly metadata?: {
    readonly resourceVersion?: string;
    readonly generation?: number;
    readonly managedFields?: readonly ManagedFields[];
  };
  readonly spec?: { readonly taints?: readonly Taint[] };
}

export class NotLeading extends Error {}

/** A pod has a namespace, a node none. */
export interface ConditionOwner {
  readonly namespace?: string;
  readonly name: string;
}

export function applier(deps: {
  readonly kube: Kube;
  readonly metrics: ReconcilerMetrics;
  readonly leads: () => boolean;
  readonly now: () => number;
  readonly instance: string;
  /** Status of a Node's or Pod's condition as the caches have it: a time of transition is written only where it changes. */
  readonly conditionNow: (object: ConditionOwner, type: string) => string | undefined;
}): Applier {
  const { kube } = deps;
  const written = (object: Written): Extract<Outcome, { kind: 'done' }> => ({
    kind: 'done',
    ...(object.metadata?.resourceVersion === undefined ? {} : { resourceVersion: object.metadata.resourceVersion }),
    ...(object.spec?.taints === undefined ? {} : { taints: object.spec.taints }),
    ...(object.metadata?.generation === undefined ? {} : { generation: object.metadata.generation }),
  });
  const writtenDaemonSet = (object: Written): Outcome => ({
    ...written(object),
    foreign: hasForeignFields(object.metadata?.managedFields),
  });
  /** A merge by type keeps what is not named: the time of the last transition stays where the status does. */
  const dated = (owner: ConditionOwner, condition: Condition): object =>
    deps.conditionNow(owner, condition.type) === condition.status
      ? condition
      : { ...condition, lastTransitionTime: seconds(deps.now()) };
  const perform = async (action: Action): Promise<Outcome> => {
    switch (action.kind) {
      case 'patch-node':
        return written(
          await kube.request<Written>('PATCH', `/api/v1/nodes/${action.node}`, {
            contentType: MERGE_PATCH,
            body: { metadata: { uid: action.uid, labels: action.labels, annotations: action.annotations } },
          }),
        );
      case 'set-taints':
        return written(
          await kube.request<Written>('PATCH', `/api/v1/nodes/${action.node}`, {
            contentType: MERGE_PATCH,
            body: {
              metadata: { uid: action.uid, resourceVersion: action.resourceVersion },
              spec: { taints: action.taints.length === 0 ? null : action.taints },
            },
          }),
        );
      case 'set-node-condition':
        return written(
          await kube.request<Written>('PATCH', `/api/v1/nodes/${action.node}/status`, {
            contentType: STRATEGIC_PATCH,
            body: {
              metadata: { uid: action.uid },
              status: {
                conditions: [
                  action.condition === undefined
                    ? { type: action.type, $patch: 'delete' }
                    : { ...dated({ name: action.node }, action.condition), lastHeartbeatTime: seconds(deps.now()) },
                ],
              },
            },
          }),
        );
      case 'set-pod-condition':
        return written(
          await kube.request<Written>('PATCH', `/api/v1/namespaces/${action.namespace}/pods/${action.name}/status`, {
            contentType: STRATEGIC_PATCH,
            body: {
              metadata: { uid: action.uid },
              status: { conditions: [dated(action, action.condition)] },
            },
          }),
        );
      case 'create-pod':
        return written(
          await kube.request<Written>('POST', `/api/v1/namespaces/${action.manifest.metadata.namespace ?? ''}/pods`, {
            body: action.manifest,
          }),
        );
      case 'delete-pod':
        return written(
          await kube.request<Written>('DELETE', `/api/v1/namespaces/${action.namespace}/pods/${action.name}`, {
            body: { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid: action.uid } },
          }),
        );
      case 'apply-daemonset':
        return writtenDaemonSet(
          await kube.request<Written>(
            'PATCH',
            `/apis/apps/v1/namespaces/${action.manifest.metadata.namespace ?? ''}/daemonsets/${action.manifest.metadata.name}`,
            action.wholeAt === undefined
              ? { contentType: APPLY, query: { fieldManager: FIELD_MANAGER, force: true }, body: action.manifest }
              : {
                  contentType: JSON_PATCH,
                  query: { fieldManager: FIELD_MANAGER },
                  body: [
                    { op: 'replace', path: '/metadata/resourceVersion', value: action.wholeAt },
                    { op: 'replace', path: '/spec', value: action.manifest['spec'] },
                  ],
                },
          ),
        );
      case 'delete-daemonset':
        await kube.request('DELETE', `/apis/apps/v1/namespaces/${action.namespace}/daemonsets/${action.name}`, {
          query: { propagationPolicy: 'Background' },
        });
        return { kind: 'done' };
      case 'policy-status':
        return written(
          await kube.request<Written>('PATCH', `${POLICIES_PATH}/${action.name}/status`, {
            contentType: MERGE_PATCH,
            body: {
              metadata: { uid: action.uid },
              // A merge patch joins maps: a count that is no more has to be taken out by name.
              status: { ...action.status, nodes: { ...nulls(action.was.nodes), ...action.status.nodes } },
            },
          }),
        );
      case 'policy-finalizers':
        return written(
          await kube.request<Written>('PATCH', `${POLICIES_PATH}/${action.name}`, {
            contentType: MERGE_PATCH,
            body: {
              metadata: { uid: action.uid, finalizers: action.finalizers.length === 0 ? null : action.finalizers },
            },
          }),
        );
      case 'event':
        return record(action);
    }
  };
  /** Events of the same text on the same object are one, by name: a restart of ours does not tell everything again. */
  const record = async (action: Extract<Action, { kind: 'event' }>): Promise<Outcome> => {
    const { about } = action;
    const namespace = about.namespace ?? 'default';
    const hash = digestOf([about.uid, action.reason, ...(action.once === true ? [] : [action.message])].join('\n'), 16);
    const name = `${about.name.slice(0, 200)}.${hash}`;
    const at = seconds(deps.now());
    const path = `/api/v1/namespaces/${namespace}/events`;
    const event = {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name, namespace },
      involvedObject: {
        apiVersion: about.kind === 'GPUPolicy' ? 'gpu-gate.dev/v1alpha1' : 'v1',
        kind: about.kind,
        name: about.name,
        uid: about.uid,
        ...(about.namespace === undefined ? {} : { namespace: about.namespace }),
      },
      type: action.type,
      reason: action.reason,
      message: action.message.slice(0, 1024),
      source: { component: 'gpu-gate' },
      reportingComponent: 'gpu-gate',
      reportingInstance: deps.instance,
      firstTimestamp: at,
      lastTimestamp: at,
      count: 1,
    };
    try {
      return written(await kube.request<Written>('POST', path, { body: event }));
    } catch (error) {
      if (isNotFound(error)) return { kind: 'done' };
      if (!isAlreadyExists(error)) throw error;
      if (action.once === true) return { kind: 'done', known: true };
      const again = { contentType: MERGE_PATCH, body: { lastTimestamp: at } };
      const { count = 1 } = await kube.request<{ count?: number }>('PATCH', `${path}/${name}`, again);
      await kube.request('PATCH', `${path}/${name}`, { ...again, body: { count: count + 1 } });
      return { kind: 'done', known: true };
    }
  };
  return {
    async apply(action) {
      if (!deps.leads()) throw new NotLeading(`not leading any more: ${action.kind} left to the next leader`);
      try {
        const outcome = await perform(action);
        deps.metrics.writes.inc({ kind: action.kind, result: 'ok' });
        return outcome;
      } catch (error) {
        // The object went, or changed, or was there already: not an error but news that the watch brings too.
        const stale = isConflict(error) || isNotFound(error) || isAlreadyExists(error);
        deps.metrics.writes.inc({ kind: action.kind, result: stale ? 'stale' : 'error' });
        if (stale) return { kind: 'stale' };
        throw new Error(`${action.kind} ${targetOf(action)}`, { cause: error });
      }
    },
  };
}

const seconds = (now: number): string => new Date(now).toISOString().replace(/\.\d+Z$/, 'Z');

const nulls = (counts: Readonly<Record<string, number>> = {}): Record<string, null> =>
  Object.fromEntries(Object.keys(counts).map((state) => [state, null]));

const targetOf = (action: Action): string => {
  switch (action.kind) {
    case 'patch-node':
    case 'set-taints':
    case 'set-node-condition':
      return `of node ${action.node}`;
    case 'set-pod-condition':
    case 'delete-pod':
    case 'delete-daemonset':
      return `${action.namespace}/${action.name}`;
    case 'create-pod':
    case 'apply-daemonset':
      return action.manifest.metadata.name;
    case 'policy-status':
    case 'policy-finalizers':
      return action.name;
    case 'event':
      return `on ${action.about.kind} ${action.about.name}`;
  }
};
