// The reconciler's shell: a change in the caches queues the keys that it concerns, and each key has
// one controller.
import { MANAGED, PROOF } from '../core/keys.ts';
import { isMisspelt, isOurs, newestProof, open } from '../gate/node-proof.ts';
import { steadyClock } from '../platform/clock.ts';
import type { Kube } from '../platform/kube.ts';
import type { Leadership } from '../platform/lease.ts';
import type { Log } from '../platform/log.ts';
import { workQueue, type Queue } from '../platform/queue.ts';
import type { Action } from './actions.ts';
import { NotLeading, applier, type Applier } from './apply.ts';
import { sameRules, watches, type Caches, type Listener } from './caches.ts';
import { deviceController } from './devices/controller.ts';
import { idOf, type Handlers, type Key, type Turns } from './key.ts';
import { circuitBreaker } from './limits/breaker.ts';
import { places as placesOf } from './limits/places.ts';
import { rejections as rejectionsOf } from './limits/rejections.ts';
import { silence as silenceOf } from './limits/silence.ts';
import { forgetCluster, type ReconcilerMetrics } from './metrics.ts';
import { keyOf, type NodeObject } from './model.ts';
import { nodeController } from './node/controller.ts';
import { operandController } from './operands/controller.ts';
import { podController } from './pods/controller.ts';
import { waking as wakingOf } from './pods/waking.ts';
import { policyController } from './policies/controller.ts';

export interface Settings {
  readonly log: Log;
  readonly metrics: ReconcilerMetrics;
  readonly operandNamespace: string;
  readonly runtimeClass: { readonly name: string; readonly handler: string };
  /** Namespaces whose pods the webhook never touches, ours among them. */
  readonly excludedNamespaces: ReadonlySet<string>;
  /** Resources that the webhook configuration calls us for. */
  readonly webhookResources: readonly string[];
  /** ms */
  readonly notReadyGrace: number;
  readonly now: () => number;
  /** How long after a node opened, or a policy changed, the scheduler is asked to try again, ms. */
  readonly wakeAfter: readonly number[];
}

export interface ReconcilerDeps extends Settings {
  readonly kube: Kube;
  readonly leadership: Leadership;
}

export interface Reconciler {
  /** Ends when the signal has aborted and every write under way has ended. */
  run(signal: AbortSignal): Promise<void>;
  readonly synced: boolean;
  /** Age of each watch's last contact, ms. */
  watchAges(): Readonly<Record<string, number>>;
}

/** How many keys are handled, and so written, side by side: the limit that this client keeps. */
const WORKERS = 48;
/**
 * Workers kept for nodes with a proof: a withdrawal never waits behind the bring-up of other nodes.
 */
const RESERVED = 8;

/** How long counts of nodes are gathered before a policy's status is written, ms. */
const COUNTS_MS = 1000;

