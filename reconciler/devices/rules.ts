// DeviceTaintRules: while a node is not open, one for each driver of its policy keeps every
// scheduler off the node's devices; one for each device that fails alone keeps it off that one.
// Which rules there should be is a function of the node, its policy and what the API server serves.
// Pure.
import { digestOf } from '../../core/digest.ts';
import { isEnforcing, policyFor, type GpuPolicy } from '../../core/gpu-policy.ts';
import { DEVICE_FAILED_TAINT, DEVICE_TAINT, DEVICE_TAINT_RULE_PREFIX, PROOF, WALK } from '../../core/keys.ts';
import { list, object, text } from '../../core/raw.ts';
import type { Devices } from '../../gate/devices.ts';
import { isOurs, open, parseProof, policyOf } from '../../gate/node-proof.ts';
import type { CreateDeviceTaint, DeviceAction } from '../actions.ts';
import type { NodeObject } from '../model.ts';
import type { DeviceTaint, Pool } from '../slices.ts';
import { leftOutOn, parseWalk } from '../walk.ts';

/** A rule of gpu-gate, as it is looked at. */
export interface RuleView {
  readonly name: string;
  readonly uid: string;
  /** Name of the Node that owns it, or of the pool that it selects; empty if it says neither. */
  readonly node: string;
  /** The one device that it is for, by driver, pool and name; empty if it is for all. */
  readonly device: string;
  /** What it says, to compare. */
  readonly says: string;
}

/** A rule of other people. An empty selector means all. */
export interface OtherRule extends DeviceTaint {
  readonly driver: string;
  readonly pool: string;
  readonly device: string;
}

const says = (owner: string, driver: string, pool: string, device: string, key: string, effect: string): string =>
  JSON.stringify([owner, driver, pool, device, key, effect]);

interface ReadRule extends OtherRule {
  readonly name: string;
  readonly uid: string;
  readonly owner: { readonly uid: string; readonly name: string };
}

function readRule(raw: unknown): ReadRule {
  const { metadata, spec } = object(raw);
  const { name, uid, ownerReferences } = object(metadata);
  const owner = object(list<unknown>(ownerReferences).find((one) => object(one)['kind'] === 'Node'));
  const { driver, pool, device } = object(object(spec)['deviceSelector']);
  const { key, value, effect } = object(object(spec)['taint']);
  return {
    name: text(name, ''),
    uid: text(uid, ''),
    owner: { uid: text(owner['uid'], ''), name: text(owner['name'], '') },
    driver: text(driver, ''),
    pool: text(pool, ''),
    device: text(device, ''),
    key: text(key, ''),
    value: text(value, ''),
    effect: text(effect, ''),
  };
}

/** Raw DeviceTaintRule → what is kept: of gpu-gate's, by its name, or of others'. */
export function trimRule(raw: unknown): RuleView | OtherRule {
  const { name, uid, owner, driver, pool, device, key, value, effect } = readRule(raw);
  return name.startsWith(DEVICE_TAINT_RULE_PREFIX)
    ? {
        name,
        uid,
        node: owner.name === '' ? pool : owner.name,
        device: device === '' ? '' : `${driver}/${pool}/${device}`,
        says: says(owner.uid, driver, pool, device, key, effect),
      }
    : { driver, pool, device, key, value, effect };
}

export const isRuleOfOurs = (rule: RuleView | OtherRule): rule is RuleView => 'says' in rule;

/** The longest name of an object. */
const MAX_NAME = 253;

/** The names say which node and driver, as far as they fit. */
function nameOf(node: string, driver: string, what = ''): string {
  const name = `${DEVICE_TAINT_RULE_PREFIX}${node}.${driver}${what === '' ? '' : `.${what}`}`;
  return name.length <= MAX_NAME ? name : `${DEVICE_TAINT_RULE_PREFIX}${digestOf(name, 32)}`;
}

interface KnownPolicies {
  get(name: string): GpuPolicy | undefined;
  values(): Iterable<GpuPolicy>;
}

/** Does gpu-gate taint devices for this policy? */
export const taintsDevices = (policy: GpuPolicy | undefined, served: boolean): boolean =>
  served && policy !== undefined && isEnforcing(policy) && policy.spec.deviceTaints !== 'Off';

