import { NO_DEVICES } from '../../gate/devices.ts';
import { Agent, get, request } from 'node:http';
import { get as httpsGet, request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import { NodeTable } from '../../extender/by-name/table.ts';
import { extenderMetrics } from '../../extender/metrics.ts';
import { extenderApp } from '../../extender/routes.ts';
import { expressApp } from '../../platform/express.ts';
import { KEEP_ALIVE_MS, startServer, type RunningServer } from '../../platform/http.ts';
import { jsonLog } from '../../platform/log.ts';
import { metricsApp } from '../../platform/monitoring.ts';
import { webhookMetrics } from '../../webhook/metrics.ts';
import { webhookApp } from '../../webhook/routes.ts';
import { aPod, aPolicy } from '../builders/objects.ts';

const servers: RunningServer[] = [];
const serve = async (
  handler: Parameters<typeof startServer>[0]['handler'],
  more: object = {},
): Promise<RunningServer> => {
  const server = await startServer({ port: 0, host: '127.0.0.1', portOption: 'webhook-port', handler, ...more });
  servers.push(server);
  return server;
};
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close(100);
});

const log = jsonLog('error', () => undefined);
const facts = {
  policies: new Map([['default', aPolicy()]]),
  runtimeClasses: new Map([['nvidia', { nodeSelector: { zone: 'a' } }]]),
  devices: NO_DEVICES,
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set<string>(),
};
const policies = new Map([
  ['default', aPolicy()],
  ['suspended', aPolicy({ suspend: true })],
  ['auditing', aPolicy({}, { status: {} })],
]);
const webhook = (synced = true) =>
  webhookApp({ log, metrics: webhookMetrics(new Registry()), facts: () => (synced ? facts : undefined) });
const review = (pod: object): object => ({
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  request: { uid: 'u', kind: { group: '', version: 'v1', kind: 'Pod' }, namespace: 'team', object: pod },
});
const post = async (
  server: RunningServer,
  path: string,
  body: string,
  headers: Record<string, string> = { 'content-type': 'application/json' },
): Promise<{ status: number; text: string; length: string | null }> => {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { method: 'POST', body, headers });
  return { status: response.status, text: await response.text(), length: response.headers.get('content-length') };
};

describe('a server', () => {
  it('says in one sentence that its port is taken', async () => {
    const first = await serve((_, response) => response.end('x'));
    await expect(
      startServer({ port: first.port, host: '127.0.0.1', portOption: 'webhook-port', handler: () => undefined }),
    ).rejects.toThrow(`port ${first.port} is in use: choose another one with --webhook-port`);
  });
  it('keeps connections longer than Go does', async () => {
    const server = await serve((_, response) => response.end('x'));
    const header = await new Promise<string | undefined>((resolve) =>
      get({ port: server.port, host: '127.0.0.1', agent: new Agent({ keepAlive: true }) }, (response) =>
        resolve(String(response.headers['keep-alive'])),
      ),
    );
    expect(header).toBe(`timeout=${KEEP_ALIVE_MS / 1000}`);
    expect(KEEP_ALIVE_MS).toBeGreaterThan(90_000);
  });
  it('lets running calls end when it stops, and closes their connections', async () => {
    const called = Promise.withResolvers<() => void>();
    const server = await serve((_, response) => called.resolve(() => response.end('done')));
    const running = new Promise<string | undefined>((resolve, reject) => {
      get({ port: server.port, host: '127.0.0.1', agent: new Agent({ keepAlive: true }) }, (response) => {
        response.resume();
        response.on('end', () => resolve('done'));
      }).on('error', reject);
    });
    const answer = await called.promise;
    // Longer than this test may take, so a close that waited for it would fail.
    const closing = server.close(600_000);
    answer();
    expect(await running).toBe('done');
    await closing;
  });
  const silent = ({ port }: RunningServer) => {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    const on = (event: string): Promise<unknown> => new Promise((resolve) => socket.once(event, resolve));
    return { connected: on('connect'), closed: on('close') };
  };
  it('a caller that sends nothing is cut off after a while', async () => {
    await silent(await serve((_, response) => response.end('x'), { tls: {}, headersTimeoutMs: 400 })).closed;
  });
  it('a caller that sends nothing does not hold up a stop', async () => {
    const server = await serve((_, response) => response.end('x'), { tls: {}, headersTimeoutMs: 600_000 });
    const { connected, closed } = silent(server);
    await connected;
    await server.close(100);
    await closed;
  });
  it('asks callers to leave while it drains, and closes no connection under them', async () => {
    const server = await serve((_, response) => response.end('x'));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const call = (): Promise<{ connection: string | undefined; reused: boolean }> =>
      new Promise((resolve, reject) => {
        const sent = get({ port: server.port, host: '127.0.0.1', agent }, (response) => {
          response.resume();
          response.on('end', () => resolve({ connection: response.headers.connection, reused: sent.reusedSocket }));
        }).on('error', reject);
      });
    expect(await call()).toEqual({ connection: 'keep-alive', reused: false });
    server.drain();
    expect(await call()).toEqual({ connection: 'close', reused: true });
    expect(await call()).toEqual({ connection: 'close', reused: false });
    await server.close(100);
    await expect(call()).rejects.toThrow('ECONNREFUSED');
  });
  it('serves a new certificate on new connections without closing its port', async () => {
    const now = Date.now();
    const ca = await issueCa('ca', 3_600_000, now);
    const leaf = (life: number) => issueLeaf(ca, { name: 'w', sans: ['127.0.0.1'], usage: 'server', life }, now);
    const server = await serve((_, response) => response.end('x'), { tls: {} });
    const until = (): Promise<string> =>
      new Promise((resolve, reject) =>
        httpsGet({ port: server.port, host: '127.0.0.1', ca: ca.cert, agent: false }, (response) =>
          resolve(
            (response.socket as unknown as { getPeerCertificate(): { valid_to: string } }).getPeerCertificate()
              .valid_to,
          ),
        ).on('error', reject),
      );
    await expect(until()).rejects.toThrow();
    server.setTls(await leaf(600_000));
    const first = await until();
    server.setTls(await leaf(1_200_000));
    expect(await until()).not.toBe(first);
  });
});