/** Every controller on these caches, what a change concerns, and what is due on take-over. */
export function controllers(deps: Settings & { caches: Caches; apply: Applier; turns: Turns }): {
  readonly handlers: Handlers;
  readonly listener: Listener;
  takeOver(): void;
} {
  const { caches, turns, metrics, wakeAfter } = deps;
  const places = placesOf();
  const breaker = circuitBreaker();
  const silence = silenceOf();
  const rejections = rejectionsOf();
  const operands = operandController(deps);
  let watchedSince = 0;
  const nodes = nodeController({
    ...deps,
    places,
    breaker,
    silence,
    rejections,
    revisionsOf: operands.revisionsOf,
    watchedSince: () => watchedSince,
  });
  const pods = podController({ ...deps, rejections });
  const waking = wakingOf(deps);
  const devices = deviceController(deps);
  const policies = policyController({ ...deps, breaker, refusals: operands.refusals, pendingGates: pods.pendingGates });

  const add = (kind: Key['kind'], name = ''): void => turns.add({ kind, name });
  const after = (ms: number, kind: Key['kind'], name = ''): void => turns.addAfter({ kind, name }, ms);
  const waiting = (): void => after(waking.size > 100 ? 10_000 : 500, 'waiting');
  const wakeLater = (kind: 'wake' | 'wake-any', name = ''): void => {
    for (const ms of wakeAfter) turns.addAfter({ kind, name, turn: ms }, ms);
  };
  /** Every node that has rules or may need them. */
  const taints = (): void => {
    for (const node of caches.nodes.values()) if (isOurs(node)) add('device-taint', node.metadata.name);
    for (const name of caches.rules.nodes()) add('device-taint', name);
  };
  const readinessOn = (node: string): void => {
    for (const pod of caches.podsOn(node)) if (pod.gated) add('pod', keyOf(pod));
  };

  const listener: Listener = {
    node(name, before, now, marks) {
      if (now === undefined) nodes.gone(name);
      const ours = [before, now].some((node) => node !== undefined && isOurs(node));
      const isNewlyMisspelt =
        now !== undefined && isMisspelt(now) && now.metadata.labels?.[MANAGED] !== before?.metadata.labels?.[MANAGED];
      if (ours || isNewlyMisspelt) add('node', name);
      if (ours) add('device-taint', name);
      readinessOn(name);
      if (now !== undefined && open(now).yes && (before === undefined || !open(before).yes)) wakeLater('wake', name);
      if (marks.has('led') || marks.has('runs')) after(50, 'operands');
      if (marks.size > 0) after(COUNTS_MS, 'policies');
      if (ours) waiting();
    },
    nodeVersion(node) {
      if (nodes.awaits(node)) add('node', node.metadata.name);
    },
    pod(before, now) {
      waking.update(before, now);
      // What the first lists bring is looked at on take-over.
      if (!caches.synced) return;
      const pod = now ?? before;
      if (pod === undefined) return;
      if (now === undefined) pods.forget(pod.uid);
      const node = pod.nodeName ?? (pod.validates === undefined ? undefined : caches.nodeNameOf(pod.validates));
      if (node !== undefined) add('node', node);
      if (now === undefined || pod.namespace === deps.operandNamespace) return;
      add('pod', keyOf(pod));
      // Bound now, or made with `spec.nodeName`.
      if (now.nodeName !== undefined && before?.nodeName === undefined) add('bound', keyOf(pod));
      if (now.nodeName === undefined) waiting();
    },
    policy(before, now) {
      add('policies');
      if (sameRules(before, now)) return;
      add('operands');
      for (const node of caches.nodes.values()) if (isOurs(node)) add('node', node.metadata.name);
      taints();
      for (const pod of caches.pods.values()) if (pod.gated) add('pod', keyOf(pod));
      after(500, 'waiting');
      // The scheduler looks at no policy, and yet a pod that waits may fit now: suspended, allowed,
      // or the policy is gone.
      if (before?.generation !== now?.generation || before?.uid !== now?.uid) wakeLater('wake-any');
    },
    namespace(name) {
      for (const pod of caches.pods.values()) if (pod.namespace === name) add('pod', keyOf(pod));
    },
    daemonSet(before, now) {
      after(50, 'operands');
      // Pods are evidence by the UID of their DaemonSet, and may have been seen before it.
      const name = (now ?? before)?.name;
      if (before?.uid !== now?.uid && name !== undefined)
        for (const node of caches.fleet.names('runs', name)) add('node', node);
    },
    rule: (node) => add('device-taint', node),
    rules() {
      taints();
      add('policies');
    },
    trouble({ kind, name }) {
      if (!caches.synced) return;
      if (kind === 'DaemonSet') for (const node of caches.fleet.names('walks', name)) add('node', node);
      const pod = kind === 'Pod' ? caches.pods.get(`${deps.operandNamespace}/${name}`) : undefined;
      const node = pod?.nodeName ?? caches.nodeNameOf(pod?.validates ?? '');
      if (node !== undefined) add('node', node);
    },
  };

  return {
    handlers: {
      ...nodes.handlers,
      ...pods.handlers,
      ...waking.handlers,
      ...policies.handlers,
      ...operands.handlers,
      ...devices.handlers,
    },
    listener,
    /** Proofs are checked before anything else. */
    takeOver() {
      // First, because it relies on the nodes as they were while nobody led.
      for (const name of pods.takeOver()) add('bound', name);
      watchedSince = deps.now();
      places.recall(caches.nodes.values());
      silence.recall(caches.policies.values(), deps.now());
      breaker.recall(caches.policies.values(), caches.nodes.values(), deps.now());
      metrics.lastValidation.set(Math.round(newestProof(caches.nodes.values()) / 1000));
      const ours = [...caches.nodes.values()].filter(isOurs);
      const unproven = (node: NodeObject): number => (node.metadata.annotations?.[PROOF] === undefined ? 1 : 0);
      for (const node of ours.toSorted((a, b) => unproven(a) - unproven(b))) add('node', node.metadata.name);
      for (const node of caches.nodes.values()) if (isMisspelt(node)) add('node', node.metadata.name);
      taints();
      add('operands');
      add('policies');
      for (const pod of caches.pods.values()) add('pod', keyOf(pod));
      add('wake-any');
      after(500, 'waiting');
    },
  };
}

