// Runs unit tests for Stryker, in one process: test files are loaded once, and each mutant is tried
// against the tests that reach it, the quick ones first.
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { pathToFileURL } from 'node:url';
import type { Suite, Test } from './api.ts';

/** What Stryker's code in the mutated files reads and writes. */
interface Switch {
  activeMutant?: string | undefined;
  currentTestId?: string | undefined;
  hitCount?: number | undefined;
  hitLimit?: number | undefined;
  mutantCoverage?: unknown;
}
interface MutantRun {
  readonly testFilter?: readonly string[];
  readonly hitLimit?: number;
  readonly activeMutant: { readonly id: string };
}

/** `--tests` of the command narrows them. */
const FILES = process.env['GPU_GATE_MUTATION_TESTS'] ?? 'test/{gate,webhook,extender,explain,reconciler}/**/*.test.ts';
/**
 * What measures growth, judges other things than the gate and the walk of a node, or takes long:
 * the model test kills almost nothing that the tables leave alive, and takes most of the time. So a
 * score is what is known at least.
 */
const LEFT_OUT =
  /\b(?:(?:allocation|growth|managed-fields|properties|controllers|fleet|model|roll-out-model|tenants)\.test\.ts$|(?:manifests|policies|operands|pods|devices)\/)/;
/** Deliberate faults of what stands around the plan: they say nothing of a mutant. */
const PLANTED = 'a planted fault is caught';
const HISTORIES = '10';
/** The order of the tests, for a process that follows one in which a mutant never ended. */
const ORDER = 'test-order.json';

const self = (globalThis as unknown as { __stryker__?: Switch }).__stryker__ ?? {};
(globalThis as unknown as { __stryker__: Switch }).__stryker__ = self;

const isTest = (child: Suite | Test): child is Test => 'body' in child;
const wordsOf = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error));

/** A test with the suites that it is in, from the file inwards. */
interface Placed extends Test {
  readonly file: string;
  readonly within: readonly Suite[];
}

const placed = (suite: Suite, file: string, outer: readonly Suite[] = []): Placed[] => {
  const within = [...outer, suite];
  return suite.children.flatMap((child) =>
    isTest(child) ? [{ ...child, file, within }] : placed(child, file, within),
  );
};

/** Runs one test with all hooks around it; what it failed with, or `undefined`. */
async function failureOf({ id, body, within }: Placed): Promise<string | undefined> {
  const all = async (hooks: 'before' | 'beforeEach' | 'after' | 'afterEach'): Promise<void> => {
    for (const suite of within) for (const hook of suite[hooks]) await hook();
  };
  self.currentTestId = id;
  try {
    await all('before');
    await all('beforeEach');
    await body();
    return undefined;
  } catch (error) {
    return wordsOf(error);
  } finally {
    await all('afterEach');
    await all('after');
    self.currentTestId = undefined;
  }
}

/**
 * What a test file takes of Vitest; files that take more than `vitest.ts` provides are left out.
 */
const takes = (file: string): readonly string[] =>
  /import \{([^}]*)\} from 'vitest'/
    .exec(readFileSync(file, 'utf8'))?.[1]
    ?.split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '' && !name.startsWith('type ')) ?? [];

class Runner {
  /** The quick ones first. */
  private tests: readonly Placed[] = [];

  /**
   * Mutants are switched on while a test runs, and never while files load. So a process is as good
   * for a mutant whose code ran at load too as a new one, which would load every file for each of
   * them.
   */
  capabilities(): { reloadEnvironment: boolean } {
    return { reloadEnvironment: true };
  }

  async init(): Promise<void> {
    process.env['GPU_GATE_TEST_SEED'] ??= '1';
    process.env['GPU_GATE_TEST_HISTORIES'] ??= HISTORIES;
    console.log = () => {};
    const vitest = pathToFileURL(join(import.meta.dirname, 'vitest.ts')).href;
    registerHooks({
      resolve: (specifier, context, next) =>
        specifier === 'vitest' && context.parentURL !== vitest
          ? { url: vitest, shortCircuit: true }
          : next(specifier, context),
    });
    const { registered } = await import('./api.ts');
    const { default: fc } = await import('fast-check');
    // A failure is enough: the smallest one is not looked for.
    fc.configureGlobal({ endOnFailure: true });
    const provided = Object.keys(await import(vitest));
    const files = globSync(FILES).filter(
      (file) => !LEFT_OUT.test(file) && takes(file).every((name) => provided.includes(name)),
    );
    const tests: Placed[] = [];
    for (const file of files.toSorted()) {
      const path = resolve(file);
      const all = placed(await registered(file, () => import(pathToFileURL(path).href)), path);
      tests.push(...all.filter(({ id }) => !id.includes(PLANTED)));
    }
    const order = existsSync(ORDER) ? (JSON.parse(readFileSync(ORDER, 'utf8')) as readonly string[]) : undefined;
    const byId = new Map(tests.map((test) => [test.id, test]));
    this.tests = order === undefined ? tests : order.flatMap((id) => byId.get(id) ?? []);
  }

  async dryRun(): Promise<object> {
    const took = new Map<string, number>();
    const unfit = new Set<string>();
    for (const test of this.tests) {
      const began = performance.now();
      const failure = await failureOf(test);
      took.set(test.id, performance.now() - began);
      if (failure !== undefined) return { status: 'error', errorMessage: `${test.id}: ${failure}` };
    }
    // Tests that fail when they run again would kill every mutant.
    for (const test of this.tests) if ((await failureOf(test)) !== undefined) unfit.add(test.file);
    for (const file of unfit) process.stderr.write(`left out, because it cannot run twice: ${file}\n`);
    const timeOf = ({ id }: Test): number => took.get(id) ?? 0;
    this.tests = this.tests.filter(({ file }) => !unfit.has(file)).toSorted((a, b) => timeOf(a) - timeOf(b));
    writeFileSync(ORDER, JSON.stringify(this.tests.map(({ id }) => id)));
    const tests = this.tests.map((test) => ({
      id: test.id,
      name: test.id,
      fileName: test.file,
      timeSpentMs: timeOf(test),
      status: 0,
    }));
    return { status: 'complete', tests, mutantCoverage: self.mutantCoverage };
  }

  async mutantRun({ activeMutant, testFilter, hitLimit }: MutantRun): Promise<object> {
    const wanted = new Set(testFilter ?? this.tests.map(({ id }) => id));
    self.hitCount = 0;
    self.hitLimit = hitLimit;
    self.activeMutant = activeMutant.id;
    try {
      for (const test of this.tests) {
        if (!wanted.has(test.id)) continue;
        const failure = await failureOf(test);
        if (hitLimit !== undefined && self.hitCount > hitLimit) return { status: 'timeout', reason: 'it never ends' };
        if (failure !== undefined)
          return { status: 'killed', killedBy: [test.id], failureMessage: failure, nrOfTests: wanted.size };
      }
      return { status: 'survived', nrOfTests: wanted.size };
    } finally {
      self.activeMutant = undefined;
    }
  }
}

const create = Object.assign(() => new Runner(), { inject: [] });
export const strykerPlugins = [{ kind: 'TestRunner', name: 'in-process', factory: create }];
