// Writes one node's actions in order. What changed meanwhile ends the writes, and the node is
// looked at again; Events come last and tell only what was written, also where a later write did
// not come through.
import type { Action, CreatePod, EvictPod } from '../actions.ts';
import type { Applier } from '../apply.ts';
import type { NodeObject } from '../model.ts';

export interface NodeWrites {
  readonly apply: Applier;
  /** A write to the Node itself came through. */
  readonly wrote: (action: Action, resourceVersion: string) => void;
  /** The pod is there, made now or before. */
  readonly created?: (action: CreatePod) => void;
  /** The API server refused a pod, or its eviction. */
  readonly refused?: (action: Action, because: string) => void;
  /** The API server took the eviction of a pod. */
  readonly evicted?: (action: EvictPod) => Promise<void>;
}

/**
 * Marks and condition go in one request, at the place of the marks; where there is no condition,
 * taints that come next go with the marks. No request writes both status and spec.
 */
function combined(writes: readonly Action[]): readonly Action[] {
  const status = writes.find((action) => action.kind === 'set-node-condition');
  const at = writes.findIndex((action) => action.kind === 'patch-node');
  const [marks, next] = [writes[at], writes[at + 1]];
  if (marks?.kind !== 'patch-node') return writes;
  if (status === undefined)
    return next?.kind === 'set-taints'
      ? writes.with(at, { ...marks, taints: next.taints }).toSpliced(at + 1, 1)
      : writes;
  const { type, condition } = status;
  return writes.flatMap((action): readonly Action[] => {
    if (action === status) return [];
    return action.kind === 'patch-node' ? [{ ...action, status: { type, condition } }] : [action];
  });
}

/** `stale`: not all was written; plan again. */
export async function carryOut(
  node: NodeObject,
  actions: readonly Action[],
  { apply, wrote, created, refused, evicted }: NodeWrites,
): Promise<'done' | 'stale'> {
  const planned = JSON.stringify(node.spec?.taints ?? []);
  const writes = combined(actions.filter((action) => action.kind !== 'event'));
  const events = actions.filter((action) => action.kind === 'event');
  // Events are about the marks: what a list without marks tells waits for all of it.
  const hasMarks = writes.some((action) => action.kind === 'patch-node');
  let marked = false;
  let latest: { resourceVersion: string; taints: string } | undefined;

  const write = async (): Promise<'done' | 'stale'> => {
    for (const action of writes) {
      // Our previous write has moved the version on; the list that the taints were planned from
      // must still stand.
      if (action.kind === 'set-taints' && latest !== undefined && latest.taints !== planned) return 'stale';
      const outcome = await apply.apply(action, latest?.resourceVersion ?? node.metadata.resourceVersion);
      if (outcome.kind === 'refused') {
        refused?.(action, outcome.because);
        continue;
      }
      if (action.kind === 'create-pod') created?.(action);
      if (outcome.kind === 'stale') {
        if (action.kind === 'create-pod' || action.kind === 'delete-pod' || action.kind === 'evict-pod') continue;
        return 'stale';
      }
      if (action.kind === 'evict-pod') await evicted?.(action);
      if (action.kind !== 'patch-node' && action.kind !== 'set-taints' && action.kind !== 'set-node-condition')
        continue;
      if (action.kind === 'patch-node') marked = true;
      if (outcome.resourceVersion === undefined) continue;
      latest = { resourceVersion: outcome.resourceVersion, taints: JSON.stringify(outcome.taints ?? []) };
      wrote(action, outcome.resourceVersion);
    }
    return 'done';
  };
  const tell = async (): Promise<void> => {
    for (const event of events) await apply.apply(event);
  };

  let end: 'done' | 'stale';
  try {
    end = await write();
  } catch (error) {
    if (marked) await tell();
    throw error;
  }
  if (hasMarks ? marked : end === 'done') await tell();
  return end;
}
