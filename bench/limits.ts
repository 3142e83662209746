// `npm run bench -- limits`: whether the limits of the request path suffice for one event loop and
// for the memory that the chart gives it. The worst calls that the servers accept are sent over
// many connections at once, and small calls to the webhook wait beside them.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { aNode, aPod } from '../test/builders/objects.ts';
import { imageFlags } from './reports/programs.ts';
import { quantile, type BenchContext, type Row } from './rows.ts';

const MIB = 1024 * 1024;
/** The chart's limit, and the share of it that may be in flight. */
const MEMORY = 512 * MIB;
const IN_FLIGHT = MEMORY / 8;
/** The webhook's time limit in the chart. */
const PATIENCE_MS = 3000;
const CONNECTIONS = 60;

const post = (port: number, path: string, body: string | Buffer, agent?: Agent): Promise<number> =>
  new Promise((resolve) => {
    const call = request(
      {
        port,
        host: '127.0.0.1',
        path,
        method: 'POST',
        ...(agent === undefined ? { agent: false } : { agent }),
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode ?? 0));
      },
    );
    // A connection that was cut is an answer too.
    call.on('error', () => resolve(0));
    call.end(body);
  });

const reviewOf = (object: object): string =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: { uid: 'u', kind: { group: '', version: 'v1', kind: 'Pod' }, namespace: 'team', object },
  });

/** The largest bodies that are read to their end. */
const attacks = (): readonly (readonly [string, 'webhook' | 'extender', string, Buffer])[] => {
  const filled = (limit: number, text: (padding: string) => string): Buffer =>
    Buffer.from(text('x'.repeat(limit - text('').length - 100)));
  const env = (value: string): object => ({
    ...aPod({ gpus: '1' }),
    spec: {
      containers: [{ name: 'c', resources: { limits: { 'nvidia.com/gpu': '1' } }, env: [{ name: 'X', value }] }],
    },
  });
  const node = aNode({ name: 'node-1' });
  const whole = JSON.stringify({ ...node, padding: 'x'.repeat(18_000) });
  const items = Array.from({ length: Math.floor((15.5 * MIB) / whole.length) }, () => whole).join(',');
  const names = JSON.stringify(Array.from({ length: 15_000 }, (_, i) => `node-${i % 5000}-${'y'.repeat(240)}`));
  return [
    ['a pod of 7 MiB', 'webhook', '/mutate', filled(7 * MIB, (padding) => reviewOf(env(padding)))],
    ['brackets of 7 MiB', 'webhook', '/mutate', Buffer.alloc(7 * MIB - 1, '[')],
    [
      'whole nodes, 15.5 MiB',
      'extender',
      '/filter',
      Buffer.from(`{"Pod":${JSON.stringify(aPod({ gpus: '1' }))},"Nodes":{"items":[${items}]}}`),
    ],
    [
      '15,000 long names',
      'extender',
      '/filter',
      Buffer.from(`{"Pod":${JSON.stringify(aPod({ gpus: '1' }))},"NodeNames":${names}}`),
    ],
  ];
};

/** Figures of one attack on a fresh process. */
async function attacked(
  [name, target, path, body]: ReturnType<typeof attacks>[number],
  say: (line: string) => void,
): Promise<readonly Row[]> {
  const child = spawn(
    process.execPath,
    [...imageFlags(), join(import.meta.dirname, 'servers', 'request-path.ts'), String(IN_FLIGHT)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const ports = JSON.parse(line.toString()) as Record<'webhook' | 'extender', number>;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const small = reviewOf(aPod({ gpus: '1' }));
  const waits: number[] = [];
  const lost: number[] = [];
  const answers = new Map<number, number>();
  const over = new AbortController();
  const beside = (async () => {
    while (!over.signal.aborted) {
      const began = performance.now();
      const status = await post(ports.webhook, '/mutate', small, agent);
      if (status === 200) waits.push(performance.now() - began);
      else lost.push(status);
      await sleep(10);
    }
  })();
  await sleep(500);
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      const status = await post(ports[target], path, body);
      answers.set(status, (answers.get(status) ?? 0) + 1);
    }),
  );
  over.abort();
  await beside;
  agent.destroy();
  const peak = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024;
  child.kill('SIGKILL');
  say(`${name}: ${CONNECTIONS} at once answered ${JSON.stringify(Object.fromEntries(answers))}`);
  const longest = quantile(waits, 1);
  return [
    {
      name: `${name}: longest wait of ${waits.length} small calls to the webhook`,
      value: longest,
      unit: 'ms',
      bar: `below ${PATIENCE_MS} ms, the webhook's time limit`,
      held: longest < PATIENCE_MS,
    },
    {
      name: `${name}: small calls that failed`,
      value: lost.length,
      unit: 'calls',
      bar: 'none',
      held: lost.length === 0,
    },
    {
      name: `${name}: peak of the resident memory`,
      value: peak,
      unit: 'MiB',
      bar: `below ${MEMORY / MIB} MiB, the chart's limit`,
      held: peak < MEMORY / MIB,
    },
  ];
}

export const about = 'small calls to the webhook wait beside the worst calls that the servers accept';
export const options = {};

export async function run({ say }: BenchContext): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const attack of attacks()) rows.push(...(await attacked(attack, say)));
  return rows;
}
