// The count of mutants, from a report as Stryker writes it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { percent, tally, type Equivalent, type Report } from '../../scripts/mutants.ts';
import { EQUIVALENT } from '../mutation/equivalent.ts';

const SOURCE = 'export const f = (a: number) =>\n  a > 0 ? [] : a >\n    1;\n';
const at = (line: number, column: number, endLine: number, endColumn: number) => ({
  start: { line, column },
  end: { line: endLine, column: endColumn },
});
const report: Report = {
  files: {
    'gate/a.ts': {
      source: SOURCE,
      mutants: [
        { status: 'Killed', replacement: 'false', location: at(2, 3, 2, 8) },
        { status: 'Timeout', replacement: 'a', location: at(2, 3, 2, 8) },
        { status: 'Survived', replacement: 'a >= 0', location: at(2, 3, 2, 8) },
        { status: 'NoCoverage', replacement: '["x"]', location: at(2, 11, 2, 13) },
        { status: 'Survived', replacement: 'a >=\n  1', location: at(2, 16, 3, 6) },
        { status: 'Ignored', replacement: '', location: at(1, 1, 1, 2) },
      ],
    },
    'gate/b.ts': {
      source: 'a > 0',
      mutants: [{ status: 'Survived', replacement: 'a >= 0', location: at(1, 1, 1, 6) }],
    },
  },
};
const known: Equivalent = {
  file: 'gate/a.ts',
  line: 'a > 0 ? [] : a >',
  code: 'a > 0',
  mutant: 'a >= 0',
  because: 'it is never 0',
};
const all = (): boolean => true;

describe('the count of mutants', () => {
  it('is of those that were tried, by file, and names what survived', () => {
    const { scores, survivors, stale } = tally(report, [], all);
    expect(scores).toEqual([
      { file: 'gate/a.ts', dead: 2, all: 5, equivalent: 0 },
      { file: 'gate/b.ts', dead: 0, all: 1, equivalent: 0 },
    ]);
    expect(survivors.map(({ file, at: line, code, mutant }) => `${file}:${line} ${code} → ${mutant}`)).toEqual([
      'gate/a.ts:2 a > 0 → a >= 0',
      'gate/a.ts:2 [] → ["x"]',
      'gate/a.ts:2 a > → a >= 1',
      'gate/b.ts:1 a > 0 → a >= 0',
    ]);
    expect(stale).toEqual([]);
    expect(percent(scores)).toBeCloseTo(33.3, 1);
  });
  it('leaves out an equivalent one of that line of that file alone', () => {
    const { scores, survivors, stale } = tally(report, [known], all);
    expect(scores).toMatchObject([
      { dead: 2, all: 4, equivalent: 1 },
      { all: 1, equivalent: 0 },
    ]);
    expect(survivors).toHaveLength(3);
    expect(stale).toEqual([]);
  });
  it.each([
    ['whose line has changed', { line: 'a > 0 ? [] : a >=' }],
    ['that replaces other code', { code: 'a > 1' }],
    ['that Stryker does not make', { mutant: 'a <= 0' }],
    ['that a test kills', { mutant: 'false' }],
  ])('reports an entry %s', (_, change) => {
    const { scores, stale } = tally(report, [{ ...known, ...change }], all);
    expect([scores[0]?.all, stale]).toEqual([5, [{ ...known, ...change }]]);
  });
  it('says nothing of files that were not tried', () => {
    const { scores, survivors, stale } = tally(report, [{ ...known, mutant: 'false' }], (file) => file === 'gate/b.ts');
    expect([scores.map(({ file }) => file), survivors.length, stale]).toEqual([['gate/b.ts'], 1, []]);
  });
  it('of nothing is whole', () => expect(percent([])).toBe(100));
});

describe('the list of equivalent mutants', () => {
  it.each(EQUIVALENT.map((one) => [`${one.file}: ${one.code} → ${one.mutant}`, one] as const))(
    '%s: its line is in the file, and the code in the line',
    (_, { file, line, code, because }) => {
      const lines = readFileSync(join(import.meta.dirname, '../..', file), 'utf8')
        .split('\n')
        .map((text) => text.trim());
      expect(lines).toContain(line);
      expect(line).toContain(code);
      expect(because).not.toBe('');
    },
  );
  it('names each once', () => {
    const keys = EQUIVALENT.map(({ file, line, code, mutant }) => [file, line, code, mutant].join('\n'));
    expect(keys).toEqual([...new Set(keys)]);
  });
});
