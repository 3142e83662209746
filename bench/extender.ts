// /filter of our extender beside the smallest Go program that does the same
// (bench/reference/extender-go): one TLS connection that is kept, as the scheduler keeps it, names
// in a random order, every tenth refused; both by the same client, in turns.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { issueCa, issueLeaf } from '../certs/issue.ts';
import { ensureOwnProgram } from '../lab/cluster/binaries.ts';
import { seeded } from '../lab/churn/churn.ts';
import { aPod } from '../test/builders/objects.ts';
import { cpuMs } from './reports/cpu.ts';
import { lineChart } from './reports/plot.ts';
import { blockQuantile, numberArg, quantile, type BenchContext, type Row } from './rows.ts';

/** Names in a call, calls in a turn, turns of each. */
const SIZES: readonly (readonly [number, number, number])[] = [
  // What else the machine does comes and goes within moments: many short turns let both have the
  // same share of it.
  [100, 50, 800],
  [1000, 50, 400],
  [5000, 20, 300],
  [15_000, 10, 200],
];
const EVERY = 10;
const BAR = 'at or below Go: the scheduler waits for every call';

interface Lines {
  next(): Promise<string>;
}
const linesOf = (child: ChildProcess): Lines => {
  const iterator = createInterface({ input: child.stdout ?? process.stdin })[Symbol.asyncIterator]();
  return {
    async next() {
      const { value, done } = await iterator.next();
      if (done === true) throw new Error('a program of the measurement ended early');
      return value;
    },
  };
};

export const about = '/filter beside a minimal Go extender, by one client over TLS';
export const options = {
  '--names N': 'one size only',
  '--calls N': 'calls of a turn (by size)',
  '--plot FILE': 'draws how the time grows',
};

/**
 * Measures every size, or one (`--names N`); `--calls N` per turn (default by size); `--plot FILE`
 * draws how the time grows.
 */
export async function run(context: BenchContext): Promise<readonly Row[]> {
  const reference = await ensureOwnProgram(join(import.meta.dirname, 'reference', 'extender-go'), 'extender-go', {
    cacheHome: process.env['XDG_CACHE_HOME'],
    path: process.env['PATH'],
    say: context.say,
  });
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-bench-'));
  const children: ChildProcess[] = [];
  const start = (command: string, args: readonly string[]): ChildProcess => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    children.push(child);
    return child;
  };
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  };
  try {
    const now = Date.now();
    const ca = await issueCa('bench', 3_600_000, now);
    const leaf = await issueLeaf(ca, { name: 'localhost', sans: ['localhost'], usage: 'server', life: 3_600_000 }, now);
    const [caFile, cert, key] = [file('ca', ca.cert), file('cert', leaf.cert), file('key', leaf.key)];
    const rows: Row[] = [];
    const grows = { ours: [] as [number, number][], go: [] as [number, number][] };
    const only = numberArg(context.args, 'names', 0);
    for (const [size, usual, rounds] of only === 0
      ? SIZES
      : [SIZES.find(([names]) => names === only) ?? ([only, 20, 300] as const)]) {
      context.say(`${size} names`);
      const names = shuffled(size);
      const body = file(
        'body',
        `${JSON.stringify({ Pod: aPod({ gpus: '1', labels: { app: 'train' } }), Nodes: null, NodeNames: names })}\n`,
      );
      const places = [String(size), String(EVERY), cert, key];
      const servers = {
        ours: start(process.execPath, [join(import.meta.dirname, 'servers', 'extender.ts'), ...places]),
        go: start(reference, ['serve', ...places]),
      };
      const client = start(reference, ['load']);
      const answers = linesOf(client);
      const measured = { ours: { times: [] as number[], cpu: 0 }, go: { times: [] as number[], cpu: 0 } };
      const ports = { ours: await linesOf(servers.ours).next(), go: await linesOf(servers.go).next() };
      const calls = numberArg(context.args, 'calls', usual);
      const play = async (who: 'ours' | 'go', count: number): Promise<number[]> => {
        client.stdin?.write(`${count} https://localhost:${ports[who]}/filter ${caFile} ${body}\n`);
        return (await answers.next()).trim().split(' ').map(Number);
      };
      // What runs hot is compiled after some thousand calls; a scheduler of a day has made them.
      const warm = size >= 5000 ? 300 : 3000;
      await play('ours', warm);
      await play('go', warm);
      for (let round = 0; round < rounds; round += 1)
        for (const who of round % 2 === 0 ? (['ours', 'go'] as const) : (['go', 'ours'] as const)) {
          const before = cpuMs(servers[who].pid ?? 0);
          measured[who].times.push(...(await play(who, calls)));
          measured[who].cpu += cpuMs(servers[who].pid ?? 0) - before;
        }
      const { ours, go } = measured;
      for (const who of ['ours', 'go'] as const) grows[who].push([size, quantile(measured[who].times, 0.5) / 1000]);
      const compare = (what: string, of: (times: readonly number[]) => number, judged: boolean): void => {
        const value = of(ours.times) / 1000;
        const reference = { name: 'Go', value: of(go.times) / 1000 };
        const figure = { name: `filter ${size} names ${what}`, value, unit: 'ms', reference };
        rows.push(judged ? { ...figure, bar: BAR, held: value <= reference.value } : figure);
      };
      compare('p50', (times) => quantile(times, 0.5), true);
      compare('p99', (times) => blockQuantile(times, 0.99, 10 * calls), true);
      compare('p99 of all calls', (times) => quantile(times, 0.99), false);
      const [used, other] = [ours.cpu / ours.times.length, go.cpu / go.times.length];
      rows.push({
        name: `filter ${size} names CPU per call`,
        value: used,
        unit: 'ms',
        reference: { name: 'Go', value: other },
        bar: 'at or below Go',
        held: used <= other,
      });
      for (const child of [servers.ours, servers.go, client]) child.kill('SIGKILL');
    }
    const plot = context.args.indexOf('--plot');
    if (plot >= 0)
      writeFileSync(
        context.args[plot + 1] ?? 'filter-time.svg',
        lineChart('/filter, p50, one TLS connection, every tenth node refused', 'node names in the call', 'ms', [
          { name: 'gpu-gate', color: '#1565c0', points: grows.ours },
          { name: 'minimal Go', color: '#757575', points: grows.go },
        ]),
      );
    return rows;
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Names in an order that is none: the scheduler's filters run in parallel. */
function shuffled(size: number): string[] {
  const random = seeded(1);
  return Array.from({ length: size }, (_, i) => ({ name: `node-${i}`, at: random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ name }) => name);
}
