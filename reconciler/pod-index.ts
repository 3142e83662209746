// Pods by what is asked of them, kept by before and after. Pure but for its memory.
import { keyOf, type NodeObject, type PodObject } from './model.ts';

export interface PodIndex {
  podsOn(node: string): Iterable<PodObject>;
  /** GPU pods that no node has yet, by `namespace/name`. */
  readonly unbound: ReadonlyMap<string, PodObject>;
  /** Validation pods of the node by name, unbound ones too. */
  validationsOf(node: NodeObject): ReadonlyMap<string, PodObject>;
}

/** Adds to, or takes from, a map of maps; an empty inner map goes. */
class Groups {
  readonly #groups = new Map<string, Map<string, PodObject>>();
  of(group: string): ReadonlyMap<string, PodObject> {
    return this.#groups.get(group) ?? NONE;
  }
  set(group: string, pod: PodObject): void {
    const there = this.#groups.get(group) ?? new Map<string, PodObject>();
    this.#groups.set(group, there.set(keyOf(pod), pod));
  }
  delete(group: string, pod: PodObject): void {
    const there = this.#groups.get(group);
    there?.delete(keyOf(pod));
    if (there?.size === 0) this.#groups.delete(group);
  }
}
const NONE: ReadonlyMap<string, PodObject> = new Map();

export function podIndex(operandNamespace: string): PodIndex & {
  update(before: PodObject | undefined, after: PodObject | undefined): void;
} {
  const onNode = new Groups();
  /** By the UID of the Node that they validate. */
  const validating = new Groups();
  const unbound = new Map<string, PodObject>();
  const isValidation = (pod: PodObject): boolean => pod.namespace === operandNamespace && pod.validates !== undefined;

  return {
    podsOn: (node) => onNode.of(node).values(),
    unbound,
    validationsOf(node) {
      const { name, uid } = node.metadata;
      const found = [...validating.of(uid).values(), ...[...onNode.of(name).values()].filter(isValidation)];
      return new Map(found.map((pod) => [pod.name, pod]));
    },
    update(before, after) {
      if (before !== undefined) {
        if (before.nodeName === undefined) unbound.delete(keyOf(before));
        else onNode.delete(before.nodeName, before);
        if (before.validates !== undefined) validating.delete(before.validates, before);
      }
      if (after === undefined) return;
      if (after.nodeName === undefined) unbound.set(keyOf(after), after);
      else onNode.set(after.nodeName, after);
      if (isValidation(after)) validating.set(after.validates ?? '', after);
    },
  };
}
