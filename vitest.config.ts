import { defineConfig } from 'vitest/config';
import { LongestFirst } from './scripts/longest-first.ts';
import { anyOf, COVERED, PURE_FOLDERS, SHELLS } from './scripts/pure-files.ts';

/**
 * The only place with limits of tests. None judges speed: a test of a cluster waits for states,
 * each wait has its own limit and says what it waited for, and this is for what hangs elsewhere.
 */
const LIMITS = { unit: 300_000, cluster: 1_200_000, poll: 120_000 };

const project = (name: string, include: string[], timeout: number, exclude: string[] = []) => ({
  test: {
    name,
    include,
    exclude,
    testTimeout: timeout,
    hookTimeout: LIMITS.cluster,
    expect: { poll: { timeout: LIMITS.poll } },
    restoreMocks: true,
    environment: 'node' as const,
  },
});

/** It looks at what is left on the whole machine, so nothing else may run there. */
const ALONE = ['test/control-plane/platform/machine.test.ts'];

export default defineConfig({
  test: {
    // One file at a time unless `npm test` says more: each control-plane file starts a cluster.
    fileParallelism: false,
    sequence: { sequencer: LongestFirst },
    // Measured by `npm test` where it runs all unit tests; `npm run coverage` lists what is left.
    // Shells are left out, their tests run on a real control plane.
    coverage: {
      provider: 'v8',
      include: [`${anyOf(PURE_FOLDERS)}/**/*.ts`],
      exclude: [`**/${anyOf(SHELLS)}.ts`],
      reporter: ['text'],
      thresholds: { branches: COVERED },
    },
    projects: [
      project('unit', ['test/**/*.test.ts'], LIMITS.unit, ['test/{control-plane,real-node}/**', '**/node_modules/**']),
      project('control-plane', ['test/control-plane/**/*.test.ts'], LIMITS.cluster, ALONE),
      project('control-plane-alone', ALONE, LIMITS.cluster),
      project('real-node', ['test/real-node/**/*.test.ts'], LIMITS.cluster),
    ],
  },
});
