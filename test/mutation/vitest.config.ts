// The unit tests that mutants are tried against. Left out: what is slow and what judges other
// things than behaviour.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/{core,gate,extender,explain,webhook,reconciler,certs}/**/*.test.ts'],
    exclude: ['**/allocation.test.ts', '**/managed-fields.test.ts', '**/node_modules/**'],
    environment: 'node',
  },
});
