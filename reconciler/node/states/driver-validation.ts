// CUDA vectorAdd with all GPUs visible, asking Kubernetes for none.
import { check } from './check.ts';
import type { WalkState } from './state.ts';

export const driverValidation: WalkState = {
  name: 'driver-validation',
  limit: (policy) => policy.spec.validation.timeouts.driverValidation,
  restarts: ['toolkit', 'driver'],
  upholds: true,
  look: (seen, { evidence }) =>
    check(seen, {
      name: 'driver-validation',
      proves: [evidence['toolkit'], evidence['driver'], seen.walk.epoch],
    }),
};
