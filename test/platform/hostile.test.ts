// Clients that mean harm, or are broken, at the webhook's endpoint, written byte by byte: each is
// answered or cut off, others are served meanwhile, nothing is kept.
import { connect, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startServer, type RunningServer } from '../../platform/http.ts';
import { jsonLog } from '../../platform/log.ts';
import { webhookMetrics } from '../../webhook/metrics.ts';
import { webhookApp } from '../../webhook/routes.ts';

const MIB = 1024 * 1024;
let server: RunningServer;
let registry: Registry;
let broken: boolean;
let logged: string[];

beforeEach(async () => {
  broken = false;
  logged = [];
  registry = new Registry();
  server = await startServer({
    port: 0,
    host: '127.0.0.1',
    portOption: 'webhook-port',
    headersTimeoutMs: 400,
    requestTimeoutMs: 800,
    handler: webhookApp({
      log: jsonLog('error', (line) => logged.push(line)),
      metrics: webhookMetrics(registry),
      facts: () => {
        if (broken) throw new Error('the caches broke');
        return undefined;
      },
    }),
  });
});
afterEach(() => server.close(0));

const head = (length: string): string =>
  `POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${length}\r\n\r\n`;
/** A connection, and all that comes back on it until it ends. */
async function open(): Promise<{ socket: Socket; answer: Promise<string> }> {
  const socket = connect(server.port, '127.0.0.1');
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const answer = new Promise<string>((resolve) => {
    socket.on('close', () => resolve(text));
    // The server resets a client that is still sending when the server has had enough.
    socket.on('error', () => undefined);
  });
  return { socket, answer };
}
const value = async (name: string, labels: object = {}): Promise<number> =>
  (await registry.getSingleMetric(name)?.get())?.values.find((found) =>
    Object.entries(labels).every(([key, wanted]) => (found.labels as Record<string, unknown>)[key] === wanted),
  )?.value ?? 0;
const malformed = (reason: string): Promise<number> =>
  value('gpu_gate_admission_total', { outcome: 'malformed', reason });
/** It lives, and nothing of those before is under way. */
async function serves(): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${server.port}/mutate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{}',
  });
  expect([response.status, await response.text()]).toEqual([
    400,
    'the body is not an AdmissionReview: only a Kubernetes API server should call /mutate\n',
  ]);
  expect(await value('gpu_gate_admission_in_flight')).toBe(0);
}

/** Answered while the slow one is still open. */
async function servesBeside(slow: Socket): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${server.port}/else`);
  expect([response.status, slow.destroyed]).toEqual([404, false]);
  await response.text();
}

it('a body that says it is 8 MiB: 413 before a byte of it is sent', async () => {
  const { socket, answer } = await open();
  socket.write(head(`content-length: ${8 * MIB}`));
  expect(await answer).toMatch(/^HTTP\/1.1 413 .*\r\n\r\nthe body is larger than 7340032 bytes\n$/s);
  expect(await malformed('body')).toBe(1);
  await serves();
});

it('a body that does not say how long it is, and goes on: 413 at the limit', async () => {
  const { socket, answer } = await open();
  socket.write(head('transfer-encoding: chunked'));
  const chunk = `${MIB.toString(16)}\r\n${'x'.repeat(MIB)}\r\n`;
  // One byte more than the limit, and no end.
  for (let i = 0; i < 7; i += 1) socket.write(chunk);
  socket.write('1\r\nx\r\n');
  expect(await answer).toMatch(/^HTTP\/1.1 413 .*the body is larger than 7340032 bytes\n$/s);
  await serves();
});

it('a body cut off in the middle: 400, counted, nothing stays under way', async () => {
  const { socket, answer } = await open();
  socket.write(`${head('content-length: 1000')}{"kind":`);
  socket.end();
  expect(await answer).toMatch(/^HTTP\/1.1 400 .*malformed HTTP\/1.1 request\n$/s);
  expect(await malformed('body')).toBe(1);
  await serves();
});

it('a connection reset in the middle of a body is forgotten', async () => {
  const { socket, answer } = await open();
  socket.write(`${head('content-length: 1000')}{"kind":`);
  await expect.poll(() => value('gpu_gate_admission_in_flight')).toBe(1);
  socket.resetAndDestroy();
  await answer;
  await expect.poll(() => malformed('body')).toBe(1);
  await serves();
});

it.each([
  ['headers', 'POST /mutate HTTP/1.1\r\nhost: x\r\n', 'x-slow: 1\r\n'],
  ['a body', head('content-length: 1000'), 'x'],
])('slow loris, %s a little at a time: cut off, others are served meanwhile', async (_, first, more) => {
  const { socket, answer } = await open();
  socket.write(first);
  const drip = setInterval(() => socket.write(more), 50);
  await servesBeside(socket);
  expect(await answer).toMatch(/^HTTP\/1.1 408 .*the call was not whole in time\n$/s);
  clearInterval(drip);
  await serves();
});

it.each([
  [
    'apiVersion',
    (deep: string) => `{"kind":"AdmissionReview","apiVersion":${deep}}`,
    'the body nests deeper than 1000',
  ],
  ['kind', (deep: string) => `{"kind":${deep}}`, 'the body nests deeper than 1000'],
  [
    'uid',
    (deep: string) => `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":${deep}}}`,
    'the body nests deeper than 1000',
  ],
])('%s nested 100,000 deep: one sentence, and it lives', async (_, bodyOf, sentence) => {
  const response = await fetch(`http://127.0.0.1:${server.port}/mutate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: bodyOf(`${'['.repeat(100_000)}${']'.repeat(100_000)}`),
  });
  expect([response.status, await response.text()]).toEqual([400, expect.stringContaining(sentence)]);
  await serves();
});

it('what is thrown on a call answers 500, is counted and logged, and nothing stays under way', async () => {
  broken = true;
  const response = await fetch(`http://127.0.0.1:${server.port}/mutate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      request: { uid: 'u', kind: { group: '', kind: 'Pod' }, namespace: 'team', object: { metadata: {}, spec: {} } },
    }),
  });
  expect([response.status, await response.text()]).toEqual([500, 'gpu-gate failed on this call; its log says where\n']);
  expect(await value('gpu_gate_admission_total', { outcome: 'failed', reason: 'internal-error' })).toBe(1);
  expect(logged).toEqual([expect.stringMatching(/"error":"Error at .*hostile\.test\.ts/)]);
  await serves();
});

it('150 MiB of junk leave nothing behind', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const junk = Buffer.alloc(5 * MIB, '1,"');
  const send = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i += 1) {
      const response = await fetch(`http://127.0.0.1:${server.port}/mutate`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: junk,
      });
      expect([response.status, await response.text()]).toEqual([
        400,
        'the body is not JSON: only a Kubernetes API server should call /mutate\n',
      ]);
    }
  };
  const held = (): number => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return (heapUsed + external) / MIB;
  };
  await send(5);
  const before = held();
  await send(25);
  // The last bodies may still be on their way out of the sockets; 25 that were kept would be 125
  // MiB.
  await expect.poll(held).toBeLessThan(before + 10);
});
