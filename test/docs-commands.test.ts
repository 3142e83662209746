// Commands and values that pages name: each parses by the program's own parser and names what is
// there, and a block of commands that no test runs says so.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { optionsHelp } from '../app/options.ts';
import { parseCommand } from '../kubectl/args.ts';
import type { Schema } from '../scripts/reference.ts';

const ROOT = join(import.meta.dirname, '..');
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'lab/cluster/README.md',
  'deploy/presets/README.md',
  'deploy/examples/README.md',
]
  .concat(readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' }).map((name) => `docs/${name}`))
  .filter((path) => path.endsWith('.md') && !path.startsWith('docs/adr/') && path !== 'docs/reference/messages.md');

interface Block {
  readonly page: string;
  readonly info: string;
  readonly lines: readonly string[];
}
const BLOCK = /^```(.*)\n([^]*?)^```$/gm;
const blocks: readonly Block[] = PAGES.flatMap((page) =>
  [...text(page).matchAll(BLOCK)].map(([, info = '', body = '']) => ({
    page,
    info,
    lines: body.trimEnd().split('\n'),
  })),
);
const COMMAND = /^(?:kubectl|helm|npm|npx|node|curl|openssl|base64|sha256sum|scripts\/\S+)\s/;
const DOCS = 'test/control-plane/chart/docs.test.ts';
/** Blocks that a test runs, by a piece of their first line, and the test. */
const RUN: Readonly<Record<string, string>> = {
  'helm install gpu-gate deploy/chart --namespace gpu-gate --create-namespace --set': DOCS,
  'kubectl apply --server-side -f deploy/chart/crds': DOCS,
  'npm pack ./kubectl': DOCS,
  'kubectl gpu-gate explain POD': DOCS,
  'kubectl patch gpupolicy default': DOCS,
  'helm uninstall gpu-gate': 'test/control-plane/chart/uninstall.test.ts',
  'kubectl delete namespace gpu-gate-operands': 'test/control-plane/chart/uninstall.test.ts',
  'kubectl gpu-gate ui': 'test/control-plane/kubectl/page.test.ts',
  // Against programs that stand in for NVIDIA's.
  'scripts/real-gpu.sh': 'test/scripts/real-gpu.test.ts',
};

describe('a block of commands', () => {
  const ofCommands = blocks.filter(
    ({ info, lines }) => info.startsWith('sh') || lines.some((line) => COMMAND.test(line)),
  );
  it('is found at all', () => expect(ofCommands.length).toBeGreaterThan(10));

  it.each(ofCommands.map((block) => [block.page, block.lines[0] ?? '', block] as const))(
    'of %s, %s, is marked as one, and says whether a test runs it',
    (_, first, { info }) => {
      const by = Object.entries(RUN).find(([piece]) => first.includes(piece))?.[1];
      expect(info).toBe(by === undefined ? 'sh no-test' : 'sh');
      if (by !== undefined) expect(existsSync(join(ROOT, by))).toBe(true);
    },
  );
});

it('a block that a test runs is one text on each page that has it', () => {
  for (const piece of Object.keys(RUN)) {
    const found = blocks.filter(({ info, lines }) => info === 'sh' && lines[0]?.includes(piece) === true);
    expect(new Set(found.map(({ lines }) => lines.join('\n'))).size, piece).toBe(1);
  }
});

/** Commands in blocks and in the text, each with its page. */
const commands = PAGES.flatMap((page) => {
  const inText = [
    ...text(page)
      .replaceAll(BLOCK, '')
      .matchAll(/`([^`\n]+)`/g),
  ].map(([, code = '']) => code);
  const inBlocks = blocks.filter((block) => block.page === page).flatMap(({ lines }) => lines);
  return [...inText, ...inBlocks].map((command) => ({ page, command: command.replace(/\s+#.*$/, '') }));
});
const called = (start: string) => commands.filter(({ command }) => command.startsWith(`${start} `));

describe('a command that a page names', () => {
  it.each(called('kubectl gpu-gate'))('$command, of $page, parses', ({ command }) => {
    const words = command.replace('kubectl gpu-gate ', '').replaceAll('…', 'x').split(/\s+/);
    expect(parseCommand(words, {})).toMatchObject({ ok: true });
  });

  it.each(called('npm run'))('$command, of $page, is a script', ({ command }) => {
    const { scripts } = JSON.parse(text('package.json')) as { scripts: Record<string, string> };
    for (const [, script = ''] of command.matchAll(/npm run ([\w:]+)/g)) expect(Object.keys(scripts)).toContain(script);
  });

  it.each(called('node main.ts'))('$command, of $page, is one of the program', ({ command }) => {
    const [, , name = ''] = command.split(' ');
    expect(
      text('main.ts') + text('explain/args.ts') + text('support/args.ts') + text('uninstall/args.ts') + optionsHelp(),
    ).toContain(`node main.ts ${name}`.trim());
  });

  it.each(commands.filter(({ command }) => /^(?:kubectl|helm) /.test(command)))(
    '$command, of $page, names files that are there',
    ({ command }) => {
      for (const [path] of command.matchAll(/\bdeploy\/[\w./-]+/g))
        expect(
          existsSync(
            join(ROOT, path.replace('presets/NAME', 'presets/gke').replace('examples/NAME', 'examples/two-pools')),
          ),
          path,
        ).toBe(true);
    },
  );
});

describe('a value that a page names', () => {
  const values = JSON.parse(text('deploy/chart/values.schema.json')) as Schema;
  const crd = text('docs/reference/gpupolicy.md');
  const isField = (path: string): boolean => crd.includes(`\`${path.replace(/^spec\./, '')}`);
  function isValue(path: string): boolean {
    if (path.startsWith('policy.spec.')) return isField(path.slice('policy.spec.'.length));
    let at: Schema | undefined = values;
    for (const name of path.split('.')) {
      if (at?.properties === undefined) return at !== undefined;
      at = at.properties[name];
    }
    return at !== undefined;
  }
  const top = new Set(Object.keys(values.properties ?? {}));
  const inText = PAGES.filter((page) => page.startsWith('docs/') || page === 'README.md').flatMap((page) =>
    [
      ...text(page)
        .replaceAll(BLOCK, '')
        .matchAll(/`([a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+)(?::[^`]*)?`/g),
    ].map(([, path = '']) => ({ page, path })),
  );
  const ours = inText.filter(({ path }) => top.has(path.split('.')[0] ?? '') && !/\.(?:jsonl|yaml)$/.test(path));
  it('is found at all', () => expect(ours.length).toBeGreaterThan(20));
  it.each(ours)('$path, of $page, is one of the chart, or a field of a GPUPolicy', ({ path }) =>
    expect(isValue(path) || isField(path)).toBe(true),
  );
});
