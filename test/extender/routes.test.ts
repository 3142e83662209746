// The extender over HTTP: what it counts, and what it answers where it should not be asked.
import { NO_DEVICES } from '../../gate/devices.ts';
import { Agent, request, type IncomingHttpHeaders } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { createServer, type Server } from 'node:http';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it } from 'vitest';
import { CLOSED, STATE } from '../../core/keys.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { TableView } from '../../extender/way.ts';
import { extenderMetrics } from '../../extender/metrics.ts';
import { NodeTable } from '../../extender/by-name/table.ts';
import { extenderApp, MAX_BODY } from '../../extender/routes.ts';
import { nodeFacts } from '../../gate/verdict.ts';
import { jsonLog } from '../../platform/log.ts';
import { claiming } from '../builders/devices.ts';
import { aNode, aPod, aPolicy, NOW } from '../builders/objects.ts';

const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const servers: Server[] = [];
afterEach(() => {
  agent.destroy();
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

async function extender(policy: GpuPolicy = aPolicy()) {
  const nodes = new NodeTable();
  for (const node of [
    aNode({ name: 'open-0' }),
    aNode({ name: 'open-1' }),
    aNode({ name: 'rebooted', boot: 'other' }),
    aNode({ name: 'closed', annotations: { [CLOSED]: 'by some operator, ticket 4711' } }),
    aNode({ name: 'driver', labels: { [STATE]: 'driver' }, validated: false }),
    { metadata: { name: 'plain', uid: 'x', labels: {} } },
  ])
    nodes.set(node.metadata.name, nodeFacts(node));
  const registry = new Registry();
  const known: TableView = {
    nodes,
    policies: new Map([['default', policy]]),
    devices: NO_DEVICES,
    operandNamespace: 'o',
  };
  let view: TableView | { because: string } = known;
  const server = createServer(
    extenderApp({
      metrics: extenderMetrics(registry, () => nodes.facts()),
      now: () => NOW,
      log: jsonLog('error', () => undefined),
      view: () => view,
    }),
  );
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  let sockets = 0;
  server.on('connection', () => (sockets += 1));
  return {
    port,
    sockets: () => sockets,
    say: (because: string | undefined) => (view = because === undefined ? known : { because }),
    figures: async (name: string): Promise<Record<string, number>> =>
      Object.fromEntries(
        (await registry.metrics())
          .split('\n')
          .filter((line) => line.startsWith(name))
          .map((line) => [line.slice(name.length, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
      ),
    call: (verb: string, body: unknown): Promise<{ status: number; headers: IncomingHttpHeaders; body: unknown }> =>
      new Promise((resolve, reject) => {
        const call = request({ port, host: '127.0.0.1', agent, path: `/${verb}`, method: 'POST' }, (response) => {
          let text = '';
          response.on('data', (chunk: Buffer) => (text += chunk.toString()));
          response.on('end', () =>
            resolve({ status: response.statusCode ?? 0, headers: response.headers, body: JSON.parse(text) as unknown }),
          );
        });
        call.on('error', reject);
        call.end(JSON.stringify(body));
      }),
  };
}
const NAMES = ['open-0', 'open-1', 'rebooted', 'closed', 'driver', 'plain', 'nowhere'];
const args = (annotations: Record<string, string> = {}, names = NAMES): object => ({
  Pod: aPod({ gpus: '1', annotations }),
  Nodes: null,
  NodeNames: names,
});
/** The same call in a shape that only the plain way reads. */
const plainly = (): object => ({ NodeNames: NAMES, ...args() });

describe('what is counted', () => {
  it.each([
    ['by the fast way', args()],
    ['by the plain way', plainly()],
  ])('verdicts by reason, none with words of a node, %s', async (_, body) => {
    const { call, figures } = await extender();
    await call('filter', body);
    await call('filter', body);
    expect(await figures('gpu_gate_verdicts_total')).toEqual({
      '{verdict="pass",reason=""}': 4,
      '{verdict="refuse",reason="node rebooted since validation"}': 2,
      '{verdict="refuse",reason="GPU node closed"}': 2,
      '{verdict="refuse",reason="GPU stack not validated: driver"}': 2,
      '{verdict="refuse",reason="node not opted in to gpu-gate"}': 2,
      '{verdict="refuse",reason="GPU state not known yet"}': 2,
    });
    expect(await figures('gpu_gate_extender_nodes')).toMatchObject({
      '_bucket{le="1"}': 0,
      '_bucket{le="10"}': 2,
      _sum: 2 * NAMES.length,
      _count: 2,
    });
  });

  it('a pod that is refused as a whole under one reason, whatever it wrote', async () => {
    const { call, figures } = await extender();
    for (const wish of ['a', 'b', 'c']) await call('filter', args({ 'gpu-gate.dev/min-driver': wish }));
    expect(await figures('gpu_gate_verdicts_total')).toEqual({
      '{verdict="refuse",reason="the pod\'s annotation gpu-gate.dev/min-driver is malformed"}': 3 * NAMES.length,
    });
  });

  it('why a pod passes everywhere, and what an auditing policy would have refused', async () => {
    const { call, figures } = await extender(aPolicy({}, { status: {} }));
    await call('filter', args());
    expect(await figures('gpu_gate_verdicts_total')).toEqual({ '{verdict="pass",reason="auditing"}': NAMES.length });
    expect(await figures('gpu_gate_would_refuse_total')).toEqual({ '': 5 });
  });

  it('an Error for a pod whose claim is not known yet, and no verdict', async () => {
    const { call, figures } = await extender();
    const spec = claiming({ resourceClaimName: 'late' });
    for (const body of [args(), plainly()]) {
      const answer = await call('filter', { ...body, Pod: aPod({ spec }) });
      expect(answer.body).toMatchObject({
        Error: 'gpu-gate: ResourceClaim team/late is not known yet; the pod is retried',
      });
    }
    expect(await figures('gpu_gate_verdicts_total')).toEqual({});
    expect(await figures('gpu_gate_extender_calls_total')).toMatchObject({ '{verb="filter",result="error"}': 2 });
  });

  it('calls by verb and result, their time and size', async () => {
    const { call, figures, say } = await extender();
    await call('filter', args());
    await call('prioritize', args());
    await call('preempt', { Pod: aPod({ gpus: '1' }), NodeNameToMetaVictims: {} });
    await call('filter', {});
    say('the list of nodes is not loaded yet');
    await call('filter', args());
    expect(await figures('gpu_gate_extender_calls_total')).toEqual({
      '{verb="filter",result="ok"}': 1,
      '{verb="prioritize",result="ok"}': 1,
      '{verb="preempt",result="ok"}': 1,
      '{verb="filter",result="malformed"}': 1,
      '{verb="filter",result="error"}': 1,
      // There before the first, so that an alert sees it.
      '{verb="prioritize",result="malformed"}': 0,
      '{verb="prioritize",result="error"}': 0,
      '{verb="preempt",result="malformed"}': 0,
      '{verb="preempt",result="error"}': 0,
    });
    const size = JSON.stringify(args()).length;
    expect(await figures('gpu_gate_extender_request_bytes')).toMatchObject({
      '_bucket{le="4096",verb="filter"}': 3,
      '_sum{verb="filter"}': 2 * size + 2,
      '_count{verb="prioritize"}': 1,
    });
    expect(await figures('gpu_gate_extender_duration_seconds')).toMatchObject({
      '_count{verb="filter"}': 3,
      '_bucket{le="+Inf",verb="preempt"}': 1,
    });
  });

  it('the nodes that are known, by state', async () => {
    const { figures } = await extender();
    expect(await figures('gpu_gate_extender_known_nodes')).toMatchObject({
      '{state="validated",open="true"}': 2,
      '{state="validated",open="false"}': 2,
      '{state="driver",open="false"}': 1,
      '{state="unmanaged",open="false"}': 1,
      '{state="failed",open="false"}': 0,
    });
  });
});

describe('a replica that should not be asked', () => {
  it('answers with an Error over the connection that the scheduler keeps, and gives it up', async () => {
    const { call, say, sockets } = await extender();
    const fresh = await call('filter', args());
    await call('filter', args());
    expect([fresh.headers.connection, sockets()]).toEqual(['keep-alive', 1]);

    say('the watch of nodes has been silent for longer than --watch-limit');
    const stale = await call('filter', args());
    expect(stale).toMatchObject({
      status: 200,
      headers: { connection: 'close' },
      body: {
        NodeNames: [],
        FailedAndUnresolvableNodes: {},
        Error: 'gpu-gate: the watch of nodes has been silent for longer than --watch-limit',
      },
    });
    expect(sockets()).toBe(1);
    // Over a new one, which behind a Service is another replica's.
    expect(await call('prioritize', args())).toMatchObject({ body: [], headers: { connection: 'close' } });
    expect(await call('preempt', { Pod: aPod({ gpus: '1' }), NodeNameToMetaVictims: { 'open-0': {} } })).toMatchObject({
      body: { NodeNameToMetaVictims: {} },
      headers: { connection: 'close' },
    });
    expect(sockets()).toBe(3);

    say(undefined);
    expect((await call('filter', args())).body).toMatchObject({ NodeNames: ['open-0', 'open-1'], Error: '' });
    await call('filter', args());
    expect(sockets()).toBe(4);
  });
});

describe('a call over the limit', () => {
  const head = (how: string): string => `POST /filter HTTP/1.1\r\nhost: x\r\n${how}\r\n\r\n`;
  /** What comes back over a connection of its own, until it ends. */
  async function raw(port: number, send: (socket: Socket) => void): Promise<string> {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    send(socket);
    await new Promise<void>((resolve, reject) => socket.on('close', resolve).on('error', reject));
    return text;
  }
  const ANSWER =
    /^HTTP\/1.1 200 OK\r\n(.*\r\n)?connection: close\r\n.*"NodeNames":\[\].*"Error":"gpu-gate: the call is larger than \d+ bytes; set nodeCacheCapable: true/is;

  it('is read to its end and answered with an Error that says what to set', async () => {
    const { port, figures } = await extender();
    const mebibyte = Buffer.alloc(1024 * 1024, 'x');
    const answer = await raw(port, (socket) => {
      socket.write(head(`content-length: ${MAX_BODY + mebibyte.length}`));
      for (let sent = 0; sent < MAX_BODY + mebibyte.length; sent += mebibyte.length) socket.write(mebibyte);
    });
    expect(answer).toMatch(ANSWER);
    expect(await figures('gpu_gate_extender_calls_total')).toMatchObject({ '{verb="filter",result="malformed"}': 1 });
  });
  it('is answered at the limit where it does not say how long it is', async () => {
    const { port } = await extender();
    const chunk = `100000\r\n${'x'.repeat(1024 * 1024)}\r\n`;
    const answer = await raw(port, (socket) => {
      socket.write(head('transfer-encoding: chunked'));
      for (let i = 0; i < MAX_BODY / (1024 * 1024); i += 1) socket.write(chunk);
      socket.write('1\r\nx\r\n');
    });
    expect(answer).toMatch(ANSWER);
  });
});
