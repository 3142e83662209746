// What the leader sees of replicas on loopback: what they serve, and which of them turn it down.
import { createServer } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { readCert } from '../../certs/cert.ts';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import { certProbe } from '../../certs/probe.ts';
import { startServer } from '../../platform/http.ts';
import type { Kube } from '../../platform/kube.ts';

const DAY = 86_400_000;
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

const httpsServer = async (): Promise<Awaited<ReturnType<typeof startServer>>> => {
  const server = await startServer({
    port: 0,
    host: '127.0.0.1',
    portOption: 'webhook-port',
    handler: (_, response) => response.end(),
    tls: {},
  });
  ends.push(() => server.close(0));
  return server;
};

it('a certificate is seen, a server without one and a closed port serve nothing, silence proves nothing', async () => {
  const now = Date.now();
  const leaf = await issueLeaf(
    await issueCa('ca', DAY, now),
    { name: 'w', sans: ['w'], usage: 'server', life: DAY },
    now,
  );
  const [good, bare, closed] = [await httpsServer(), await httpsServer(), await httpsServer()];
  good.setTls(leaf);
  await closed.close(0);
  const silent = createServer();
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  ends.push(() => silent.close());
  const silentPort = (silent.address() as { port: number }).port;
  const replicas = [good.port, bare.port, closed.port, silentPort].map((port) => `127.0.0.1:${port}`);
  const probe = certProbe({
    kube: {} as Kube,
    access: { userAgent: 'test' },
    namespace: 'n',
    apiServerName: 'kubernetes',
    apiServers: [],
    webhook: { service: 'w', replicas },
    extender: { service: 'e', replicas: [] },
  });
  const seen = await probe.replicas('webhook');
  const short = seen.kind === 'known' ? seen.served.map((one) => [one.leaf?.fingerprint, one.idle]) : [];
  const fingerprint = readCert(leaf.cert)?.fingerprint;
  expect(short).toEqual([
    [fingerprint, undefined],
    [undefined, true],
    [undefined, true],
    [undefined, undefined],
  ]);
});
