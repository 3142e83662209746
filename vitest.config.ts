import { defineConfig } from 'vitest/config';
import { anyOf, COVERED, PURE_FOLDERS, SHELLS } from './scripts/pure-files.ts';

const project = (name: string, include: string[], timeout: number, exclude: string[] = []) => ({
  test: {
    name,
    include,
    exclude,
    testTimeout: timeout,
    hookTimeout: 120_000,
    restoreMocks: true,
    environment: 'node' as const,
  },
});

/**
 * Control-plane files that judge times, make load, or watch the whole machine: they have it to
 * themselves.
 */
const TIMED = [
  'certificates/certs',
  'scheduling/churn',
  'scheduling/extender-scheduler',
  'platform/machine',
  'pods/readiness',
  'certificates/rotation',
  'admission/rolling',
].map((name) => `test/control-plane/${name}.test.ts`);

export default defineConfig({
  test: {
    // One heavy process at a time: each control-plane file starts its own API server, and the
    // machine has two cores. `npm test` runs the project control-plane with two workers all the
    // same: its files wait most of their time.
    fileParallelism: false,
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
      project('unit', ['test/**/*.test.ts'], 20_000, ['test/{control-plane,real-node}/**', '**/node_modules/**']),
      project('control-plane', ['test/control-plane/**/*.test.ts'], 120_000, TIMED),
      project('control-plane-timed', TIMED, 120_000),
      project('real-node', ['test/real-node/**/*.test.ts'], 240_000),
    ],
  },
});
