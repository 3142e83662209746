// DeviceTaintRules: while a node is not open, one for each driver of its policy keeps every
// scheduler off the node's devices. Which rules there should be is a function of the node, its
// policy and what the API server serves. Pure.
import { digestOf } from '../../core/digest.ts';
import { isEnforcing, policyFor, type GpuPolicy } from '../../core/gpu-policy.ts';
import { DEVICE_TAINT, DEVICE_TAINT_RULE_PREFIX } from '../../core/keys.ts';
import { list, object, text } from '../../core/raw.ts';
import { isOurs, open, policyOf } from '../../gate/node-proof.ts';
import type { CreateDeviceTaint, DeviceAction } from '../actions.ts';
import type { NodeObject } from '../model.ts';

/** A rule as it is looked at; one of other people's is not kept. */
export interface RuleView {
  readonly name: string;
  readonly uid: string;
  /** Name of the Node that owns it, or of the pool that it selects; empty if it says neither. */
  readonly node: string;
  /** What it says, to compare. */
  readonly says: string;
}

const says = (owner: string, driver: string, pool: string, device: string, key: string, effect: string): string =>
  JSON.stringify([owner, driver, pool, device, key, effect]);

/** Raw DeviceTaintRule → what is kept; `undefined` if it is not one of gpu-gate's, by its name. */
export function trimRule(raw: unknown): RuleView | undefined {
  const { metadata, spec } = object(raw);
  const { name, uid, ownerReferences } = object(metadata);
  if (!text(name, '').startsWith(DEVICE_TAINT_RULE_PREFIX)) return undefined;
  const owner = object(list<unknown>(ownerReferences).find((one) => object(one)['kind'] === 'Node'));
  const { driver, pool, device } = object(object(spec)['deviceSelector']);
  const { key, effect } = object(object(spec)['taint']);
  return {
    name: text(name, ''),
    uid: text(uid, ''),
    node: text(owner['name'], text(pool, '')),
    says: says(
      text(owner['uid'], ''),
      text(driver, ''),
      text(pool, ''),
      text(device, ''),
      text(key, ''),
      text(effect, ''),
    ),
  };
}

/** The longest name of an object. */
const MAX_NAME = 253;

/** The names say which node and driver, as far as they fit. */
function nameOf(node: string, driver: string): string {
  const name = `${DEVICE_TAINT_RULE_PREFIX}${node}.${driver}`;
  return name.length <= MAX_NAME ? name : `${DEVICE_TAINT_RULE_PREFIX}${digestOf(name, 32)}`;
}

interface KnownPolicies {
  get(name: string): GpuPolicy | undefined;
  values(): Iterable<GpuPolicy>;
}

/** The policy that has the node; the first that selects it before the reconciler has written it. */
const policyIn = (node: NodeObject, policies: KnownPolicies): GpuPolicy | undefined => {
  const name = policyOf(node);
  return name === undefined ? policyFor(node.metadata.labels ?? {}, [...policies.values()]) : policies.get(name);
};

/** The rules that there should be for the node; none once it is gone. */
export function wantedRules(
  node: NodeObject | undefined,
  policies: KnownPolicies,
  served: boolean,
): readonly CreateDeviceTaint[] {
  if (!served || node === undefined || !isOurs(node) || open(node).yes) return [];
  const policy = policyIn(node, policies);
  if (policy === undefined || !isEnforcing(policy) || policy.spec.deviceTaints === 'Off') return [];
  const { name, uid } = node.metadata;
  return policy.spec.deviceDrivers.map((driver) => ({
    kind: 'create-device-taint',
    name: nameOf(name, driver),
    node: name,
    uid,
    driver,
  }));
}

/**
 * What makes the present rules of a node the wanted ones. A rule that says something else is
 * deleted, and created again once it is gone: others may own fields that an update would leave.
 */
export function changesOf(present: Iterable<RuleView>, wanted: readonly CreateDeviceTaint[]): readonly DeviceAction[] {
  const missing = new Map(wanted.map((one) => [one.name, one]));
  const actions: DeviceAction[] = [];
  for (const rule of present) {
    const want = missing.get(rule.name);
    missing.delete(rule.name);
    if (want === undefined || rule.says !== says(want.uid, want.driver, want.node, '', DEVICE_TAINT, 'NoSchedule'))
      actions.push({ kind: 'delete-device-taint', name: rule.name, uid: rule.uid });
  }
  // What closes comes before what opens.
  return [...missing.values(), ...actions];
}
