// Which DaemonSets should be there, and which are left over. Pure.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { Fleet } from '../fleet.ts';
import type { Rendered } from '../manifests/render.ts';
import type { DaemonSetView } from '../model.ts';

export interface Wanted {
  readonly operand: Rendered;
  /** Policies that render the same share it. */
  readonly policies: readonly GpuPolicy[];
}

/** By name, the DaemonSets of policies that have an opted-in node. */
export function wantedOperands(
  policies: readonly GpuPolicy[],
  fleet: Pick<Fleet, 'count'>,
  rendered: (policy: GpuPolicy) => readonly Rendered[],
): ReadonlyMap<string, Wanted> {
  const wanted = new Map<string, Wanted>();
  for (const policy of policies) {
    if (fleet.count('led', policy.name) === 0 || policy.deleting) continue;
    for (const operand of rendered(policy)) {
      const { name } = operand.daemonSet.metadata;
      wanted.set(name, { operand, policies: [...(wanted.get(name)?.policies ?? []), policy] });
    }
  }
  return wanted;
}

/** Names of our DaemonSets that no policy wants and no node's label names. */
export const leftOver = (
  present: Iterable<DaemonSetView>,
  wanted: ReadonlyMap<string, Wanted>,
  fleet: Pick<Fleet, 'count'>,
): readonly string[] =>
  [...present]
    .filter(({ ours, name }) => ours && !wanted.has(name) && fleet.count('runs', name) === 0)
    .map(({ name }) => name);
