// Mutants that do what the code does, so that no test can notice them. `npm run mutation` takes them
// out of the score and reports those that are no longer there.
import type { Equivalent } from '../../scripts/mutants.ts';

export const EQUIVALENT: readonly Equivalent[] = [];
