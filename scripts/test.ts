// `npm test`: format, lint, types, dead code, then every test; the last line is `N passed, N failed`. Checks count as tests.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { traces, whyNoMachine } from '../lab/real-node/machine.ts';
import { runOnRealNode } from '../lab/real-node/world.ts';
import { binariesFromEnvironment } from '../lab/cluster/cluster.ts';

const ROOT = join(import.meta.dirname, '..');
const count = { passed: 0, failed: 0, skipped: 0 };
/** What failed or was skipped, told once more at the end: the rest is thousands of lines. */
const remarks: string[] = [];
/** Counts a failure that no report has, and tells it. */
const failed = (what: string): void => {
  count.failed += 1;
  remarks.push(`failed: ${what}`);
};

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
  else failed(`${name} (exit code ${code})`);
}

interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  testResults: {
    name: string;
    status: string;
    message: string;
    assertionResults: { fullName: string; status: string; failureMessages: string[] }[];
  }[];
}

/** The failures of a report, and how many tests a file skipped: those behind a hook that failed count as skipped. */
const remarksOf = ({ testResults }: Report): string[] =>
  testResults.flatMap(({ name, status, message, assertionResults }) => {
    const file = relative(ROOT, name);
    const failures = assertionResults.filter((test) => test.status === 'failed');
    const left = assertionResults.filter((test) => test.status !== 'failed' && test.status !== 'passed').length;
    const said = failures.map((test) => `failed: ${file}, ${test.fullName}\n${test.failureMessages.join('\n')}`);
    if (status === 'failed' && failures.length === 0) said.push(`failed: ${file}, outside its tests\n${message}`);
    if (left > 0) said.push(`skipped: ${left} of ${file}`);
    return said;
  });

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
  if (report !== undefined) remarks.push(...remarksOf(report));
  count.passed += report?.numPassedTests ?? 0;
  count.failed += report?.numFailedTests ?? 0;
  count.skipped += report?.numPendingTests ?? 0;
  // A file that did not load, or an error outside tests, fails no single test but must fail the run.
  if (code !== 0 && (report?.numFailedTests ?? 0) === 0)
    failed(`${name}, ${report === undefined ? 'without a report' : 'outside its tests'} (exit code ${code})`);
}

/** What a part that runs beside this one hands back. */
interface Outcome {
  count: typeof count;
  remarks: string[];
}

/** Begins a part beside what runs here; what is handed back waits for its end, and then tells its output and counts its tests. */
function beside(other: string): () => Promise<void> {
  console.log(`\n== ${other} begins beside what follows; its output comes when it has ended`);
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-outcome-'));
  const file = join(dir, 'outcome.json');
  const child = spawn(process.execPath, [import.meta.filename, other, file], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, FORCE_COLOR: '0' },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const ended = new Promise<number>((resolve) => child.on('close', (code) => resolve(code ?? 1)));
  return async () => {
    const code = await ended;
    console.log(output);
    const outcome = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Outcome) : undefined;
    rmSync(dir, { recursive: true, force: true });
    if (outcome === undefined) return failed(`${other}, without an outcome (exit code ${code})`);
    remarks.push(...outcome.remarks);
    count.passed += outcome.count.passed;
    count.failed += outcome.count.failed;
    count.skipped += outcome.count.skipped;
  };
}

const began = Date.now();
const [part, outcomeFile] = process.argv.slice(2);
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
    if (left.length === 0) {
      count.passed += 1;
      console.log('the machine is as it was');
    } else failed(`left behind on this machine:\n${left.join('\n')}`);
  } else {
    remarks.push(`skipped: tests on a real kubelet and containerd, ${reason}`);
    count.skipped += 1;
  }
}
const seconds = Math.round((Date.now() - began) / 1000);
if (outcomeFile === undefined) {
  for (const remark of remarks) console.log(`\n${remark}`);
  console.log(`\n${seconds} s`);
  console.log(`${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ''}`);
} else {
  const outcome: Outcome = { count, remarks };
  writeFileSync(outcomeFile, JSON.stringify(outcome));
}
process.exitCode = count.failed === 0 ? 0 : 1;
