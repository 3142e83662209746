// The webhook as a part: the server of /mutate, that of the canary, and the certificates of both.
import { canaryApp } from '../certs/canary.ts';
import { webhookCas } from '../certs/follower.ts';
import { CANARY_SECRET, WEBHOOK_SECRET } from '../core/own-objects.ts';
import type { RunningServer } from '../platform/http.ts';
import type { Reflector } from '../platform/reflector.ts';
import { webhookMetrics } from '../webhook/metrics.ts';
import { webhookApp } from '../webhook/routes.ts';
import type { Caches } from './caches.ts';
import { excludedNamespaces, WEBHOOK_SERVICE, type Part, type Shared } from './part.ts';
import { callerCas, servingPart, type Serving } from './serving.ts';

/** Starts the webhook's servers; rejects if a port is taken. */
export async function startWebhook(shared: Shared, serving: Serving, caches: Caches): Promise<Part> {
  const { options, kube, log, registry } = shared;
  const { policies, runtimeClasses, namespaces, devices } = caches;
  const excluded = excludedNamespaces(options);
  const work = new AbortController();
  const servers: RunningServer[] = [];
  const besides: Record<string, Reflector<unknown>> = {};
  const server = await serving.server('webhook', {
    tls: options.webhookClientCa === undefined ? {} : { client: { names: options.webhookClients } },
    port: options.webhookPort,
    portOption: 'webhook-port',
    handler: webhookApp({
      log,
      metrics: webhookMetrics(registry),
      facts: (namespace) =>
        policies.synced && runtimeClasses.synced && namespaces.synced
          ? {
              policies,
              runtimeClasses,
              devices,
              namespaceLabels: namespaces.get(namespace),
              namespace,
              excludedNamespaces: excluded,
            }
          : undefined,
    }),
  });
  servers.push(server);
  try {
    if (options.certSource === 'self') {
      const canary = await serving.server('canary', {
        tls: {},
        port: options.canaryPort,
        portOption: 'canary-port',
        handler: canaryApp(),
      });
      servers.push(canary);
      // Only a change of CA waits for the canary, so its certificate does not decide about
      // readiness.
      const followed = { secret: CANARY_SECRET, service: WEBHOOK_SERVICE, server: canary };
      besides[`secrets/${CANARY_SECRET}`] = serving.follow(followed, work.signal).watch;
    }
  } catch (error) {
    await server.close(0);
    throw error;
  }
  // Another issuer manages both its certificates and the caBundle.
  const trusted = options.certSource === 'self' ? webhookCas({ kube, log }) : undefined;
  if (trusted !== undefined) {
    trusted.watch.start(work.signal);
    besides['mutatingwebhookconfigurations'] = trusted.watch;
  }
  const callers =
    options.webhookClientCa === undefined ? undefined : callerCas(shared, options.webhookClientCa, work.signal);
  const followed = {
    secret: WEBHOOK_SECRET,
    service: WEBHOOK_SERVICE,
    server,
    ...(trusted === undefined ? {} : { trusted }),
    ...(callers === undefined ? {} : { callers }),
  };
  const follower = serving.follow(followed, work.signal);
  return servingPart(shared, {
    name: 'webhook',
    servers,
    followers: callers === undefined ? [follower] : [follower, callers],
    watches: {
      [`secrets/${WEBHOOK_SECRET}`]: follower.watch,
      ...(callers === undefined ? {} : { 'configmaps/callers': callers.watch }),
    },
    besides,
    work,
  });
}
