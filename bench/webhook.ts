// `npm run bench -- webhook [--size KB] [--scale 1]`: /mutate called directly over TLS at fixed
// rates, ours beside a Go author's and a bare express one, which both decide nothing, by one client
// and in short turns. The loop is open, so a stall is not hidden. This is the webhook alone; what a
// creation on an API server takes is `npm run bench -- admission`.
import { join } from 'node:path';
import { cpuMs } from './reports/cpu.ts';
import { goProgram, imageFlags, programs, timesIn, type Running } from './reports/programs.ts';
import { blockQuantile, numberArg, textArg, type BenchContext, type Row } from './rows.ts';

const REPOSITORY = join(import.meta.dirname, '..');
const SERVER = join('bench', 'servers', 'webhook.ts');

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
  { size: 2, rate: 300, calls: 300, turns: 12 },
  { size: 2, rate: 1000, calls: 500, turns: 10 },
  { size: 20, rate: 200, calls: 200, turns: 15 },
  { size: 20, rate: 400, calls: 300, turns: 10 },
  { size: 200, rate: 60, calls: 90, turns: 10 },
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

/**
 * What the calls of one variant took, µs in the order in which they began, and the CPU time of its
 * process, ms.
 */
interface Measured {
  readonly times: number[];
  cpu: number;
}

interface Part {
  readonly variant: string;
  readonly pid: number;
  readonly port: string;
}

function rowsOf({ size, rate }: Cell, measured: ReadonlyMap<string, Measured>): Row[] {
  const go = measured.get('go') ?? { times: [], cpu: NaN };
  const figure = (what: string, of: (one: Measured) => number): Row[] =>
    [...measured].flatMap(([variant, one]): Row[] => {
      if (variant === 'go') return [];
      const row = {
        name: `${what}, ${size} KB, ${rate}/s: ${variant}`,
        value: of(one),
        unit: 'ms',
        reference: { name: 'Go', value: of(go) },
      };
      return [variant === 'ours' ? { ...row, bar: BAR_TEXT, held: row.value <= BAR * row.reference.value } : row];
    });
  return [
    ...BLOCKS.filter(([, , block]) => go.times.length >= block).flatMap(([what, q, block]) =>
      figure(what, ({ times }) => blockQuantile(times, q, block) / 1000),
    ),
    ...figure('CPU a call', ({ times, cpu }) => cpu / times.length),
  ];
}

export const about = '/mutate at fixed rates over TLS, beside a Go and an express webhook that decide nothing';
export const options = {
  '--size KB': 'reviews of one size only',
  '--beside LIST': 'ours also as node:--flag, or of the checkout in a /folder',
  '--scale N': 'so many times as long (1)',
};

export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const program = await goProgram('webhook-go', say);
  const also = textArg(args, 'beside', '').split(',').filter(Boolean);
  const { start, file, certificates, end } = programs();
  try {
    const { ca, cert, key } = await certificates('127.0.0.1');
    const node = (server: string, flags = imageFlags()): Running =>
      start(process.execPath, [...flags, server, '0', key, cert]);
    const further = (variant: string): Running =>
      variant.startsWith('node:')
        ? node(join(REPOSITORY, SERVER), variant.slice(5).split(' ').filter(Boolean))
        : node(join(variant, SERVER));
    const servers: Readonly<Record<string, Running>> = {
      ours: node(join(REPOSITORY, SERVER)),
      go: start(program, ['-address', '127.0.0.1:0', '-cert', cert, '-key', key]),
      express: node(join(REPOSITORY, 'bench', 'reference', 'webhook-express.ts')),
      ...Object.fromEntries(also.map((variant) => [variant, further(variant)])),
    };
    const parts: Part[] = [];
    for (const [variant, { child, next }] of Object.entries(servers))
      parts.push({ variant, pid: child.pid ?? 0, port: await next() });
    const client = start(program, ['load']);
    const play = async ({ port }: Part, rate: number, calls: number, body: string): Promise<number[]> => {
      client.child.stdin?.write(`${rate} ${calls} https://127.0.0.1:${port}/mutate ${ca} ${body}\n`);
      return timesIn(await client.next());
    };
    const rows: Row[] = [];
    const only = numberArg(args, 'size', 0);
    const scale = numberArg(args, 'scale', 1);
    const warm = file('warm', reviewOf(2));
    // What runs often is compiled after some thousand calls; a webhook of a day has made them.
    for (const part of parts) await play(part, 500, 3000, warm);
    for (const cell of CELLS.filter(({ size }) => only === 0 || size === only)) {
      const body = file(`review-${cell.size}`, reviewOf(cell.size));
      say(`${cell.size} KB, ${cell.rate} calls a second`);
      const measured = new Map<string, Measured>(parts.map(({ variant }) => [variant, { times: [], cpu: 0 }]));
      for (const part of parts) await play(part, cell.rate, cell.calls, body);
      for (let turn = 0; turn < cell.turns * scale; turn += 1)
        for (const part of turn % 2 === 0 ? parts : parts.toReversed()) {
          const got = measured.get(part.variant) ?? { times: [], cpu: 0 };
          const before = cpuMs(part.pid);
          got.times.push(...(await play(part, cell.rate, cell.calls, body)));
          got.cpu += cpuMs(part.pid) - before;
        }
      rows.push(...rowsOf(cell, measured));
    }
    return rows;
  } finally {
    end();
  }
}
