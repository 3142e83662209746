// How `npm run bench` is called: the page that `--help` prints, and the check of what was written.
import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';
import type { Bench } from '../rows.ts';

type Described = Pick<Bench, 'about' | 'options'>;

const ALWAYS = { '--json FILE': 'writes every figure there too' };

export const usageOf = (benches: ReadonlyMap<string, Described>): string =>
  [
    'npm run bench -- [NAME] [options]   one measurement, none: all; exit code 1 where a bar is missed',
    ...Object.entries(ALWAYS).map(([option, text]) => `  ${option.padEnd(18)} ${text}`),
    ...[...benches].flatMap(([name, { about, options }]) => [
      '',
      `${name.padEnd(12)} ${about}`,
      ...Object.entries(options).map(([option, text]) => `  ${option.padEnd(18)} ${text}`),
    ]),
  ].join('\n');

/** What was asked for. `args` are the words for the measurements themselves. */
export interface Asked {
  readonly names: readonly string[];
  readonly args: readonly string[];
  readonly json: string | undefined;
}

/** Throws one sentence on a word that no measurement knows, before any begins. */
export function read(words: readonly string[], benches: ReadonlyMap<string, Described>): Asked {
  const named = words[0]?.startsWith('-') === false ? words[0] : undefined;
  const bench = named === undefined ? undefined : benches.get(named);
  if (named !== undefined && bench === undefined) throw new TypeError(`${named}: there is no such measurement`);
  const args = named === undefined ? words : words.slice(1);
  const options: ParseArgsOptionsConfig = Object.fromEntries(
    Object.keys({ ...ALWAYS, ...bench?.options }).map((written) => {
      const [name = '', value] = written.slice(2).split(' ');
      return [name, { type: value === undefined ? 'boolean' : 'string' }];
    }),
  );
  const { json } = parseArgs({ args: [...args], options }).values;
  return { names: named === undefined ? [...benches.keys()] : [named], args, json: json?.toString() };
}
