// One node's story, as `node NAME` and the status page show it.
import type { Unread } from '../core/unread.ts';
import type { EventView, NodeReport } from './fleet.ts';
import type { parseProof } from '../gate/node-proof.ts';

export type Components = NonNullable<ReturnType<typeof parseProof>>['components'];

export interface NodeStory extends NodeReport {
  readonly components: Components | Readonly<Record<string, never>>;
  /** Oldest first. */
  readonly events: readonly EventView[];
  readonly unread: readonly Unread[];
}
