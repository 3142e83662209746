// `npm run bench -- webhook [--size KB] [--scale 1]`: /mutate called directly over TLS at fixed
// rates, ours beside a Go author's and a bare express one, which both decide nothing, by one client
// and in short turns. The loop is open, so a stall is not hidden. This is the webhook alone; what a
// creation on an API server takes is `npm run bench -- admission`.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { issueCa, issueLeaf } from '../certs/issue.ts';
import { ensureOwnProgram } from '../lab/cluster/binaries.ts';
import { freePort } from '../lab/cluster/control-plane.ts';
import { cpuMs } from './reports/cpu.ts';
import { blockQuantile, numberArg, type BenchContext, type Row } from './rows.ts';

const VARIANTS = ['ours', 'go', 'express'] as const;
type Variant = (typeof VARIANTS)[number];

interface Cell {
  /** KB of the review. */
  readonly size: number;
  /** Calls a second. */
  readonly rate: number;
  /** Calls of a turn, and turns of each variant. */
  readonly calls: number;
  readonly turns: number;
}
const CELLS: readonly Cell[] = [
  { size: 2, rate: 200, calls: 400, turns: 12 },
  { size: 2, rate: 1000, calls: 1000, turns: 16 },
  { size: 20, rate: 100, calls: 200, turns: 12 },
  { size: 20, rate: 400, calls: 500, turns: 16 },
  { size: 200, rate: 20, calls: 60, turns: 10 },
  { size: 200, rate: 60, calls: 150, turns: 12 },
];
/**
 * Calls of which a quantile is taken: a p99.9 needs thousands of them, and one of all calls would
 * be that of the machine's worst moment.
 */
const BLOCKS: readonly (readonly [string, number, number])[] = [
  ['p50', 0.5, 200],
  ['p99', 0.99, 500],
  ['p99.9', 0.999, 2000],
];
const BAR = 0.9;
const BAR_TEXT = "at most 0.9 times Go's, because every creation of a GPU pod waits for it";

/**
 * A review as an API server writes it: fields in Go's order, and an entry of managedFields for each
 * field of the pod.
 */
function reviewOf(kilobytes: number): string {
  const variables = Array.from({ length: Math.max(1, Math.round((kilobytes * 1024 - 1200) / 190)) }, (_, i) => ({
    name: `VARIABLE_${i}`,
    value: 'x'.repeat(64),
  }));
  const managed = Object.fromEntries(
    variables.map(({ name }) => [`k:{"name":"${name}"}`, { '.': {}, 'f:name': {}, 'f:value': {} }]),
  );
  const resources = { limits: { 'nvidia.com/gpu': '1' }, requests: { 'nvidia.com/gpu': '1' } };
  const pod = { group: '', version: 'v1' };
  return JSON.stringify({
    kind: 'AdmissionReview',
    apiVersion: 'admission.k8s.io/v1',
    request: {
      uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
      kind: { ...pod, kind: 'Pod' },
      resource: { ...pod, resource: 'pods' },
      requestKind: { ...pod, kind: 'Pod' },
      requestResource: { ...pod, resource: 'pods' },
      namespace: 'team',
      operation: 'CREATE',
      userInfo: { username: 'system:serviceaccount:kube-system:job-controller', groups: ['system:authenticated'] },
      object: {
        kind: 'Pod',
        apiVersion: 'v1',
        metadata: {
          generateName: 'train-',
          namespace: 'team',
          labels: { app: 'train' },
          managedFields: [
            {
              manager: 'kube-controller-manager',
              operation: 'Update',
              apiVersion: 'v1',
              time: '2026-11-28T09:00:00Z',
              fieldsType: 'FieldsV1',
              fieldsV1: { 'f:spec': { 'f:containers': { 'k:{"name":"main"}': { 'f:env': { '.': {}, ...managed } } } } },
            },
          ],
        },
        spec: {
          containers: [{ name: 'main', image: 'x', env: variables, resources }],
          restartPolicy: 'Never',
          schedulerName: 'default-scheduler',
        },
        status: {},
      },
      oldObject: null,
      dryRun: false,
      options: { kind: 'CreateOptions', apiVersion: 'meta.k8s.io/v1' },
    },
  });
}

const listening = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });

/**
 * What the calls of one variant took, µs in the order in which they began, and the CPU time of its
 * process, ms.
 */
interface Measured {
  readonly times: number[];
  cpu: number;
}

