// One node's story, as `node NAME` and the status page show it.
import type { Unread } from '../core/unread.ts';
import type { EventView, NodeReport } from './fleet.ts';
import type { parseProof } from '../gate/node-proof.ts';
import type { Step } from './usual.ts';

export type Components = NonNullable<ReturnType<typeof parseProof>>['components'];

export interface NodeStory extends NodeReport {
  /** Empty for a node that nobody opted in. */
  readonly timeline: readonly Step[];
  readonly components: Components | Readonly<Record<string, never>>;
  /** Oldest first. */
  readonly events: readonly EventView[];
  readonly unread: readonly Unread[];
}
