// The DRA driver: its pod is Ready, and the node's devices are published, all of them.
import { isComplete, isPublished, poolsBy } from '../../slices.ts';
import type { Finding } from '../findings.ts';
import { isManagedHere, type Observed } from '../observed.ts';
import { notGoneYet } from './both.ts';
import { operand } from './operand.ts';
import type { WalkState } from './state.ts';

export const draDriver: WalkState = {
  name: 'dra-driver',
  allocation: 'DRA',
  limit: (policy) => policy.spec.validation.timeouts.draDriver,
  look(seen, ground) {
    const look = operand(seen, ground, 'dra-driver');
    if (look.finding.kind !== 'done') return look;
    const finding = notGoneYet(seen) ?? unpublished(seen);
    return finding === undefined ? look : { ...look, finding };
  },
  operand: 'dra-driver',
  restarts: ['dra-driver', 'toolkit', 'driver'],
};

/** What of the node's devices is not published yet. */
function unpublished(seen: Observed): Finding | undefined {
  const { pools, policy } = seen.input;
  const { deviceDrivers } = policy.spec;
  const names = deviceDrivers.join(', ') || 'no driver (spec.deviceDrivers is empty)';
  if (isPublished(pools, deviceDrivers)) return undefined;
  if (pools === undefined)
    return {
      kind: 'waiting',
      reason: 'NoResourceSlices',
      message:
        'waiting for the API server to serve resource.k8s.io/v1, which claims need: upgrade to Kubernetes 1.34 or newer, or set allocation: DevicePlugin in the GPUPolicy',
      telling: true,
      healthy: true,
    };
  const theirs = poolsBy(pools, deviceDrivers);
  const half = theirs.find((pool) => !isComplete(pool));
  const message =
    half !== undefined
      ? `waiting for pool ${half.name} of ${half.driver} to be complete: ${half.slices} of ${half.count} ResourceSlices of generation ${half.generation} are there`
      : theirs.length > 0
        ? `waiting for ${names} to publish a device of this node: its ResourceSlices are empty`
        : `waiting for the ResourceSlices of ${names} on this node${
            isManagedHere(seen, 'dra-driver') ? '' : ', which the external DRA driver is to publish'
          }`;
  return {
    kind: 'waiting',
    reason: half === undefined ? 'NoResourceSlices' : 'ResourceSlicesIncomplete',
    message,
    healthy: true,
  };
}
