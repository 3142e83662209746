// The part of Vitest that tests of pure files use.
export { afterAll, afterEach, beforeAll, beforeEach, describe, it } from './api.ts';
export { expect } from 'vitest';
