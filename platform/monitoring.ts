// The metrics port: what Prometheus scrapes and the kubelet probes.
import express, { type Express } from 'express';
import type { Registry } from 'prom-client';

export interface Health {
  /** Reasons why this replica should not be asked; empty: it is ready. */
  readonly notReady: () => readonly string[];
  /** Why this process must be restarted; `undefined` while all of it lives. */
  readonly dead?: () => string | undefined;
}

/** GET /metrics, /healthz, /readyz. */
export function metricsApp(registry: Registry, health: Health): Express {
  const app = express();
  app.disable('x-powered-by');
  app.get('/metrics', async (_, response) => {
    response.type(registry.contentType).send(await registry.metrics());
  });
  app.get('/healthz', (_, response) => {
    const because = health.dead?.();
    response
      .status(because === undefined ? 200 : 500)
      .type('text')
      .send(because === undefined ? 'ok\n' : `${because}\n`);
  });
  app.get('/readyz', (_, response) => {
    const reasons = health.notReady();
    response
      .status(reasons.length === 0 ? 200 : 503)
      .type('text')
      .send(reasons.length === 0 ? 'ok\n' : `${reasons.join('\n')}\n`);
  });
  return app;
}
