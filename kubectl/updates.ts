// Two reports → what a page that has the first must be sent to show the second. Pure.
import type { Fleet, NodeReport } from './fleet.ts';

/** What changed, or everything where nothing was sent before. */
export interface Update {
  /** When it was read, RFC 3339. */
  readonly at: string;
  /** Everything: what was shown before counts no more. */
  readonly whole: boolean;
  /** Nodes that are new or differ. */
  readonly nodes: readonly NodeReport[];
  /** Names of nodes that are gone. */
  readonly gone: readonly string[];
  /** The whole of everything else. */
  readonly rest: Omit<Fleet, 'nodes'>;
}

export function updateOf(before: Fleet | undefined, after: Fleet, at: string): Update {
  const { nodes, ...rest } = after;
  const known = new Map((before?.nodes ?? []).map((node) => [node.name, JSON.stringify(node)]));
  const names = new Set(nodes.map(({ name }) => name));
  return {
    at,
    whole: before === undefined,
    nodes: nodes.filter((node) => known.get(node.name) !== JSON.stringify(node)),
    gone: [...known.keys()].filter((name) => !names.has(name)),
    rest,
  };
}
