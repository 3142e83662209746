// What Stryker reports, counted: mutants that no test could notice are taken out by a list, which
// is held to the source in turn.

interface Place {
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
}
interface Mutant {
  readonly status: string;
  readonly replacement?: string;
  readonly location: { readonly start: Place; readonly end: Place };
}
export interface Report {
  readonly files: Readonly<Record<string, { readonly source: string; readonly mutants: readonly Mutant[] }>>;
}

/**
 * A mutant that does what the code does. It is known by its text and not by a line number, so that
 * an edit elsewhere in the file leaves it known.
 */
export interface Equivalent {
  readonly file: string;
  /** The line that it begins on, without its indentation. */
  readonly line: string;
  /** What it replaces; the first line of that if there are several. */
  readonly code: string;
  readonly mutant: string;
  readonly because: string;
}

export interface Survivor {
  readonly file: string;
  readonly at: number;
  readonly line: string;
  readonly code: string;
  readonly mutant: string;
}

export interface Score {
  readonly file: string;
  readonly dead: number;
  /** Without the equivalent ones. */
  readonly all: number;
  readonly equivalent: number;
}

export interface Tally {
  readonly scores: readonly Score[];
  readonly survivors: readonly Survivor[];
  /** Entries of the list whose code is no longer in a file that was tried, or whose mutant dies. */
  readonly stale: readonly Equivalent[];
}

const DEAD = new Set(['Killed', 'Timeout']);
/** Nobody ran it, and the score says nothing of it. */
const UNTRIED = new Set(['Ignored', 'CompileError', 'Pending']);

/** One line of text, whatever the printer made of it. */
const flat = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();

function described(file: string, source: readonly string[], { location, replacement = '' }: Mutant): Survivor {
  const { start, end } = location;
  const line = source[start.line - 1] ?? '';
  const code = line.slice(start.column - 1, start.line === end.line ? end.column - 1 : undefined);
  return { file, at: start.line, line: line.trim(), code: flat(code), mutant: flat(replacement) };
}

const keyOf = ({ file, line, code, mutant }: Omit<Survivor, 'at'>): string =>
  JSON.stringify([file, line, flat(code), flat(mutant)]);

/**
 * Counts the files that `isTried` names; a report may hold results of others, from earlier runs.
 */
export function tally(report: Report, list: readonly Equivalent[], isTried: (file: string) => boolean): Tally {
  const known = new Set(list.map(keyOf));
  const seen = new Set<string>();
  const survivors: Survivor[] = [];
  const scores = Object.entries(report.files)
    .filter(([file]) => isTried(file))
    .map(([file, { source, mutants }]): Score => {
      const lines = source.split('\n');
      const tried = mutants.filter(({ status }) => !UNTRIED.has(status));
      const alive = tried.filter(({ status }) => !DEAD.has(status)).map((mutant) => described(file, lines, mutant));
      const equivalent = alive.filter((mutant) => known.has(keyOf(mutant)));
      for (const mutant of equivalent) seen.add(keyOf(mutant));
      survivors.push(...alive.filter((mutant) => !known.has(keyOf(mutant))));
      return {
        file,
        dead: tried.length - alive.length,
        all: tried.length - equivalent.length,
        equivalent: equivalent.length,
      };
    });
  const stale = list.filter((one) => isTried(one.file) && !seen.has(keyOf(one)));
  return {
    scores: scores.toSorted((a, b) => a.file.localeCompare(b.file)),
    survivors: survivors.toSorted((a, b) => a.file.localeCompare(b.file) || a.at - b.at),
    stale,
  };
}

/** Per cent of the mutants that died; all of none. */
export function percent(scores: readonly Pick<Score, 'dead' | 'all'>[]): number {
  const all = scores.reduce((sum, score) => sum + score.all, 0);
  return all === 0 ? 100 : (100 * scores.reduce((sum, score) => sum + score.dead, 0)) / all;
}
