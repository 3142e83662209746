// The threat model names a test for each statement that a test shows. A test that was renamed or
// deleted must not leave a claim behind.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const text = readFileSync(join(import.meta.dirname, '..', 'docs', 'threat-model.md'), 'utf8');
const named = [...text.matchAll(/`([\w/-]+\.test\.ts)`: "([^"]*)"/g)].map(
  ([, file = '', name = '']) => [file, name] as const,
);

describe('the threat model', () => {
  it('names tests', () => expect(named.length).toBeGreaterThan(25));
  it.each(named)('%s: "%s"', (file, name) => {
    const path = join(import.meta.dirname, file);
    expect(existsSync(path), `${file} does not exist`).toBe(true);
    expect(name, 'a statement names a test, not a file').not.toBe('');
    expect(readFileSync(path, 'utf8')).toContain(name);
  });
});
