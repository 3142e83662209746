// What every measurement hands back: rows, each a figure beside its reference from the same run and
// the bar that it must hold.

/** One figure. `held` is absent where there is no bar: the figure is reported, not judged. */
export interface Row {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** The same figure of the reference, measured in the same run. */
  readonly reference?: { readonly name: string; readonly value: number };
  /** The bar in words, with the reason for it. */
  readonly bar?: string;
  readonly held?: boolean;
}

export interface BenchContext {
  readonly say: (line: string) => void;
  /** Further words of the command line, such as `--seconds 60`. */
  readonly args: readonly string[];
}

/** A measurement's module: what `bench/NAME.ts` exports. */
export interface Bench {
  /** What it measures. */
  readonly about: string;
  /**
   * What each option does, by how it is written: `--nodes N`, or `--long` where it takes no value.
   */
  readonly options: Readonly<Record<string, string>>;
  run(context: BenchContext): Promise<readonly Row[]>;
}

/** The value of `--name VALUE` among the arguments as a number. */
export function numberArg(args: readonly string[], name: string, otherwise: number): number {
  const at = args.indexOf(`--${name}`);
  if (at < 0) return otherwise;
  const value = Number(args[at + 1]);
  if (!Number.isFinite(value)) throw new Error(`--${name} ${args[at + 1] ?? ''}: write a number`);
  return value;
}

/** The value of `--name VALUE` among the arguments. */
export function textArg(args: readonly string[], name: string, otherwise: string): string {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? otherwise : (args[at + 1] ?? '');
}

/** The q-th quantile (0 to 1) of numbers; NaN of none. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN;
}

/**
 * The q-th quantile as that of quiet moments: the lower quartile of those of blocks of at least so
 * many values, which stand in the order in which they were measured. What else the machine does
 * comes in bursts and only ever adds: one lifts the p99 of all calls together, and only of whose
 * turn it was. What a program does to itself, such as collecting garbage, is in every block.
 */
export function blockQuantile(values: readonly number[], q: number, size: number): number {
  const count = Math.max(1, Math.floor(values.length / size));
  const from = (block: number): number => Math.round((block * values.length) / count);
  const blocks = Array.from({ length: count }, (_, i) => quantile(values.slice(from(i), from(i + 1)), q));
  return quantile(blocks, 0.25);
}

/** A table for people. */
export function tableOf(rows: readonly Row[]): string {
  const figure = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2));
  const cells = rows.map((row) => [
    row.name,
    `${figure(row.value)} ${row.unit}`,
    row.reference === undefined
      ? ''
      : `${row.reference.name} ${figure(row.reference.value)} (${figure(row.value / row.reference.value)}×)`,
    row.held === undefined ? '' : row.held ? 'held' : 'MISSED',
    row.bar ?? '',
  ]);
  const widths = [0, 1, 2, 3].map((i) => Math.max(...cells.map((cell) => cell[i]?.length ?? 0)));
  return cells
    .map((cell) =>
      cell
        .map((text, i) => text.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
