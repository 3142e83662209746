// The present DeviceTaintRules by the node that they are for, kept by before and after. Pure but
// for its memory.
import type { RuleView } from './rules.ts';

export interface Rules {
  /** Does the API server serve DeviceTaintRules? */
  readonly served: boolean;
  of(node: string): Iterable<RuleView>;
  /** Nodes that have rules; some may not exist. */
  nodes(): Iterable<string>;
}

export function ruleIndex(): Omit<Rules, 'served'> & {
  update(before: RuleView | undefined, after: RuleView | undefined): void;
} {
  const byNode = new Map<string, Map<string, RuleView>>();
  return {
    of: (node) => byNode.get(node)?.values() ?? [],
    nodes: () => byNode.keys(),
    update(before, after) {
      if (before !== undefined) {
        const there = byNode.get(before.node);
        there?.delete(before.name);
        if (there?.size === 0) byNode.delete(before.node);
      }
      if (after === undefined) return;
      const there = byNode.get(after.node) ?? new Map<string, RuleView>();
      byNode.set(after.node, there.set(after.name, after));
    },
  };
}
