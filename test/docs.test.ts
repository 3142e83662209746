// Pages that must keep up with what they describe.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..');
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const headings = (page: string): readonly string[] =>
  [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading);

it('each alert has its part of the page, and no other part is there', () => {
  const alerts = [...text('deploy/chart/templates/monitoring.yaml').matchAll(/- alert: (\w+)/g)].map(
    ([, name = '']) => name,
  );
  expect(alerts.length).toBeGreaterThan(10);
  expect(headings(text('docs/alerts.md')).slice(1).toSorted()).toEqual(alerts.toSorted());
});

it('the README is short', () => expect(text('README.md').split('\n').length).toBeLessThanOrEqual(121));

it('the README leads to every page', () => {
  const linked = new Set([...text('README.md').matchAll(/\]\((docs\/[\w-]+\.md)\)/g)].map(([, page = '']) => page));
  const named = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  expect(named.map((name) => `docs/${name}`).filter((page) => !linked.has(page))).toEqual([]);
});

/** A heading as links name it. */
const anchor = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

const pages = ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', 'lab/cluster/README.md']
  .concat(readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' }).map((name) => `docs/${name}`))
  .concat(['deploy/presets/README.md', 'deploy/examples/README.md'])
  .filter((path) => path.endsWith('.md'));

it.each(pages)('links of %s lead somewhere', (path) => {
  const links = [...text(path).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link);
  const dead = links
    .filter((link) => !/^[a-z]+:/.test(link))
    .filter((link) => {
      const [file = '', part] = link.split('#');
      const target = file === '' ? path : relative(ROOT, join(ROOT, dirname(path), file));
      if (!existsSync(join(ROOT, target))) return true;
      return part !== undefined && !headings(text(target)).some((heading) => anchor(heading) === part);
    });
  expect(dead).toEqual([]);
});

/** `a/{b,c}.ts` is `a/b.ts` and `a/c.ts`. */
const spelt = (path: string): readonly string[] => {
  const [, before = '', names, after = ''] = /^([^{]*)\{([^}]*)\}(.*)$/.exec(path) ?? [];
  return names === undefined ? [path] : names.split(',').map((name) => before + name + after);
};
it.each(pages)('tests that %s names are there', (path) => {
  const named = [...text(path).matchAll(/`(test\/[\w./{},-]+)`/g)].flatMap(([, name = '']) => spelt(name));
  expect(named.filter((name) => !existsSync(join(ROOT, name)))).toEqual([]);
});

it('each reason that the page of Pending pods quotes is one of the gate', () => {
  const reasons = text('docs/reference/messages.md');
  const quoted = [...text('docs/pending.md').matchAll(/^\| `(GPU [^`:…]+|node [^`…]+|driver\/[^`]+)/gm)].map(
    ([, reason = '']) => reason,
  );
  expect(quoted.length).toBeGreaterThan(6);
  expect(quoted.filter((reason) => !reasons.includes(reason))).toEqual([]);
});

it('each preset has its part of the page of platforms, and the page names no other', () => {
  const presets = readdirSync(join(ROOT, 'deploy/presets')).filter((name) => name.endsWith('.yaml'));
  const page = text('docs/platforms.md');
  const parts = page
    .split(/^## /m)
    .slice(1)
    .filter((part) => !part.startsWith('kubeadm'));
  expect(parts.map((part) => /`([\w-]+\.yaml)`/.exec(part)?.[1] ?? '').toSorted()).toEqual(presets.toSorted());
});
