// Lays out the file tree of gpu-gate's image in a folder: the program, its production dependencies, the Node.js that runs this.
// Shared by the Dockerfile and by tests, so that what is tested is what is shipped. Dependency-free.
//
// The program's types are stripped here, not at each start: the stripper, once loaded, stays in memory, a quarter of a process. Types become
// blanks, so lines and columns stay those of the source.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const FILES = ['package.json', 'package-lock.json', '.npmrc'];
const PROGRAM = ['main.ts', 'core', 'platform', 'webhook', 'extender', 'reconciler', 'certs', 'cli'];

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const [target, only] = process.argv.slice(2);
if (target === undefined || (only !== undefined && only !== '--program-only')) {
  console.error('write: node scripts/image-tree.mjs FOLDER [--program-only]');
  process.exit(2);
}
const app = join(target, 'app');

/** All files below a part of the program, by their paths from the root. */
const below = (part) =>
  part.endsWith('.ts')
    ? [part]
    : readdirSync(join(root, part), { withFileTypes: true }).flatMap((entry) =>
        entry.isDirectory() ? below(join(part, entry.name)) : [join(part, entry.name)],
      );
/** Every name of a file of ours, in imports and elsewhere, is a string of this form. */
const renamed = (code) => code.replaceAll(/'([\w./-]+)\.ts'/g, "'$1.js'");

// The stripper is stable in Node.js 24's loader, its function is still called experimental at each use.
process.removeAllListeners('warning');
for (const file of PROGRAM.flatMap(below)) {
  const to = join(app, file.replace(/\.ts$/, '.js'));
  mkdirSync(dirname(to), { recursive: true });
  if (file.endsWith('.ts')) writeFileSync(to, renamed(stripTypeScriptTypes(readFileSync(join(root, file), 'utf8'))));
  else cpSync(join(root, file), to);
}
for (const file of FILES) cpSync(join(root, file), join(app, file));
if (only !== undefined) process.exit(0);

const { status } = spawnSync(
  'npm',
  ['install', '--no-save', '--omit', 'dev', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel', 'error'],
  { cwd: app, stdio: 'inherit' },
);
if (status !== 0) process.exit(1);
mkdirSync(join(target, 'usr/local/bin'), { recursive: true });
cpSync(process.execPath, join(target, 'usr/local/bin/node'), { dereference: true });
