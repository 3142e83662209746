// CUDA vectorAdd in a pod that asks Kubernetes for a GPU as users' pods do.
import { allocatable } from '../findings.ts';
import { check, schedulerOf } from './check.ts';
import type { WalkState } from './state.ts';

export const devicePluginValidation: WalkState = {
  name: 'device-plugin-validation',
  allocation: 'DevicePlugin',
  limit: (policy) => policy.spec.validation.timeouts.devicePluginValidation,
  restarts: ['device-plugin', 'toolkit', 'driver'],
  look(seen, { evidence }) {
    const { node, policy } = seen.input;
    const resource = Object.keys(allocatable(node, policy.spec.resources))[0];
    return check(seen, {
      name: 'device-plugin-validation',
      proves: [evidence['driver'], evidence['device-plugin'], seen.walk.epoch, seen.walk.gpuEpoch],
      resource,
      schedulerName: schedulerOf(seen.input),
    });
  },
};
