// The state machine: the states in the order in which a node goes through them. Those of the other
// allocation are left out.
import { devicePlugin } from './device-plugin.ts';
import { devicePluginValidation } from './device-plugin-validation.ts';
import { draDriver } from './dra-driver.ts';
import { draValidation } from './dra-validation.ts';
import { driver } from './driver.ts';
import { driverValidation } from './driver-validation.ts';
import { preflight } from './preflight.ts';
import type { WalkState } from './state.ts';
import { toolkit } from './toolkit.ts';

export const WALK_STATES: readonly WalkState[] = [
  preflight,
  toolkit,
  driver,
  driverValidation,
  devicePlugin,
  devicePluginValidation,
  draDriver,
  draValidation,
];
