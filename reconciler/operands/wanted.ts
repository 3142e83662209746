// Which DaemonSets should be there, which are left over, and whether one is as it was rendered. Pure.
import { selecting, type GpuPolicy } from '../../core/gpu-policy.ts';
import { FIELD_MANAGER, PART_OF, PRODUCT, RENDERED } from '../../core/keys.ts';
import { isManaged, isOurs } from '../../gate/node-proof.ts';
import { POD_COMPONENT, type Component } from '../../core/stages.ts';
import { deployedOn } from '../node/marks.ts';
import type { NodeObject } from '../model.ts';
import type { Rendered } from '../manifests/render.ts';

export interface ManagedFields {
  readonly manager?: string;
  readonly subresource?: string;
  readonly fieldsV1?: Readonly<Record<string, unknown>>;
}

/** A DaemonSet of the operand namespace, as far as it is looked at. */
export interface DaemonSetView {
  readonly name: string;
  readonly generation: number;
  /** Digest of the rendering that it was applied from. */
  readonly rendered: string;
  readonly ours: boolean;
  /** Somebody else has fields in its spec. */
  readonly foreign: boolean;
}

export interface RawDaemonSet {
  readonly metadata: {
    readonly name: string;
    readonly generation?: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly managedFields?: readonly ManagedFields[];
  };
}

/** Nobody owns what the server fills in: whoever else owns a field of the spec has written it there by hand. */
export const hasForeignFields = (entries: readonly ManagedFields[] = []): boolean =>
  entries.some(
    ({ manager, subresource, fieldsV1 }) =>
      manager !== FIELD_MANAGER && subresource === undefined && fieldsV1?.['f:spec'] !== undefined,
  );

export const trimDaemonSet = ({ metadata }: RawDaemonSet): DaemonSetView => ({
  name: metadata.name,
  generation: metadata.generation ?? 0,
  rendered: metadata.annotations?.[RENDERED] ?? '',
  ours: metadata.labels?.[PART_OF] === PRODUCT,
  foreign: hasForeignFields(metadata.managedFields),
});

export interface Wanted {
  readonly operand: Rendered;
  /** Whose it is: policies that render the same share it. */
  readonly policies: readonly GpuPolicy[];
}

/** By name, the DaemonSets of policies that have an opted-in node. */
export function wantedOperands(
  policies: readonly GpuPolicy[],
  nodes: readonly NodeObject[],
  rendered: (policy: GpuPolicy) => readonly Rendered[],
): ReadonlyMap<string, Wanted> {
  const used = new Set(
    nodes.filter(isManaged).map((node) => selecting(node.metadata.labels ?? {}, policies)[0]?.name ?? ''),
  );
  const wanted = new Map<string, Wanted>();
  for (const policy of policies) {
    if (!used.has(policy.name) || policy.deleting) continue;
    for (const operand of rendered(policy)) {
      const { name } = operand.daemonSet.metadata;
      wanted.set(name, { operand, policies: [...(wanted.get(name)?.policies ?? []), policy] });
    }
  }
  return wanted;
}

/** Names of DaemonSets of ours that no policy wants and no node's label names any more. */
export function leftOver(
  present: Iterable<DaemonSetView>,
  wanted: ReadonlyMap<string, Wanted>,
  nodes: readonly NodeObject[],
): readonly string[] {
  const named = new Set(
    nodes
      .filter(isOurs)
      .flatMap((node) =>
        Object.entries(deployedOn(node)).map(
          ([component, revision]) => `${POD_COMPONENT[component as Component]}-${revision}`,
        ),
      ),
  );
  return [...present].filter(({ ours, name }) => ours && !wanted.has(name) && !named.has(name)).map(({ name }) => name);
}