describe('POST /mutate', () => {
  it('injects, with a length', async () => {
    const answer = await post(await serve(webhook()), '/mutate', JSON.stringify(review(aPod({ gpus: '1' }))));
    expect(answer.status).toBe(200);
    expect(answer.length).toBe(String(Buffer.byteLength(answer.text)));
    const { response } = JSON.parse(answer.text) as { response: { uid: string; allowed: boolean; patch: string } };
    expect([response.uid, response.allowed]).toEqual(['u', true]);
    expect(Buffer.from(response.patch, 'base64').toString()).toContain('/spec/runtimeClassName');
  });
  it('refuses in one sentence', async () => {
    const { text } = await post(
      await serve(webhook()),
      '/mutate',
      JSON.stringify(review(aPod({ gpus: '1', annotations: { 'gpu-gate.dev/policy': 'nope' } }))),
    );
    expect(JSON.parse(text)).toMatchObject({
      response: {
        allowed: false,
        status: { code: 403, message: expect.stringContaining('GPUPolicy "nope" does not exist') },
      },
    });
  });
  it('gives no verdict before its caches are loaded: failurePolicy decides', async () => {
    const answer = await post(await serve(webhook(false)), '/mutate', JSON.stringify(review(aPod({ gpus: '1' }))));
    expect([answer.status, answer.text]).toEqual([
      503,
      'gpu-gate has not loaded its policies yet: try again in a few seconds\n',
    ]);
  });
  it.each([
    ['not JSON', '{"kind":', undefined, 400],
    ['nothing', '', undefined, 400],
    ['a list', '[]', undefined, 400],
    ['another kind', '{"kind":"Pod"}', undefined, 400],
    ['another version', JSON.stringify({ ...review(aPod()), apiVersion: 'admission.k8s.io/v1beta1' }), undefined, 400],
    ['no uid', '{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}', undefined, 400],
    [
      'no object',
      '{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","kind":{"group":"","kind":"Pod"}}}',
      undefined,
      400,
    ],
    ['a pod without metadata', JSON.stringify(review({ spec: { containers: [] } })), undefined, 400],
    [
      'a pod whose metadata is a list',
      JSON.stringify(review({ metadata: [], spec: { containers: [] } })),
      undefined,
      400,
    ],
    ['the wrong content type', '{}', { 'content-type': 'text/plain' }, 415],
  ])('answers %s with one sentence and lives', async (_, body, headers, status) => {
    const server = await serve(webhook());
    const answer = await post(server, '/mutate', body, headers);
    expect(answer.status).toBe(status);
    expect(answer.text.trim().split('\n')).toHaveLength(1);
    expect((await post(server, '/mutate', JSON.stringify(review(aPod())))).status).toBe(200);
  });
  it.each([
    [
      '__proto__ and a null list',
      '{"metadata":{"__proto__":{"labels":1}},"spec":{"containers":null,"__proto__":{"x":1}}}',
      200,
    ],
    [
      'null in place of lists',
      '{"metadata":{},"spec":{"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1"}},"env":null,"volumeMounts":null}],"volumes":null,"readinessGates":null}}',
      200,
    ],
    [
      'deep nesting',
      `{"spec":{"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1"}}}],"x":${'['.repeat(500)}${']'.repeat(500)}},"metadata":{"labels":null,"annotations":null}}`,
      200,
    ],
    ['no metadata', '{"spec":{"containers":[]}}', 400],
    ['null in place of a container', '{"metadata":{},"spec":{"containers":[null]}}', 400],
  ])('survives an odd pod: %s', async (_, pod, status) => {
    const server = await serve(webhook());
    const body = JSON.stringify(review({})).replace('"object":{}', `"object":${pod}`);
    const answer = await post(server, '/mutate', body);
    expect([answer.status, answer.text.includes('"allowed":true')]).toEqual([status, status === 200]);
    expect((await post(server, '/mutate', JSON.stringify(review(aPod())))).status).toBe(200);
  });
  it('is not held up by a slow client', async () => {
    const server = await serve(webhook());
    const slow = request({
      port: server.port,
      host: '127.0.0.1',
      method: 'POST',
      path: '/mutate',
      headers: { 'content-type': 'application/json', 'content-length': 1000 },
    }).on('error', () => undefined);
    slow.write('{');
    expect((await post(server, '/mutate', JSON.stringify(review(aPod({ gpus: '1' }))))).status).toBe(200);
    slow.destroy();
  });
  it('is not held up by 1,000 idle connections over TLS, and holds little for each', async () => {
    const now = Date.now();
    const ca = await issueCa('ca', 3_600_000, now);
    const material = await issueLeaf(ca, { name: 'w', sans: ['127.0.0.1'], usage: 'server', life: 600_000 }, now);
    const server = await serve(webhook(), { tls: { material }, maxConnections: 2000 });
    // Resumed: 1,000 full handshakes would be half a minute of RSA here.
    let session: Buffer | undefined;
    const open = (): Promise<TLSSocket> =>
      new Promise((resolve, reject) => {
        const options = { port: server.port, host: '127.0.0.1', ca: ca.cert };
        const socket = connectTls({ ...options, ...(session === undefined ? {} : { session }) }, () => resolve(socket));
        socket.on('session', (ticket: Buffer) => (session ??= ticket));
        socket.on('error', reject);
      });
    const call = (): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const options = { port: server.port, host: '127.0.0.1', ca: ca.cert, agent: false, path: '/mutate' };
        const headers = { 'content-type': 'application/json' };
        httpsRequest({ ...options, method: 'POST', headers }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on('error', reject)
          .end(JSON.stringify(review(aPod({ gpus: '1' }))));
      });
    expect(await call()).toBe(200);
    const before = process.memoryUsage().rss;
    const idle: TLSSocket[] = [];
    while (idle.length < 1000) idle.push(...(await Promise.all(Array.from({ length: 50 }, open))));
    expect(idle.every((socket) => socket.authorized && !socket.destroyed)).toBe(true);
    expect(await call()).toBe(200);
    // Both ends are in this process: what one end takes is about half of it.
    expect((process.memoryUsage().rss - before) / 1000 / 1024).toBeLessThan(250);
    for (const socket of idle) socket.destroy();
  });
});

