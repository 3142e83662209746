// `npm run mutation [-- AREA… | FILES…]`: Stryker changes the gate and the walk of a node, one
// small change at a time, and sees whether a unit test notices. Prints the score of each file and
// what survived. What did not change since the last run is not tried again. Exit code 1 if fewer
// mutants die than the bar says.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readArguments } from './arguments.ts';

const ROOT = join(import.meta.dirname, '..');
const HOME = join(ROOT, 'test/mutation');
/** Per cent of the mutants that must die in each of them. */
const BAR = 90;
const AREAS = {
  gate: ['gate/**/*.ts'],
  // The shell is tested on a real control plane.
  node: ['reconciler/node/**/*.ts', '!reconciler/node/controller.ts'],
} as const;

const USAGE = `npm run mutation -- [gate|node|FILE...]    changes the files, none: gate and walk, and counts what no unit test notices`;
const { positionals: files } = readArguments(USAGE, { allowPositionals: true, options: {} });

interface Report {
  readonly files: Readonly<Record<string, { readonly mutants: readonly { readonly status: string }[] }>>;
}

if (!existsSync(join(HOME, 'node_modules/@stryker-mutator/core'))) {
  console.log('installing Stryker (once)');
  const { status } = spawnSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel', 'error'], {
    cwd: HOME,
    stdio: 'inherit',
  });
  if (status !== 0) throw new Error('npm install failed in test/mutation: see above');
}

/** Per cent of the mutants of an area that died, or `undefined` if Stryker did not end well. */
function tried(area: string, mutate: readonly string[]): number | undefined {
  const config = join(HOME, `stryker.${area}.json`);
  const report = join(ROOT, `reports/mutation/${area}.json`);
  writeFileSync(
    config,
    JSON.stringify({
      testRunner: 'in-process',
      plugins: [join(HOME, 'runner.ts')],
      // Stryker would rewrite tsconfig.json with the compiler's API, which TypeScript 7 does not
      // have yet.
      tsconfigFile: 'no-tsconfig.json',
      mutate,
      // A text may be any text: mutants of texts measure nothing.
      mutator: { excludedMutations: ['StringLiteral'] },
      coverageAnalysis: 'perTest',
      // Values made once when a module loads would need a process for each mutant.
      ignoreStatic: true,
      concurrency: 1,
      incremental: true,
      incrementalFile: `reports/mutation/${area}.incremental.json`,
      reporters: ['clear-text', 'json', 'progress-append-only'],
      jsonReporter: { fileName: report },
      clearTextReporter: { allowColor: false, logTests: false, skipFull: true, reportTests: false },
      timeoutMS: 20_000,
      // On a machine that does other work too.
      dryRunTimeoutMinutes: 60,
      tempDirName: `.stryker-tmp/${area}`,
    }),
  );
  const { status } = spawnSync(
    process.execPath,
    [join(HOME, 'node_modules/@stryker-mutator/core/bin/stryker.js'), 'run', config],
    { cwd: ROOT, stdio: 'inherit' },
  );
  rmSync(config);
  if (status !== 0) return undefined;
  const { files } = JSON.parse(readFileSync(report, 'utf8')) as Report;
  const all = Object.values(files)
    .flatMap(({ mutants }) => mutants)
    .filter((mutant) => mutant.status !== 'Ignored');
  const dead = all.filter((mutant) => mutant.status === 'Killed' || mutant.status === 'Timeout');
  return (100 * dead.length) / all.length;
}

const named = Object.entries(AREAS).filter(([area]) => files.length === 0 || files.includes(area));
const areas: Readonly<Record<string, readonly string[]>> = named.length > 0 ? Object.fromEntries(named) : { files };
const scores = Object.entries(areas).map(([area, mutate]) => ({ area, score: tried(area, mutate) }));
for (const { area, score } of scores)
  console.log(
    score === undefined ? `${area}: Stryker failed` : `${area}: ${score.toFixed(1)} % of the mutants die; bar ${BAR} %`,
  );
if (scores.some(({ score }) => score === undefined || score < BAR)) process.exitCode = 1;
