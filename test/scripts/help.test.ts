// Every script behind `npm run` says how it is called when asked, and begins nothing on a word that
// it does not know.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: Readonly<Record<string, string>>;
};
const FILES = [
  ...new Set(Object.values(scripts).flatMap((command) => /scripts\/run\.mjs (scripts\/\S+)/.exec(command)?.[1] ?? [])),
  'scripts/plugin.ts',
];

/** A script that began its work would be ended by the time limit, with another exit code. */
const run = (file: string, word: string): { status: number | null; stdout: string; stderr: string } =>
  spawnSync(process.execPath, [join(ROOT, file), word], { cwd: ROOT, encoding: 'utf8', timeout: 60_000 });

describe.each(FILES)('%s', (file) => {
  it('--help prints how it is called', () => {
    const { status, stdout } = run(file, '--help');
    expect(stdout).toMatch(/^(npm run|npm test|node scripts)/);
    expect(stdout).not.toMatch(/==/);
    expect(status).toBe(0);
  });

  it('an unknown option is refused, with the usage', () => {
    const { status, stderr, stdout } = run(file, '--no-such-option');
    expect(stderr).toMatch(/--no-such-option/);
    expect(stderr).toMatch(/^(npm run|npm test|node scripts)/m);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });
});
