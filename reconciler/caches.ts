// The reconciler's watches and what is found in them without a scan: pods of a node, pods that
// wait, validation pods of a node, and the fleet. Every index is up to date before a listener hears
// of the change.
import type { GpuPolicy, Selector } from '../core/gpu-policy.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { POLICIES_PATH, PROOF } from '../core/keys.ts';
import { DEVICE_WATCHES, type ClaimFacts, type ClassFacts, type Devices } from '../gate/devices.ts';
import { optsOut } from '../gate/namespaces.ts';
import type { Kube } from '../platform/kube.ts';
import type { Log } from '../platform/log.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';
import { deviceIndex, type DevicesOn } from './devices/device-index.ts';
import { ruleIndex, type Rules } from './devices/rule-index.ts';
import { isRuleOfOurs, trimRule, type OtherRule, type RuleView } from './devices/rules.ts';
import { evidence } from './evidence.ts';
import { fleet, type Changed, type Fleet } from './fleet.ts';
import {
  isSameNode,
  trimDaemonSet,
  trimEvent,
  trimNode,
  trimPod,
  type DaemonSetView,
  type NodeObject,
  type PodObject,
  type Trouble,
} from './model.ts';
import { podIndex, type PodIndex } from './pod-index.ts';
import { DEVICE_TAINT_RULES_PATH } from './requests.ts';
import { holdsGpus, SLICES_PATH, trimSlice, type Pool, type SliceView } from './slices.ts';

/** How often it is looked whether the API server serves claims now. */
const ABSENT_MS = 30_000;

export interface NamespaceView {
  readonly optedOut: boolean;
}

export interface Cache<T> {
  get(key: string): T | undefined;
  values(): Iterable<T>;
}

/** All that controllers read. */
export interface Caches extends PodIndex {
  readonly nodes: Cache<NodeObject>;
  /** By `namespace/name`. */
  readonly pods: Cache<PodObject>;
  readonly policies: Cache<GpuPolicy>;
  readonly namespaces: Cache<NamespaceView>;
  readonly devices: Devices;
  readonly rules: Rules;
  /** `undefined` where the API server does not serve ResourceSlices. */
  poolsOn(node: string): readonly Pool[] | undefined;
  readonly isAllocated: DevicesOn['isAllocated'];
  /** DeviceTaintRules of other people. */
  readonly otherRules: Iterable<OtherRule>;
  /** By `namespace/name`. */
  readonly daemonSets: Cache<DaemonSetView>;
  readonly fleet: Omit<Fleet, 'update' | 'select' | 'slice'>;
  /** What was reported last of the pod or DaemonSet with that UID. */
  troubleOf(uid: string): Trouble | undefined;
  /** Name of the Node with that UID. */
  nodeNameOf(uid: string): string | undefined;
  /** Are all pods that the selector means in the cache? */
  isWatched(selector: Selector): boolean;
  /** Has the Node a proof? */
  isProven(name: string): boolean;
  /** Is the first list of every watch in? */
  readonly synced: boolean;
}

/** What has changed: `before` is undefined for what is new, `after` for what is gone. */
export interface Listener {
  node(name: string, before: NodeObject | undefined, after: NodeObject | undefined, marks: Changed): void;
  /** Nothing of a Node but its version has changed, as by a heartbeat. */
  nodeVersion(node: NodeObject): void;
  pod(before: PodObject | undefined, after: PodObject | undefined): void;
  policy(before: GpuPolicy | undefined, after: GpuPolicy | undefined): void;
  /** A namespace has come, whose pods may have come first. */
  namespace(name: string): void;
  daemonSet(before: DaemonSetView | undefined, after: DaemonSetView | undefined): void;
  trouble(trouble: Trouble): void;
  /** The devices that DRA drivers publish of the node have changed. */
  slices(node: string): void;
  /** A DeviceClass has come or gone, the first or the last of them. */
  deviceClasses(isFirstOrLast: boolean): void;
  /** A claim template of that key has come, or gone. */
  claimTemplate(key: string): void;
  /** A rule of other people has come, changed or gone: for that pool, or all if it is empty. */
  otherRule(pool: string): void;
  /** A DeviceTaintRule of that node has come, changed or gone. */
  rule(node: string): void;
  /** All DeviceTaintRules are in, or the API server does not serve them any more. */
  rules(): void;
}

