/// <reference types="vite/types/importMeta.d.ts" />
// Comments, messages and docs are product: the width of comments, words that make readers stumble,
// and references to documents that are not in the repository.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

// Never loaded: `--changed` runs this test where any file has changed.
import.meta.glob(['../**/*.{ts,mjs}', '!../node_modules/**']);

const ROOT = join(import.meta.dirname, '..');
const WIDTH = 100;
/** Words of another age, pronouns without a noun, and negations that English writes otherwise. */
const STUMBLES =
  /\b(told|anew|somebody|whoever|lest|besides|mended|rests? upon|the one before|(?<!there )is no (?!longer|more|less))\b/i;
const ABSENT = /\b(design,? section|facts: [a-z-]+\.md|facts\/|house\.md|real-cluster\.md)/i;
const HERE = 'test/english.test.ts';

const { stdout } = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: ROOT,
  encoding: 'utf8',
});
const files = stdout.split('\n').filter((file) => file !== '' && file !== HERE);
const lines = (file: string): string[] => readFileSync(join(ROOT, file), 'utf8').split('\n');

/** `file:line: text` of each line that is faulty. */
const faults = (ending: RegExp, isFaulty: (line: string) => boolean): string[] =>
  files
    .filter((file) => ending.test(file))
    .flatMap((file) => lines(file).flatMap((line, i) => (isFaulty(line) ? [`${file}:${i + 1}: ${line.trim()}`] : [])));

const isComment = (line: string): boolean => /^\s*(\/\/|\/\*|\*)/.test(line);
/** Comments and texts of a line of code; names of variables are not English. */
const prose = (line: string): string =>
  isComment(line) ? line : [...line.matchAll(/'[^']*'|`[^`]*`|"[^"]*"|\/\/ .*$/g)].map(([text]) => text).join(' ');

describe('English', () => {
  it(`comments wrap at ${WIDTH} columns`, () =>
    expect(
      faults(/\.(ts|mjs)$/, (line) => isComment(line) && line.length > WIDTH && !/https?:|oxlint-/.test(line)),
    ).toEqual([]));

  it('no word that makes readers stumble, in comments and messages', () =>
    expect(faults(/\.(ts|mjs)$/, (line) => STUMBLES.test(prose(line)))).toEqual([]));

  it('nor in docs and chart', () => expect(faults(/\.(md|ya?ml|tpl|txt)$/, (line) => STUMBLES.test(line))).toEqual([]));

  it('no reference to a document that is not here', () =>
    expect(faults(/\.(ts|mjs|md|ya?ml|tpl)$/, (line) => ABSENT.test(line))).toEqual([]));
});
