// Figures of the whole cluster, as the leader knows them. Pure.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { STATES } from '../core/stages.ts';
import type { Fleet } from './fleet.ts';

export interface Figures {
  /** Opted-in nodes by state and policy; a policy's states without a node are 0. */
  readonly nodes: readonly { readonly state: string; readonly policy: string; readonly count: number }[];
  readonly open: number;
}

export function figuresOf(fleet: Pick<Fleet, 'count' | 'states'>, policies: readonly GpuPolicy[]): Figures {
  const present = [...fleet.states()];
  const known = new Set(present.map(({ policy, state }) => `${policy} ${state}`));
  const empty = policies.flatMap(({ name: policy }) =>
    STATES.filter((state) => !known.has(`${policy} ${state}`)).map((state) => ({ state, policy, count: 0 })),
  );
  return { nodes: [...present, ...empty], open: fleet.count('open') };
}