export interface Watches extends Caches {
  start(signal: AbortSignal): Promise<void>;
  /** When each watch was last heard, ms since the epoch. */
  lastContacts(): Readonly<Record<string, number>>;
}

export function watches(deps: {
  readonly kube: Kube;
  readonly log: Log;
  readonly operandNamespace: string;
  readonly listener: () => Listener;
}): Watches {
  const { kube, log, operandNamespace } = deps;
  const index = podIndex(operandNamespace);
  const marks = fleet();
  /** By the UID of what they are about. */
  const troubles = new Map<string, Trouble>();
  /** UID → name. */
  const names = new Map<string, string>();
  const others = evidence({ policies: () => policies.values(), remembered: () => marks.remembered() });
  /** Pods that did not matter may be evidence now, or use a driver that stands elsewhere. */
  const refresh = (): void => {
    if (others.refresh()) pods.relist();
  };

  const nodeChanged = (name: string, before: NodeObject | undefined, after: NodeObject | undefined): void => {
    if (before !== undefined && after !== undefined && isSameNode(before, after))
      return deps.listener().nodeVersion(after);
    if (before !== undefined) names.delete(before.metadata.uid);
    if (after !== undefined) names.set(after.metadata.uid, name);
    const changed = marks.update(name, after);
    if (changed.has('remembers')) refresh();
    deps.listener().node(name, before, after, changed);
  };

  const nodes = reflector<NodeObject>({
    kube,
    log,
    path: '/api/v1/nodes',
    trim: trimNode,
    onChange: nodeChanged,
  });
  const policies = reflector<GpuPolicy>({
    kube,
    log,
    path: POLICIES_PATH,
    optional: true,
    trim: (raw) => parsePolicy(raw),
    onChange: (_, before, after) => {
      if (!sameRules(before, after)) marks.select([...policies.values()], nodes.values());
      refresh();
      deps.listener().policy(before, after);
    },
  });
  const namespaces = reflector<NamespaceView>({
    kube,
    log,
    path: '/api/v1/namespaces',
    trim: (raw: { metadata: { labels?: Record<string, string> } }) => ({
      optedOut: optsOut(raw.metadata.labels),
    }),
    onChange: (name, before) => {
      if (before === undefined && pods.synced) deps.listener().namespace(name);
    },
  });
  const pods = reflector<PodObject>({
    kube,
    log,
    path: '/api/v1/pods',
    trim: (raw) => trimPod(raw, operandNamespace, (...pod) => others.selects(...pod), others.driverPaths()),
    onListed: () => others.listed(),
    onChange: (_, before, after) => {
      index.update(before, after);
      deps.listener().pod(before, after);
    },
  });
  const daemonSets = reflector<DaemonSetView>({
    kube,
    log,
    path: `/apis/apps/v1/namespaces/${operandNamespace}/daemonsets`,
    trim: trimDaemonSet,
    onChange: (_, before, after) => deps.listener().daemonSet(before, after),
  });
  const events = reflector<Trouble>({
    kube,
    log,
    path: `/api/v1/namespaces/${operandNamespace}/events`,
    query: { fieldSelector: 'type=Warning' },
    trim: trimEvent,
    onChange: (_, before, after) => {
      if (before !== undefined && troubles.get(before.about) === before) troubles.delete(before.about);
      if (after === undefined || (troubles.get(after.about)?.at ?? 0) > after.at) return;
      troubles.set(after.about, after);
      deps.listener().trouble(after);
    },
  });
  // A process with a request path beside the reconciler's reports that they are not served.
  const optional = { kube, log, optional: true, absentMs: ABSENT_MS };
  const onNode = deviceIndex();
  const devices = {
    classes: reflector<ClassFacts>({
      ...optional,
      ...DEVICE_WATCHES.classes,
      onChange(_, before, after) {
        const { size } = devices.classes;
        if (before === undefined) deps.listener().deviceClasses(size === 1);
        else if (after === undefined) deps.listener().deviceClasses(size === 0);
      },
    }),
    claims: reflector<ClaimFacts>({
      ...optional,
      ...DEVICE_WATCHES.claims,
      onChange: (_, before, after) => onNode.claim(before, after),
    }),
    templates: reflector<ClaimFacts>({
      ...optional,
      ...DEVICE_WATCHES.templates,
      onChange(key, before, after) {
        if (before === undefined || after === undefined) deps.listener().claimTemplate(key);
      },
    }),
  };
  const ruleOf = ruleIndex();
  const foreignRules = new Set<OtherRule>();
  const rules = reflector<RuleView | OtherRule>({
    ...optional,
    path: DEVICE_TAINT_RULES_PATH,
    trim: (raw) => trimRule(raw),
    onChange: (_, before, after) => {
      const ours = (rule: RuleView | OtherRule | undefined): RuleView | undefined =>
        rule !== undefined && isRuleOfOurs(rule) ? rule : undefined;
      ruleOf.update(ours(before), ours(after));
      for (const one of [before, after]) {
        if (one === undefined) continue;
        if (isRuleOfOurs(one)) deps.listener().rule(one.node);
        else deps.listener().otherRule(one.pool);
      }
      if (before !== undefined && !isRuleOfOurs(before)) foreignRules.delete(before);
      if (after !== undefined && !isRuleOfOurs(after)) foreignRules.add(after);
    },
    onListed: () => deps.listener().rules(),
    onAbsent: () => deps.listener().rules(),
  });
  const slices = reflector<SliceView>({
    ...optional,
    path: SLICES_PATH,
    trim: trimSlice,
    onChange(slice, before, after) {
      for (const name of onNode.slice(before, after)) deps.listener().slices(name);
      for (const name of marks.slice(slice, after !== undefined && holdsGpus(after) ? after.node : undefined)) {
        const node = nodes.get(name);
        const changed = node === undefined ? undefined : marks.update(name, node);
        if (node !== undefined && changed !== undefined && changed.size > 0)
          deps.listener().node(name, node, node, changed);
      }
    },
  });
  const needed: Readonly<Record<string, Reflector<unknown>>> = {
    nodes,
    pods,
    policies,
    namespaces,
    daemonsets: daemonSets,
    deviceclasses: devices.classes,
    resourceclaims: devices.claims,
    resourceclaimtemplates: devices.templates,
    devicetaintrules: rules,
    resourceslices: slices,
  };
  // Events only explain: nothing waits for them.
  const all = { ...needed, events };

  return {
    ...index,
    nodes,
    pods,
    policies,
    namespaces,
    daemonSets,
    devices,
    rules: {
      ...ruleOf,
      get served() {
        return rules.installed;
      },
    },
    poolsOn: (node) => (slices.installed ? onNode.poolsOn(node) : undefined),
    isAllocated: (...device) => onNode.isAllocated(...device),
    otherRules: foreignRules,
    fleet: marks,
    troubleOf: (uid) => troubles.get(uid),
    nodeNameOf: (uid) => names.get(uid),
    isWatched: (selector) => others.isWatched(selector),
    isProven: (name) => nodes.get(name)?.metadata.annotations?.[PROOF] !== undefined,
    async start(signal) {
      for (const watch of [policies, nodes, daemonSets, namespaces, events, rules, slices, ...Object.values(devices)])
        watch.start(signal);
      // Which pods are evidence is up to policies and nodes, so that these must be known first.
      await Promise.all([policies.whenSynced(), nodes.whenSynced()]);
      pods.start(signal);
      await Promise.all(Object.values(needed).map((watch) => watch.whenSynced()));
    },
    get synced() {
      return Object.values(needed).every((watch) => watch.synced);
    },
    lastContacts: () => Object.fromEntries(Object.entries(all).map(([kind, watch]) => [kind, watch.lastContact()])),
  };
}

/**
 * Is only its status, or nothing, different? A status changes nothing for nodes and pods but when
 * the policy begins to enforce.
 */
export const sameRules = (a: GpuPolicy | undefined, b: GpuPolicy | undefined): boolean =>
  a !== undefined &&
  b !== undefined &&
  a.uid === b.uid &&
  a.generation === b.generation &&
  a.deleting === b.deleting &&
  a.enforcingSince === b.enforcingSince &&
  JSON.stringify(a.annotations) === JSON.stringify(b.annotations);
