// Which DaemonSets and claim templates should be there, and which are left over. Pure.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { Manifest } from '../actions.ts';
import type { Fleet } from '../fleet.ts';
import { CLAIM_TEMPLATE_PREFIX } from '../manifests/claim-template.ts';
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

export interface WantedTemplate {
  readonly manifest: Manifest;
  readonly policies: readonly GpuPolicy[];
}

/** By name, the claim templates of policies that have an opted-in node and allocate by claim. */
export function wantedTemplates(
  policies: readonly GpuPolicy[],
  fleet: Pick<Fleet, 'count'>,
  templateOf: (policy: GpuPolicy) => Manifest | undefined,
): ReadonlyMap<string, WantedTemplate> {
  const wanted = new Map<string, WantedTemplate>();
  for (const policy of policies) {
    if (policy.deleting || fleet.count('led', policy.name) === 0) continue;
    // A node keeps the way that it has.
    if (policy.spec.allocation !== 'DRA' && fleet.count('by claim', policy.name) === 0) continue;
    const manifest = templateOf(policy);
    if (manifest === undefined) continue;
    const { name } = manifest.metadata;
    wanted.set(name, { manifest, policies: [...(wanted.get(name)?.policies ?? []), policy] });
  }
  return wanted;
}

/** Names of our claim templates that no policy wants; `present` are keys `namespace/name`. */
export const leftOverTemplates = (
  present: Iterable<string>,
  namespace: string,
  wanted: ReadonlyMap<string, WantedTemplate>,
): readonly string[] => {
  const prefix = `${namespace}/${CLAIM_TEMPLATE_PREFIX}`;
  return [...present]
    .filter((key) => key.startsWith(prefix))
    .map((key) => key.slice(namespace.length + 1))
    .filter((name) => !wanted.has(name));
};
