// What node:http and TLS take by themselves: reads the body of a call, parses nothing, and sends an
// answer of the length that ours would have. The limit that `npm run bench -- extender` shows.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';

const [count = '0', every = '0', cert = '', key = ''] = process.argv.slice(2);
const names = Array.from({ length: Number(count) }, (_, i) => `node-${i}`);
const answer = Buffer.from(
  JSON.stringify({
    Nodes: null,
    NodeNames: names.filter((_, i) => i % Number(every) !== 0),
    FailedNodes: {},
    FailedAndUnresolvableNodes: Object.fromEntries(
      names.filter((_, i) => i % Number(every) === 0).map((name) => [name, 'node rebooted since validation']),
    ),
    Error: '',
  }),
);
const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, response) => {
  request.resume();
  request.on('end', () => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': answer.length });
    response.end(answer);
  });
});
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
