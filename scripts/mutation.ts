// `npm run mutation [-- FILES…]`: Stryker changes the gate and the walk of a node, one small change
// at a time, and sees whether a unit test notices. Prints what survived. Exit code 1 if fewer
// mutants die than the bar says.
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readArguments } from './arguments.ts';

const ROOT = join(import.meta.dirname, '..');
const HOME = join(ROOT, 'test/mutation');
/** Per cent of the mutants that must die. */
const BAR = 80;
const USAGE = `npm run mutation -- [FILE...]    changes the files, none: gate and walk, and counts what no unit test notices`;
const { positionals: files } = readArguments(USAGE, { allowPositionals: true, options: {} });

if (!existsSync(join(HOME, 'node_modules/@stryker-mutator/core'))) {
  console.log('installing Stryker (once)');
  const { status } = spawnSync(
    'npm',
    ['install', '--no-save', '--omit=peer', '--no-audit', '--no-fund', '--loglevel', 'error'],
    { cwd: HOME, stdio: 'inherit' },
  );
  if (status !== 0) throw new Error('npm install failed in test/mutation: see above');
}
const config = join(HOME, 'stryker.generated.json');
writeFileSync(
  config,
  JSON.stringify({
    testRunner: 'vitest',
    plugins: [join(HOME, 'node_modules/@stryker-mutator/vitest-runner/dist/src/index.js')],
    vitest: { configFile: 'test/mutation/vitest.config.ts' },
    // Stryker would rewrite tsconfig.json with the compiler's API, which TypeScript 7 does not have
    // yet.
    tsconfigFile: 'no-tsconfig.json',
    mutate: files.length > 0 ? files : ['gate/**/*.ts', 'reconciler/node/**/*.ts', '!reconciler/node/controller.ts'],
    // A text may be any text: mutants of texts measure nothing.
    mutator: { excludedMutations: ['StringLiteral'] },
    coverageAnalysis: 'perTest',
    // Values made once when a module loads would need a process for each mutant.
    ignoreStatic: true,
    concurrency: 2,
    reporters: ['clear-text', 'progress-append-only'],
    clearTextReporter: { allowColor: false, logTests: false, skipFull: true },
    thresholds: { high: 90, low: BAR, break: BAR },
    tempDirName: '.stryker-tmp',
  }),
);
const { status } = spawnSync(
  process.execPath,
  [join(HOME, 'node_modules/@stryker-mutator/core/bin/stryker.js'), 'run', config],
  { cwd: ROOT, stdio: 'inherit' },
);
rmSync(config);
process.exitCode = status ?? 1;
