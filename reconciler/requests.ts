// Action → HTTP request, as a value. Pure: the time and what the caches know of the object are
// arguments.
import { digestOf } from '../core/digest.ts';
import { FIELD_MANAGER, MANAGED_BY, PART_OF, POLICIES_PATH, PRODUCT } from '../core/keys.ts';
import type { Taint } from './model.ts';
import type { Action, Condition, CreateDeviceTaint, EventAction, Manifest } from './actions.ts';

const MERGE_PATCH = 'application/merge-patch+json';
const STRATEGIC_PATCH = 'application/strategic-merge-patch+json';
const JSON_PATCH = 'application/json-patch+json';
/** JSON is valid YAML, so server-side apply accepts it. */
const APPLY = 'application/apply-patch+yaml';

export interface Request {
  readonly method: 'POST' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly contentType?: string;
  readonly query?: Readonly<Record<string, string | boolean>>;
  readonly body?: unknown;
  /** The answer 429 is an answer, and not a word to come again. */
  readonly retries?: 0;
}

export interface Circumstances {
  /** ms since the epoch */
  readonly now: number;
  /** Name of this replica, for Events. */
  readonly instance: string;
  /**
   * Status of the condition to be written as the object has it; the time of a transition is written
   * only with another status.
   */
  readonly standing?: string | undefined;
  /** resourceVersion that a Node must still have; `undefined` where nothing was read. */
  readonly at?: string | undefined;
}

const seconds = (now: number): string => new Date(now).toISOString().replace(/\.\d+Z$/, 'Z');

const nulls = (counts: Readonly<Record<string, number>> = {}): Record<string, null> =>
  Object.fromEntries(Object.keys(counts).map((state) => [state, null]));

/** A merge patch leaves what it does not name. */
const NO_BREAKER = { trippedAt: null, release: null, releasedAt: null };

export const DEVICE_TAINT_RULES_PATH = '/apis/resource.k8s.io/v1/devicetaintrules';
const nodePath = (name: string): string => `/api/v1/nodes/${name}`;
const podPath = (namespace: string, name: string): string => `/api/v1/namespaces/${namespace}/pods/${name}`;
const claimTemplates = (namespace: string): string =>
  `/apis/resource.k8s.io/v1/namespaces/${namespace}/resourceclaimtemplates`;
const daemonSets = (namespace: string): string => `/apis/apps/v1/namespaces/${namespace}/daemonsets`;

/**
 * A merge by type keeps what is not named: the time of the last transition stays where the status
 * does.
 */
const dated = (condition: Condition, { now, standing }: Circumstances): object =>
  standing === condition.status ? condition : { ...condition, lastTransitionTime: seconds(now) };

const nodeCondition = (
  { type, condition }: { readonly type: string; readonly condition: Condition | undefined },
  circumstances: Circumstances,
): object =>
  condition === undefined
    ? { type, $patch: 'delete' }
    : { ...dated(condition, circumstances), lastHeartbeatTime: seconds(circumstances.now) };

const taintsOf = (taints: readonly Taint[]): object => ({ taints: taints.length === 0 ? null : taints });

export function requestOf(action: Action, circumstances: Circumstances): Request {
  const { at } = circumstances;
  switch (action.kind) {
    case 'patch-node': {
      const metadata = { ...guard(action.uid, at), labels: action.labels, annotations: action.annotations };
      if (action.status === undefined)
        return merge(nodePath(action.node), {
          metadata,
          ...(action.taints === undefined ? {} : { spec: taintsOf(action.taints) }),
        });
      // The subresource takes labels and annotations too, as from kubelets; only the spec is left
      // alone.
      return strategic(`${nodePath(action.node)}/status`, {
        metadata,
        status: { conditions: [nodeCondition(action.status, circumstances)] },
      });
    }
    case 'set-taints':
      return merge(nodePath(action.node), {
        metadata: guard(action.uid, at ?? action.resourceVersion),
        spec: taintsOf(action.taints),
      });
    case 'set-node-condition':
      return strategic(`${nodePath(action.node)}/status`, {
        metadata: guard(action.uid, at),
        status: { conditions: [nodeCondition(action, circumstances)] },
      });
    case 'set-pod-condition':
      return strategic(`${podPath(action.namespace, action.name)}/status`, {
        metadata: { uid: action.uid },
        status: { conditions: [dated(action.condition, circumstances)] },
      });
    case 'create-pod':
      return {
        method: 'POST',
        path: `/api/v1/namespaces/${action.manifest.metadata.namespace ?? ''}/pods`,
        body: action.manifest,
      };
    case 'delete-pod':
      return {
        method: 'DELETE',
        path: podPath(action.namespace, action.name),
        body: { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid: action.uid } },
      };
    case 'evict-pod':
      return {
        method: 'POST',
        path: `${podPath(action.namespace, action.name)}/eviction`,
        body: {
          apiVersion: 'policy/v1',
          kind: 'Eviction',
          metadata: { namespace: action.namespace, name: action.name },
          deleteOptions: { preconditions: { uid: action.uid } },
        },
        // A disruption budget answers so while it holds.
        retries: 0,
      };
    case 'apply-daemonset':
      return daemonSet(action.manifest, action.wholeAt);
    case 'delete-daemonset':
      return {
        method: 'DELETE',
        path: `${daemonSets(action.namespace)}/${action.name}`,
        query: { propagationPolicy: 'Background' },
      };
    case 'create-claim-template':
      return {
        method: 'POST',
        path: claimTemplates(action.manifest.metadata.namespace ?? ''),
        body: action.manifest,
      };
    case 'delete-claim-template':
      return { method: 'DELETE', path: `${claimTemplates(action.namespace)}/${action.name}` };
    case 'create-runtime-class':
      return {
        method: 'POST',
        path: '/apis/node.k8s.io/v1/runtimeclasses',
        // No scheduling.nodeSelector: the kubelet checks it again at a restart and would reject
        // running pods after an opt-out.
        body: {
          apiVersion: 'node.k8s.io/v1',
          kind: 'RuntimeClass',
          metadata: { name: action.name, labels: { [PART_OF]: PRODUCT, [MANAGED_BY]: PRODUCT } },
          handler: action.handler,
        },
      };
    case 'policy-status':
      return merge(`${POLICIES_PATH}/${action.name}/status`, {
        metadata: { uid: action.uid },
        // A merge patch joins maps: a count that is gone has to be removed by name.
        status: {
          ...action.status,
          nodes: { ...nulls(action.was.nodes), ...action.status.nodes },
          ...(action.was.breaker === undefined
            ? {}
            : { breaker: action.status.breaker === undefined ? null : { ...NO_BREAKER, ...action.status.breaker } }),
        },
      });
    case 'policy-finalizers':
      return merge(`${POLICIES_PATH}/${action.name}`, {
        metadata: { uid: action.uid, finalizers: action.finalizers.length === 0 ? null : action.finalizers },
      });
    case 'create-device-taint':
      return { method: 'POST', path: DEVICE_TAINT_RULES_PATH, body: deviceTaintRule(action) };
    case 'delete-device-taint':
      return {
        method: 'DELETE',
        path: `${DEVICE_TAINT_RULES_PATH}/${action.name}`,
        body: { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid: action.uid } },
      };
    case 'event':
      return event(action, circumstances);
  }
}

