// Webhook and extender as one process serves them, on one event loop and within one intake: what
// bench/limits.ts attacks.
import { NO_DEVICES } from '../../gate/devices.ts';
import { Registry } from 'prom-client';
import { NodeTable } from '../../extender/by-name/table.ts';
import { extenderMetrics } from '../../extender/metrics.ts';
import { extenderApp } from '../../extender/routes.ts';
import { nodeFacts } from '../../gate/verdict.ts';
import { startServer } from '../../platform/http.ts';
import { intake } from '../../platform/intake.ts';
import { jsonLog } from '../../platform/log.ts';
import { aNode, aPolicy } from '../../test/builders/objects.ts';
import { webhookMetrics } from '../../webhook/metrics.ts';
import { webhookApp } from '../../webhook/routes.ts';

const [bytes = '0'] = process.argv.slice(2);
const log = jsonLog('error', (line) => void process.stderr.write(line));
const nodes = new NodeTable();
for (let i = 0; i < 5000; i += 1) nodes.set(`node-${i}`, nodeFacts(aNode({ name: `node-${i}` })));
const policies = new Map([['default', aPolicy()]]);
const limits = intake({ calls: 1000, bytes: Number(bytes) });
const common = { port: 0, host: '127.0.0.1', portOption: 'port', intake: limits };
const webhook = await startServer({
  ...common,
  handler: webhookApp({
    log,
    metrics: webhookMetrics(new Registry()),
    facts: (namespace) => ({
      policies,
      runtimeClasses: new Map([['nvidia', { nodeSelector: {} }]]),
      devices: NO_DEVICES,
      namespaceLabels: {},
      namespace,
      excludedNamespaces: new Set<string>(),
    }),
  }),
});
const view = { nodes, policies, devices: NO_DEVICES, operandNamespace: 'gpu-gate-operands' };
const extender = await startServer({
  ...common,
  handler: extenderApp({
    view: () => view,
    metrics: extenderMetrics(new Registry(), () => nodes.facts()),
    now: Date.now,
    log,
  }),
});
console.log(JSON.stringify({ webhook: webhook.port, extender: extender.port }));
