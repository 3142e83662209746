// Lays out the file tree of gpu-gate's image in a folder: the program, its production dependencies, the Node.js that runs this.
// Shared by the Dockerfile and by tests, so that what is tested is what is shipped. Dependency-free.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync } from 'node:fs';
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
  'cli',
]) {
  cpSync(join(root, part), join(app, part), { recursive: true });
}
const { status } = spawnSync(
  'npm',
  ['install', '--no-save', '--omit', 'dev', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel', 'error'],
  { cwd: app, stdio: 'inherit' },
);
if (status !== 0) process.exit(1);
mkdirSync(join(target, 'usr/local/bin'), { recursive: true });
cpSync(process.execPath, join(target, 'usr/local/bin/node'), { dereference: true });
