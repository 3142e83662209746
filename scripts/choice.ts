// What `npm test -- WORDS` runs. Pure: words and files in, a choice out.
export const PARTS = ['check', 'unit', 'control-plane', 'real-node'] as const;
export type Part = (typeof PARTS)[number];

export type Choice =
  | { readonly kind: 'parts'; readonly parts: readonly Part[] }
  /** Test files, and which of their tests; every test where no name is given. */
  | { readonly kind: 'files'; readonly files: readonly string[]; readonly name: string | undefined }
  /** A path that no test file has. */
  | { readonly kind: 'nothing'; readonly path: string };

const isPart = (word: string): word is Part => PARTS.some((part) => part === word);
/** Needs no programs and no cluster. */
const isUnit = (file: string): boolean => !/^test\/(control-plane|real-node)\//.test(file);

/**
 * Words are names of parts, or test files (a part of the path, or the whole name), or else the name
 * of a test. A name that stands in no file as it is may be put together there: then every unit test
 * is asked; a cluster's test is asked by its file.
 */
export function choose(words: readonly string[], files: ReadonlyMap<string, string>): Choice {
  if (words.every(isPart)) return { kind: 'parts', parts: words.length === 0 ? PARTS : words };
  const paths = words.map((word) => word.replace(/^\.\//, ''));
  // A plain word is a file only where it is the whole of its name: names of tests are made of plain
  // words too.
  const matches = (path: string): readonly string[] =>
    [...files.keys()].filter((file) =>
      path.includes('/') || path.includes('.test') ? file.includes(path) : file.endsWith(`/${path}.test.ts`),
    );
  const chosen = new Set(paths.flatMap(matches));
  const name = words.filter((_, at) => matches(paths[at] ?? '').length === 0).join(' ');
  if (name === '') return { kind: 'files', files: [...chosen], name: undefined };
  if (chosen.size > 0) return { kind: 'files', files: [...chosen], name };
  const holding = [...files].filter(([, text]) => text.includes(name)).map(([file]) => file);
  if (holding.length === 0 && words.length === 1 && /^[^ ]*(\/|\.test)[^ ]*$/.test(name))
    return { kind: 'nothing', path: name };
  const asked = holding.length > 0 ? holding : [...files.keys()].filter(isUnit);
  return { kind: 'files', files: asked, name };
}

/**
 * Which folders of test/control-plane show what a folder of the product does. Longer prefixes come
 * first.
 */
const SHOWN_BY: readonly (readonly [prefix: string, folders: readonly string[]])[] = [
  ['webhook/', ['admission']],
  ['certs/', ['certificates']],
  ['deploy/', ['chart']],
  ['extender/', ['scheduling']],
  ['gate/', ['scheduling', 'node']],
  ['explain/', ['node', 'kubectl']],
  ['kubectl/', ['kubectl']],
  ['support/', ['kubectl']],
  ['uninstall/', ['chart']],
  ['reconciler/devices/', ['dra']],
  ['reconciler/pods/', ['pods']],
  ['reconciler/policies/', ['policies']],
  ['reconciler/', ['node']],
  ['core/', ['admission', 'scheduling', 'node']],
  ['lab/churn/', []],
  ['lab/', ['platform']],
  ['platform/', ['platform']],
  ['app/', ['platform']],
  ['main.ts', ['platform']],
];

/** Files whose name says that they are about devices that are given by claim. */
const BY_CLAIM = /(^|[/-])(dra|devices?|claims?|slices)\b/;
const isProduct = (file: string): boolean => !/^(test|lab|bench|scripts|docs)\//.test(file);
/** What more tests than these import says nothing about any of them: the table has it. */
const FEW = 8;

/**
 * The tests on clusters that a change touches. They run the product as processes, so no import says
 * what they depend on: the table above does. What they share in `test/`, and what they name in
 * `lab/` and `scripts/`, stands in their texts. Unit tests are found by their imports.
 */
export function touched(changed: readonly string[], files: ReadonlyMap<string, string>): readonly string[] {
  const folders = new Set(changed.flatMap((file) => SHOWN_BY.find(([prefix]) => file.startsWith(prefix))?.[1] ?? []));
  if (changed.some((file) => isProduct(file) && BY_CLAIM.test(file))) folders.add('dra');
  const clusters = [...files].filter(([file]) => !isUnit(file));
  const naming = (path: string): readonly string[] =>
    clusters.filter(([, text]) => text.includes(`/${path}'`) || text.includes(`'${path}'`)).map(([file]) => file);
  const named = changed.flatMap((file) => {
    const shared = /^test\/(builders|support)\//.test(file);
    const users = naming(shared ? file.slice('test/'.length) : file);
    return shared || users.length <= FEW ? users : [];
  });
  const onRealNode = changed.some((file) => file.startsWith('lab/real-node/'));
  return clusters
    .map(([file]) => file)
    .filter(
      (file) =>
        changed.includes(file) ||
        named.includes(file) ||
        (file.startsWith('test/real-node/') ? onRealNode : folders.has(file.split('/')[2] ?? '')),
    );
}

/** These read everything that is text. */
const READ_ALL = ['test/english.test.ts', 'test/messages.test.ts'];

/**
 * The unit tests that read what changed and is not code, such as docs and the chart: they, or a
 * script or support file that they import, name its folder. `files` are tests, scripts and what
 * tests share, with their texts.
 */
export function readers(changed: readonly string[], files: ReadonlyMap<string, string>): readonly string[] {
  const folders = new Set(changed.filter((file) => !/\.m?ts$/.test(file)).map((file) => file.split('/')[0] ?? ''));
  const names = (text: string): boolean =>
    [...folders].some((folder) => text.includes(`'${folder}'`) || text.includes(`${folder}/`));
  const imports = (text: string): readonly string[] =>
    [...text.matchAll(/from '[./]+\/((?:scripts|support|builders)\/[\w./-]+)'/g)].map(([, path = '']) => path);
  const reads = (text: string): boolean =>
    names(text) || imports(text).some((path) => names(files.get(path) ?? files.get(`test/${path}`) ?? ''));
  return [...files]
    .filter(([file]) => file.endsWith('.test.ts') && isUnit(file))
    .filter(([file, text]) => (folders.size > 0 && READ_ALL.includes(file)) || reads(text))
    .map(([file]) => file);
}
