// A stack as one value: for each gating component a revision of ours, or another installer's. Two
// stacks are compared here, by what a move from one to the other replaces.
import { canonical, digestOf } from '../core/digest.ts';
import type { Allocation, GpuPolicy } from '../core/gpu-policy.ts';
import { ALLOCATORS, GATING, isAllocator, isDeployed, isPartOf, specOf, type Component } from '../core/components.ts';
import type { Choice } from './walk.ts';

export type Target = Readonly<Record<string, Choice>>;
export type Revisions = Readonly<Partial<Record<Component, string>>>;

/** Revision of a component that another installer brings. */
export const EXTERNAL = 'external';

/** What the policy says now; without the components whose DaemonSets are not rendered yet. */
export const wantedTarget = (policy: GpuPolicy, revisions: Revisions): Target =>
  Object.fromEntries(
    GATING.flatMap((component): [string, Choice][] => {
      if (!isPartOf(component, policy)) return [];
      if (!isDeployed(component, policy))
        return [[component, { external: specOf(policy, component).podSelector ?? 'unwatched' }]];
      const revision = revisions[component];
      return revision === undefined ? [] : [[component, { revision }]];
    }),
  );

/** How GPUs reach pods on a node of this stack; `undefined` if it does not say. */
export const allocationOf = (target: Target): Allocation | undefined =>
  target[ALLOCATORS.DRA] !== undefined
    ? 'DRA'
    : target[ALLOCATORS.DevicePlugin] !== undefined
      ? 'DevicePlugin'
      : undefined;

/** The stack with one allocator: that of `allocation`. */
export const allocatedBy = (target: Target, allocation: Allocation): Target =>
  Object.fromEntries(Object.entries(target).filter(([name]) => !isAllocator(name) || name === ALLOCATORS[allocation]));

/** Whose pods an external component names is not part of the stack. */
export const stackOf = (choice: Choice | undefined): string | undefined =>
  choice === undefined ? undefined : 'revision' in choice ? choice.revision : EXTERNAL;

/** The same for all nodes that run the same; a selector makes no difference. */
export const stackIdOf = (target: Target): string =>
  digestOf(
    JSON.stringify(
      canonical(
        Object.fromEntries(GATING.filter((one) => target[one] !== undefined).map((one) => [one, stackOf(target[one])])),
      ),
    ),
    10,
  );

/** Who installs what: the same for all stacks that a roll-out moves between. */
export const modesOf = (target: Target): string =>
  GATING.map((one) => (target[one] === undefined ? '' : 'revision' in target[one] ? 'managed' : EXTERNAL)).join(' ');

/**
 * Components that a roll-out replaces: another revision of ours. Who installs a component is not
 * changed under a validated node, because the other installer's pods may be there, or not yet.
 */
export const changedBetween = (held: Target, wanted: Target): readonly Component[] =>
  GATING.filter((component) => {
    const [before, after] = [held[component], wanted[component]];
    if (before === undefined || after === undefined || !('revision' in before) || !('revision' in after)) return false;
    return before.revision !== after.revision;
  });

/**
 * What the node runs, with the revisions that the policy says where they are ours on both sides.
 */
export const movedBetween = (held: Target, wanted: Target): Target => {
  const changed: readonly string[] = changedBetween(held, wanted);
  const moved = Object.entries(wanted).filter(([component]) => changed.includes(component));
  return { ...held, ...Object.fromEntries(moved) };
};

/**
 * Does replacing these components take the driver down too? What comes after the first of them goes
 * with it.
 */
export const touchesDriver = (changed: readonly Component[]): boolean =>
  changed.some((component) => GATING.indexOf(component) <= GATING.indexOf('driver'));
