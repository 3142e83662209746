// Runs unit tests for Stryker, in one process: test files are loaded once, and each mutant is tried
// against the tests that reach it, the quick ones first.
import { globSync } from 'node:fs';
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
interface Failure {
  readonly id: string;
  readonly message: string;
}

const FILES = 'test/{gate,extender,explain,reconciler}/**/*.test.ts';
/** What is slow, measures growth, starts processes, or judges other things than behaviour. */
const LEFT_OUT = /\b(?:(?:allocation|growth|managed-fields|tenants|reconciler\/walk)\.test\.ts$|manifests\/)/;
const HISTORIES = '100';

const self = (globalThis as unknown as { __stryker__?: Switch }).__stryker__ ?? {};
(globalThis as unknown as { __stryker__: Switch }).__stryker__ = self;

const isTest = (child: Suite | Test): child is Test => 'body' in child;
const wordsOf = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error));

class Runner {
  private files: readonly Suite[] = [];
  /** ms that a test took in the first run. */
  private readonly took = new Map<string, number>();

  capabilities(): { reloadEnvironment: boolean } {
    return { reloadEnvironment: false };
  }

  async init(): Promise<void> {
    process.env['GPU_GATE_TEST_SEED'] ??= '1';
    process.env['GPU_GATE_TEST_HISTORIES'] ??= HISTORIES;
    console.log = () => {};
    const here = pathToFileURL(join(import.meta.dirname, 'vitest.ts')).href;
    registerHooks({
      resolve: (specifier, context, next) =>
        specifier === 'vitest' && context.parentURL !== here
          ? { url: here, shortCircuit: true }
          : next(specifier, context),
    });
    const { registered } = await import('./api.ts');
    const { default: fc } = await import('fast-check');
    // A failure is enough: the smallest one is not looked for.
    fc.configureGlobal({ endOnFailure: true });
    const files: Suite[] = [];
    for (const file of globSync(FILES).toSorted())
      if (!LEFT_OUT.test(file)) files.push(await registered(file, () => import(pathToFileURL(resolve(file)).href)));
    this.files = files;
  }

  async dryRun(): Promise<object> {
    const fit: Suite[] = [];
    for (const file of this.files) {
      const failure = await this.runSuite(file, undefined, []);
      if (failure !== undefined) return { status: 'error', errorMessage: `${failure.id}: ${failure.message}` };
      // Tests that fail when they run again would kill every mutant.
      if ((await this.runSuite(file, undefined, [])) === undefined) fit.push(file);
      else process.stderr.write(`left out, because it cannot run twice: ${file.name}\n`);
    }
    this.files = fit;
    const tests = fit.flatMap(testsOf).map(({ id }) => ({
      id,
      name: id,
      timeSpentMs: this.took.get(id) ?? 0,
      status: 0,
    }));
    return { status: 'complete', tests, mutantCoverage: self.mutantCoverage };
  }

  async mutantRun({ activeMutant, testFilter, hitLimit }: MutantRun): Promise<object> {
    self.hitCount = 0;
    self.hitLimit = hitLimit;
    self.activeMutant = activeMutant.id;
    const failure = await this.run(testFilter === undefined ? undefined : new Set(testFilter));
    self.activeMutant = undefined;
    const nrOfTests = testFilter?.length ?? 0;
    if (hitLimit !== undefined && self.hitCount > hitLimit) return { status: 'timeout', reason: 'it never ends' };
    return failure === undefined
      ? { status: 'survived', nrOfTests }
      : { status: 'killed', killedBy: [failure.id], failureMessage: failure.message, nrOfTests };
  }

  private async run(wanted: ReadonlySet<string> | undefined): Promise<Failure | undefined> {
    const costs = this.files.map((file) => ({ file, cost: this.costOf(file, wanted) }));
    for (const { file, cost } of costs.toSorted((a, b) => a.cost - b.cost)) {
      if (cost === -1) continue;
      const failure = await this.runSuite(file, wanted, []);
      if (failure !== undefined) return failure;
    }
    return undefined;
  }

  /** -1 if none of its tests is wanted. */
  private costOf(suite: Suite, wanted: ReadonlySet<string> | undefined): number {
    const costs = suite.children
      .map((child) => {
        if (!isTest(child)) return this.costOf(child, wanted);
        return wanted?.has(child.id) === false ? -1 : (this.took.get(child.id) ?? 0);
      })
      .filter((cost) => cost >= 0);
    return costs.length === 0 ? -1 : costs.reduce((sum, cost) => sum + cost, 0);
  }

  private async runSuite(
    suite: Suite,
    wanted: ReadonlySet<string> | undefined,
    outer: readonly Suite[],
  ): Promise<Failure | undefined> {
    if (this.costOf(suite, wanted) === -1) return undefined;
    const within = [...outer, suite];
    try {
      for (const hook of suite.before) await hook();
      for (const child of suite.children) {
        if (isTest(child) && wanted?.has(child.id) === false) continue;
        const failure = isTest(child) ? await this.runTest(child, within) : await this.runSuite(child, wanted, within);
        if (failure !== undefined) return failure;
      }
      return undefined;
    } catch (error) {
      return { id: idIn(suite), message: wordsOf(error) };
    } finally {
      for (const hook of suite.after) await hook();
    }
  }

  private async runTest({ id, body }: Test, within: readonly Suite[]): Promise<Failure | undefined> {
    self.currentTestId = id;
    const began = performance.now();
    try {
      for (const suite of within) for (const hook of suite.beforeEach) await hook();
      await body();
      return undefined;
    } catch (error) {
      return { id, message: wordsOf(error) };
    } finally {
      for (const suite of within) for (const hook of suite.afterEach) await hook();
      if (!this.took.has(id)) this.took.set(id, performance.now() - began);
      self.currentTestId = undefined;
    }
  }
}

const testsOf = (suite: Suite): Test[] => suite.children.flatMap((child) => (isTest(child) ? [child] : testsOf(child)));

/** A hook that fails is its first test's failure. */
function idIn(suite: Suite): string {
  for (const child of suite.children) {
    const id = isTest(child) ? child.id : idIn(child);
    if (id !== '') return id;
  }
  return '';
}

const create = Object.assign(() => new Runner(), { inject: [] });
export const strykerPlugins = [{ kind: 'TestRunner', name: 'in-process', factory: create }];
