// CUDA vectorAdd in a pod with a claim that Kubernetes allocates, as users' pods have.
import { poolsBy } from '../../slices.ts';
import type { Finding } from '../findings.ts';
import type { Observed } from '../observed.ts';
import { check } from './check.ts';
import type { WalkState } from './state.ts';

export const draValidation: WalkState = {
  name: 'dra-validation',
  allocation: 'DRA',
  limit: (policy) => policy.spec.validation.timeouts.draValidation,
  restarts: ['dra-driver', 'toolkit', 'driver'],
  look(seen, { evidence }) {
    const { policy, claimTemplate } = seen.input;
    const { schedulerName } = policy.spec.injection;
    const look = check(seen, {
      name: 'dra-validation',
      proves: [evidence['driver'], evidence['dra-driver'], seen.walk.epoch, seen.walk.gpuEpoch],
      claimTemplate: claimTemplate ?? '',
      ...(schedulerName === '' ? {} : { schedulerName }),
    });
    if (look.finding.kind === 'done') return look;
    // Without the template there would be a pod that waits for it.
    if (claimTemplate === undefined && look.pods !== undefined) return { finding: noClass(seen) };
    return { ...look, finding: full(seen, look.finding) };
  },
};

const noClass = ({ input: { policy } }: Observed): Finding => ({
  kind: 'waiting',
  reason: 'NoDeviceClass',
  message: `waiting for a DeviceClass of the GPUPolicy (spec.deviceClasses: ${policy.spec.deviceClasses.join(', ') || 'none'}) and for the claim template that is made for it`,
  telling: true,
});

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
