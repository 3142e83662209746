// CUDA vectorAdd in a pod with a claim that Kubernetes allocates, as users' pods have.
import { poolsBy } from '../../slices.ts';
import { idOf } from '../devices.ts';
import { waiting, type Finding } from '../findings.ts';
import type { Observed } from '../observed.ts';
import { check, schedulerOf } from './check.ts';
import type { WalkState } from './state.ts';

export const draValidation: WalkState = {
  name: 'dra-validation',
  allocation: 'DRA',
  limit: (policy) => policy.spec.validation.timeouts.draValidation,
  restarts: ['dra-driver', 'toolkit', 'driver'],
  look(seen, { evidence }) {
    const { claimTemplate } = seen.input;
    const because = triedOn(seen);
    const tried = Object.keys(because);
    const none = noneLeft(seen, because);
    if (none !== undefined) return { finding: none };
    const look = check(seen, {
      name: 'dra-validation',
      proves: [evidence['driver'], evidence['dra-driver'], seen.walk.epoch, seen.walk.gpuEpoch, ...tried],
      claimTemplate,
      schedulerName: schedulerOf(seen.input),
    });
    // Without the template there would be a pod that waits for it.
    if (claimTemplate === undefined && look.pods !== undefined) return { finding: noClass(seen) };
    if (look.pods !== undefined && tried.some((id) => seen.input.ruledOut?.has(id) === false))
      return {
        finding: waiting('DeviceNotLeftOut', `waiting for the DeviceTaintRule that leaves ${tried.join(', ')} out`),
      };
    return { ...look, finding: full(seen, look.finding) };
  },
};

const noClass = ({ input: { policy } }: Observed): Finding => ({
  kind: 'waiting',
  reason: 'NoDeviceClass',
  message: `waiting for a DeviceClass of the GPUPolicy (spec.deviceClasses: ${policy.spec.deviceClasses.join(', ') || 'none'}) and for the claim template that is made for it`,
  telling: true,
});

/** Devices on which a validation has failed, and how. */
const triedOn = ({ walk }: Observed): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(walk.leftOut ?? {}).flatMap(([id, { tried, because }]) => (tried === true ? [[id, because]] : [])),
  );

/** A validation has failed on each of them: it is not one device alone. */
function noneLeft({ input }: Observed, tried: ReturnType<typeof triedOn>): Finding | undefined {
  const all = poolsBy(input.pools, input.policy.spec.deviceDrivers).flatMap(({ driver, name, devices }) =>
    devices.map((device) => idOf(driver, name, device.name)),
  );
  const [because] = Object.values(tried);
  if (because === undefined || !all.every((id) => tried[id] !== undefined)) return undefined;
  return { kind: 'failed', reason: 'VectorAdd', message: `no device of the node is left: ${because}`, disproves: true };
}

/** Where every device is allocated, no new pod could come anyway: that is not a failure. */
function full({ input }: Observed, finding: Finding): Finding {
  if (finding.kind !== 'waiting' || finding.reason !== 'Unschedulable') return finding;
  const { pools, policy, isAllocated } = input;
  const isFull = poolsBy(pools, policy.spec.deviceDrivers).every(({ driver, name, devices }) =>
    devices.every((device) => isAllocated?.(driver, name, device.name) === true),
  );
  const { telling: _, ...rest } = finding;
  return isFull ? { ...rest, reason: 'WaitingForFreeGPU', untimed: true } : finding;
}
