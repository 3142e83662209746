// `npm run transcripts`: what kubectl prints on a test cluster, written into the marked blocks of
// the docs. A block is the fenced text after `<!-- transcript: NAME -->`. The test that plays the
// scene compares them with what is printed today, times and names that are made up apart.
import { spawnSync } from 'node:child_process';
import { readArguments } from './arguments.ts';

const BLOCK = /(<!-- transcript: ([\w-]+) -->\n```\n)((?:(?!```)[^])*)(```\n)/g;

/** The blocks of a page by name. */
export const transcriptsIn = (page: string): ReadonlyMap<string, string> =>
  new Map([...page.matchAll(BLOCK)].map(([, , name = '', text = '']) => [name, text]));

/** The page with these texts in its blocks. */
export const withTranscripts = (page: string, texts: ReadonlyMap<string, string>): string =>
  page.replaceAll(
    BLOCK,
    (_, head: string, name: string, text: string, tail: string) => head + (texts.get(name) ?? text) + tail,
  );

/** What differs from one run to the next, and what stands in its place. */
const MOVING: readonly (readonly [RegExp, string])[] = [
  [/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, 'TIME'],
  [/\b\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}/g, 'TIME'],
  [/ \(x\d+ over \w+\)/g, ''],
  [/ \(x\d+\)/g, ''],
  [/\b\d+(?:\.\d+)? s\b/g, 'AGE'],
  [/\b\d+[smhd](?:\d+[smhd])?\b/g, 'AGE'],
  [/\b[\da-f]{8,}(?:-[\da-f]{4,})*\b/g, 'DIGEST'],
  [/(?<=-)[\dbcdfghjklmnpqrstvwxz]{5}\b/g, 'NAME'],
  [/ {2,}|(?<=\S) +(?=TIME|AGE)/g, '  '],
  [/ +$/gm, ''],
];

/** A text in which only what a change of gpu-gate changes is left. Lines are in no order. */
export const canonical = (text: string): string =>
  [...new Set(MOVING.reduce((done, [moving, still]) => done.replaceAll(moving, still), text).split('\n'))]
    .toSorted()
    .join('\n');

/** These parts of what `kubectl describe` prints, and `…` where others were. */
export function sectionsOf(described: string, names: readonly string[]): string {
  const lines: string[] = [];
  let isIn = false;
  for (const line of described.trimEnd().split('\n')) {
    const [, head] = /^([A-Z][\w -]*):/.exec(line) ?? [];
    if (head !== undefined) isIn = names.includes(head);
    if (isIn) lines.push(line.trimEnd());
    else if (lines.at(-1) !== '…') lines.push('…');
  }
  return `${lines.join('\n')}\n`;
}

if (process.argv[1] === import.meta.filename) {
  readArguments('npm run transcripts     plays the scene on a test cluster and rewrites its blocks in the docs', {
    options: {},
  });
  const args = ['node_modules/vitest/vitest.mjs', 'run', '--project', 'control-plane'];
  const { status } = spawnSync(process.execPath, [...args, 'test/control-plane/kubectl/transcripts.test.ts'], {
    stdio: 'inherit',
    env: { ...process.env, GPU_GATE_TEST_UPDATE: '1' },
  });
  process.exitCode = status ?? 1;
}