/** What the API server serves. */
export interface Serves {
  /** DeviceTaintRules. */
  readonly served: boolean;
  /** Is there a DeviceClass? */
  readonly hasClasses: boolean;
}

export const hasClasses = ({ classes }: Devices): boolean => Iterator.from(classes.entries()).next().done !== true;

/**
 * Every request of a claim names a DeviceClass: where there is none, no scheduler allocates a
 * device, and rules would be two writes a walk that keep nothing off.
 */
const mayAllocate = ({ spec }: GpuPolicy, hasClasses: boolean): boolean =>
  hasClasses || spec.allocation === 'DRA' || spec.deviceTaints === 'On';

/** The policy that has the node; the first that selects it before the reconciler has written it. */
const policyIn = (node: NodeObject, policies: KnownPolicies): GpuPolicy | undefined => {
  const name = policyOf(node);
  return name === undefined ? policyFor(node.metadata.labels ?? {}, [...policies.values()]) : policies.get(name);
};

/** Was the node proven, and is it no longer? */
function isWithdrawn(node: NodeObject): boolean {
  const { annotations, uid } = node.metadata;
  const proof = parseProof(annotations?.[PROOF]);
  const holds = proof !== undefined && proof.node === uid && proof.boot === node.status?.nodeInfo?.bootID;
  return !holds && parseWalk(annotations?.[WALK], uid)?.proven !== undefined;
}

/**
 * The rules that there should be for the node; none once it is gone. An unmanaged node is closed as
 * the extender closes it, by the first policy that selects it.
 */
export function wantedRules(
  node: NodeObject | undefined,
  policies: KnownPolicies,
  { served, hasClasses }: Serves,
  pools: readonly Pool[] = [],
): readonly CreateDeviceTaint[] {
  const policy = node === undefined ? undefined : policyIn(node, policies);
  if (node === undefined || policy === undefined || !taintsDevices(policy, served)) return [];
  const { name, uid, annotations } = node.metadata;
  const shared = { kind: 'create-device-taint', node: name, uid } as const;
  const isClosed = mayAllocate(policy, hasClasses);
  // Of unmanaged nodes those alone that have devices: there may be many without.
  if (!isOurs(node))
    return policy.spec.unmanagedNodes === 'Allow' || !isClosed
      ? []
      : policy.spec.deviceDrivers
          .filter((driver) => pools.some((pool) => pool.driver === driver && pool.name === name))
          .map((driver) => ({ ...shared, name: nameOf(name, driver), driver, taint: CLOSED }));
  const failed = leftOutOn(annotations?.[WALK], uid).flatMap((id): readonly CreateDeviceTaint[] => {
    const [driver = '', pool, device = ''] = id.split('/');
    return pool === name && policy.spec.deviceDrivers.includes(driver)
      ? [{ ...shared, name: nameOf(name, driver, device), driver, device, taint: FAILED }]
      : [];
  });
  if (open(node).yes || !isClosed) return failed;
  // Another rule, so that none is changed: between a rule's end and the next a pod could come.
  const evicts = policy.spec.withdrawnPods === 'Evict' && isWithdrawn(node);
  return [
    ...policy.spec.deviceDrivers.flatMap((driver): readonly CreateDeviceTaint[] => [
      { ...shared, name: nameOf(name, driver), driver, taint: CLOSED },
      ...(evicts ? [{ ...shared, name: nameOf(name, driver, 'withdrawn'), driver, taint: WITHDRAWN }] : []),
    ]),
    ...failed,
  ];
}
const CLOSED = { key: DEVICE_TAINT, effect: 'NoSchedule' } as const;
const WITHDRAWN = { key: DEVICE_TAINT, effect: 'NoExecute' } as const;
const FAILED = { key: DEVICE_FAILED_TAINT, effect: 'NoSchedule' } as const;

const saidBy = ({ uid, driver, node, device = '', taint }: CreateDeviceTaint): string =>
  says(uid, driver, node, device, taint.key, taint.effect);

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
    if (want === undefined || rule.says !== saidBy(want))
      actions.push({ kind: 'delete-device-taint', name: rule.name, uid: rule.uid });
  }
  // What closes comes before what opens.
  return [...missing.values(), ...actions];
}
