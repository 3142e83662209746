// `npm test`: format, lint, types, dead code, then every test; the last line is `N passed, N failed`. Checks count as tests.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

async function tests(name: string, project: string): Promise<void> {
  console.log(`\n== ${name}`);
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-report-'));
  const file = join(dir, 'report.json');
  const code = await run('vitest', [
    'run',
    '--project',
    project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
  ]);
  const report = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Report) : undefined;
  rmSync(dir, { recursive: true, force: true });
  count.passed += report?.numPassedTests ?? 0;
  count.failed += report?.numFailedTests ?? 0;
  count.skipped += report?.numPendingTests ?? 0;
  // A file that did not load, or an error outside tests, fails no single test but must fail the run.
  if (code !== 0 && (report?.numFailedTests ?? 0) === 0) count.failed += 1;
}

const began = Date.now();
const part = process.argv[2];
if (part !== undefined && part !== 'check' && part !== 'unit' && part !== 'control-plane') {
  console.error(`npm test -- ${part}: write check, unit or control-plane, or nothing for all`);
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
  await tests('tests on a real control plane', 'control-plane');
}
console.log(`\n${Math.round((Date.now() - began) / 1000)} s`);
console.log(`${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ''}`);
process.exitCode = count.failed === 0 ? 0 : 1;
