// What the Dockerfile builds and what tests run must not drift apart: the same files, the same
// Node.js, started the same way. test/control-plane/chart/image.test.ts builds it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { GATE_CONFIG } from '../../lab/real-node/images.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');
const dockerfile = read('Dockerfile')
  .replaceAll('\\\n', ' ')
  .split('\n')
  .map((line) => line.trim())
  .filter((line) => line !== '' && !line.startsWith('#'));
/** What follows a word of the Dockerfile, in the order of lines. */
const all = (word: string): readonly string[] =>
  dockerfile.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1));

const LAYOUT = 'scripts/image-tree.mjs';
const copied = all('COPY')
  .filter((words) => !words.startsWith('--from'))
  .flatMap((words) => words.split(/\s+/).slice(0, -1));

it('the Dockerfile copies what lays out the tree, what goes into it, and nothing else', () => {
  const parts = /for \(const part of \[([^\]]+)\]/.exec(read(LAYOUT))?.[1] ?? '';
  const wanted = [...parts.matchAll(/'([^']+)'/g)].map(([, part]) => part ?? '');
  expect(wanted.length).toBeGreaterThan(5);
  expect(copied.toSorted()).toEqual([LAYOUT, ...wanted].toSorted());
});

it('.dockerignore lets through just that', () => {
  const let_ = read('.dockerignore')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1).replace(/\/$/, ''));
  expect(let_.toSorted()).toEqual(copied.toSorted());
});

it('the image starts as the one that tests run', () => {
  const [from, to] = all('COPY').at(-1)?.split(/\s+/).slice(1) ?? [];
  expect([from, to, all('RUN')]).toEqual(['/image/', '/', [`node ${LAYOUT} /image`]]);
  expect({
    Entrypoint: JSON.parse(all('ENTRYPOINT').join()) as unknown,
    Cmd: JSON.parse(all('CMD').join()) as unknown,
    User: all('USER').join(),
    WorkingDir: all('WORKDIR').at(-1),
    Env: all('ENV').join(' ').split(' '),
  }).toEqual(GATE_CONFIG);
});

it('the image’s Node.js is the one that tests run', () => {
  const { devDependencies } = JSON.parse(read('package.json')) as { devDependencies: { node: string } };
  expect(all('ARG')).toContain(`NODE_VERSION=${devDependencies.node}`);
});

it('each base is a build argument, so that a release names digests', () => {
  expect(all('FROM')).toEqual(['${BUILD_BASE} AS build', '${RUNTIME_BASE}']);
});
