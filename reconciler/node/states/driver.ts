// The driver: its pod is Ready, so the module is loaded and the driver answers.
import { operand } from './operand.ts';
import type { WalkState } from './state.ts';

export const driver: WalkState = {
  name: 'driver',
  limit: (policy) => policy.spec.validation.timeouts.driver,
  look: (seen, ground) => operand(seen, ground, 'driver'),
  operand: 'driver',
  restarts: ['driver'],
};
