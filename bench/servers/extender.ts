// Our extender as it is served, over so many nodes of which every tenth is not open: the process
// that bench/extender.ts measures. `plain` and `express` serve it another way, to show what that
// would cost: calls by names parsed as JSON, and the three calls routed by express.
import { NO_DEVICES } from '../../gate/devices.ts';
import { readFileSync } from 'node:fs';
import { Registry } from 'prom-client';
import { NameScanner } from '../../extender/by-name/scan.ts';
import { NodeTable } from '../../extender/by-name/table.ts';
import { extenderMetrics } from '../../extender/metrics.ts';
import { extenderApp } from '../../extender/routes.ts';
import { nodeFacts } from '../../gate/verdict.ts';
import { expressApp } from '../../platform/express.ts';
import { startServer } from '../../platform/http.ts';
import { intake } from '../../platform/intake.ts';
import { jsonLog } from '../../platform/log.ts';
import { CLIENT } from '../reports/programs.ts';
import { aNode, aPolicy } from '../../test/builders/objects.ts';

const [count = '0', every = '0', cert = '', key = '', ca = '', way = ''] = process.argv.slice(2);
if (way === 'plain') NameScanner.prototype.scan = () => undefined;
const nodes = new NodeTable();
for (let i = 0; i < Number(count); i += 1)
  nodes.set(
    `node-${i}`,
    nodeFacts(aNode({ name: `node-${i}`, ...(i % Number(every) === 0 ? { boot: 'other' } : {}) })),
  );
const view = {
  nodes,
  policies: new Map([['default', aPolicy()]]),
  devices: NO_DEVICES,
  operandNamespace: 'gpu-gate-operands',
};
const extender = extenderApp({
  view: () => view,
  metrics: extenderMetrics(new Registry(), () => nodes.facts()),
  now: Date.now,
  log: jsonLog('error', (line) => process.stderr.write(line)),
});
const server = await startServer({
  port: 0,
  host: '127.0.0.1',
  portOption: 'extender-port',
  handler:
    way === 'express'
      ? expressApp((app) => {
          for (const path of ['/filter', '/prioritize', '/preempt']) app.post(path, extender);
        }, 'not served')
      : extender,
  intake: intake({ calls: 1000, bytes: 64 * 1024 * 1024 }),
  tls: {
    material: { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') },
    client: { ca: readFileSync(ca, 'utf8'), names: [CLIENT] },
  },
});
console.log(server.port);
