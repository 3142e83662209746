// The condition that an action is about to write, as the caches have it: the time of a transition
// is written only with another status.
import type { Action } from './actions.ts';
import { keyOf, type NodeObject, type PodObject } from './model.ts';

interface Cached {
  readonly nodes: { get(name: string): NodeObject | undefined };
  readonly pods: { get(name: string): PodObject | undefined };
}
type Conditions = readonly { readonly type: string; readonly status: string }[];

const statusIn = (conditions: Conditions | undefined, type: string): string | undefined =>
  conditions?.find((condition) => condition.type === type)?.status;

/** Status of that condition; `undefined` if the action writes none, or the object has none. */
export const standingIn =
  ({ nodes, pods }: Cached) =>
  (action: Action): string | undefined => {
    const ofNode = (name: string, type: string): string | undefined =>
      statusIn(nodes.get(name)?.status?.conditions, type);
    if (action.kind === 'set-pod-condition')
      return statusIn(pods.get(keyOf(action))?.conditions, action.condition.type);
    if (action.kind === 'set-node-condition') return ofNode(action.node, action.type);
    return action.kind === 'patch-node' && action.status !== undefined
      ? ofNode(action.node, action.status.type)
      : undefined;
  };
