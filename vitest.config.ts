import { defineConfig } from 'vitest/config';

const project = (name: string, include: string[], timeout: number) => ({
  test: { name, include, testTimeout: timeout, hookTimeout: 120_000, restoreMocks: true, environment: 'node' as const },
});

export default defineConfig({
  test: {
    // One heavy process at a time: each control-plane file starts its own API server, and the machine has two cores.
    fileParallelism: false,
    projects: [
      project('unit', ['test/{core,webhook,extender,reconciler,certs,platform,bench}/**/*.test.ts'], 20_000),
      project('control-plane', ['test/control-plane/**/*.test.ts'], 120_000),
      project('real-node', ['test/real-node/**/*.test.ts'], 240_000),
    ],
  },
});
