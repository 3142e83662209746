// Our webhook as it is served, from facts in memory: the process that bench/webhook.ts measures.
import { NO_DEVICES } from '../../gate/devices.ts';
import { readFileSync } from 'node:fs';
import { Registry } from 'prom-client';
import { startServer } from '../../platform/http.ts';
import { intake } from '../../platform/intake.ts';
import { jsonLog } from '../../platform/log.ts';
import { aPolicy } from '../../test/builders/objects.ts';
import { webhookMetrics } from '../../webhook/metrics.ts';
import { webhookApp } from '../../webhook/routes.ts';

const [port = '0', key = '', cert = ''] = process.argv.slice(2);
const policies = new Map([['default', aPolicy()]]);
const runtimeClasses = new Map([['nvidia', { handler: 'nvidia', nodeSelector: {} }]]);
const server = await startServer({
  port: Number(port),
  host: '127.0.0.1',
  portOption: 'webhook-port',
  callsPerConnection: 10_000,
  intake: intake({ calls: 1000, bytes: 64 * 1024 * 1024 }),
  handler: webhookApp({
    facts: (namespace) => ({
      policies,
      runtimeClasses,
      devices: NO_DEVICES,
      namespace,
      namespaceLabels: {},
      excludedNamespaces: new Set(['kube-system']),
    }),
    metrics: webhookMetrics(new Registry()),
    log: jsonLog('error', (line) => process.stderr.write(line)),
  }),
  tls: { material: { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') } },
});
console.log(server.port);
