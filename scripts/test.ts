// `npm test`: format, lint, types, dead code, then every test; the last line is `N passed, N failed`. Checks count as tests.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { traces, whyNoMachine } from '../test/real-node/machine.ts';
import { runOnRealNode } from '../test/real-node/world.ts';
import { binariesFromEnvironment } from '../test/cluster/cluster.ts';

const ROOT = join(import.meta.dirname, '..');
const count = { passed: 0, failed: 0, skipped: 0 };

const run = (command: string, args: readonly string[]): Promise<number> =>
  new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: 'inherit', env: { ...process.env, FORCE_COLOR: '0' } });
    child.on('error', () => resolve(127));
    child.on('close', (code) => resolve(code ?? 1));
  });

async function check(name: string, command: string, ...args: string[]): Promise<void> {
  console.log(`\n== ${name}`);
  const code = await run(command, args);
  if (code === 0) count.passed += 1;
  else count.failed += 1;
  if (code !== 0) console.log(`${name} failed (exit code ${code})`);
}

interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTotalTests: number;
  success: boolean;
}

/** Runs a command with Node.js; the real node's tests run in a machine of their own. */
type Runner = (args: readonly string[]) => Promise<number>;
const here: Runner = (args) => run(process.execPath, args);

async function tests(
  name: string,
  project: string,
  runner: Runner = here,
  more: readonly string[] = [],
): Promise<void> {
  console.log(`\n== ${name}`);
  const started = Date.now();
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-report-'));
  const file = join(dir, 'report.json');
  const code = await runner([
    join(ROOT, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--project',
    project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
    ...more,
  ]);
  console.log(`${name}: ${Math.round((Date.now() - started) / 1000)} s`);
  const report = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Report) : undefined;
  rmSync(dir, { recursive: true, force: true });
  count.passed += report?.numPassedTests ?? 0;
  count.failed += report?.numFailedTests ?? 0;
  count.skipped += report?.numPendingTests ?? 0;
  // A file that did not load, or an error outside tests, fails no single test but must fail the run.
  if (code !== 0 && (report?.numFailedTests ?? 0) === 0) count.failed += 1;
}

const CLOSING = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/m;

/** Begins a part beside what runs here; what is handed back waits for its end, and then tells its output and counts its tests. */
function beside(other: string): () => Promise<void> {
  console.log(`\n== ${other} begins beside what follows; its output comes when it has ended`);
  const child = spawn(process.execPath, [import.meta.filename, other], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, FORCE_COLOR: '0' },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const ended = new Promise<number>((resolve) => child.on('close', (code) => resolve(code ?? 1)));
  return async () => {
    const code = await ended;
    const [line, passed, failed, skipped] = CLOSING.exec(output) ?? [];
    console.log(line === undefined ? output : output.replace(line, ''));
    count.passed += Number(passed ?? 0);
    count.skipped += Number(skipped ?? 0);
    // Ended without its closing line: that is a failure of its own.
    count.failed += line === undefined || (code !== 0 && failed === '0') ? 1 : Number(failed);
  };
}

const began = Date.now();
const part = process.argv[2];
if (part !== undefined && !['check', 'unit', 'control-plane', 'real-node'].includes(part)) {
  console.error(`npm test -- ${part}: write check, unit, control-plane or real-node, or nothing for all`);
  process.exit(2);
}
if (part === undefined || part === 'check') {
  await check('format', 'oxfmt', '--check', '.');
  await check('lint', 'oxlint', '--deny-warnings', '.');
  await check('types', 'tsc', '--noEmit', '-p', '.');
  await check('dead code', 'knip');
}
if (part === undefined || part === 'unit') await tests('unit tests and properties', 'unit');
if (part === undefined || part === 'control-plane') {
  await binariesFromEnvironment(console.log);
  const realNode = part === undefined ? beside('real-node') : undefined;
  // Some at a time: they wait for pods, watches and clocks most of their time.
  await tests('tests on a real control plane', 'control-plane', here, ['--fileParallelism', '--maxWorkers=2']);
  await realNode?.();
  await tests('tests on a real control plane, one at a time', 'control-plane-timed');
}
if (part === 'real-node') {
  const reason = whyNoMachine();
  if (reason === undefined) {
    const before = traces();
    await tests('tests on a real kubelet and containerd', 'real-node', (args) => runOnRealNode(args, console.log));
    const left = traces().filter((line) => !before.includes(line));
    if (left.length === 0) count.passed += 1;
    else count.failed += 1;
    console.log(left.length === 0 ? 'the machine is as it was' : `left behind on this machine:\n${left.join('\n')}`);
  } else {
    console.log(`\n== tests on a real kubelet and containerd: skipped, ${reason}`);
    count.skipped += 1;
  }
}
console.log(`\n${Math.round((Date.now() - began) / 1000)} s`);
console.log(`${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ''}`);
process.exitCode = count.failed === 0 ? 0 : 1;
