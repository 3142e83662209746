// The extender as a part: its server and the certificate that it follows.
import { EXTENDER_SECRET } from '../core/own-objects.ts';
import { extenderMetrics } from '../extender/metrics.ts';
import { extenderApp } from '../extender/routes.ts';
import type { Caches } from './caches.ts';
import { EXTENDER_SERVICE, whyNoVerdict, type Part, type Shared } from './part.ts';
import { servingPart, type Serving } from './serving.ts';

/** Starts the extender's server; rejects if its port is taken. */
export async function startExtender(shared: Shared, serving: Serving, caches: Caches): Promise<Part> {
  const { options, log, registry, now } = shared;
  const { nodes, policies, devices, table } = caches;
  const view = { nodes: table, policies, devices, operandNamespace: options.operandNamespace };
  const work = new AbortController();
  const server = await serving.server('extender', {
    port: options.extenderPort,
    portOption: 'extender-port',
    handler: extenderApp({
      metrics: extenderMetrics(registry, () => table.facts()),
      now,
      log,
      view() {
        // A replica that is not ready gets no new connections, but a scheduler keeps the one it
        // has.
        const because = whyNoVerdict({ nodes, gpupolicies: policies }, options.watchLimit, now());
        return because === undefined ? view : { because };
      },
    }),
    tls: options.extenderClients.length === 0 ? {} : { client: { names: options.extenderClients } },
  });
  const follower = serving.follow({ secret: EXTENDER_SECRET, service: EXTENDER_SERVICE, server }, work.signal);
  return servingPart(shared, {
    name: 'extender',
    servers: [server],
    followers: [follower],
    watches: { [`secrets/${EXTENDER_SECRET}`]: follower.watch },
    besides: {},
    work,
  });
}
