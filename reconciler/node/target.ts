// Which stack a node is to run: a revision of ours or another installer's, by component. It is
// stored on the node and changes only by a decision, never because a label, a policy or a memory
// was lost.
import { GATING } from '../../core/components.ts';
import type { ComponentEvidence, Proof } from '../../gate/node-proof.ts';
import { allocatedBy, allocationOf, EXTERNAL, stackOf, touchesDriver, type Revisions, type Target } from '../stack.ts';
import type { Choice, Walk } from '../walk.ts';

/**
 * Evidence of a component that another installer brings and whose pods the policy does not name, or
 * named otherwise when it was proven. Then `started` is the latest start that may belong to what
 * was proven, else it is empty.
 */
export const UNWATCHED: ComponentEvidence = { revision: EXTERNAL, pod: '', started: '' };
export const isUnwatched = (evidence: ComponentEvidence): boolean =>
  evidence.revision === UNWATCHED.revision && evidence.pod === '';

export interface TargetInput {
  readonly walk: Walk;
  readonly proof: Proof | undefined;
  readonly wanted: Target;
  readonly held: Target;
  /** What the node takes now, where it is free to; `undefined` if it keeps what it has. */
  readonly takes: Target | undefined;
}

/** What the node runs by its own memory, or else by its labels. */
export function heldTarget(walk: Walk, deployed: Revisions): Target {
  const held: Target = Object.fromEntries(
    GATING.flatMap((component): [string, Choice][] => {
      const known = walk.target[component];
      if (known !== undefined) return [[component, known]];
      const revision = deployed[component];
      return revision === undefined ? [] : [[component, { revision }]];
    }),
  );
  // The label of the other allocator may be on its way out.
  const allocation = allocationOf(walk.target);
  return allocation === undefined ? held : allocatedBy(held, allocation);
}

/** Is it the proof of what the node is to run, as far as running pods depend on it? */
export const provesTarget = ({ components }: Proof, target: Target): boolean =>
  GATING.every(
    (component) =>
      !touchesDriver([component]) ||
      components[component] === undefined ||
      components[component].revision === stackOf(target[component]),
  );

/**
 * Selectors of another installer's pods follow the policy at once; all else changes by a decision.
 */
export function targetOf(input: TargetInput): { target: Target; proof: Proof | undefined } {
  const target: Record<string, Choice> = {};
  let { proof } = input;
  const { takes: taken = {} } = input;
  // A node keeps the way by which GPUs reach pods until it takes another one.
  const allocation = allocationOf(taken) ?? allocationOf(input.held) ?? allocationOf(input.wanted) ?? 'DevicePlugin';
  const [all, says] = [allocatedBy(input.held, allocation), allocatedBy(input.wanted, allocation)];
  for (const component of GATING) {
    const [held, wanted] = [all[component], says[component]];
    const takes = input.takes?.[component];
    const watches = held !== undefined && 'external' in held && wanted !== undefined && 'external' in wanted;
    const choice = takes ?? (held === undefined || watches ? (wanted ?? held) : held);
    if (choice !== undefined) target[component] = choice;
    // From now on the walk watches other pods. The proof survives although it names different pods.
    const known = proof?.components[component];
    if (proof !== undefined && known !== undefined && watches && JSON.stringify(held) !== JSON.stringify(choice))
      proof = {
        ...proof,
        components: { ...proof.components, [component]: { ...UNWATCHED, started: latest(known, proof) } },
      };
  }
  return { target, proof };
}

/** A restart must not hide behind an edit of the selector. Nobody saw those of unwatched pods. */
const latest = (known: ComponentEvidence, { at }: Proof): string =>
  isUnwatched(known) || Date.parse(known.started) > Date.parse(at) ? known.started : at;
