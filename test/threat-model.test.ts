// The threat model and SECURITY.md name a test for each statement that a test shows. A test that
// was renamed or deleted must not leave a claim behind, nor an option or a value that is gone.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { OPTIONS } from '../app/options.ts';
import { isObject } from '../core/raw.ts';
import { isNode, nameOf, sourceOf, textsOf, walk, type Node } from '../scripts/texts.ts';

const ROOT = join(import.meta.dirname, '..');
const PAGES = ['docs/threat-model.md', 'SECURITY.md'].map(
  (page) => [page, readFileSync(join(ROOT, page), 'utf8')] as const,
);
const text = PAGES.map(([, content]) => content).join('\n');
const named = [...text.matchAll(/`([\w/-]+\.test\.ts)`: "([^"]*)"/g)].map(
  ([, file = '', name = '']) => [file, name] as const,
);

/** The function that a chain of calls begins with: `it` of `it.each(rows)('%s', …)`. */
const rootOf = (node: unknown): string =>
  isNode(node) ? nameOf(node) || rootOf(node['callee'] ?? node['object']) : '';
/** Names of the tests and suites of a file, and what its tables of tests are made of. */
function namesIn(file: string): readonly string[] {
  const { program } = sourceOf(file, readFileSync(join(import.meta.dirname, file), 'utf8'));
  const calls = [...walk(program)].filter(
    (node) => node.type === 'CallExpression' && /^(it|describe|chapter)$/.test(rootOf(node)),
  );
  return calls.flatMap((call) =>
    (call['arguments'] as Node[]).flatMap((given) =>
      given.type === 'ArrayExpression'
        ? [...walk(given)].flatMap((one) => textsOf(one, new Map()))
        : textsOf(given, new Map()),
    ),
  );
}

describe('the security pages', () => {
  it('name tests', () => expect(named.length).toBeGreaterThan(35));
  it.each(named)('%s: "%s"', (file, name) => {
    expect(existsSync(join(import.meta.dirname, file)), `${file} does not exist`).toBe(true);
    expect(name, 'a statement names a test, not a file').not.toBe('');
    expect(
      namesIn(file).some((one) => one.includes(name)),
      `${file} has no test of that name`,
    ).toBe(true);
  });

  it.each(PAGES)('%s: every statement of a table says what shows it', (_, content) => {
    const shown = content.split('\n').filter((line, i, all) => {
      const head = all.slice(0, i).findLast((one, at) => !all[at - 1]?.startsWith('|') && one.startsWith('|'));
      return line.startsWith('|') && head?.endsWith('| shown by |') === true;
    });
    expect(shown.length).toBeGreaterThan(5);
    expect(shown.filter((line) => line.endsWith('| |'))).toEqual([]);
  });

  it('name options and values that there are', () => {
    const flags = [...text.matchAll(/`--([\w-]+)`/g)].map(([, flag]) => flag);
    expect(flags.length).toBeGreaterThan(2);
    const options = Object.values(OPTIONS).map(({ flag }) => flag);
    expect(flags.filter((flag) => !options.includes(flag ?? ''))).toEqual([]);
    const values: unknown = parse(readFileSync(join(ROOT, 'deploy/chart/values.yaml'), 'utf8'));
    const paths = [
      ...text.matchAll(/`((?:certs|extender|image|networkPolicy|rbac|scheduler|tenants|webhook)(?:\.\w+)+)[`:]/g),
    ].map(([, path = '']) => path);
    expect(paths.length).toBeGreaterThan(8);
    const has = (path: string): boolean => {
      const at = path.split('.').reduce<unknown>((inner, key) => (isObject(inner) ? inner[key] : undefined), values);
      return at !== undefined;
    };
    expect(paths.filter((path) => !has(path))).toEqual([]);
  });
});
