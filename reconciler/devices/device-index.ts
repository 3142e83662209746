// The devices of each node, and which of them claims hold, kept by before and after. Pure but for
// its memory.
import type { ClaimFacts } from '../../gate/devices.ts';
import { poolsOf, type Pool, type SliceView } from '../slices.ts';

export interface DevicesOn {
  /** What DRA drivers offer on the node. */
  poolsOn(node: string): readonly Pool[];
  /** Is the device allocated to a claim? */
  isAllocated(driver: string, pool: string, device: string): boolean;
}

export interface DeviceIndex extends DevicesOn {
  /** Returns the nodes whose devices have changed. */
  slice(before: SliceView | undefined, after: SliceView | undefined): readonly string[];
  claim(before: ClaimFacts | undefined, after: ClaimFacts | undefined): void;
}

const NONE: readonly Pool[] = [];

export function deviceIndex(): DeviceIndex {
  /** By node and name. */
  const slices = new Map<string, Map<string, SliceView>>();
  const pools = new Map<string, readonly Pool[]>();
  /** How many claims have each device: an admin's claim beside that of its user. */
  const holders = new Map<string, number>();
  const idOf = (driver: string, pool: string, device: string): string => `${driver}/${pool}/${device}`;

  return {
    poolsOn(node) {
      const known = pools.get(node);
      if (known !== undefined) return known;
      const there = slices.get(node);
      if (there === undefined) return NONE;
      const fresh = poolsOf(there.values());
      pools.set(node, fresh);
      return fresh;
    },
    isAllocated: (...device) => holders.has(idOf(...device)),
    slice(before, after) {
      const changed = new Set<string>();
      if (before !== undefined) {
        const there = slices.get(before.node);
        there?.delete(before.name);
        if (there?.size === 0) slices.delete(before.node);
        changed.add(before.node);
      }
      if (after !== undefined) {
        const there = slices.get(after.node) ?? new Map<string, SliceView>();
        slices.set(after.node, there.set(after.name, after));
        changed.add(after.node);
      }
      for (const node of changed) pools.delete(node);
      return [...changed];
    },
    claim(before, after) {
      const count = (claim: ClaimFacts | undefined, by: number): void => {
        for (const { driver, pool, device } of claim?.devices ?? []) {
          const id = idOf(driver, pool, device);
          const left = (holders.get(id) ?? 0) + by;
          if (left <= 0) holders.delete(id);
          else holders.set(id, left);
        }
      };
      count(before, -1);
      count(after, 1);
    },
  };
}
