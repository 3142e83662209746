// GPUs reach pods in one way on a node: by the device plugin or by a DRA driver. The two know
// nothing of each other, and would give one GPU to two pods.
import { ALLOCATORS, type Component } from '../../../core/components.ts';
import { EXTERNAL } from '../../stack.ts';
import { poolsBy } from '../../slices.ts';
import { allocatable, type Finding } from '../findings.ts';
import { componentPods, type Observed } from '../observed.ts';

/** The component that serves GPUs in the way that is not this walk's. */
export const rivalOf = ({ allocation }: Pick<Observed, 'allocation'>): Component =>
  allocation === 'DRA' ? ALLOCATORS.DevicePlugin : ALLOCATORS.DRA;

/** Did that component come from gpu-gate on this node? */
export function wasOurs(seen: Observed): boolean {
  const rival = rivalOf(seen);
  const known = seen.walk.evidence[rival];
  return (
    seen.deployed[rival] !== undefined ||
    componentPods(seen.input, rival).length > 0 ||
    (known !== undefined && known.revision !== EXTERNAL)
  );
}

/**
 * Who serves the node's GPUs in the way that is not this walk's, as a clause; `undefined`: no one.
 */
export function offeredOtherwise({ allocation, input }: Pick<Observed, 'allocation' | 'input'>): string | undefined {
  const { node, policy, pools } = input;
  const { resources, deviceDrivers } = policy.spec;
  if (allocation === 'DRA') {
    const offered = Object.entries(allocatable(node, resources)).map(([name, amount]) => `${amount} ${name}`);
    return offered.length === 0 ? undefined : `a device plugin offers ${offered.join(', ')}`;
  }
  const drivers = new Set(
    poolsBy(pools, deviceDrivers)
      .filter(({ devices }) => devices.length > 0)
      .map(({ driver }) => driver),
  );
  return drivers.size === 0 ? undefined : `the DRA driver ${[...drivers].join(', ')} publishes devices`;
}

/** What was ours and served GPUs in the other way has gone; its GPUs go a moment later. */
export function notGoneYet(seen: Observed): Finding | undefined {
  const offered = wasOurs(seen) ? offeredOtherwise(seen) : undefined;
  return offered === undefined
    ? undefined
    : {
        kind: 'waiting',
        reason: 'OtherAllocation',
        message: `waiting until this is over: ${offered}, from before allocation: ${seen.allocation}`,
        healthy: true,
      };
}
