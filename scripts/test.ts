// `npm test`: format, lint, types, dead code, then every test; the last line is `N passed, N
// failed`. Checks count as tests. `npm test -- WORDS` runs parts, files, or tests by name
// (choice.ts); `-- --changed` what uncommitted changes touch.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { binariesFromEnvironment } from '../lab/cluster/cluster.ts';
import { install, installCommand, missingOf, NEEDS } from '../lab/needs.ts';
import { traces, whyNoMachine } from '../lab/real-node/machine.ts';
import { runOnRealNode } from '../lab/real-node/world.ts';
import { readArguments } from './arguments.ts';
import { choose, readers, touched, type Part } from './choice.ts';
import { COVERED } from './pure-files.ts';

const ROOT = join(import.meta.dirname, '..');
const USAGE = `npm test -- [check | unit | control-plane | real-node]...   parts; none: all
npm test -- FILE... [NAME]       test files by a part of their paths, and the tests of that name
npm test -- NAME                 tests by name
npm test -- --changed [--since REF]   what differs from REF (HEAD): unit tests that import or read it, and tests on clusters by folder

  --install        first install the Debian packages that are missing (as root)
  --shuffle SEED   files and tests in another order`;

/** What a run counts and remembers; a part that runs beside this one hands it back as it is. */
interface Outcome {
  readonly count: { passed: number; failed: number; skipped: number };
  /**
   * What failed or was skipped. Reported again at the end, because the output has thousands of
   * lines.
   */
  readonly failures: string[];
  readonly skips: string[];
  /** How long each part and each file took, in milliseconds. */
  readonly parts: [name: string, ms: number][];
  readonly files: [name: string, ms: number][];
}
const outcome: Outcome = {
  count: { passed: 0, failed: 0, skipped: 0 },
  failures: [],
  skips: [],
  parts: [],
  files: [],
};
/** Counts a failure that no report has, and tells it. */
const failed = (what: string): void => {
  outcome.count.failed += 1;
  outcome.failures.push(`failed: ${what}`);
};

const run = (command: string, args: readonly string[]): Promise<number> =>
  new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: 'inherit', env: { ...process.env, FORCE_COLOR: '0' } });
    child.on('error', () => resolve(127));
    child.on('close', (code) => resolve(code ?? 1));
  });

/** Runs a part under its heading, and keeps its time. */
async function part<T>(name: string, work: () => Promise<T>): Promise<T> {
  console.log(`\n== ${name}`);
  const began = Date.now();
  try {
    return await work();
  } finally {
    outcome.parts.push([name, Date.now() - began]);
  }
}

async function check(name: string, command: string, ...args: string[]): Promise<void> {
  const code = await part(name, () => run(command, args));
  if (code === 0) outcome.count.passed += 1;
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
    startTime: number;
    endTime: number;
    assertionResults: { fullName: string; status: string; failureMessages: string[] }[];
  }[];
}

function read({ testResults, ...numbers }: Report, byName: boolean): void {
  outcome.count.passed += numbers.numPassedTests;
  outcome.count.failed += numbers.numFailedTests;
  // Where tests are chosen by name the others count as skipped.
  outcome.count.skipped += byName ? 0 : numbers.numPendingTests;
  for (const { name, status, message, startTime, endTime, assertionResults } of testResults) {
    const file = relative(ROOT, name);
    outcome.files.push([file, endTime - startTime]);
    const failures = assertionResults.filter((test) => test.status === 'failed');
    outcome.failures.push(
      ...failures.map((test) => `failed: ${file}, ${test.fullName}\n${test.failureMessages.join('\n')}`),
    );
    if (status === 'failed' && failures.length === 0)
      outcome.failures.push(`failed: ${file}, outside its tests\n${message}`);
    // Those behind a hook that failed count as skipped.
    const left = assertionResults.filter((test) => test.status !== 'failed' && test.status !== 'passed').length;
    if (left > 0 && !byName) outcome.skips.push(`${left} of ${file}`);
  }
}

/** Runs a command with Node.js; the real node's tests run in a machine of their own. */
type Runner = (args: readonly string[]) => Promise<number>;
const here: Runner = (args) => run(process.execPath, args);

interface Tests {
  readonly runner?: Runner;
  /** Only tests whose name has this. */
  readonly name?: string | undefined;
  /** Measures which branches of pure files the tests take; too few are a failure. */
  readonly coverage?: boolean;
  readonly args: readonly string[];
}

const { values, positionals } = readArguments(USAGE, {
  allowPositionals: true,
  options: {
    install: { type: 'boolean', default: false },
    changed: { type: 'boolean', default: false },
    since: { type: 'string', default: 'HEAD' },
    shuffle: { type: 'string' },
    /** Of `beside`: where the outcome goes. */
    outcome: { type: 'string' },
  },
});

