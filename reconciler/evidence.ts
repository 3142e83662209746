// Which pods are kept beside those that use GPUs: pods of other installers that a policy selects,
// or that some node was validated with and still runs, whatever the policies say since. Pure but
// for its memory.
import { COMPONENTS, specOf } from '../core/components.ts';
import type { GpuPolicy, Selector } from '../core/gpu-policy.ts';
import { driverPathsOf } from '../gate/users.ts';

/** The id ignores the pods' owner. The code that reads the pods checks their owner. */
export const selectorId = ({ namespace, matchLabels }: Selector): string =>
  JSON.stringify([namespace, Object.entries(matchLabels).toSorted(([a], [b]) => (a < b ? -1 : 1))]);

/** Selectors that the policy names. */
export const selectorsOf = (policy: GpuPolicy): readonly Selector[] =>
  COMPONENTS.flatMap((component) => specOf(policy, component).podSelector ?? []);

export interface Evidence {
  /**
   * Policies, or the selectors that nodes remember, may have changed. Are other pods kept now, so
   * that all are to be listed again?
   */
  refresh(): boolean;
  /** A list that began after the last change is in. */
  listed(): void;
  /** Is a pod with these labels evidence for some node? */
  selects(namespace: string, labels: Readonly<Record<string, string>>): boolean;
  /** Are all pods that the selector means known? What is newly named has yet to be listed. */
  isWatched(selector: Selector): boolean;
  /** Pods that mount one of these use GPUs. */
  driverPaths(): Iterable<string>;
}

export function evidence(deps: {
  readonly policies: () => Iterable<GpuPolicy>;
  /** Selectors that nodes remember, each once. */
  readonly remembered: () => Iterable<Selector>;
}): Evidence {
  let wanted: ReadonlyMap<string, Selector> = new Map();
  let byNamespace: ReadonlyMap<string, readonly Selector[]> = new Map();
  let watched: ReadonlySet<string> = new Set();
  let paths: ReadonlySet<string> = new Set();

  return {
    refresh() {
      const policies = [...deps.policies()];
      const selectors = [...policies.flatMap(selectorsOf), ...deps.remembered()];
      const next = new Map(selectors.map((selector) => [selectorId(selector), selector]));
      const nextPaths = new Set(policies.flatMap(driverPathsOf));
      const namesSame = new Set(next.keys()).symmetricDifference(wanted).size === 0;
      if (namesSame && nextPaths.symmetricDifference(paths).size === 0) return false;
      wanted = next;
      paths = nextPaths;
      byNamespace = Map.groupBy(next.values(), ({ namespace }) => namespace);
      // Pods of a dropped selector get no more updates, so a selector that returns is not watched
      // before the next list.
      watched = new Set([...watched].filter((id) => next.has(id)));
      return true;
    },
    listed() {
      watched = new Set(wanted.keys());
    },
    selects: (namespace, labels) =>
      (byNamespace.get(namespace) ?? []).some(({ matchLabels }) =>
        Object.entries(matchLabels).every(([key, value]) => labels[key] === value),
      ),
    isWatched: (selector) => watched.has(selectorId(selector)),
    driverPaths: () => paths,
  };
}
