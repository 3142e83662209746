// NVIDIA_REQUIRE_CUDA of a pod's containers, read and judged as the container toolkit documents it: a space is OR, a comma AND. Pure.
import type { GpuRequest, RawPod } from './gpu-request.ts';
import { compareVersions } from './versions.ts';

interface Limit {
  readonly what: 'cuda' | 'driver';
  readonly operator: string;
  readonly version: string;
}

/** What one container requires: one of the alternatives must hold, in it all limits. Empty: nothing that can be judged. */
export type CudaRequirement = readonly (readonly Limit[])[];

/** Versions that a node brings, where they are known. */
export interface Versions {
  readonly driver: string | undefined;
  readonly cuda: string | undefined;
}

/** `unread`: alternatives that are not judged, because something in them cannot be read. */
export function parseRequireCuda(text: string): { readonly requirement: CudaRequirement; readonly unread: string[] } {
  const unread: string[] = [];
  const requirement = text
    .split(/\s+/)
    .filter((alternative) => alternative !== '')
    .flatMap((alternative) => {
      const limits = alternative.split(',').map(limitOf);
      if (!limits.includes('unreadable')) return [limits.filter((limit) => typeof limit === 'object')];
      // Left in without the part that says nothing to us it would hold always, and the others would count for nothing.
      unread.push(alternative);
      return [];
    });
  return { requirement, unread };
}

const limitOf = (text: string): Limit | 'not ours' | 'unreadable' => {
  // Brand and architecture are the toolkit's to check.
  if (/^(brand|arch)(>=|<=|!=|=|>|<)[^=<>!]+$/.test(text)) return 'not ours';
  const match = /^(cuda|driver)(>=|<=|!=|=|>|<)(\d{1,5}(?:\.\d{1,5})*)$/.exec(text);
  return match === null
    ? 'unreadable'
    : { what: match[1] as 'cuda' | 'driver', operator: match[2] ?? '', version: match[3] ?? '' };
};

/** What the GPU containers require by their own environment. What an image carries inside nobody can see before it runs. */
export function cudaOf(
  pod: RawPod,
  request: GpuRequest,
): { readonly requirements: readonly CudaRequirement[]; readonly unread: readonly string[] } {
  const containers = [
    ...request.containers.map((i) => pod.spec?.containers?.[i]),
    ...request.initContainers.map((i) => pod.spec?.initContainers?.[i]),
  ];
  const read = containers.flatMap((container) => {
    const value = (name: string): string =>
      (Array.isArray(container?.env) ? container.env : []).findLast((variable) => variable?.name === name)?.value ?? '';
    if (/^(true|t|1)$/i.test(value('NVIDIA_DISABLE_REQUIRE'))) return [];
    return [parseRequireCuda(value('NVIDIA_REQUIRE_CUDA'))];
  });
  return {
    requirements: read.flatMap(({ requirement }) => (requirement.length === 0 ? [] : [requirement])),
    unread: read.flatMap(({ unread }) => unread),
  };
}

/** Does the node meet every container's requirement? Loops and no closures, which every node of a call would allocate anew. */
export function meets(requirements: readonly CudaRequirement[], node: Versions): boolean {
  for (const alternatives of requirements) if (!someHolds(alternatives, node)) return false;
  return true;
}

function someHolds(alternatives: CudaRequirement, node: Versions): boolean {
  for (const limits of alternatives) if (allHold(limits, node)) return true;
  return false;
}

function allHold(limits: CudaRequirement[number], node: Versions): boolean {
  for (const limit of limits) if (!holds(limit, node)) return false;
  return true;
}

/** A version that is not known cannot be held against the pod: the toolkit checks it again at start. */
function holds({ what, operator, version }: Limit, node: Versions): boolean {
  const present = node[what];
  if (present === undefined) return true;
  const comparison = compareVersions(present, version);
  switch (operator) {
    case '>=':
      return comparison >= 0;
    case '<=':
      return comparison <= 0;
    case '>':
      return comparison > 0;
    case '<':
      return comparison < 0;
    case '=':
      return comparison === 0;
    default:
      return comparison !== 0;
  }
}
