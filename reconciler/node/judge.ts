// What a stop means for a proof that stands. Only the driver's own end and the verdict of the
// validation's program take it away; all else closes the node at most.
import type { ComponentEvidence, Proof } from '../../gate/node-proof.ts';
import type { Choice, Walk } from '../walk.ts';
import type { Climb, Stop } from './climb.ts';
import type { Timed } from './clock.ts';
import { evidenceOf, externalEvidence, isAsKnown } from './findings.ts';
import { isOutOfSight } from './losses.ts';
import { isUnwatched, provesTarget } from './target.ts';
import { operandPod, type NodeInput, type Observed } from './observed.ts';

export type Judgement = 'unproven' | 'stands' | 'closed' | 'withdrawn';

export function judge({ proof, walk, input }: Observed, { stop }: Climb, timed: Timed): Judgement {
  if (proof === undefined) return 'unproven';
  if (!isDriverAsProven(input, walk.target['driver'], proof)) return 'withdrawn';
  if (isOutOfSight(walk, input)) return 'withdrawn';
  // The last user has gone, and what was proven is taken down.
  if (walk.renew === true && !provesTarget(proof, walk.target)) return 'withdrawn';
  if (stop === undefined) return 'stands';
  return stop.state.upholds === true && isDisproven(stop, timed.walk) ? 'withdrawn' : 'closed';
}

/**
 * Has the program itself failed, or hung until its time was over? One that never ran says nothing
 * about the driver.
 */
function isDisproven({ state, finding }: Stop, { failed }: Walk): boolean {
  if (finding.kind === 'failed') return finding.disproves === true;
  return failed?.stage === state.name && failed.reason === 'TimedOut' && finding.computing === true;
}

/**
 * The driver's evidence whatever state stops the walk: a toolkit's restart must not hide a
 * driver's.
 */
function driverAsSeen(input: NodeInput, choice: Choice | undefined): ComponentEvidence | undefined {
  if (choice === undefined) return undefined;
  if ('external' in choice) return externalEvidence(choice.external, input.pods);
  const pod = operandPod(input, 'driver', choice.revision);
  return pod === undefined ? undefined : evidenceOf(pod, choice.revision);
}

/**
 * Does the driver that was proven still run? An external one that is not watched, or was not when
 * it was proven, cannot be missed.
 */
export function isDriverAsProven(input: NodeInput, choice: Choice | undefined, { components }: Proof): boolean {
  const known = components['driver'];
  const seen = driverAsSeen(input, choice);
  const isUnseen =
    choice !== undefined &&
    'external' in choice &&
    known !== undefined &&
    (choice.external === 'unwatched' || (isUnwatched(known) && seen === undefined));
  return isUnseen || isAsKnown(seen, known);
}