describe('what the webhook counts', () => {
  it('each call once by outcome and reason, how long it took, how large it was, none under way', async () => {
    const registry = new Registry();
    // Each look at the clock is a quarter of a second after the previous one.
    let now = 0;
    vi.spyOn(performance, 'now').mockImplementation(() => (now += 250));
    const server = await serve(
      webhookApp({ log, metrics: webhookMetrics(registry), facts: () => ({ ...facts, policies }) }),
    );
    const send = (pod: object) => post(server, '/mutate', JSON.stringify(review(pod)));
    const named = (policy: string, more: object = {}): object =>
      aPod({ gpus: '1', annotations: { 'gpu-gate.dev/policy': policy, ...more } });
    const pods: readonly (readonly [string, object])[] = [
      ['injected ', aPod({ gpus: '1' })],
      ['left no-gpu', aPod()],
      ['left opted-out', aPod({ gpus: '1', labels: { 'gpu-gate.dev/inject': 'false' } })],
      ['left mirror-pod', aPod({ gpus: '1', annotations: { 'kubernetes.io/config.mirror': 'x' } })],
      ['left node-name-set', aPod({ gpus: '1', spec: { nodeName: 'n' } })],
      ['left suspended', named('suspended')],
      ['left auditing', named('auditing')],
      ['refused unknown-policy', named('nope')],
      ['refused malformed-annotation', named('default', { 'gpu-gate.dev/min-driver': 'x' })],
      ['refused node-selector-conflict', aPod({ gpus: '1', spec: { nodeSelector: { zone: 'b' } } })],
    ];
    const size = pods.reduce((sum, [, pod]) => sum + Buffer.byteLength(JSON.stringify(review(pod))), 0);
    for (const [, pod] of pods) await send(pod);
    await post(server, '/mutate', 'junk');
    const text = await registry.metrics();
    const counted = [...text.matchAll(/^gpu_gate_admission_total\{outcome="(.*)",reason="(.*)"\} 1$/gm)].map(
      ([, outcome, reason]) => `${outcome} ${reason}`,
    );
    expect(counted.toSorted()).toEqual([...pods.map(([what]) => what), 'malformed json'].toSorted());
    const figure = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
    expect(figure('gpu_gate_admission_duration_seconds_count')).toBe(pods.length + 1);
    expect(figure('gpu_gate_admission_duration_seconds_sum')).toBe((pods.length + 1) * 0.25);
    expect(figure('gpu_gate_admission_body_bytes_count')).toBe(pods.length + 1);
    expect(figure('gpu_gate_admission_body_bytes_sum')).toBe(size + 'junk'.length);
    expect(figure('gpu_gate_admission_in_flight')).toBe(0);
  });
});

