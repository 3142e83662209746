// `npm run mutation [-- AREA… | FILES…]`: Stryker changes the gate and the walk of a node, one
// small change at a time, and sees whether a unit test notices. Prints the score of each file and
// what survived. What did not change since the last run is not tried again. Mutants that no test
// could notice stand in test/mutation/equivalent.ts and do not count. Exit code 1 if fewer mutants
// die than the bar says, or if that list is out of date.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, matchesGlob } from 'node:path';
import { EQUIVALENT } from '../test/mutation/equivalent.ts';
import { readArguments } from './arguments.ts';
import { percent, tally, type Report, type Tally } from './mutants.ts';

const ROOT = join(import.meta.dirname, '..');
const HOME = join(ROOT, 'test/mutation');
/** Per cent of the mutants that must die in each of them. */
const BAR = 90;
const AREAS = {
  gate: ['gate/**/*.ts'],
  // The shell is tested on a real control plane.
  node: ['reconciler/node/**/*.ts', '!reconciler/node/controller.ts'],
} as const;

const USAGE = `npm run mutation -- [gate|node|FILE...]    changes the files, none: gate and walk, and counts what no unit test notices
                       --tests GLOB       by these test files alone: sooner, and a score that is known at least`;
const { positionals: files, values } = readArguments(USAGE, {
  allowPositionals: true,
  options: { tests: { type: 'string' } },
});

if (!existsSync(join(HOME, 'node_modules/@stryker-mutator/core'))) {
  console.log('installing Stryker (once)');
  const { status } = spawnSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel', 'error'], {
    cwd: HOME,
    stdio: 'inherit',
  });
  if (status !== 0) throw new Error('npm install failed in test/mutation: see above');
}

/** Does Stryker change that file? A place within it may follow its name. */
const isMutated = (file: string, mutate: readonly string[]): boolean =>
  mutate.some((glob) => !glob.startsWith('!') && matchesGlob(file, glob.replace(/:[-\d:]+$/, ''))) &&
  !mutate.some((glob) => glob.startsWith('!') && matchesGlob(file, glob.slice(1)));

/** What became of the mutants of an area, or `undefined` if Stryker did not end well. */
function tried(area: string, mutate: readonly string[]): Tally | undefined {
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
      // One for all areas: results of a few files are there for a run over all.
      incrementalFile: 'reports/mutation/incremental.json',
      reporters: ['json', 'progress-append-only'],
      jsonReporter: { fileName: report },
      // Loops without end are counted, not timed: on a machine that does other work too, a limit of
      // seconds counts living mutants as dead.
      timeoutMS: 600_000,
      dryRunTimeoutMinutes: 60,
      tempDirName: `.stryker-tmp/${area}`,
    }),
  );
  const { status } = spawnSync(
    process.execPath,
    [join(HOME, 'node_modules/@stryker-mutator/core/bin/stryker.js'), 'run', config],
    {
      cwd: ROOT,
      stdio: 'inherit',
      env: { ...process.env, ...(values.tests === undefined ? {} : { GPU_GATE_MUTATION_TESTS: values.tests }) },
    },
  );
  rmSync(config, { force: true });
  if (status !== 0) return undefined;
  return tally(JSON.parse(readFileSync(report, 'utf8')) as Report, EQUIVALENT, (file) => isMutated(file, mutate));
}

const named = Object.entries(AREAS).filter(([area]) => files.length === 0 || files.includes(area));
const areas: Readonly<Record<string, readonly string[]>> = named.length > 0 ? Object.fromEntries(named) : { files };
const results = Object.entries(areas).map(([area, mutate]) => ({ area, result: tried(area, mutate) }));
for (const { area, result } of results) {
  if (result === undefined) {
    console.log(`${area}: Stryker failed`);
    process.exitCode = 1;
    continue;
  }
  const { scores, survivors, stale } = result;
  for (const { file, at, line, code, mutant } of survivors)
    console.log(`${file}:${at}: no test notices ${code} → ${mutant}\n  ${line}`);
  for (const { file, line, code, mutant } of stale)
    console.log(`test/mutation/equivalent.ts is out of date: ${file}: ${line}: ${code} → ${mutant}`);
  for (const score of scores)
    console.log(`${percent([score]).toFixed(1).padStart(5)} % of ${score.all}  ${score.file}`);
  const [score, all, equivalent] = [
    percent(scores),
    scores.reduce((sum, one) => sum + one.all, 0),
    scores.reduce((sum, one) => sum + one.equivalent, 0),
  ];
  console.log(`${area}: ${score.toFixed(1)} % of ${all} mutants die; ${equivalent} are equivalent; bar ${BAR} %`);
  if (score < BAR || stale.length > 0) process.exitCode = 1;
}
