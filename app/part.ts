// What the parts of a process have in common: how each is asked, stopped and watched over.
import type { Registry } from 'prom-client';
import type { Kube, KubeOptions } from '../platform/kube.ts';
import type { Log } from '../platform/log.ts';
import type { Reflector } from '../platform/reflector.ts';
import type { Options } from './options.ts';

/** A part that has started. */
export interface Part {
  readonly name: string;
  /** Reasons why this replica should not be called yet; empty if it is ready. */
  notReady(): readonly string[];
  /** Ages of the part's watches in ms, read at each scrape. */
  watchAges(): Readonly<Record<string, number>>;
  /**
   * First half of a stop: the part serves on and asks its callers to leave. Absent if nobody calls.
   */
  drain?(): void;
  /** Resolves once nothing of the part runs any more. */
  stop(): Promise<void>;
  /** Settles when the part no longer works. If that happens before `stop`, the part is dead. */
  readonly ended: Promise<void>;
}

/** What every part is started with. */
export interface Shared {
  readonly options: Options;
  readonly kube: Kube;
  /** How `kube` was opened. */
  readonly access: KubeOptions;
  readonly log: Log;
  readonly registry: Registry;
  readonly now: () => number;
}

export type Watches = Readonly<Record<string, Reflector<unknown>>>;

export const agesOf = (watches: Watches, now: number): Record<string, number> =>
  Object.fromEntries(Object.entries(watches).map(([name, watch]) => [name, now - watch.lastContact()]));

/** One sentence for each watch that is not loaded, or silent for longer than `limitMs`. */
export const staleWatches = (watches: Watches, limitMs: number, now: number): readonly string[] =>
  Object.entries(watches).flatMap(([name, watch]) => {
    if (!watch.synced) return [`the list of ${name} is not loaded yet`];
    const age = now - watch.lastContact();
    return age > limitMs ? [`the watch of ${name} has been silent for ${Math.round(age / 1000)} s`] : [];
  });

/**
 * Reason for withholding verdicts; `undefined` if there is none. It ends up in Events of pods,
 * which are deduplicated by text, so it must not contain a changing number.
 */
export const whyNoVerdict = (watches: Watches, limitMs: number, now: number): string | undefined => {
  for (const [name, watch] of Object.entries(watches)) {
    if (!watch.synced) return `the list of ${name} is not loaded yet; the pod is retried`;
    if (now - watch.lastContact() > limitMs)
      return `the watch of ${name} has been silent for longer than --watch-limit; the pod is retried`;
  }
  return undefined;
};

export const WEBHOOK_SERVICE = 'gpu-gate-webhook';
export const EXTENDER_SERVICE = 'gpu-gate-extender';

/**
 * Every name by which a Service is called inside the cluster, the shortest that all callers use
 * first.
 */
export const serviceNames = (service: string, namespace: string, extra: readonly string[]): string[] => [
  `${service}.${namespace}.svc`,
  `${service}.${namespace}.svc.cluster.local`,
  `${service}.${namespace}`,
  ...extra,
];

/** Namespaces whose pods are never injected. */
export const excludedNamespaces = (options: Options): ReadonlySet<string> =>
  new Set([options.namespace, options.operandNamespace, ...options.excludedNamespaces]);
