// Lays out the file tree of gpu-gate's image in a folder: the program, its production dependencies, the Node.js that runs this.
// Shared by the Dockerfile and by tests, so that what is tested is what is shipped. Dependency-free.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
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
  'app',
]) {
  cpSync(join(root, part), join(app, part), { recursive: true });
}
// Before the packages come: these files alone are the program.
const files = readdirSync(app, { recursive: true })
  .filter((file) => file.endsWith('.ts') && file !== 'main.ts')
  .map((file) => `./${file}`);
const { status } = spawnSync(
  'npm',
  ['install', '--no-save', '--omit', 'dev', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel', 'error'],
  { cwd: app, stdio: 'inherit' },
);
if (status !== 0) process.exit(1);
const node = join(target, 'usr/local/bin/node');
mkdirSync(dirname(node), { recursive: true });
cpSync(process.execPath, node, { dereference: true });

// Every file is stripped of its types and compiled once, here: a process that never loads the stripper holds 20 MiB less and starts sooner.
// Node.js finds what it compiled by its own version, the user that runs it, and the path from the cache to the file; where it does not, it
// compiles again. `NODE_COMPILE_CACHE` in the image must name this folder.
const USER = 65532;
const cache = join(app, '.compile-cache');
const warm = (...args) =>
  spawnSync(node, args, {
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
