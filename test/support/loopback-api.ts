// A server on loopback that answers every call as the test says: for how a client sends, not for
// what an API server does with it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Call {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
}

export interface LoopbackApi {
  /** What came, in order. */
  readonly calls: readonly Call[];
  /** Writes a file that is removed at the end; returns its path. */
  write(name: string, text: string): string;
  /** Writes a kubeconfig for this user; returns its path. */
  kubeconfig(user: object): string;
  stop(): void;
}

/** `answer` gives the status of a call, and an object or nothing. */
export async function loopbackApi(
  answer: (call: Call) => readonly [status: number, body?: object],
): Promise<LoopbackApi> {
  const calls: Call[] = [];
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-loopback-'));
  const server = createServer((request, response) => {
    request.resume();
    const { method = '', url = '', headers } = request;
    const call = { method, path: url, authorization: headers.authorization };
    calls.push(call);
    const [status, body = {}] = answer(call);
    response.writeHead(status, { 'retry-after': '0' }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const write = (name: string, text: string): string => {
    const path = join(dir, name);
    writeFileSync(path, text);
    return path;
  };
  const named = (kind: string, value: object) => [{ name: 'x', [kind]: value }];
  return {
    calls,
    write,
    kubeconfig: (user) =>
      write(
        'kubeconfig',
        JSON.stringify({
          apiVersion: 'v1',
          kind: 'Config',
          'current-context': 'x',
          clusters: named('cluster', { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true }),
          users: named('user', user),
          contexts: named('context', { cluster: 'x', user: 'x' }),
        }),
      ),
    stop() {
      server.closeAllConnections();
      server.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
