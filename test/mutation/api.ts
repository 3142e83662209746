// What a test file imports as `vitest` while mutants are tried: tests are registered here once and
// run again for each mutant, in one process. Vitest itself would begin a process for each file of
// each mutant, which takes ten times as long.
import { format } from 'node:util';

type Body = (...args: readonly unknown[]) => unknown;
type Hook = () => unknown;

export interface Test {
  readonly id: string;
  readonly body: () => unknown;
}

export interface Suite {
  readonly name: string;
  readonly children: (Suite | Test)[];
  readonly before: Hook[];
  readonly after: Hook[];
  readonly beforeEach: Hook[];
  readonly afterEach: Hook[];
}

const suiteOf = (name: string): Suite => ({
  name,
  children: [],
  before: [],
  after: [],
  beforeEach: [],
  afterEach: [],
});

let path: readonly Suite[] = [];
const here = (): Suite => {
  const suite = path.at(-1);
  if (suite === undefined) throw new Error('a test outside of a file');
  return suite;
};

/** Runs `load`, which imports one test file, and returns what that registered. */
export async function registered(file: string, load: () => Promise<unknown>): Promise<Suite> {
  const suite = suiteOf(file);
  path = [suite];
  await load();
  path = [];
  return suite;
}

const ids = new Set<string>();
function addTest(name: string, first: unknown, second?: unknown): void {
  // Options may stand before or after the body.
  const body = (typeof first === 'function' ? first : second) as () => unknown;
  const full = [...path.map((suite) => suite.name), name].join(' > ');
  let id = full;
  for (let n = 2; ids.has(id); n += 1) id = `${full} (${n})`;
  ids.add(id);
  here().children.push({ id, body });
}

function addSuite(name: string, body: () => unknown): void {
  const suite = suiteOf(name);
  here().children.push(suite);
  const outer = path;
  path = [...path, suite];
  body();
  path = outer;
}

const forEach =
  (add: (name: string, body: () => unknown) => void) =>
  (cases: Iterable<unknown>) =>
  (name: string, first: unknown, second?: unknown): void => {
    const body = (typeof first === 'function' ? first : second) as Body;
    for (const one of cases) {
      const args: readonly unknown[] = Array.isArray(one) ? one : [one];
      add(format(name, ...args), () => body(...args));
    }
  };

export const it = Object.assign(addTest, { each: forEach(addTest) });
export const describe = Object.assign(addSuite, { each: forEach(addSuite) });
export const beforeAll = (hook: Hook): void => void here().before.push(hook);
export const afterAll = (hook: Hook): void => void here().after.push(hook);
export const beforeEach = (hook: Hook): void => void here().beforeEach.push(hook);
export const afterEach = (hook: Hook): void => void here().afterEach.push(hook);
