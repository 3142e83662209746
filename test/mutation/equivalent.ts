// Mutants that do what the code does, so that no test can notice them. `npm run mutation` takes
// them out of the score and reports those that are no longer there.
import type { Equivalent } from '../../scripts/mutants.ts';

export const EQUIVALENT: readonly Equivalent[] = [
  {
    file: 'reconciler/node/edits.ts',
    line: 'for (let length = parts.length; length > 0; length -= 1) {',
    code: 'length > 0',
    mutant: 'length >= 0',
    because: 'no field has an empty name',
  },
  {
    file: 'reconciler/node/states/operand.ts',
    line: "finding.kind === 'waiting' && finding.reason === REPLACING",
    code: "finding.kind === 'waiting'",
    mutant: 'true',
    because: 'nothing else has that reason; the compiler asks for the kind',
  },
  {
    file: 'reconciler/node/states/operand.ts',
    line: "return finding.kind === 'done' ? { ...look, evidence: finding.evidence } : look;",
    code: "finding.kind === 'done'",
    mutant: 'true',
    because: 'what is not done has no evidence',
  },
  {
    file: 'reconciler/node/states/preflight.ts',
    line: 'if (walk.labelGone !== undefined && now - Date.parse(walk.labelGone) < policy.spec.labelHold) return undefined;',
    code: 'walk.labelGone !== undefined',
    mutant: 'true',
    because: 'a date that is missing compares as false',
  },
  {
    file: 'reconciler/node/states/preflight.ts',
    line: 'const [, kernel, os] = DRIVER_TAG.exec(image) ?? [];',
    code: '[]',
    mutant: '["Stryker was here"]',
    because: 'the first element is not read',
  },
  {
    file: 'reconciler/node/target.ts',
    line: 'isUnwatched(known) || Date.parse(known.started) > Date.parse(at) ? known.started : at;',
    code: 'Date.parse(known.started) > Date.parse(at)',
    mutant: 'Date.parse(known.started) >= Date.parse(at)',
    because: 'both are the same moment then',
  },
];
