// `npm run clean` removes one folder, and nothing where it was not understood.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

let home: string;
let folder: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'gpu-gate-clean-'));
  folder = join(home, 'gpu-gate');
  mkdirSync(folder);
  writeFileSync(join(folder, 'program'), 'x'.repeat(3_000_000));
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

const clean = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/clean.ts', ...args], {
    cwd: join(import.meta.dirname, '..', '..'),
    env: { PATH: process.env['PATH'], XDG_CACHE_HOME: home },
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
};

it('removes the programs and says how much that was', () => {
  expect(clean()).toEqual({ status: 0, stdout: `removed ${folder} (3 MB)\n`, stderr: '' });
  expect([existsSync(folder), existsSync(home)]).toEqual([false, true]);
  expect(clean().stdout).toBe(`nothing is at ${folder}\n`);
});

it.each([
  ['--help', 0],
  ['--hlep', 2],
  ['everything', 2],
])('%s removes nothing', (word, status) => {
  expect(clean(word).status).toBe(status);
  expect(existsSync(join(folder, 'program'))).toBe(true);
});
