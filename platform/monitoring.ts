// The metrics port: what Prometheus scrapes and the kubelet probes.
import type { Express } from 'express';
import type { Registry } from 'prom-client';
import { expressApp } from './express.ts';

export interface Health {
  /** Reasons why this replica should not be asked; empty: it is ready. */
  readonly notReady: () => readonly string[];
  /** Why this process must be restarted; `undefined` while all of it lives. */
  readonly dead?: () => string | undefined;
}

/** GET /metrics, /healthz, /readyz. */
export function metricsApp(registry: Registry, health: Health): Express {
  return expressApp((app) => {
    app.get('/metrics', async (_, response) => {
      response.type(registry.contentType).send(await registry.metrics());
    });
    app.get('/healthz', (_, response) => {
      const because = health.dead?.();
      const [status, text] = because === undefined ? [200, 'ok'] : [500, because];
      response.status(status).type('text').send(`${text}\n`);
    });
    app.get('/readyz', (_, response) => {
      const reasons = health.notReady();
      const [status, text] = reasons.length === 0 ? [200, 'ok'] : [503, reasons.join('\n')];
      response.status(status).type('text').send(`${text}\n`);
    });
  }, 'gpu-gate serves GET /metrics, /healthz and /readyz here');
}
