// Who is asked for a client certificate, and by which CAs it is judged.
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { request } from 'node:https';
import { afterEach, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import type { KeyPair } from '../../certs/cert.ts';
import { startServer, type RunningServer } from '../../platform/http.ts';

const DAY = 86_400_000;
let server: RunningServer | undefined;
const publicCas = getCACertificates('default');
afterEach(async () => {
  setDefaultCACertificates(publicCas);
  await server?.close(0);
});

const ask = (port: number, client: Partial<KeyPair>): Promise<number | string> =>
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