/** Owned by its Node, so that it goes with it whether a replica leads or not. */
const deviceTaintRule = ({ name, node, uid, driver, device, taint }: CreateDeviceTaint): Manifest => ({
  apiVersion: 'resource.k8s.io/v1',
  kind: 'DeviceTaintRule',
  metadata: {
    name,
    labels: { [PART_OF]: PRODUCT, [MANAGED_BY]: PRODUCT },
    ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: node, uid }],
  },
  spec: { deviceSelector: { driver, pool: node, ...(device === undefined ? {} : { device }) }, taint },
});

/** Preconditions of a patch: another object of that name, or a later version, is a conflict. */
const guard = (uid: string, at: string | undefined): object => ({
  uid,
  ...(at === undefined ? {} : { resourceVersion: at }),
});

const merge = (path: string, body: unknown): Request => ({ method: 'PATCH', path, contentType: MERGE_PATCH, body });
const strategic = (path: string, body: unknown): Request => ({
  method: 'PATCH',
  path,
  contentType: STRATEGIC_PATCH,
  body,
});

function daemonSet(manifest: Manifest, wholeAt: string | undefined): Request {
  const path = `${daemonSets(manifest.metadata.namespace ?? '')}/${manifest.metadata.name}`;
  if (wholeAt === undefined)
    return {
      method: 'PATCH',
      path,
      contentType: APPLY,
      query: { fieldManager: FIELD_MANAGER, force: true },
      body: manifest,
    };
  return {
    method: 'PATCH',
    path,
    contentType: JSON_PATCH,
    query: { fieldManager: FIELD_MANAGER },
    body: [
      { op: 'replace', path: '/metadata/resourceVersion', value: wholeAt },
      { op: 'replace', path: '/spec', value: manifest['spec'] },
    ],
  };
}

/**
 * Events of the same text about the same object are one, by name: a restart of the leader reports
 * nothing twice.
 */
function event(action: EventAction, { now, instance }: Circumstances): Request {
  const { about } = action;
  const namespace = about.namespace ?? 'default';
  const hash = digestOf([about.uid, action.reason, ...(action.once === true ? [] : [action.message])].join('\n'), 16);
  return {
    method: 'POST',
    path: `/api/v1/namespaces/${namespace}/events`,
    body: {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `${about.name.slice(0, 200)}.${hash}`, namespace },
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
      reportingInstance: instance,
      firstTimestamp: seconds(now),
      lastTimestamp: seconds(now),
      count: 1,
    },
  };
}

/**
 * Two patches of an Event that is there already: its time, whose answer has the count, then the
 * count.
 */
export function repeatOf(first: Request, now: number): { seen: Request; counted: (count: number) => Request } {
  const { name } = (first.body as Manifest).metadata;
  const path = `${first.path}/${name}`;
  return {
    seen: merge(path, { lastTimestamp: seconds(now) }),
    counted: (count) => merge(path, { count: count + 1 }),
  };
}

/** What an action is about, for messages. */
export const targetOf = (action: Action): string => {
  switch (action.kind) {
    case 'patch-node':
    case 'set-taints':
    case 'set-node-condition':
      return `of node ${action.node}`;
    case 'set-pod-condition':
    case 'delete-pod':
    case 'evict-pod':
    case 'delete-daemonset':
    case 'delete-claim-template':
      return `${action.namespace}/${action.name}`;
    case 'create-pod':
    case 'apply-daemonset':
    case 'create-claim-template':
      return action.manifest.metadata.name;
    case 'create-runtime-class':
    case 'create-device-taint':
    case 'delete-device-taint':
    case 'policy-status':
    case 'policy-finalizers':
      return action.name;
    case 'event':
      return `on ${action.about.kind} ${action.about.name}`;
  }
};
