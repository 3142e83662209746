// Lays out the file tree of gpu-gate's image in a folder: the program, its production dependencies,
// the Node.js that runs this script. The Dockerfile and tests share it, so that tests run what is
// shipped. It must not depend on any package, and two runs make equal trees.
import { spawnSync } from 'node:child_process';
import { cpSync, lutimesSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const [target] = process.argv.slice(2);
if (target === undefined) {
  console.error('write: node scripts/image-tree.mjs FOLDER');
  process.exit(2);
}
const app = join(target, 'app');
mkdirSync(app, { recursive: true });
for (const part of [
  'package.json',
  'package-lock.json',
  '.npmrc',
  'LICENSE',
  'main.ts',
  'core',
  'platform',
  'webhook',
  'extender',
  'reconciler',
  'certs',
  'gate',
  'explain',
  'kubectl',
  'support',
  'uninstall',
  'app',
]) {
  cpSync(join(root, part), join(app, part), { recursive: true });
}
// Before the packages come: these files alone are the program.
const files = readdirSync(app, { recursive: true })
  .filter((file) => file.endsWith('.ts') && file !== 'main.ts')
  .map((file) => `./${file}`)
  .toSorted();
const { status } = spawnSync(
  'npm',
  ['install', '--no-save', '--omit', 'dev', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel', 'error'],
  { cwd: app, stdio: 'inherit' },
);
if (status !== 0) process.exit(1);
const installed = join(app, 'node_modules');
// Read by nobody at run time: types, source maps, documentation, programs for other platforms.
// Licences stay.
const UNUSED = /(\.d\.[cm]?ts|\.map|\.bare|\.md|\.markdown|\.flow)$/i;
const LICENCE = /licen[cs]e|notice|copying/i;
for (const file of readdirSync(installed, { recursive: true }))
  if (UNUSED.test(file) && !LICENCE.test(basename(file))) rmSync(join(installed, file), { force: true });
rmSync(join(installed, '@types'), { recursive: true, force: true });
rmSync(join(installed, '.package-lock.json'), { force: true });

const node = join(target, 'usr/local/bin/node');
mkdirSync(dirname(node), { recursive: true });
cpSync(process.execPath, node, { dereference: true });
// Symbols are a ninth of the program, and serve debuggers only.
if (spawnSync('strip', [node], { stdio: 'inherit' }).status !== 0)
  console.error('strip (binutils) is not here or failed: Node.js keeps its symbols, about 13 MB');

// Compile every file once, here. A process that never loads the type stripper uses 20 MiB less
// memory and starts sooner. Node.js finds a compiled file by its own version, the user that runs
// it, and the path from the cache to the file; it compiles files that it does not find.
// NODE_COMPILE_CACHE in the image must name this folder.
const USER = 65532;
// What is written must be the same each time: with the same hashes, one thread, and a heap in which
// no memory is used twice, because the bytes between objects are written too. V8 does not compare
// these flags when it reads what was compiled.
const EQUAL = ['--random-seed=1', '--predictable', '--min-semi-space-size=512', '--max-semi-space-size=512'];
const cache = join(app, '.compile-cache');
const warm = (...args) =>
  spawnSync(node, [...EQUAL, ...args], {
    cwd: app,
    stdio: 'ignore',
    env: { NODE_COMPILE_CACHE: cache, NODE_COMPILE_CACHE_PORTABLE: '1' },
  });
warm('main.ts', '--help');
const load = `import { flushCompileCache } from 'node:module';
for (const file of ${JSON.stringify(files)}) await import(file).catch(() => undefined);
flushCompileCache(); process.exit(0);`;
warm('--input-type=module', '-e', load);
for (const folder of readdirSync(cache))
  renameSync(join(cache, folder), join(cache, folder.replace(/-\d+$/, `-${USER}`)));

// One time for all files: a layer holds them.
for (const file of [...readdirSync(target, { recursive: true }), '.']) lutimesSync(join(target, file), 0, 0);
