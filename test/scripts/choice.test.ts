// What `npm test -- WORDS` and `npm test -- --changed` run.
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { choose, PARTS, readers, touched } from '../../scripts/choice.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const FILES = new Map([
  ['test/gate/verdict.test.ts', "it('refuses a node that is not proven'"],
  ['test/gate/versions.test.ts', "it.each(VERSIONS)('%s is newer'"],
  ['test/control-plane/node/gate.test.ts', "it('opens the node'"],
  ['test/real-node/real-node.test.ts', "it('is proven'"],
]);

describe('words', () => {
  it('none: every part', () => expect(choose([], FILES)).toEqual({ kind: 'parts', parts: PARTS }));
  it('names of parts: those', () => expect(choose(['unit'], FILES)).toEqual({ kind: 'parts', parts: ['unit'] }));
  it.each([
    ['a whole path', ['test/gate/verdict.test.ts'], ['test/gate/verdict.test.ts']],
    ['a path as a shell completes it', ['./test/gate/verdict.test.ts'], ['test/gate/verdict.test.ts']],
    ['a part of several', ['gate/ver'], ['test/gate/verdict.test.ts', 'test/gate/versions.test.ts']],
    ['two files', ['verdict', 'real-node.test'], ['test/gate/verdict.test.ts', 'test/real-node/real-node.test.ts']],
  ])('%s: those files, every test', (_, words, files) =>
    expect(choose(words, FILES)).toEqual({ kind: 'files', files, name: undefined }),
  );
  it('a name that stands in a file: that file, that test', () =>
    expect(choose(['refuses a node'], FILES)).toEqual({
      kind: 'files',
      files: ['test/gate/verdict.test.ts'],
      name: 'refuses a node',
    }));
  it('a name without quotes is one name', () =>
    expect(choose(['refuses', 'a', 'node'], FILES)).toMatchObject({ name: 'refuses a node' }));
  it('a name that is put together: every unit test', () =>
    expect(choose(['1.2 is newer'], FILES)).toEqual({
      kind: 'files',
      files: ['test/gate/verdict.test.ts', 'test/gate/versions.test.ts'],
      name: '1.2 is newer',
    }));
  it('a path that no file has: nothing', () =>
    expect(choose(['gate/verdct'], FILES)).toEqual({ kind: 'nothing', path: 'gate/verdct' }));
  it('a file and a name: that test there', () =>
    expect(choose(['node/gate.test', 'opens'], FILES)).toEqual({
      kind: 'files',
      files: ['test/control-plane/node/gate.test.ts'],
      name: 'opens',
    }));
});

const texts = new Map(
  globSync('test/**/*.test.ts', { cwd: ROOT }).map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]),
);
const files = [...texts.keys()];
/** As `npm test -- --changed` asks for unit tests that read a file. */
const read = (changed: string): readonly string[] => {
  const others = globSync(['test/**/*.ts', 'scripts/**/*.ts'], { cwd: ROOT });
  return readers([changed], new Map(others.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')])));
};

describe('the examples of CONTRIBUTING.md', () => {
  const guide = readFileSync(join(ROOT, 'CONTRIBUTING.md'), 'utf8');
  const examples = [...guide.matchAll(/^npm test -- ("[^"]+"|[\w/]+) +#/gm)].map(([, words = '']) =>
    words.replaceAll('"', ''),
  );
  it('are there', () => expect(examples.length).toBeGreaterThan(2));
  it.each(examples)('%s chooses what is there', (words) => {
    const choice = choose([words], texts);
    expect(choice.kind).not.toBe('nothing');
    if (choice.kind !== 'files') return;
    expect(choice.files.length).toBeGreaterThan(0);
    if (choice.name !== undefined) expect(choice.files.some((file) => texts.get(file)?.includes(words))).toBe(true);
  });
});

describe('changes', () => {
  it.each([
    ['webhook/inject.ts', 'test/control-plane/admission/'],
    ['certs/keeper.ts', 'test/control-plane/certificates/'],
    ['reconciler/pods/readiness.ts', 'test/control-plane/pods/'],
    ['reconciler/reconciler.ts', 'test/control-plane/node/'],
    ['deploy/chart/values.yaml', 'test/control-plane/chart/'],
    ['reconciler/devices/rules.ts', 'test/control-plane/dra/'],
  ])('of %s: what is in %s', (changed, folder) => {
    const chosen = touched([changed], texts);
    expect(chosen.length).toBeGreaterThan(0);
    expect(chosen).toEqual(files.filter((file) => file.startsWith(folder)));
  });
  it('of what tests share: those that import it', () => {
    const chosen = touched(['test/support/tcp-proxy.ts'], texts);
    expect(chosen).toContain('test/control-plane/platform/credentials.test.ts');
    expect(chosen).not.toContain('test/control-plane/chart/chart.test.ts');
  });
  it.each(['test/control-plane/node/walk.test.ts', 'test/real-node/real-node.test.ts'])('of %s: that test', (file) =>
    expect(touched([file, 'docs/README.md'], texts)).toEqual([file]),
  );
  it('of a unit test or of the docs: no control plane', () =>
    expect(touched(['test/gate/verdict.test.ts', 'docs/webhook.md'], texts)).toEqual([]));
  it.each([
    ['a page that a test holds', 'docs/uninstall.md', 'test/control-plane/chart/uninstall.test.ts'],
    ['a program that a test runs', 'scripts/cluster.ts', 'test/control-plane/platform/cluster.test.ts'],
    ['a part of the lab that few import', 'lab/churn/churn.ts', 'test/control-plane/dra/churn.test.ts'],
    [
      'what runs in a network of its own',
      'lab/cluster/rotation.ts',
      'test/control-plane/certificates/rotation.test.ts',
    ],
    ['the real node', 'lab/real-node/node.ts', 'test/real-node/real-node.test.ts'],
    ['a decision about claims, outside their folder', 'gate/devices.ts', 'test/control-plane/dra/claims.test.ts'],
  ])('of %s: %s is shown by %s', (_, changed, file) => expect(touched([changed], texts)).toContain(file));
  it('of what every cluster is made of: the tests of the test cluster, not all', () => {
    const chosen = touched(['lab/cluster/cluster.ts'], texts);
    expect(chosen).toContain('test/control-plane/platform/demo.test.ts');
    expect(chosen).not.toContain('test/control-plane/node/walk.test.ts');
  });
  it.each([
    ['deploy/chart/crds/gpupolicies.yaml', 'test/core/parse-policy.test.ts'],
    ['deploy/chart/values.yaml', 'test/reference.test.ts'],
    ['docs/webhook.md', 'test/docs.test.ts'],
    ['Dockerfile', 'test/platform/dockerfile.test.ts'],
    ['docs/webhook.md', 'test/english.test.ts'],
  ])('of %s: the unit test %s reads it', (changed, file) => expect(read(changed)).toContain(file));
  it('of code: none, unit tests are found by their imports', () => expect(read('core/keys.ts')).toEqual([]));
  it('none: nothing is read', () => expect(readers([], texts)).toEqual([]));
  it('every folder of the product that is there has a place in the table', () => {
    const product = [
      'webhook',
      'certs',
      'deploy',
      'extender',
      'gate',
      'explain',
      'reconciler',
      'core',
      'platform',
      'app',
      'kubectl',
    ];
    for (const folder of product.filter((one) => existsSync(join(ROOT, one))))
      expect([folder, touched([`${folder}/some.ts`], texts).length > 0]).toEqual([folder, true]);
  });
});
