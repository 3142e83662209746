import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { readBody, reply, replyText } from '../../platform/body.ts';
import { startServer, type RunningServer } from '../../platform/http.ts';
import { intake, memoryLimit, type Intake } from '../../platform/intake.ts';

describe('an intake', () => {
  it('gives up the largest calls first, so that small ones survive', () => {
    const gone: string[] = [];
    const limited = intake({ calls: 10, bytes: 100, refused: (because) => gone.push(because) });
    const [small, large, next] = ['small', 'large', 'next'].map((name) => limited.admit(() => gone.push(name)));
    small?.hold(10);
    large?.hold(80);
    next?.hold(20);
    expect([gone, limited.bytes, limited.calls]).toEqual([['bytes', 'large'], 30, 2]);
    large?.hold(1000);
    expect(limited.bytes).toBe(30);
    small?.end();
    next?.end();
    expect([limited.bytes, limited.calls]).toEqual([0, 0]);
  });
  it('has a number of places', () => {
    const refused: string[] = [];
    const limited = intake({ calls: 1, bytes: 100, refused: (because) => refused.push(because) });
    const first = limited.admit(() => undefined);
    expect([limited.admit(() => undefined), refused]).toEqual([undefined, ['calls']]);
    first?.end();
    expect(limited.admit(() => undefined)).toBeDefined();
  });
  it('never holds more than its limits, and counts to nothing at the end', () => {
    const step = fc.record({ call: fc.nat(7), bytes: fc.nat(150), end: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const limited = intake({ calls: 4, bytes: 100 });
        const places = new Map<number, ReturnType<Intake['admit']>>();
        for (const { call, bytes, end } of steps) {
          const place = places.get(call) ?? limited.admit(() => undefined);
          places.set(call, end ? undefined : place);
          if (end) place?.end();
          else place?.hold(bytes);
          expect(limited.bytes).toBeLessThanOrEqual(100);
          expect(limited.bytes).toBeGreaterThanOrEqual(0);
          expect(limited.calls).toBeLessThanOrEqual(4);
        }
        for (const place of places.values()) place?.end();
        expect([limited.bytes, limited.calls]).toEqual([0, 0]);
      }),
    );
  });
  it.each([
    ['the container', 512, 2048, 512],
    ['the machine, without a limit', 0, 2048, 2048],
    ['the machine, if the limit is larger', 2 ** 63, 2048, 2048],
  ])('knows the memory of %s', (_, constrained, total, limit) => expect(memoryLimit(constrained, total)).toBe(limit));
});

describe('a server with an intake', () => {
  let server: RunningServer;
  const sockets: Socket[] = [];
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    await server.close(0);
  });
  const start = async (limited: Intake): Promise<void> => {
    server = await startServer({
      port: 0,
      host: '127.0.0.1',
      portOption: 'p',
      intake: limited,
      handler: (call, response) =>
        readBody(call, 1_000_000, (body) =>
          body.ok
            ? reply(response, 200, 'text/plain', String(body.bytes.length))
            : replyText(response, body.status, body.because),
        ),
    });
  };
  /** A body of which only a part comes, until the connection ends. */
  const half = (bytes: number): { readonly socket: Socket; readonly answer: Promise<string> } => {
    const socket = connect(server.port, '127.0.0.1').on('error', () => undefined);
    sockets.push(socket);
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const answer = new Promise<string>((resolve) => socket.on('close', () => resolve(text)));
    socket.write(`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n${'x'.repeat(bytes)}`);
    return { socket, answer };
  };
  const post = (body: string): Promise<readonly [number, string]> =>
    new Promise((resolve, reject) => {
      request({ port: server.port, host: '127.0.0.1', method: 'POST', agent: false }, (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => (text += chunk.toString()));
        response.on('end', () => resolve([response.statusCode ?? 0, text]));
      })
        .on('error', reject)
        .end(body);
    });

  it('answers 503 to the largest of the bodies that come together, and serves the others', async () => {
    const refused: string[] = [];
    const limited = intake({ calls: 10, bytes: 600_000, refused: (because) => refused.push(because) });
    await start(limited);
    half(200_000);
    await expect.poll(() => limited.bytes).toBe(200_000);
    const large = half(500_000);
    expect(await large.answer).toMatch(/^HTTP\/1.1 503 .*connection: close.*try again/is);
    expect(refused).toEqual(['bytes']);
    expect(await post('small')).toEqual([200, '5']);
    await expect.poll(() => [limited.bytes, limited.calls]).toEqual([200_000, 1]);
  });
  it('answers 503 while there are too many calls', async () => {
    const limited = intake({ calls: 1, bytes: 600_000 });
    await start(limited);
    const { socket } = half(1);
    await expect.poll(() => limited.calls).toBe(1);
    expect(await post('small')).toEqual([503, expect.stringContaining('try again')]);
    socket.destroy();
    await expect.poll(() => limited.calls).toBe(0);
    expect(await post('small')).toEqual([200, '5']);
  });
  it('cuts off a client that does not read an answer that holds too many bytes', async () => {
    const limited = intake({ calls: 10, bytes: 20_000_000 });
    const big = Buffer.alloc(16_000_000);
    server = await startServer({
      port: 0,
      host: '127.0.0.1',
      portOption: 'p',
      intake: limited,
      handler: (_, response) => reply(response, 200, 'text/plain', big),
    });
    const deaf = (): Socket => {
      const socket = connect(server.port, '127.0.0.1').on('error', () => undefined);
      sockets.push(socket);
      socket.pause();
      socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
      return socket;
    };
    deaf();
    await expect.poll(() => limited.bytes).toBe(16_000_000);
    deaf();
    await expect.poll(() => server.connections).toBe(1);
    expect(limited.bytes).toBe(16_000_000);
  });
});
