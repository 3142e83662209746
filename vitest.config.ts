import { defineConfig } from 'vitest/config';
import { anyOf, PURE_FOLDERS, SHELLS } from './scripts/pure-files.ts';

/**
 * The only place with limits of tests. None judges speed: a test of a cluster waits for states,
 * each wait has its own limit and says what it waited for, and this is for what hangs elsewhere.
 */
const LIMITS = { unit: 300_000, cluster: 600_000, poll: 60_000 };

const project = (name: string, include: string[], timeout: number, exclude: string[] = []) => ({
  test: {
    name,
    include,
    exclude,
    testTimeout: timeout,
    hookTimeout: 600_000,
    expect: { poll: { timeout: LIMITS.poll } },
    restoreMocks: true,
    environment: 'node' as const,
  },
});

/**
 * Control-plane files that judge times, make load, or watch the whole machine: they have it to
 * themselves.
 */
const TIMED = [
  'scheduling/churn',
  'scheduling/extender-scheduler',
  'platform/machine',
  'certificates/rotation',
  'admission/rolling',
].map((name) => `test/control-plane/${name}.test.ts`);

export default defineConfig({
  test: {
    // One heavy process at a time: each control-plane file starts its own API server, and the
    // machine has two cores. `npm test` runs the project control-plane with two workers all the
    // same: its files wait most of their time.
    fileParallelism: false,
    // Off unless asked for: `npm run coverage`. Shells are left out, their tests run on a real
    // control plane.
    coverage: {
      provider: 'v8',
      include: [`${anyOf(PURE_FOLDERS)}/**/*.ts`],
      exclude: [`**/${anyOf(SHELLS)}.ts`],
      reporter: ['text'],
      thresholds: { branches: 95 },
    },
    projects: [
      project('unit', ['test/**/*.test.ts'], LIMITS.unit, ['test/{control-plane,real-node}/**', '**/node_modules/**']),
      project('control-plane', ['test/control-plane/**/*.test.ts'], LIMITS.cluster, TIMED),
      project('control-plane-timed', TIMED, LIMITS.cluster),
      project('real-node', ['test/real-node/**/*.test.ts'], LIMITS.cluster),
    ],
  },
});
