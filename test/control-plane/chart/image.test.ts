// The image's file tree, as the Dockerfile lays it out: the program must start from it alone.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

it('the image’s tree runs the program, holds no development packages, and needs no shell', () => {
  const tree = mkdtempSync(join(tmpdir(), 'gpu-gate-image-'));
  try {
    const laid = spawnSync(process.execPath, [join(import.meta.dirname, '../../../scripts/image-tree.mjs'), tree], {
      encoding: 'utf8',
    });
    expect(laid.status, laid.stderr).toBe(0);
    const run = spawnSync(join(tree, 'usr/local/bin/node'), [join(tree, 'app/main.ts'), '--help'], {
      encoding: 'utf8',
      env: {},
      cwd: '/',
    });
    expect([run.status, run.stdout.includes('--webhook-port')]).toEqual([0, true]);
    expect(existsSync(join(tree, 'app/LICENSE'))).toBe(true);
    for (const dev of ['vitest', 'typescript', 'oxlint', 'knip'])
      expect(existsSync(join(tree, 'app/node_modules', dev))).toBe(false);
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
});
