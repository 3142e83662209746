// What an edit of a GPUPolicy does to a node that is validated, by field. `docs/policy-edits.md`
// shows this table, and a test holds both to the CRD and to the plan.

export type Effect =
  /** Neither what runs there nor what is believed of it. */
  | 'nothing'
  /** The next round of validation that something else asks for uses it. */
  | 'next round'
  /** Another revision: the node takes it in its turn of a roll-out. */
  | 'roll-out'
  /** The node keeps what it has until it is opted out and in again. */
  | 'next opt-in'
  /** The node's operands, marks or gate follow in the same second. */
  | 'at once';

/** The longest path that a field begins with decides. */
export const EDITS: Readonly<Record<string, Effect>> = {
  nodeSelector: 'at once',
  suspend: 'at once',
  unmanagedNodes: 'nothing',
  allocation: 'next opt-in',
  resources: 'at once',
  deviceClasses: 'next round',
  deviceDrivers: 'at once',
  deviceTaints: 'nothing',
  withdrawnPods: 'nothing',
  'components.toolkit': 'roll-out',
  'components.driver': 'roll-out',
  'components.devicePlugin': 'roll-out',
  'components.toolkit.mode': 'next opt-in',
  'components.driver.mode': 'next opt-in',
  'components.devicePlugin.mode': 'next opt-in',
  'components.toolkit.podSelector': 'at once',
  'components.driver.podSelector': 'at once',
  'components.devicePlugin.podSelector': 'at once',
  'components.draDriver': 'roll-out',
  'components.draDriver.mode': 'next opt-in',
  'components.draDriver.podSelector': 'at once',
  'components.driver.alsoFor': 'nothing',
  'components.dcgmExporter': 'at once',
  'components.featureDiscovery': 'at once',
  'components.dcgmExporter.podSelector': 'nothing',
  'components.featureDiscovery.podSelector': 'nothing',
  hostPaths: 'roll-out',
  validation: 'next round',
  'validation.interval': 'at once',
  injection: 'nothing',
  'injection.runtimeClassName': 'roll-out',
  'injection.schedulerName': 'next round',
  'injection.claimPods': 'next round',
  'injection.driverVolumes': 'next round',
  'injection.driverVolumesPreset': 'next round',
  'injection.env': 'next round',
  startupTaint: 'nothing',
  rejectedPods: 'nothing',
  bringUp: 'nothing',
  labelHold: 'nothing',
  breaker: 'nothing',
  silence: 'nothing',
  rejections: 'nothing',
  upgrade: 'nothing',
  allowedNamespaces: 'nothing',
};

export const effectOf = (field: string): Effect | undefined => {
  const parts = field.split('.');
  for (let length = parts.length; length > 0; length -= 1) {
    const effect = EDITS[parts.slice(0, length).join('.')];
    if (effect !== undefined) return effect;
  }
  return undefined;
};
