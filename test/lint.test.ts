// The rules of oxlint.config.ts are tried: what they forbid is planted in a copy and must be
// reported.
import { spawnSync } from 'node:child_process';
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..');
let copy: string;

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'gpu-gate-lint-'));
  for (const file of ['oxlint.config.ts', 'scripts/pure-files.ts', 'tsconfig.json', 'package.json', '.gitignore']) {
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    cpSync(join(ROOT, file), join(copy, file));
  }
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
});
afterAll(() => rmSync(copy, { recursive: true, force: true }));

/** Lints one file with this text at this place; returns what oxlint printed. */
function lint(file: string, text: string): string {
  const path = join(copy, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  const { stdout, status } = spawnSync('oxlint', ['--deny-warnings', file], { cwd: copy, encoding: 'utf8' });
  rmSync(path);
  return status === 0 ? 'clean' : stdout;
}

const CLOCK = 'export const at = (): number => Date.now();\n';
const reading = (specifier: string, names = 'a'): string =>
  `import { ${names} } from '${specifier}';\nexport { ${names} };\n`;

it.each([
  ['a clock in the core', 'core/planted.ts', CLOCK, 'the clock is an argument'],
  ['a clock in the gate', 'gate/planted.ts', CLOCK, 'the clock is an argument'],
  ['a clock in a new file of the webhook', 'webhook/planted.ts', CLOCK, 'the clock is an argument'],
  ['a clock in a state of the walk', 'reconciler/node/states/planted.ts', CLOCK, 'the clock is an argument'],
  [
    'chance in pure code',
    'certs/planted.ts',
    'export const at = (): number => Math.random();\n',
    'chance is an argument',
  ],
  [
    'the process in pure code',
    'extender/by-name/planted.ts',
    'export const at = process.pid;\n',
    'no-restricted-globals',
  ],
  ['I/O in pure code', 'explain/planted.ts', reading('node:fs/promises', 'readFile'), 'pure files do no I/O'],
  ['a child process in pure code', 'gate/planted.ts', reading('node:child_process', 'spawn'), 'pure files do no I/O'],
  [
    'platform in pure code',
    'reconciler/node/planted.ts',
    reading('../../platform/kube.ts'),
    'pure files import no platform',
  ],
  ['the gate in the core', 'core/planted.ts', reading('../gate/verdict.ts'), 'core imports nothing but core'],
  ['a component in the gate', 'gate/planted.ts', reading('../webhook/inject.ts'), 'gate imports nothing but core'],
  ['a component in another one', 'webhook/planted.ts', reading('../extender/wire.ts'), 'never import each other'],
  [
    'a component in another one’s shell',
    'webhook/routes.ts',
    reading('../extender/wire.ts'),
    'never import each other',
  ],
  [
    'a controller in another one',
    'reconciler/policies/planted.ts',
    reading('../pods/reports.ts'),
    'never import each other: what two need stands above',
  ],
  [
    'a controller in another one’s shell',
    'reconciler/pods/controller.ts',
    reading('../node/writes.ts'),
    'never import each other: what two need stands above',
  ],
  [
    'platform in a controller’s pure file',
    'reconciler/pods/planted.ts',
    reading('../../platform/kube.ts'),
    'no platform',
  ],
  ['the wiring in a component', 'reconciler/apply.ts', reading('../app/options.ts'), 'never import each other'],
  ['the product in platform', 'platform/planted.ts', reading('../core/keys.ts'), 'platform knows nothing'],
  ['express outside routes', 'webhook/inject.ts', reading('express', 'Router'), 'only routes and platform'],
  ['node-forge outside its file', 'certs/store.ts', reading('node-forge', 'pki'), 'only certs/issue.ts'],
  ['a module mock', 'test/planted.test.ts', "import { vi } from 'vitest';\nvi.mock('node:fs');\n", 'no module mocks'],
  [
    'a stopwatch in a test',
    'test/control-plane/planted.test.ts',
    "import { expect } from 'vitest';\nexpect(performance.now()).toBeLessThan(1);\n",
    'no test measures how long anything takes',
  ],
])('%s is reported', (_, file, text, message) => {
  expect(lint(file, text)).toContain(message);
});

it.each([
  ['a clock in a shell', 'webhook/routes.ts', CLOCK],
  ['platform in a controller', 'reconciler/pods/controller.ts', reading('../../platform/kube.ts')],
  ['what stands above, in a controller', 'reconciler/node/planted.ts', reading('../fleet.ts')],
  ['a clock in app', 'app/planted.ts', CLOCK],
  ['a hash in pure code', 'core/planted.ts', reading('node:crypto', 'createHash')],
  ['the core in the gate', 'gate/planted.ts', reading('../core/keys.ts', 'MANAGED')],
  ['the gate in a component', 'extender/planted.ts', reading('../gate/verdict.ts', 'verdict')],
])('%s is allowed', (_, file, text) => {
  expect(lint(file, text)).toBe('clean');
});

it('a circle of imports is reported', () => {
  const path = join(copy, 'gate/other.ts');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, "import { a } from './planted.ts';\nexport const b = a;\n");
  try {
    expect(lint('gate/planted.ts', "import { b } from './other.ts';\nexport const a = b;\n")).toContain('no-cycle');
  } finally {
    rmSync(path);
  }
});

/** Where a test takes one reading of the clock from another; the rules of lint do not see that. */
const durations = (text: string): readonly string[] =>
  text.split('\n').filter((line) => /Date\.now\(\) - [a-z]|[\w)\]] - Date\.now\(\)/.test(line));

it('no test measures how long anything takes', () => {
  expect(durations('const took = Date.now() - began;')).toHaveLength(1);
  expect(durations('expect(retryAt - Date.now()).toBeGreaterThan(9);')).toHaveLength(1);
  expect(durations('const yesterday = Date.now() - 24 * HOUR;')).toEqual([]);
  const found = globSync('test/**/*.test.ts', { cwd: ROOT }).flatMap((file) =>
    durations(readFileSync(join(ROOT, file), 'utf8')).map((line) => `${file}: ${line.trim()}`),
  );
  expect(found.filter((line) => !line.startsWith('test/lint.test.ts'))).toEqual([]);
});
