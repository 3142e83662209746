// The demo is itself a test of the whole story: it must hold, end with 0, and leave nothing.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

it('`npm run demo -- --once` tells its story, every step holds, and nothing is left', async () => {
  const child = spawn(process.execPath, ['scripts/demo.ts', '--once'], {
    cwd: join(import.meta.dirname, '..', '..', '..'),
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise((resolve) => child.on('close', resolve));
  expect(code, output).toBe(0);
  expect(output.match(/^ {3}ok /gm)?.length).toBeGreaterThan(20);
  expect(output).toContain('Every step held.');
  for (const dir of new Set(output.match(/\/tmp\/gpu-gate-[\w-]+/g))) expect(existsSync(dir)).toBe(false);
});
