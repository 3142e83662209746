// Which stack a node is to run: a revision of ours or another installer's, by component. It is
// stored on the node and changes only by a decision, never because a label, a policy or a memory
// was lost.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { GATING, isDeployed, specOf } from '../../core/components.ts';
import type { Component } from '../../core/components.ts';
import type { ComponentEvidence, Proof } from '../../gate/node-proof.ts';
import type { Choice, Walk } from '../walk.ts';

/**
 * Evidence of a component that another installer brings and whose pods the policy does not name.
 */
export const UNWATCHED: ComponentEvidence = { revision: 'external', pod: '', started: '' };
export const isUnwatched = (evidence: ComponentEvidence): boolean =>
  evidence.revision === UNWATCHED.revision && evidence.pod === '';

export interface TargetInput {
  readonly walk: Walk;
  readonly proof: Proof | undefined;
  readonly policy: GpuPolicy;
  readonly revisions: Readonly<Partial<Record<Component, string>>>;
  readonly deployed: Readonly<Partial<Record<Component, string>>>;
  /** Users' pods hold GPUs on the node. */
  readonly isInUse: boolean;
}

/** What the policy says now; `undefined` if its DaemonSet is not rendered yet. */
function wantedOf({ policy, revisions }: TargetInput, component: Component): Choice | undefined {
  const spec = specOf(policy, component);
  if (!isDeployed(spec)) return { external: spec.podSelector ?? 'unwatched' };
  const revision = revisions[component];
  return revision === undefined ? undefined : { revision };
}

/** What the node runs by its own memory, or else by its labels. */
const heldOf = ({ walk, deployed }: TargetInput, component: Component): Choice | undefined => {
  const labelled = deployed[component];
  return walk.target[component] ?? (labelled === undefined ? undefined : { revision: labelled });
};

/**
 * A node takes what the policy says on its first walk, or at a person's word; never while users'
 * pods hold its GPUs. Every other node keeps what it has.
 */
export function targetOf(input: TargetInput): { target: Readonly<Record<string, Choice>>; proof: Proof | undefined } {
  const { walk, isInUse } = input;
  const isFree = !isInUse && (walk.renew === true || walk.proven === undefined);
  const target: Record<string, Choice> = {};
  let { proof } = input;
  for (const component of GATING) {
    const held = heldOf(input, component);
    const wanted = wantedOf(input, component);
    const watches = held !== undefined && 'external' in held && wanted !== undefined && 'external' in wanted;
    const choice = isFree || held === undefined || watches ? (wanted ?? held) : held;
    if (choice !== undefined) target[component] = choice;
    // From now on the walk watches other pods. The proof survives although it names different pods.
    if (watches && JSON.stringify(held) !== JSON.stringify(choice) && proof?.components[component] !== undefined)
      proof = { ...proof, components: { ...proof.components, [component]: UNWATCHED } };
  }
  return { target, proof };
}