describe('the extender’s endpoints', () => {
  const extender = (synced = true) =>
    extenderApp({
      log,
      metrics: extenderMetrics(new Registry(), () => []),
      now: Date.now,
      view: () =>
        synced
          ? {
              nodes: new NodeTable(),
              policies: new Map([['default', aPolicy()]]),
              devices: NO_DEVICES,
              operandNamespace: 'o',
            }
          : { because: 'the list of nodes is not loaded yet, the pod is tried again' },
    });
  it('answers a malformed body with 200 and Error: the scheduler throws the text of any other status away', async () => {
    const server = await serve(extender());
    const answer = await post(server, '/filter', '{}');
    expect([answer.status, JSON.parse(answer.text)]).toEqual([
      200,
      expect.objectContaining({ Error: expect.stringContaining('ExtenderArgs has no Pod'), NodeNames: [] }),
    ]);
    const junk = await post(server, '/filter', 'junk');
    expect([junk.status, JSON.parse(junk.text)]).toEqual([
      200,
      expect.objectContaining({ Error: expect.stringContaining('is not JSON') }),
    ]);
    expect((await post(server, '/prioritize', 'junk')).text).toBe('[]');
    expect(JSON.parse((await post(server, '/preempt', 'junk')).text)).toEqual({ NodeNameToMetaVictims: {} });
    expect((await post(server, '/nothing', '{}')).status).toBe(404);
  });
  it('says Error before its caches are loaded: nothing is let through', async () => {
    const { text } = await post(
      await serve(extender(false)),
      '/filter',
      JSON.stringify({ Pod: aPod({ gpus: '1' }), NodeNames: ['a'] }),
    );
    expect(JSON.parse(text)).toMatchObject({ NodeNames: [], Error: expect.stringContaining('not loaded yet') });
  });
});

describe('an express application', () => {
  it('says nothing of a request that it cannot read, neither in its answer nor on stderr', async () => {
    const told: unknown[] = [];
    vi.spyOn(console, 'error').mockImplementation((...texts: unknown[]) => void told.push(texts));
    const app = expressApp((routes) => {
      routes.get('/:name', (_, response) => void response.send('ok'));
      routes.get('/fails/:name', () => {
        throw new Error('hunter2');
      });
    }, 'nothing here');
    const server = await serve(app);
    const get = async (path: string): Promise<readonly [number, string]> => {
      const response = await fetch(`http://127.0.0.1:${server.port}${path}`);
      return [response.status, await response.text()];
    };
    expect(await get('/%zz-hunter2')).toEqual([400, 'this call cannot be answered\n']);
    expect(await get('/fails/hunter2')).toEqual([500, 'this call cannot be answered\n']);
    expect(await get('/a/b/c')).toEqual([404, 'nothing here\n']);
    expect(told).toEqual([]);
  });
});

describe('the metrics port', () => {
  it('is ready or says why not', async () => {
    let reasons = ['the list of nodes is not loaded yet'];
    const server = await serve(metricsApp(new Registry(), { notReady: () => reasons }));
    const ready = () => fetch(`http://127.0.0.1:${server.port}/readyz`);
    expect([(await ready()).status, await (await ready()).text()]).toEqual([
      503,
      'the list of nodes is not loaded yet\n',
    ]);
    reasons = [];
    expect((await ready()).status).toBe(200);
    expect((await fetch(`http://127.0.0.1:${server.port}/healthz`)).status).toBe(200);
  });
});
