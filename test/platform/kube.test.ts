// The client against a server of the test's own on loopback: what is sent again, and what is asked
// before that.
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openKube, type Kube } from '../../platform/kube.ts';

let server: Server;
let dir: string;
let kube: Kube;
let statuses: number[] = [];
let calls = 0;

beforeAll(async () => {
  server = createServer((request, response) => {
    request.resume();
    calls += 1;
    response.writeHead(statuses.shift() ?? 200, { 'retry-after': '0' }).end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  dir = mkdtempSync(join(tmpdir(), 'gpu-gate-kube-'));
  const kubeconfig = join(dir, 'kubeconfig');
  const named = (kind: string, value: object) => [{ name: 'x', [kind]: value }];
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'x',
      clusters: named('cluster', { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true }),
      users: named('user', { token: 't' }),
      contexts: named('context', { cluster: 'x', user: 'x' }),
    }),
  );
  kube = await openKube({ kubeconfig, userAgent: 'test' });
});
afterAll(() => {
  server.close();
  rmSync(dir, { recursive: true, force: true });
});

it('asks before each attempt, also before a retry after 429', async () => {
  [statuses, calls] = [[429, 429], 0];
  let asked = 0;
  await kube.request('PATCH', '/x', { body: {}, beforeAttempt: () => void (asked += 1) });
  expect([asked, calls]).toEqual([3, 3]);
});

it('sends nothing again once that throws', async () => {
  [statuses, calls] = [[429, 429], 0];
  const lost = new Error('not leading any more');
  const beforeAttempt = (): void => {
    if (calls > 0) throw lost;
  };
  await expect(kube.request('PATCH', '/x', { body: {}, beforeAttempt })).rejects.toBe(lost);
  expect(calls).toBe(1);
});
