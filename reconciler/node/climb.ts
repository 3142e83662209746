// Goes through the states in order up to the first that is not done. What each wants is collected;
// nothing is written here.
import { FOLLOWING } from '../../core/components.ts';
import type { Finding } from './findings.ts';
import type { Observed } from './observed.ts';
import { follow, putBack } from './states/operand.ts';
import type { Ground, PodAction, WalkState } from './states/state.ts';

export interface Stop {
  readonly state: WalkState;
  readonly finding: Exclude<Finding, { readonly kind: 'done' }>;
}

export interface Climb extends Ground {
  /** `undefined` if all states are done. */
  readonly stop: Stop | undefined;
  /** Rounds of validation that have passed, by state. */
  readonly passed: Readonly<Record<string, string>>;
  /** Components whose evidence a validation has passed on. */
  readonly proven: ReadonlySet<string>;
  /** A state that running pods depend on is done. */
  readonly upholds: boolean;
  readonly pods: readonly PodAction[];
}

export function climbed(seen: Observed, states: readonly WalkState[]): Climb {
  let climb: Climb = {
    stop: undefined,
    deploy: putBack(seen),
    evidence: {},
    passed: seen.walk.passed,
    proven: new Set(),
    upholds: false,
    pods: [],
  };
  for (const state of states) {
    if (state.allocation !== undefined && state.allocation !== seen.allocation) continue;
    const { finding, deploy, evidence, passed, pods = [] } = state.look(seen, climb);
    climb = {
      ...climb,
      deploy: deploy ?? climb.deploy,
      evidence: evidence === undefined ? climb.evidence : { ...climb.evidence, [state.name]: evidence },
      passed: passed === undefined ? climb.passed : { ...climb.passed, [state.name]: passed },
      pods: [...climb.pods, ...pods],
    };
    if (finding.kind !== 'done') return { ...climb, stop: { state, finding } };
    if (climb.passed[state.name] !== undefined) climb = { ...climb, proven: new Set(Object.keys(climb.evidence)) };
    if (state.upholds === true) climb = { ...climb, upholds: true };
  }
  const deploy = FOLLOWING.reduce((before, component) => follow(seen, before, component), climb.deploy);
  return { ...climb, deploy };
}
