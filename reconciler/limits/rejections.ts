// GPU pods that a kubelet rejects again and again: so many within a time mean that the node is not
// fit for new ones. Pure but for its memory.

export interface Rejection {
  readonly count: number;
  /** The kubelet's own words on the last one. */
  readonly words: string;
  /** When the limit was reached, ms since the epoch. */
  readonly at: number;
}

export interface Rejections {
  /** A pod was rejected. Returns true if that reached the limit. */
  add(node: string, pod: { readonly uid: string; readonly words: string; readonly at: number }, limit: Limit): boolean;
  /** The limit that was reached last on the node; `undefined` if none was. */
  reached(node: string): Rejection | undefined;
  /** The node is gone, or has been closed for it: counting begins again. */
  forget(node: string): void;
}

interface Limit {
  readonly count: number;
  /** ms */
  readonly within: number;
}

export function rejections(): Rejections {
  /** Node → UID of each rejected pod → when, the oldest first. */
  const seen = new Map<string, Map<string, number>>();
  const reached = new Map<string, Rejection>();
  return {
    add(node, { uid, words, at }, { count, within }) {
      const pods = seen.get(node) ?? new Map<string, number>();
      if (pods.has(uid)) return false;
      seen.set(node, pods.set(uid, at));
      for (const [other, when] of pods) if (at - when > within) pods.delete(other);
      if (pods.size < count) return false;
      reached.set(node, { count: pods.size, words, at });
      // The next round of counting needs as many pods again.
      pods.clear();
      return true;
    },
    reached: (node) => reached.get(node),
    forget(node) {
      seen.delete(node);
      reached.delete(node);
    },
  };
}
