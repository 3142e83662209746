// Callers that keep their half of a connection open, whatever the server does: every connection
// ends, and what it held is free again.
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import type { KeyPair } from '../../certs/cert.ts';
import { startServer, type RunningServer, type ServerOptions } from '../../platform/http.ts';

const HOUR = 3_600_000;
const MIB = 1024 * 1024;
let server: RunningServer;
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.close(0);
});

const ca = await issueCa('ca', HOUR, Date.now());
const serving = (): Promise<KeyPair> =>
  issueLeaf(ca, { name: 'w', sans: ['w'], usage: 'server', life: HOUR }, Date.now());
const start = async (more: Partial<ServerOptions> = {}): Promise<void> => {
  server = await startServer({
    port: 0,
    host: '127.0.0.1',
    portOption: 'p',
    headersTimeoutMs: 300,
    requestTimeoutMs: 300,
    handler: (_, response) => response.end('x'),
    ...more,
  });
};
/** A caller that never closes its half, and reads what comes unless `deaf`. */
const call = (text: string, tls: boolean, deaf = false): Socket => {
  const place = { port: server.port, host: '127.0.0.1', allowHalfOpen: true };
  const socket = tls ? connectTls({ ...place, ca: ca.cert, servername: 'w' }) : connect(place);
  sockets.push(socket);
  socket.on('error', () => undefined);
  if (!deaf) socket.on('data', () => undefined);
  if (text !== '') socket.write(text);
  return socket;
};

const KINDS: readonly (readonly [string, string])[] = [
  ['junk', 'junk\r\n\r\n'],
  ['half its headers', 'GET / HTTP/1.1\r\nHost: x\r\n'],
  ['half its body', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nab'],
  ['nothing', ''],
];
it.each(KINDS.flatMap(([what, text]) => [false, true].map((tls) => [what, tls ? 'TLS' : 'TCP', text, tls] as const)))(
  'a caller that sends %s over %s is let go',
  async (_, __, text, tls) => {
    // The half body must wait for its end: the server answers when the caller is late.
    const waits = (request: NodeJS.ReadableStream, response: { end(text: string): void }): void => {
      request.resume();
      request.once('end', () => response.end('x'));
    };
    await start({ handler: waits, ...(tls ? { tls: { material: await serving() } } : {}) });
    for (let i = 0; i < 5; i += 1) call(text, tls);
    await expect.poll(() => server.connections).toBe(5);
    await expect.poll(() => server.connections).toBe(0);
  },
);

it.each([false, true])('a caller that asks to close and keeps its half is let go (TLS: %s)', async (tls) => {
  await start(tls ? { tls: { material: await serving() } } : {});
  const socket = call('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', tls);
  await new Promise((resolve) => socket.once('data', resolve));
  await expect.poll(() => server.connections).toBe(0);
});

it('a caller that says nothing before its TLS handshake is let go', async () => {
  await start({ tls: { material: await serving() } });
  for (let i = 0; i < 5; i += 1) call('', false);
  await expect.poll(() => server.connections).toBe(5);
  await expect.poll(() => server.connections).toBe(0);
});

it('a caller that does not take its answer is let go', async () => {
  const answer = Buffer.alloc(32 * MIB);
  await start({ handler: (_, response) => response.end(answer) });
  const socket = call('GET / HTTP/1.1\r\nhost: x\r\n\r\n', false, true);
  socket.pause();
  await expect.poll(() => server.connections).toBe(1);
  await expect.poll(() => server.connections).toBe(0);
});

it('one connection too many takes the place of the oldest that has no call, and of none in a call', async () => {
  let closed = 0;
  await start({
    headersTimeoutMs: 60_000,
    requestTimeoutMs: 60_000,
    maxConnections: 2,
    closedConnection: () => void (closed += 1),
    handler: (request, response) => (request.url === '/waits' ? undefined : response.end('x')),
  });
  const ended = (socket: Socket): Promise<unknown> => new Promise((resolve) => socket.once('end', resolve));
  const answer = (socket: Socket): Promise<unknown> => new Promise((resolve) => socket.once('data', resolve));
  const waits = 'GET /waits HTTP/1.1\r\nhost: x\r\n\r\n';
  const serves = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n';
  const busy = call(serves, false);
  await answer(busy);
  busy.write(waits);
  const idle = call(serves, false);
  await answer(idle);
  const [gone, next] = [ended(idle), call(serves, false)];
  await Promise.all([gone, answer(next)]);
  expect([server.connections, closed, busy.readableEnded]).toEqual([2, 1, false]);
  next.write(waits);
  const late = call('', false);
  // The last one that was idle is in a call now, or it is gone and the late one is there: never
  // three.
  await Promise.race([ended(late), ended(next)]);
  expect([server.connections, closed, busy.readableEnded]).toEqual([2, 2, false]);
});

it('memory returns once 1,000 of them are gone', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const held = (): number => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  await start({ maxConnections: 2000 });
  const round = async (): Promise<void> => {
    for (let i = 0; i < 1000; i += 1) call(KINDS[i % KINDS.length]?.[1] ?? '', false);
    await expect.poll(() => server.connections).toBeGreaterThan(0);
    await expect.poll(() => server.connections).toBe(0);
    for (const socket of sockets.splice(0)) socket.destroy();
  };
  await round();
  const before = held();
  await round();
  await expect.poll(held).toBeLessThan(before * 1.1);
});
