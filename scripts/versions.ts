// `npm run test:versions`: the story of a cluster on every version of Kubernetes that can be built,
// and a matrix of what came of it. A long form, not for CI.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VERSIONS } from '../lab/cluster/binaries.ts';
import { binariesFromEnvironment } from '../lab/cluster/cluster.ts';
import { readArguments, refuse } from './arguments.ts';

const ROOT = join(import.meta.dirname, '..');
/** Files of test/control-plane, in the order in which a cluster's life has them. */
const STORY = [
  'chart/chart',
  'chart/rights',
  'admission/matrix',
  'node/walk',
  'node/gate',
  'scheduling/extender-scheduler',
  'pods/readiness',
  'pods/past-the-gate',
  'policies/policies',
  'dra/not-served',
  'dra/claims',
  'dra/walk',
  'dra/taints',
  'dra/devices',
  'dra/withdrawn',
] as const;

const USAGE = `npm run test:versions -- [VERSION...]   the story of a cluster on versions of Kubernetes, and a matrix

  VERSION       of ${VERSIONS.join(', ')}; none: all of them
  --only WORD   those of its files alone whose path has this`;
const { values, positionals } = readArguments(USAGE, {
  allowPositionals: true,
  options: { only: { type: 'string', default: '' } },
});
const unknown = positionals.find((version) => !VERSIONS.includes(version));
if (unknown !== undefined) refuse(`Kubernetes ${unknown} cannot be built here`, USAGE);
const versions = positionals.length === 0 ? VERSIONS.toReversed() : positionals;
const files = STORY.filter((file) => file.includes(values.only));
if (files.length === 0) refuse(`no file of the story has "${values.only}" in its path`, USAGE);

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

/** What came of each file, and the exit code. */
async function story(version: string): Promise<{ readonly cells: readonly string[]; readonly code: number }> {
  process.env['GPU_GATE_TEST_KUBERNETES'] = version;
  console.log(`\n== Kubernetes ${version}`);
  await binariesFromEnvironment(console.log);
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-versions-'));
  const json = join(dir, 'report.json');
  const code = await new Promise<number>((resolve) => {
    const args = [
      join(ROOT, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--project',
      'control-plane',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${json}`,
      ...files.map((file) => `test/control-plane/${file}.test.ts`),
    ];
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: 'inherit' });
    child.on('error', () => resolve(127));
    child.on('close', (ended) => resolve(ended ?? 1));
  });
  const { testResults }: Report = existsSync(json)
    ? (JSON.parse(readFileSync(json, 'utf8')) as Report)
    : { testResults: [] };
  rmSync(dir, { recursive: true, force: true });
  const cells = files.map((file) => {
    const result = testResults.find(({ name }) => name.endsWith(`control-plane/${file}.test.ts`));
    if (result === undefined) return 'not run';
    const count = (status: string): number => result.assertionResults.filter((one) => one.status === status).length;
    const [passed, failed] = [count('passed'), count('failed')];
    const others = result.assertionResults.length - passed - failed;
    // A hook that fails skips its tests.
    if (failed > 0 || result.status === 'failed') return `**${Math.max(1, failed)} failed**, ${passed} passed`;
    return [passed > 0 ? `${passed} passed` : '', others > 0 ? `${others} skipped` : '']
      .filter((text) => text !== '')
      .join(', ');
  });
  return { cells, code };
}

const columns: (readonly string[])[] = [];
let isWhole = true;
for (const version of versions) {
  const { cells, code } = await story(version);
  columns.push(cells);
  if (code !== 0) isWhole = false;
}
console.log(`
| | ${versions.join(' | ')} |
|---|${versions.map(() => '---|').join('')}
${files.map((file, row) => `| \`${file}\` | ${columns.map((cells) => cells[row]).join(' | ')} |`).join('\n')}`);
process.exitCode = isWhole ? 0 : 1;
