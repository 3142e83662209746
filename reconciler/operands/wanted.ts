// Which DaemonSets and claim templates should be there, and which are left over. Pure.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { Manifest } from '../actions.ts';
import type { Fleet } from '../fleet.ts';
import { CLAIM_TEMPLATE_PREFIX } from '../manifests/claim-template.ts';
import type { Rendered } from '../manifests/render.ts';
import type { DaemonSetView } from '../model.ts';

export interface Wanted<T> {
  readonly what: T;
  /** Policies that render the same share it. */
  readonly policies: readonly GpuPolicy[];
}

/** By name, what policies make that are not going and have an opted-in node. */
function wantedOf<T>(
  policies: readonly GpuPolicy[],
  fleet: Pick<Fleet, 'count'>,
  madeOf: (policy: GpuPolicy) => readonly T[],
  nameOf: (what: T) => string,
): ReadonlyMap<string, Wanted<T>> {
  const wanted = new Map<string, Wanted<T>>();
  for (const policy of policies) {
    if (policy.deleting || fleet.count('led', policy.name) === 0) continue;
    for (const what of madeOf(policy)) {
      const name = nameOf(what);
      wanted.set(name, { what, policies: [...(wanted.get(name)?.policies ?? []), policy] });
    }
  }
  return wanted;
}

/** By name, the DaemonSets of policies that have an opted-in node. */
export const wantedOperands = (
  policies: readonly GpuPolicy[],
  fleet: Pick<Fleet, 'count'>,
  rendered: (policy: GpuPolicy) => readonly Rendered[],
): ReadonlyMap<string, Wanted<Rendered>> =>
  wantedOf(policies, fleet, rendered, ({ daemonSet }) => daemonSet.metadata.name);

/** Names of our DaemonSets that no policy wants and no node's label names. */
export const leftOver = (
  present: Iterable<DaemonSetView>,
  wanted: ReadonlyMap<string, unknown>,
  fleet: Pick<Fleet, 'count'>,
): readonly string[] =>
  [...present]
    .filter(({ ours, name }) => ours && !wanted.has(name) && fleet.count('runs', name) === 0)
    .map(({ name }) => name);

/** By name, the claim templates of policies that have an opted-in node and allocate by claim. */
export const wantedTemplates = (
  policies: readonly GpuPolicy[],
  fleet: Pick<Fleet, 'count'>,
  templateOf: (policy: GpuPolicy) => Manifest | undefined,
): ReadonlyMap<string, Wanted<Manifest>> =>
  wantedOf(
    // A node keeps the way that it has.
    policies.filter(({ name, spec }) => spec.allocation === 'DRA' || fleet.count('by claim', name) > 0),
    fleet,
    (policy) => [templateOf(policy)].filter((template) => template !== undefined),
    ({ metadata }) => metadata.name,
  );

/** Names of our claim templates that no policy wants; `present` are keys `namespace/name`. */
export const leftOverTemplates = (
  present: Iterable<string>,
  namespace: string,
  wanted: ReadonlyMap<string, unknown>,
): readonly string[] => {
  const prefix = `${namespace}/${CLAIM_TEMPLATE_PREFIX}`;
  return [...present]
    .filter((key) => key.startsWith(prefix))
    .map((key) => key.slice(namespace.length + 1))
    .filter((name) => !wanted.has(name));
};
