// The life of a process: the metrics port, the parts one after the other, the wait, the drain, the
// stop. A part that does not start, or dies, ends the process: `run` then stops the other parts and
// rejects.
import { setTimeout as sleep } from 'node:timers/promises';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { printable } from '../core/printable.ts';
import { startServer } from '../platform/http.ts';
import { openKube } from '../platform/kube.ts';
import { explainError, jsonLog, type Log } from '../platform/log.ts';
import { metricsApp } from '../platform/monitoring.ts';
import { startCaches } from './caches.ts';
import { startExtender } from './extender.ts';
import { startLeader } from './leader.ts';
import { watchMetrics } from './metrics.ts';
import type { Options } from './options.ts';
import type { Part, Shared } from './part.ts';
import { serving } from './serving.ts';
import { startWebhook } from './webhook.ts';

/** Starts a part; it gets the parts that started before it. */
export type Start = (add: (part: Part) => void) => Promise<void>;

/**
 * Starts every part of the roles in `options`, until `stop`. Rejects if a part does not start, or
 * dies.
 */
export async function run(options: Options, stop: AbortSignal, write: (line: string) => void): Promise<void> {
  const log = jsonLog(options.logLevel, write, { roles: options.roles.join(',') }, printable);
  const access = { kubeconfig: options.kubeconfig, userAgent: `gpu-gate/${options.roles.join('+')}` };
  const kube = await openKube(access);
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  // Gauges that prom-client names like counters, which `promtool check metrics` and dashboards
  // dislike.
  for (const what of ['handles', 'requests', 'resources']) registry.removeSingleMetric(`nodejs_active_${what}_total`);
  const shared: Shared = { options, kube, access, log, registry, now: Date.now };
  const has = (...roles: readonly string[]): boolean => options.roles.some((role) => roles.includes(role));
  await runParts({ options, log, registry, stop, server: kube.server }, async (add) => {
    if (has('webhook', 'extender')) {
      const caches = startCaches(shared);
      add(caches);
      const servers = serving(shared);
      if (has('webhook')) add(await startWebhook(shared, servers, caches));
      if (has('extender')) add(await startExtender(shared, servers, caches));
    }
    if (has('reconciler', 'certs')) add(await startLeader(shared));
  });
}

export interface Running {
  readonly options: Pick<Options, 'metricsPort' | 'bindAddress' | 'drain'>;
  readonly log: Log;
  readonly registry: Registry;
  readonly stop: AbortSignal;
  /** The API server, for the log. */
  readonly server: string;
}

/** Runs parts beside their metrics port, until `stop` or until one of them dies. */
export async function runParts({ options, log, registry, stop, server }: Running, start: Start): Promise<void> {
  const parts: Part[] = [];
  let started = false;
  let dead: Error | undefined;
  const metrics = await startServer({
    port: options.metricsPort,
    host: options.bindAddress,
    portOption: 'metrics-port',
    handler: metricsApp(registry, {
      dead: () => dead?.message,
      notReady: () =>
        stop.aborted || dead !== undefined
          ? ['stopping']
          : started
            ? parts.flatMap((part) => part.notReady())
            : ['starting'],
    }),
  });
  watchMetrics(registry, () => parts.flatMap((part) => Object.entries(part.watchAges())));
  const over = Promise.withResolvers<void>();
  const died = (name: string, cause?: unknown): void => {
    if (stop.aborted || dead !== undefined) return;
    dead = new Error(`the part ${name} died`, cause === undefined ? {} : { cause });
    log.error('a part died: the process ends', { part: name, error: dead });
    over.resolve();
  };
  const add = (part: Part): void => {
    parts.push(part);
    part.ended.then(
      () => died(part.name),
      (error: unknown) => died(part.name, error),
    );
  };
  if (stop.aborted) over.resolve();
  else stop.addEventListener('abort', () => over.resolve(), { once: true });
  try {
    await start(add);
    started = true;
    log.info('started', { server, metrics: metrics.port });
    await over.promise;
    // Readiness has failed by now. Callers are served until the endpoints have been taken out.
    log.info('stopping', { drain: options.drain });
    for (const part of parts) part.drain?.();
    if (parts.some((part) => part.drain !== undefined)) await sleep(options.drain);
  } catch (error) {
    dead = new Error(explainError(error), { cause: error });
    throw error;
  } finally {
    // In reverse: what others stand on stops last.
    for (const part of parts.toReversed()) await part.stop();
    await metrics.close(0);
  }
  if (dead !== undefined) throw dead;
}