export function reconciler(deps: ReconcilerDeps): Reconciler {
  const { kube, log, metrics, leadership } = deps;
  // What is timed here is steady; another time of the day at take-over is another leader's clock.
  let clock = steadyClock(deps.now);
  const now = (): number => clock();
  let queue: Queue<Key> | undefined;
  const turns: Turns = { add: (key) => queue?.add(key), addAfter: (key, ms) => queue?.addAfter(key, ms) };
  const caches = watches({ ...deps, listener: () => all.listener });
  const standing = (action: Action): string | undefined => {
    const statusIn = (all: readonly { type: string; status: string }[] | undefined, type: string) =>
      all?.find((condition) => condition.type === type)?.status;
    if (action.kind === 'set-pod-condition')
      return statusIn(caches.pods.get(keyOf(action))?.conditions, action.condition.type);
    const type =
      action.kind === 'set-node-condition'
        ? action.type
        : action.kind === 'patch-node'
          ? action.status?.type
          : undefined;
    if (type === undefined || !('node' in action)) return undefined;
    return statusIn(caches.nodes.get(action.node)?.status?.conditions, type);
  };
  const leads = (): boolean => leadership.held;
  const apply = applier({ kube, metrics, now, leads, instance: leadership.identity, standing });
  const all = controllers({ ...deps, now, caches, apply, turns });
  const takeOver = (): void => {
    clock = steadyClock(deps.now);
    all.takeOver();
  };

  return {
    get synced() {
      return caches.synced;
    },
    watchAges: () =>
      Object.fromEntries(Object.entries(caches.lastContacts()).map(([kind, at]) => [kind, deps.now() - at])),
    async run(signal) {
      const work = workQueue<Key>({
        workers: WORKERS,
        reserved: RESERVED,
        urgent: ({ kind, name }) => kind === 'node' && caches.isProven(name),
        id: idOf,
        signal,
        handle: async ({ kind, name }) => {
          if (leads() && caches.synced && !signal.aborted) await all.handlers[kind](name);
        },
        failed: (key, error) => {
          if (error instanceof NotLeading) return;
          metrics.errors.inc({ kind: key.kind });
          log.error('reconciling failed, trying again', { kind: key.kind, name: key.name, error });
        },
      });
      queue = work;
      metrics.readDepth(() => work.depth);
      leadership.onChange((held) => {
        metrics.leader.set(held ? 1 : 0);
        if (!held) forgetCluster(metrics);
        else if (caches.synced) takeOver();
      });
      const stopped = work.drained();
      await Promise.race([caches.start(signal), stopped]);
      if (!signal.aborted) takeOver();
      await stopped;
    },
  };
}
