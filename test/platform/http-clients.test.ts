// Who is asked for a client certificate, and by which CAs it is judged.
import { getCACertificates, setDefaultCACertificates, TLSSocket } from 'node:tls';
import { Agent, request } from 'node:https';
import { afterEach, expect, it, vi } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import type { KeyPair } from '../../certs/cert.ts';
import { startServer, type RunningServer } from '../../platform/http.ts';

const DAY = 86_400_000;
let server: RunningServer | undefined;
const publicCas = getCACertificates('default');
afterEach(async () => {
  setDefaultCACertificates(publicCas);
  await server?.close(0);
  vi.restoreAllMocks();
});

const ask = (port: number, client: Partial<KeyPair> & { readonly agent?: Agent }): Promise<number | string> =>
  new Promise((resolve) => {
    const call = request({ port, rejectUnauthorized: false, ...client }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    call.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    call.end();
  });

it.each([[''], ['\n'], ['junk']])(
  'rejects every client if the text of CAs is %j, even one with a certificate of a public CA',
  async (ca) => {
    const [publicCa, own] = [await issueCa('public', DAY, Date.now()), await issueCa('own', DAY, Date.now())];
    setDefaultCACertificates([publicCa.cert]);
    const serving = await issueLeaf(own, { name: 's', sans: ['localhost'], usage: 'server', life: DAY }, Date.now());
    const of = (signer: KeyPair): Promise<KeyPair> =>
      issueLeaf(signer, { name: 'client', sans: [], usage: 'client', life: DAY }, Date.now());
    server = await startServer({
      port: 0,
      host: '127.0.0.1',
      portOption: 'p',
      handler: (_, response) => void response.end('ok'),
      tls: { client: { names: ['client'] } },
    });
    const clients = { publicly: await of(publicCa), ours: await of(own) };
    server.setTls({ ...serving, ca });
    for (const client of [clients.publicly, clients.ours, {}]) expect(await ask(server.port, client)).not.toBe(200);
    server.setTls({ ...serving, ca: own.cert });
    expect(await ask(server.port, clients.ours)).toBe(200);
    expect(await ask(server.port, clients.publicly)).not.toBe(200);
  },
);

it('reads the certificate of a connection once, whatever the number of calls, and of each connection', async () => {
  const ca = await issueCa('own', DAY, Date.now());
  const serving = await issueLeaf(ca, { name: 's', sans: ['localhost'], usage: 'server', life: DAY }, Date.now());
  const of = (name: string): Promise<KeyPair> =>
    issueLeaf(ca, { name, sans: [], usage: 'client', life: DAY }, Date.now());
  const read = vi.spyOn(TLSSocket.prototype, 'getPeerCertificate');
  server = await startServer({
    port: 0,
    host: '127.0.0.1',
    portOption: 'p',
    handler: (_, response) => void response.end('ok'),
    tls: { material: serving, client: { ca: ca.cert, names: ['client'] } },
  });
  for (const [name, status] of [
    ['client', 200],
    ['stranger', 403],
  ] as const) {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const pair = await of(name);
    read.mockClear();
    for (let call = 0; call < 3; call += 1) expect(await ask(server.port, { ...pair, agent })).toBe(status);
    // The client's end of the connection asks for the server's.
    expect(read.mock.results.filter(({ value }) => value?.subject?.CN === name)).toHaveLength(1);
    agent.destroy();
  }
});
