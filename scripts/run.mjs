// Runs a TypeScript script of this repository with the Node.js that package.json pins, installing
// it and the other packages first where they are missing. Dependency-free, for Node.js 20 and
// newer.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const modules = join(root, 'node_modules');
const stamp = join(modules, '.gpu-gate-lock');
const hash = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex');

if (!existsSync(join(modules, '.bin', 'node')) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== hash) {
  console.log('installing npm packages (once)');
  // Not `npm ci`: it wants a lock entry for every platform's optional binary, and not every
  // registry serves them all.
  const { status } = spawnSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel', 'error'], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) {
    console.error('npm install failed: see above; npm and a reachable package registry are needed once');
    process.exit(1);
  }
  writeFileSync(stamp, hash);
}

const [script, ...args] = process.argv.slice(2);
const child = spawn(join(modules, '.bin', 'node'), [join(root, script), ...args], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${join(modules, '.bin')}:${process.env.PATH}` },
});
// Ctrl-C reaches the whole foreground group: this one only waits for the script to end in order.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
process.on('SIGHUP', () => child.kill('SIGTERM'));
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 143)));
