// Devices of a node that fail alone: by the kubelet's word on a pod that has one, or by gpu-gate's
// own validation on one. They are left out until the node reboots, its DRA driver starts again or a
// person asks for a retry; the others serve on. Pure.
import type { ClaimFacts } from '../../gate/devices.ts';
import { COMPONENT } from '../../core/keys.ts';
import { POD_COMPONENT } from '../../core/components.ts';
import { keyOf, type ContainerStatus, type PodObject } from '../model.ts';
import type { OtherRule } from '../devices/rules.ts';
import { poolsBy, type Pool } from '../slices.ts';
import type { LeftOut, Walk } from '../walk.ts';
import { outcomeOf } from './outcome.ts';
import { lastWords } from './words.ts';

/** What is looked at. */
export interface DevicesSeen {
  readonly node: { readonly metadata: { readonly name: string } };
  readonly policy: { readonly spec: { readonly deviceDrivers: readonly string[] } };
  readonly pods: readonly PodObject[];
  readonly validationPods: ReadonlyMap<string, PodObject>;
  readonly pools?: readonly Pool[] | undefined;
  /** By `namespace/name`. */
  readonly claimOf?: (key: string) => ClaimFacts | undefined;
  readonly otherRules?: Iterable<OtherRule>;
  /** ms since the epoch */
  readonly now: number;
}

export const idOf = (driver: string, pool: string, device: string): string => `${driver}/${pool}/${device}`;

/** Devices that the claim behind an entry of the pod's `spec.resourceClaims` has. */
function devicesOf(seen: DevicesSeen, pod: PodObject, entry: string): readonly string[] {
  const claim = pod.wants.claims.find((one) => one.entry === entry)?.claim;
  const facts = claim === undefined ? undefined : seen.claimOf?.(`${pod.namespace}/${claim}`);
  // A pod may hold other devices too, such as those of a network.
  return (facts?.devices ?? [])
    .filter(({ driver }) => seen.policy.spec.deviceDrivers.includes(driver))
    .map(({ driver, pool, device }) => idOf(driver, pool, device));
}

/**
 * The kubelet names a device by its CDI device, or by driver, pool and device. Of several devices
 * the one that its name ends with is meant.
 */
function named(devices: readonly string[], resource: string): string | undefined {
  if (devices.length === 1 || devices.includes(resource)) return devices.length === 1 ? devices[0] : resource;
  return devices.find((id) => {
    const name = id.split('/').at(-1) ?? '';
    return resource.endsWith(name) && !/[a-z0-9]/i.test(resource.at(-name.length - 1) ?? '');
  });
}

/** Devices that the kubelet calls unhealthy, with what it says. */
function unhealthy(seen: DevicesSeen): readonly (readonly [id: string, because: string])[] {
  const of = (pod: PodObject, { allocatedResourcesStatus = [] }: ContainerStatus) =>
    allocatedResourcesStatus.flatMap(({ name, resources = [] }) => {
      const [, entry] = /^claim:([^/]+)/.exec(name ?? '') ?? [];
      if (entry === undefined) return [];
      return resources.flatMap(({ resourceID = '', health, message = '' }) => {
        const id = health === 'Unhealthy' ? named(devicesOf(seen, pod, entry), resourceID) : undefined;
        const words = lastWords(message);
        return id === undefined ? [] : [[id, `unhealthy by the kubelet${words === '' ? '' : `: ${words}`}`] as const];
      });
    });
  return seen.pods.flatMap((pod) => [...pod.initContainers, ...pod.containers].flatMap((one) => of(pod, one)));
}

/** gpu-gate's validation by claim that is under way or has just ended, by the walk's memory. */
function trialOf(walk: Walk, seen: DevicesSeen): Walk['trial'] {
  for (const pod of seen.validationPods.values()) {
    if (pod.labels[COMPONENT] !== POD_COMPONENT['dra-validation'] || pod.deleting || outcomeOf(pod) !== undefined)
      continue;
    const [device] = pod.wants.claims.flatMap(({ entry }) => devicesOf(seen, pod, entry));
    if (pod.nodeName === seen.node.metadata.name && device !== undefined) return { pod: keyOf(pod), device };
  }
  return walk.trial;
}

/** The device on which that validation failed, with its words. */
function disproved(trial: Walk['trial'], seen: DevicesSeen): readonly (readonly [id: string, because: string])[] {
  const pod = [...seen.validationPods.values()].find((one) => keyOf(one) === trial?.pod);
  const outcome = pod === undefined ? undefined : outcomeOf(pod);
  return trial === undefined || outcome?.kind !== 'Verdict' || outcome.passed
    ? []
    : [[trial.device, `vectorAdd failed on it${outcome.words === '' ? '' : `: ${outcome.words}`}`]];
}

/** `isAsked`: a person asks for a retry, which forgets what failed before. */
export function noteDevices(walk: Walk, seen: DevicesSeen, isAsked: boolean): Walk {
  const { leftOut, tainted: _, trial: before, ...rest } = walk;
  const trial = trialOf(isAsked ? rest : { ...rest, ...(before === undefined ? {} : { trial: before }) }, seen);
  const at = new Date(seen.now).toISOString();
  const found: readonly (readonly [string, LeftOut])[] = [
    ...unhealthy(seen).map(([id, because]) => [id, { at, because }] as const),
    ...disproved(trial, seen).map(([id, because]) => [id, { at, because, tried: true }] as const),
  ];
  const all = { ...Object.fromEntries(found), ...(isAsked ? {} : leftOut) };
  const tainted = taintedBy(seen);
  return {
    ...rest,
    ...(trial === undefined ? {} : { trial }),
    ...(Object.keys(all).length === 0 ? {} : { leftOut: all }),
    ...(Object.keys(tainted).length === 0 ? {} : { tainted }),
  };
}

/** What others' taints say of the node's devices: their drivers' in slices, and others' rules. */
function taintedBy({ pools, policy, otherRules = [] }: DevicesSeen): Readonly<Record<string, string>> {
  const rules = [...otherRules];
  const entries = poolsBy(pools, policy.spec.deviceDrivers).flatMap(({ driver, name, devices }) =>
    devices.flatMap((device): [string, string][] => {
      const byRules = rules.filter(
        (rule) =>
          (rule.driver === '' || rule.driver === driver) &&
          (rule.pool === '' || rule.pool === name) &&
          (rule.device === '' || rule.device === device.name),
      );
      const taints = [...device.taints, ...byRules].map(
        ({ key, value, effect }) => `${key}${value === '' ? '' : `=${value}`}:${effect}`,
      );
      return taints.length === 0 ? [] : [[idOf(driver, name, device.name), [...new Set(taints)].join(', ')]];
    }),
  );
  return Object.fromEntries(entries);
}

/** Devices by what is said of them, for a sentence. */
export function devicesText({ leftOut = {}, tainted = {} }: Pick<Walk, 'leftOut' | 'tainted'>): string {
  const nameOf = (id: string): string => id.split('/').slice(-1).join('');
  const out = Object.entries(leftOut).map(([id, { because }]) => `; ${nameOf(id)} is left out: ${because}`);
  const others = Object.entries(tainted).map(([id, taints]) => `; ${nameOf(id)} has the taint ${taints}`);
  return [...out, ...(others.length > MOST_NAMED ? [`; ${others.length} devices have taints of others`] : others)].join(
    '',
  );
}
/** How many tainted devices a sentence names. */
const MOST_NAMED = 8;
