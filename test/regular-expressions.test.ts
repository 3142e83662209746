// Foreign text must not stall the process: every regular expression of the product takes time that
// is linear in the length of its input, proven by static analysis and not by a clock.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkSync } from 'recheck';
import { parseSync } from 'vite';
import { expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..');
const FOLDERS = ['core', 'gate', 'webhook', 'extender', 'explain', 'kubectl', 'reconciler', 'certs', 'platform', 'app'];

interface Expression {
  readonly where: string;
  readonly source: string;
  readonly flags: string;
}

/** Every object of a syntax tree. */
function* nodes(value: unknown): Generator<Readonly<Record<string, unknown>>> {
  if (typeof value !== 'object' || value === null || value instanceof RegExp) return;
  if (!Array.isArray(value)) yield value as Record<string, unknown>;
  for (const inner of Object.values(value)) yield* nodes(inner);
}

/** The literals of a source, and the calls that make an expression out of a text. */
function expressionsOf(file: string, source: string): { readonly literals: Expression[]; readonly made: string[] } {
  const literals: Expression[] = [];
  const made: string[] = [];
  for (const node of nodes(parseSync(file, source, { lang: 'ts' }).program)) {
    const where = `${file}:${source.slice(0, Number(node['start'])).split('\n').length}`;
    const { regex } = node as { regex?: { readonly pattern: string; readonly flags: string } };
    if (node['type'] === 'Literal' && regex !== undefined)
      literals.push({ where, source: regex.pattern, flags: regex.flags });
    const { callee } = node as { callee?: { readonly name?: string } };
    if (callee?.name === 'RegExp') made.push(where);
  }
  return { literals, made };
}

/** How the time of an expression grows with its input. Without repetition it does not. */
const growth = ({ source, flags }: Omit<Expression, 'where'>): string => {
  if (!/[*+{]/.test(source)) return 'linear';
  const result = checkSync(source, flags, { checker: 'automaton', timeout: null });
  if (result.status === 'safe') return 'linear';
  return result.status === 'vulnerable' ? result.complexity.summary : result.status;
};

const files = [
  'main.ts',
  ...FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => join(folder, name)),
  ),
];
const found = files.map((file) => expressionsOf(file, readFileSync(join(ROOT, file), 'utf8')));

it('finds what is not linear', () => {
  const { literals, made } = expressionsOf(
    'x.ts',
    "const a = /^eyJ$/; const b = /(a|a)*$/; const c = /eyJ[\\w-]+[.]/; new RegExp('x');",
  );
  expect(literals.map(growth)).toEqual(['linear', 'exponential', '2nd degree polynomial']);
  expect(made).toEqual(['x.ts:1']);
});

it('every regular expression is linear', () => {
  const literals = found.flatMap((file) => file.literals);
  expect(literals.length).toBeGreaterThan(20);
  const bad = literals.flatMap((literal) => {
    const grows = growth(literal);
    return grows === 'linear' ? [] : [`${literal.where} /${literal.source}/ is ${grows}`];
  });
  expect(bad).toEqual([]);
});

it('no regular expression is made out of a text', () => expect(found.flatMap((file) => file.made)).toEqual([]));