function rowsOf({ size, rate }: Cell, measured: Readonly<Record<Variant, Measured>>): Row[] {
  const figure = (what: string, unit: string, of: (one: Measured) => number): Row[] => {
    const reference = { name: 'Go', value: of(measured.go) };
    const value = of(measured.ours);
    const name = `${what}, ${size} KB, ${rate}/s`;
    return [
      { name: `${name}: ours`, value, unit, reference, bar: BAR_TEXT, held: value <= BAR * reference.value },
      { name: `${name}: express`, value: of(measured.express), unit, reference },
    ];
  };
  return [
    ...BLOCKS.filter(([, , block]) => measured.ours.times.length >= block).flatMap(([what, q, block]) =>
      figure(what, 'ms', ({ times }) => blockQuantile(times, q, block) / 1000),
    ),
    ...figure('CPU a call', 'ms', ({ times, cpu }) => cpu / times.length),
  ];
}

export const about = '/mutate at fixed rates over TLS, beside a Go and an express webhook that decide nothing';
export const options = {
  '--size KB': 'reviews of one size only',
  '--scale N': 'so many times as long (1)',
};

export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const reference = join(import.meta.dirname, 'reference');
  const program = await ensureOwnProgram(join(reference, 'webhook-go'), 'webhook-go', {
    cacheHome: process.env['XDG_CACHE_HOME'],
    path: process.env['PATH'],
    say,
  });
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-bench-'));
  const children: ChildProcess[] = [];
  const start = (command: string, words: readonly string[]): ChildProcess => {
    const child = spawn(command, words, { stdio: ['pipe', 'pipe', 'inherit'] });
    children.push(child);
    return child;
  };
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  };
  try {
    const now = Date.now();
    const ca = await issueCa('bench', 86_400_000, now);
    const leaf = await issueLeaf(ca, { name: 'bench', sans: ['127.0.0.1'], usage: 'server', life: 86_400_000 }, now);
    const [caFile, cert, key] = [file('ca', ca.cert), file('cert', leaf.cert), file('key', leaf.key)];
    const ports = { ours: await freePort(), go: await freePort(), express: await freePort() };
    const servers: Readonly<Record<Variant, ChildProcess>> = {
      ours: start(process.execPath, [
        join(import.meta.dirname, 'servers', 'webhook.ts'),
        String(ports.ours),
        key,
        cert,
      ]),
      go: start(program, ['-address', `127.0.0.1:${ports.go}`, '-cert', cert, '-key', key]),
      express: start(process.execPath, [join(reference, 'webhook-express.ts'), String(ports.express), key, cert]),
    };
    for (const variant of VARIANTS) while (!(await listening(ports[variant]))) await sleep(50);
    const client = start(program, ['load']);
    const lines = createInterface({ input: client.stdout ?? process.stdin })[Symbol.asyncIterator]();
    const play = async (variant: Variant, rate: number, calls: number, body: string): Promise<number[]> => {
      client.stdin?.write(`${rate} ${calls} https://127.0.0.1:${ports[variant]}/mutate ${caFile} ${body}\n`);
      const { value, done } = await lines.next();
      if (done === true) throw new Error('the client of the measurement ended early');
      return value.trim().split(' ').map(Number);
    };
    const rows: Row[] = [];
    const only = numberArg(args, 'size', 0);
    const scale = numberArg(args, 'scale', 1);
    const warm = file('warm', reviewOf(2));
    // What runs often is compiled after some thousand calls; a webhook of a day has made them.
    for (const variant of VARIANTS) await play(variant, 1500, 4500, warm);
    for (const cell of CELLS.filter(({ size }) => only === 0 || size === only)) {
      say(`reviews of ${cell.size} KB, ${cell.rate} a second`);
      const body = file('body', reviewOf(cell.size));
      const measured: Record<Variant, Measured> = {
        ours: { times: [], cpu: 0 },
        go: { times: [], cpu: 0 },
        express: { times: [], cpu: 0 },
      };
      for (const variant of VARIANTS) await play(variant, cell.rate, cell.calls, body);
      for (let turn = 0; turn < cell.turns * scale; turn += 1)
        for (const variant of turn % 2 === 0 ? VARIANTS : VARIANTS.toReversed()) {
          const pid = servers[variant].pid ?? 0;
          const before = cpuMs(pid);
          measured[variant].times.push(...(await play(variant, cell.rate, cell.calls, body)));
          measured[variant].cpu += cpuMs(pid) - before;
        }
      rows.push(...rowsOf(cell, measured));
    }
    return rows;
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}
