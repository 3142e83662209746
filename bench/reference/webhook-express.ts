// A bare express webhook: parsed body, one fixed patch. A reference of `npm run bench -- webhook`.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import express from 'express';

const [port, key, cert] = process.argv.slice(2);
if (key === undefined || cert === undefined) throw new Error('usage: webhook-express.ts PORT KEY CERT');
const patch = Buffer.from(
  JSON.stringify([
    { op: 'add', path: '/spec/runtimeClassName', value: 'nvidia' },
    { op: 'add', path: '/spec/readinessGates', value: [{ conditionType: 'gpu-gate.dev/node-validated' }] },
  ]),
).toString('base64');
const app = express();
app.post('/mutate', express.json({ limit: '7mb' }), (request, response) => {
  const { uid } = (request.body as { request: { uid: string } }).request;
  response.json({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: { uid, allowed: true, patchType: 'JSONPatch', patch },
  });
});
const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, app);
// Node.js by default closes a connection that was idle for 5 s even if a call is on its way, and
// the API server rejects such a pod.
server.keepAliveTimeout = 120_000;
server.listen(Number(port), '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
