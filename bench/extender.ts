// /filter of our extender beside the smallest Go program that does the same
// (bench/reference/extender-go), and beside a node:http server that only reads the call and sends
// an answer of that length (bench/reference/extender-bare.ts): one TLS connection that is kept, as
// the scheduler keeps it, names in a random order, every tenth refused; all by the same client, in
// turns.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { seeded } from '../lab/churn/churn.ts';
import { aPod } from '../test/builders/objects.ts';
import { cpuMs } from './reports/cpu.ts';
import { inProcess } from './reports/in-process.ts';
import { lineChart } from './reports/plot.ts';
import { goProgram, imageFlags, programs, timesIn, type Running } from './reports/programs.ts';
import { blockQuantile, numberArg, quantile, textArg, type BenchContext, type Row } from './rows.ts';

interface Size {
  readonly names: number;
  /** Calls of a turn, and turns of each. */
  readonly calls: number;
  readonly turns: number;
  /** The most that ours may take of Go's p50. */
  readonly bar: number;
}
// What else the machine does comes and goes within moments: many short turns let all have the same
// share of it.
const SIZES: readonly Size[] = [
  { names: 100, calls: 50, turns: 300, bar: 0.9 },
  { names: 1000, calls: 50, turns: 180, bar: 0.5 },
  { names: 5000, calls: 20, turns: 150, bar: 0.5 },
  { names: 15_000, calls: 10, turns: 120, bar: 0.5 },
];
const TAIL_BAR = 0.9;
const EVERY = 10;
/** Calls of which a p99 is taken. */
const BLOCK = 250;
const BECAUSE = 'because the scheduler waits for every call';

const REPOSITORY = join(import.meta.dirname, '..');

/**
 * How a further variant of ours is started: `plain` and `express` as bench/servers/extender.ts has
 * them, with the image's flags of Node.js; `node:` comes before flags of Node.js, anything with a
 * slash is the folder of another checkout.
 */
function further(variant: string, places: readonly string[]): readonly string[] {
  const server = (root: string): string => join(root, 'bench', 'servers', 'extender.ts');
  if (variant.startsWith('node:')) return [...variant.slice(5).split(' '), server(REPOSITORY), ...places];
  if (variant.includes('/')) return [server(variant), ...places];
  return [...imageFlags(), server(REPOSITORY), ...places, variant];
}

export const about = '/filter beside a minimal Go extender, and a bare node:http server, by one client over TLS';
export const options = {
  '--names N': 'one size only',
  '--turns N': 'turns of each (by size)',
  '--beside LIST': 'ours also as plain, as express, as node:--flag, or of the checkout in a /folder',
  '--plot FILE': 'draws how the time grows',
};

interface Measured {
  readonly times: number[];
  cpu: number;
}

export async function run(context: BenchContext): Promise<readonly Row[]> {
  const reference = await goProgram('extender-go', context.say);
  const also = textArg(context.args, 'beside', '').split(',').filter(Boolean);
  const only = numberArg(context.args, 'names', 0);
  const rows: Row[] = [];
  const grows = { ours: [] as [number, number][], go: [] as [number, number][] };
  const usual = SIZES.filter(({ names }) => only === 0 || names === only);
  for (const { names, calls, turns, bar } of usual.length > 0
    ? usual
    : [{ names: only, calls: 20, turns: 200, bar: 0.5 }]) {
    context.say(`${names} names`);
    const { start, file, certificates, end } = programs();
    try {
      const { ca, cert, key, clientCert, clientKey } = await certificates('localhost');
      const text = `${JSON.stringify({ Pod: aPod({ gpus: '1', labels: { app: 'train' } }), Nodes: null, NodeNames: shuffled(names) })}\n`;
      const body = file('body', text);
      const places = [String(names), String(EVERY), cert, key, ca];
      const node = (args: readonly string[]): Running => start(process.execPath, args);
      const servers: Readonly<Record<string, Running>> = {
        ours: node([...imageFlags(), join(REPOSITORY, 'bench', 'servers', 'extender.ts'), ...places]),
        go: start(reference, ['serve', ...places]),
        bare: node([join(REPOSITORY, 'bench', 'reference', 'extender-bare.ts'), ...places]),
        ...Object.fromEntries(also.map((variant) => [variant, node(further(variant, places))])),
      };
      const client = start(reference, ['load']);
      const parts: { readonly variant: string; readonly pid: number; readonly port: string; readonly got: Measured }[] =
        [];
      for (const [variant, { child, next }] of Object.entries(servers))
        parts.push({ variant, pid: child.pid ?? 0, port: await next(), got: { times: [], cpu: 0 } });
      const play = async (port: string, count: number): Promise<number[]> => {
        client.child.stdin?.write(
          `${count} https://localhost:${port}/filter ${ca} ${body} ${clientCert} ${clientKey}\n`,
        );
        return timesIn(await client.next());
      };
      // What runs hot is compiled after some thousand calls; a scheduler of a day has made them.
      for (const { port } of parts) await play(port, names >= 5000 ? 300 : 3000);
      for (let turn = 0; turn < numberArg(context.args, 'turns', turns); turn += 1)
        for (const { pid, port, got } of turn % 2 === 0 ? parts : parts.toReversed()) {
          const before = cpuMs(pid);
          got.times.push(...(await play(port, calls)));
          got.cpu += cpuMs(pid) - before;
        }
      const of = (variant: string): Measured =>
        parts.find((one) => one.variant === variant)?.got ?? { times: [], cpu: NaN };
      for (const who of ['ours', 'go'] as const) grows[who].push([names, quantile(of(who).times, 0.5) / 1000]);
      const compare = (what: string, figure: (one: Measured) => number, most?: number): void => {
        const go = figure(of('go'));
        const beside = { name: 'Go', value: go };
        for (const { variant, got } of parts.filter((one) => one.variant !== 'go')) {
          const row = {
            name: `${names} names, ${what}: ${variant}`,
            value: figure(got),
            unit: 'ms',
            reference: beside,
          };
          rows.push(
            variant === 'ours' && most !== undefined
              ? { ...row, bar: `at most ${most} times Go's, ${BECAUSE}`, held: row.value <= most * go }
              : row,
          );
        }
      };
      compare('p50', ({ times }) => quantile(times, 0.5) / 1000, bar);
      compare('p99', ({ times }) => blockQuantile(times, 0.99, BLOCK) / 1000, TAIL_BAR);
      compare('p99 of all calls', ({ times }) => quantile(times, 0.99) / 1000);
      compare('CPU a call', ({ times, cpu }) => cpu / times.length, 1);
      if (also.includes('plain')) {
        const { bytes, plain } = inProcess(Buffer.from(text), {
          size: names,
          every: EVERY,
          calls: names > 1000 ? 400 : 4000,
        });
        const beside = { name: 'plain', value: plain };
        rows.push({ name: `${names} names, in one process: from bytes`, value: bytes, unit: 'ms', reference: beside });
      }
    } finally {
      end();
    }
  }
  const plot = textArg(context.args, 'plot', '');
  if (plot !== '')
    writeFileSync(
      plot,
      lineChart('/filter, p50, one TLS connection, every tenth node refused', 'node names in the call', 'ms', [
        { name: 'gpu-gate', color: '#1565c0', points: grows.ours },
        { name: 'minimal Go', color: '#757575', points: grows.go },
      ]),
    );
  return rows;
}

/** Names in an order that is none: the scheduler's filters run in parallel. */
function shuffled(size: number): string[] {
  const random = seeded(1);
  return Array.from({ length: size }, (_, i) => ({ name: `node-${i}`, at: random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ name }) => name);
}