async function tests(title: string, { runner = here, name, args, coverage = false }: Tests): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-report-'));
  const file = join(dir, 'report.json');
  const before = outcome.count.passed + outcome.count.failed;
  const code = await part(title, () =>
    runner([
      join(ROOT, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${file}`,
      ...(values.shuffle === undefined ? [] : ['--sequence.shuffle', `--sequence.seed=${values.shuffle}`]),
      ...(name === undefined ? [] : ['--testNamePattern', RegExp.escape(name)]),
      ...(coverage ? ['--coverage', '--coverage.reporter=json-summary', `--coverage.reportsDirectory=${dir}`] : []),
      ...args,
    ]),
  );
  const report = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Report) : undefined;
  const tooFew = coverage && report?.numFailedTests === 0 && !isCovered(join(dir, 'coverage-summary.json'));
  rmSync(dir, { recursive: true, force: true });
  if (report !== undefined) read(report, name !== undefined);
  // A file that did not load, or an error outside tests, fails no single test but must fail the
  // run.
  if (code !== 0 && !tooFew && (report?.numFailedTests ?? 0) === 0)
    failed(`${title}, ${report === undefined ? 'without a report' : 'outside its tests'} (exit code ${code})`);
  if (name !== undefined && outcome.count.passed + outcome.count.failed === before)
    failed(`no test is called "${name}"`);
}

/** Prints how many branches were taken, and counts it as a check. */
function isCovered(file: string): boolean {
  const { total } = JSON.parse(readFileSync(file, 'utf8')) as {
    total: { branches: { total: number; covered: number; pct: number } };
  };
  const { covered, total: all, pct } = total.branches;
  const figure = `unit tests cover ${covered} of ${all} branches of pure files (${pct} %)`;
  console.log(`\n${figure}`);
  if (pct >= COVERED) outcome.count.passed += 1;
  else failed(`${figure}, which is below ${COVERED} %: npm run coverage lists those that are left`);
  return pct >= COVERED;
}

/**
 * Begins a part beside what runs here; what is handed back waits for its end, and then tells its
 * output and counts its tests.
 */
function beside(other: Part): () => Promise<void> {
  console.log(`\n== ${other} begins beside what follows; its output comes when it has ended`);
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-outcome-'));
  const file = join(dir, 'outcome.json');
  const shuffle = values.shuffle === undefined ? [] : ['--shuffle', values.shuffle];
  const child = spawn(process.execPath, [import.meta.filename, other, '--outcome', file, ...shuffle], {
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
    const theirs = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Outcome) : undefined;
    rmSync(dir, { recursive: true, force: true });
    if (theirs === undefined) return failed(`${other}, without an outcome (exit code ${code})`);
    outcome.count.passed += theirs.count.passed;
    outcome.count.failed += theirs.count.failed;
    outcome.count.skipped += theirs.count.skipped;
    for (const list of ['failures', 'skips'] as const) outcome[list].push(...theirs[list]);
    for (const list of ['parts', 'files'] as const) outcome[list].push(...theirs[list]);
  };
}

const checks = async (): Promise<void> => {
  await check('format', 'oxfmt', '--check', '.');
  await check('lint', 'oxlint', '--deny-warnings', '.');
  await check('types', 'tsc', '--noEmit', '-p', '.');
  await check('types of the page', 'tsc', '--noEmit', '-p', 'kubectl/page');
  await check('dead code', 'knip');
};

/**
 * Finds or builds the programs before a test waits for them; false, and a failure, where they
 * cannot be had.
 */
async function programs(): Promise<boolean> {
  try {
    await part('programs of the test cluster', () => binariesFromEnvironment(console.log));
    return true;
  } catch (error) {
    failed(error instanceof Error ? error.message : String(error));
    return false;
  }
}

/** Each file in a machine of its own, one after the other. */
async function realNode(
  files: readonly string[] = globSync('test/real-node/*.test.ts', { cwd: ROOT }).toSorted(),
  name?: string,
): Promise<void> {
  const title = 'tests on a real kubelet and containerd';
  const reason = whyNoMachine();
  if (reason !== undefined) {
    outcome.skips.push(`${title}: ${reason}`);
    outcome.count.skipped += 1;
    return;
  }
  const before = traces();
  for (const file of files)
    await tests(`${title}: ${file}`, {
      runner: (more) => runOnRealNode(more, console.log),
      name,
      args: ['--project', 'real-node', file],
    });
  const left = traces().filter((line) => !before.includes(line));
  if (left.length > 0) return failed(`left behind on this machine:\n${left.join('\n')}`);
  outcome.count.passed += 1;
  console.log('the machine is as it was');
}

/** Files of unit tests share nothing, so every core takes some. */
const EVERY_UNIT = ['--project', 'unit', '--fileParallelism', `--maxWorkers=${availableParallelism()}`] as const;

async function runParts(parts: readonly Part[]): Promise<void> {
  if (parts.includes('check')) await checks();
  if (parts.includes('unit')) await tests('unit tests and properties', { args: [...EVERY_UNIT], coverage: true });
  const both = parts.includes('control-plane') && parts.includes('real-node');
  if (parts.includes('control-plane') && (await programs())) {
    const other = both ? beside('real-node') : undefined;
    // Three files for two cores: most of a file's time is waiting for pods, watches and leases.
    const workers = Math.max(2, Math.round(availableParallelism() * 1.5));
    const args = ['--project', 'control-plane', '--fileParallelism', `--maxWorkers=${Math.min(workers, 6)}`];
    await tests('tests on a real control plane', { args });
    await other?.();
    await tests('tests that need the machine for themselves', { args: ['--project', 'control-plane-alone'] });
  }
  if (parts.includes('real-node') && !both) await realNode();
}

async function runFiles(files: readonly string[], name?: string): Promise<void> {
  const onRealNode = files.filter((file) => file.startsWith('test/real-node/'));
  const others = files.filter((file) => !onRealNode.includes(file));
  const needPrograms = others.some((file) => file.startsWith('test/control-plane/'));
  if (others.length > 0 && (!needPrograms || (await programs())))
    await tests(others.length > 3 ? `${others.length} files` : others.join(', '), { name, args: others });
  if (onRealNode.length > 0) await realNode(onRealNode, name);
}

const textsOf = (...patterns: readonly string[]): ReadonlyMap<string, string> =>
  new Map(
    globSync(patterns, { cwd: ROOT })
      .toSorted()
      .map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]),
  );
/** Test files and their texts. */
const testTexts = (): ReadonlyMap<string, string> => textsOf('test/**/*.test.ts');

async function runChanged(since: string): Promise<void> {
  const git = (...args: string[]): readonly string[] => {
    const { status, stdout, stderr } = spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' });
    if (status !== 0) throw new TypeError(`git ${args.join(' ')}: ${stderr.trim()}`);
    return stdout.split('\n').filter((line) => line !== '');
  };
  const changed = [
    ...git('diff', '--name-only', '--diff-filter=d', since),
    ...git('ls-files', '--others', '--exclude-standard'),
  ];
  const files = touched(changed, testTexts());
  console.log(`${changed.length} files differ from ${since}`);
  await checks();
  await tests('unit tests that import them', { args: [...EVERY_UNIT, '--changed', since, '--passWithNoTests'] });
  const reading = readers(changed, textsOf('test/**/*.ts', 'scripts/**/*.ts'));
  if (reading.length > 0) await tests('unit tests that read them', { args: [...EVERY_UNIT, ...reading] });
  if (files.length > 0) await runFiles(files);
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0).padStart(6)} s`;

/**
 * The end of a run: times, what was skipped and how to bring it, what failed, and the line that
 * counts.
 */
function tell({ count, failures, skips, parts, files }: Outcome, ms: number): void {
  console.log(`\n${[...parts, ['all', ms] as const].map(([name, took]) => `${seconds(took)}  ${name}`).join('\n')}`);
  const ran = files.filter(([, took]) => took >= 100);
  const slowest = ran.toSorted(([, a], [, b]) => b - a).slice(0, 10);
  if (slowest.length > 1)
    console.log(`\nThe slowest files:\n${slowest.map(([name, took]) => `${seconds(took)}  ${name}`).join('\n')}`);
  if (skips.length > 0) {
    console.log(`\nSkipped:\n${skips.map((skip) => `  ${skip}`).join('\n')}`);
    const missing = missingOf(NEEDS);
    if (missing.length > 0)
      console.log(
        `\nMissing here: ${missing.map(({ program }) => program).join(', ')}. One command brings all of it on Debian and Ubuntu:\n\n  ${installCommand(missing, process.getuid?.() === 0)}\n\nAs root \`npm test -- --install\` runs it first.`,
      );
  }
  for (const failure of failures) console.log(`\n${failure}`);
  console.log(
    `\n${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ''}`,
  );
}

const began = Date.now();
if (values.install) {
  const missing = missingOf(NEEDS);
  const problem = missing.length === 0 ? undefined : await part('install', async () => install(missing));
  if (problem !== undefined) failed(problem);
}
try {
  if (values.changed) {
    await runChanged(values.since);
  } else {
    const choice = choose(positionals, testTexts());
    if (choice.kind === 'parts') await runParts(choice.parts);
    else if (choice.kind === 'nothing')
      failed(`no test file has "${choice.path}" in its path, and none holds that text`);
    else await runFiles(choice.files, choice.name);
  }
} catch (error) {
  failed(error instanceof TypeError ? error.message : String(error instanceof Error ? error.stack : error));
}
if (values.outcome === undefined) tell(outcome, Date.now() - began);
else writeFileSync(values.outcome, JSON.stringify(outcome));
process.exitCode = outcome.count.failed === 0 ? 0 : 1;
