// The reconciler's wiring: a change in the caches queues the keys that it concerns (changes.ts),
// and each key has one controller.
import { newestProof } from '../gate/node-proof.ts';
import { steadyClock } from '../platform/clock.ts';
import type { Kube } from '../platform/kube.ts';
import type { Leadership } from '../platform/lease.ts';
import type { Log } from '../platform/log.ts';
import { workQueue, type Queue } from '../platform/queue.ts';
import { NotLeading, applier, type Applier } from './apply.ts';
import { watches, type Caches, type Listener } from './caches.ts';
import { changes } from './changes.ts';
import { deviceController } from './devices/controller.ts';
import { idOf, type Handlers, type Key, type Turns } from './key.ts';
import { circuitBreaker } from './limits/breaker.ts';
import { BRING_UP, places as placesOf, ROLL_OUT } from './limits/places.ts';
import { rejections as rejectionsOf } from './limits/rejections.ts';
import { silence as silenceOf } from './limits/silence.ts';
import { forgetCluster, type ReconcilerMetrics } from './metrics.ts';
import { nodeController } from './node/controller.ts';
import { operandController } from './operands/controller.ts';
import { podController } from './pods/controller.ts';
import { waking as wakingOf } from './pods/waking.ts';
import { policyController } from './policies/controller.ts';
import { standingIn } from './standing.ts';

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

/** Every controller on these caches, and what they share. */
export function controllers(deps: Settings & { caches: Caches; apply: Applier; turns: Turns }): {
  readonly handlers: Handlers;
  readonly listener: Listener;
  /** GPU pods that the scheduler has found no node for. */
  waitingPods(): number;
  takeOver(): void;
} {
  const { caches, metrics } = deps;
  const places = placesOf(BRING_UP);
  const rollOuts = placesOf(ROLL_OUT);
  const breaker = circuitBreaker();
  const silence = silenceOf();
  const rejections = rejectionsOf();
  const operands = operandController(deps);
  let watchedSince = 0;
  const nodes = nodeController({
    ...deps,
    places,
    rollOuts,
    breaker,
    silence,
    rejections,
    revisionsOf: operands.revisionsOf,
    claimTemplateOf: operands.claimTemplateOf,
    watchedSince: () => watchedSince,
  });
  const pods = podController({ ...deps, rejections });
  const waking = wakingOf(deps);
  const devices = deviceController(deps);
  const policies = policyController({
    ...deps,
    breaker,
    refusals: operands.refusals,
    revisionsOf: operands.revisionsOf,
    pendingGates: pods.pendingGates,
  });

  const concerned = changes({ ...deps, nodes, pods, waking });

  return {
    handlers: {
      ...nodes.handlers,
      ...pods.handlers,
      ...waking.handlers,
      ...policies.handlers,
      ...operands.handlers,
      ...devices.handlers,
    },
    listener: concerned.listener,
    waitingPods: () => waking.gpuPods,
    takeOver() {
      // First, because it relies on the nodes as they were while nobody led.
      const bound = pods.takeOver();
      watchedSince = deps.now();
      for (const limit of [places, rollOuts]) limit.recall(caches.nodes.values());
      silence.recall(caches.policies.values(), deps.now());
      breaker.recall(caches.policies.values(), caches.nodes.values(), deps.now());
      metrics.lastValidation.set(Math.round(newestProof(caches.nodes.values()) / 1000));
      concerned.takeOver(bound);
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
  const leads = (): boolean => leadership.held;
  const apply = applier({ kube, metrics, now, leads, instance: leadership.identity, standing: standingIn(caches) });
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
      metrics.readWaiting(() => (leads() ? all.waitingPods() : 0));
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
