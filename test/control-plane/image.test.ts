// The image's file tree, as the Dockerfile lays it out: the program must start from it alone.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';

it('the image’s tree runs the program, holds no development packages, and needs no shell', () => {
  const tree = mkdtempSync(join(tmpdir(), 'gpu-gate-image-'));
  try {
    const laid = spawnSync(process.execPath, [join(import.meta.dirname, '../../scripts/image-tree.mjs'), tree], {
      encoding: 'utf8',
    });
    expect(laid.status, laid.stderr).toBe(0);
    const run = spawnSync(join(tree, 'usr/local/bin/node'), [join(tree, 'app/main.js'), '--help'], {
      encoding: 'utf8',
      env: {},
      cwd: '/',
    });
    expect([run.status, run.stdout.includes('--webhook-port')]).toEqual([0, true]);
    // Files that are loaded later only, or started as a process of their own, must be there too.
    const app = join(tree, 'app');
    const files = readdirSync(app, { recursive: true, encoding: 'utf8' }).filter(
      (file) => !file.includes('node_modules'),
    );
    expect(files.filter((file) => file.endsWith('.ts'))).toEqual([]);
    for (const file of files.filter((name) => name.endsWith('.js')))
      for (const [, named = ''] of readFileSync(join(app, file), 'utf8').matchAll(/'([\w./-]+\.[jt]s)'/g))
        expect(existsSync(join(app, dirname(file), named)), `${named} in ${file}`).toBe(true);
    for (const dev of ['vitest', 'typescript', 'oxlint', 'knip'])
      expect(existsSync(join(tree, 'app/node_modules', dev))).toBe(false);
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
});
