// What the states of components share, as values: what a node that runs or changes a component is
// given, and what it waits for.
import { describe, expect, it } from 'vitest';
import { POD_COMPONENT, type Component } from '../../../core/components.ts';
import { COMPONENT, PART_OF, REVISION } from '../../../core/keys.ts';
import { observe, type Observed, type WithPolicy } from '../../../reconciler/node/observed.ts';
import { failed, waiting } from '../../../reconciler/node/findings.ts';
import { operand, putBack, troubleOfPod, withTrouble } from '../../../reconciler/node/states/operand.ts';
import { DRIVER_MANAGER } from '../../../reconciler/manifests/driver.ts';
import type { PodObject } from '../../../reconciler/model.ts';
import type { Walk } from '../../../reconciler/walk.ts';
import { aPolicy, keptPod, NOW, ownedBy } from '../../builders/objects.ts';
import { World } from './world.ts';

const base = observe(new World().validated().input() as WithPolicy);
const held = base.deployed;
const PODS = base.input.pods;
const user = (uid: string): PodObject => keptPod({ namespace: 'team', name: uid, uid });
/** A pod of that component from another revision than the one that the node runs. */
const otherPod = (component: Component): PodObject =>
  keptPod({
    name: `other-${component}`,
    uid: `other-${component}`,
    controller: ownedBy(`${POD_COMPONENT[component]}-other`),
    labels: { [PART_OF]: 'gpu-gate', [COMPONENT]: POD_COMPONENT[component], [REVISION]: 'other' },
  });
const without = (component: Component): Observed['deployed'] =>
  Object.fromEntries(Object.entries(held).filter(([name]) => name !== component));
const podsWithout = (component: Component): readonly PodObject[] =>
  PODS.filter((pod) => pod.labels[COMPONENT] !== POD_COMPONENT[component]);

interface Parts {
  readonly pods?: readonly PodObject[];
  readonly walk?: Partial<Walk>;
  readonly spec?: object;
  readonly seen?: Partial<Observed>;
}
const seenOf = ({ pods = PODS, walk = {}, spec, seen = {} }: Parts): Observed => ({
  ...base,
  input: { ...base.input, pods, ...(spec === undefined ? {} : { policy: aPolicy(spec) }) },
  walk: { ...base.walk, ...walk },
  ...seen,
});
const look = (component: Component, parts: Parts, deploy = held) =>
  operand(seenOf(parts), { deploy, evidence: {} }, component);
/** The node is to run another revision of that component. */
const moving = (component: Component): { readonly target: Walk['target'] } => ({
  target: { ...base.walk.target, [component]: { revision: 'new' } },
});
const replace = { rollOut: { phase: 'replace', since: new Date(NOW).toISOString() } } as const;
const none = { upgrade: { drain: { mode: 'None' } } };
const inUse = { isInUse: true, users: [user('a')] };

describe('a component that is there', () => {
  it('is done with its pod as evidence, and its label stays', () => {
    const { finding, evidence, deploy } = look('driver', {});
    expect([finding.kind, evidence?.revision, deploy]).toEqual(['done', held.driver, undefined]);
  });
  it('is done without a pod where another installer brings it unseen', () => {
    const walk = { target: { ...base.walk.target, driver: { external: 'unwatched' as const } } };
    expect(look('driver', { walk, pods: podsWithout('driver') }, without('driver')).finding.kind).toBe('done');
  });
  it('waits for the node, untimed, where its kubelet is out of sight', () => {
    const walk = { notReady: new Date(NOW).toISOString() };
    const { finding, evidence } = look('driver', { walk, pods: podsWithout('driver') });
    expect(finding).toEqual({
      kind: 'waiting',
      reason: 'NodeNotReady',
      message: 'waiting for the node to be Ready',
      untimed: true,
    });
    expect(evidence).toBeUndefined();
  });
});

describe('a component that is replaced', () => {
  it.each<
    [
      what: string,
      component: Component,
      parts: Parts,
      message: string,
      untimed: true | undefined,
      off: Component | undefined,
    ]
  >([
    [
      'goes after all that came after it',
      'driver',
      { walk: moving('driver') },
      'waiting for the previous dcgm-exporter pod to go',
      undefined,
      'dcgm-exporter',
    ],
    [
      'has no clock while the kubelet is out of sight',
      'driver',
      { walk: { ...moving('driver'), notReady: new Date(NOW).toISOString() } },
      'waiting for the previous dcgm-exporter pod to go',
      true,
      'dcgm-exporter',
    ],
    [
      'waits for the one pod that uses it',
      'driver',
      { walk: moving('driver'), seen: inUse },
      'waiting for 1 GPU pod to end (team/a) before the driver is replaced',
      true,
      undefined,
    ],
    [
      'waits for all pods that use it',
      'driver',
      { walk: moving('driver'), seen: { isInUse: true, users: [user('a'), user('b')] } },
      'waiting for 2 GPU pods to end (team/a, team/b) before the driver is replaced',
      true,
      undefined,
    ],
    [
      'goes from beside its users in a turn with drain None',
      'device-plugin',
      { walk: { ...moving('device-plugin'), ...replace }, spec: none, seen: inUse },
      'waiting for the previous dcgm-exporter pod to go',
      undefined,
      'dcgm-exporter',
    ],
    [
      'stays beside its users with drain Wait',
      'device-plugin',
      { walk: { ...moving('device-plugin'), ...replace }, seen: inUse },
      'waiting for 1 GPU pod to end (team/a) before the device-plugin is replaced',
      true,
      undefined,
    ],
    [
      'stays beside its users outside of a turn',
      'device-plugin',
      { walk: moving('device-plugin'), spec: none, seen: inUse },
      'waiting for 1 GPU pod to end (team/a) before the device-plugin is replaced',
      true,
      undefined,
    ],
    [
      'stays beside its users before its turn has come',
      'device-plugin',
      {
        walk: { ...moving('device-plugin'), rollOut: { ...replace.rollOut, phase: 'drain' } },
        spec: none,
        seen: inUse,
      },
      'waiting for 1 GPU pod to end (team/a) before the device-plugin is replaced',
      true,
      undefined,
    ],
    [
      'is never a driver that users hold, whatever the drain',
      'driver',
      { walk: { ...moving('driver'), ...replace }, spec: none, seen: inUse },
      'waiting for 1 GPU pod to end (team/a) before the driver is replaced',
      true,
      undefined,
    ],
  ])('%s', (_, component, parts, message, untimed, off) => {
    const { finding, deploy } = look(component, parts);
    expect(finding).toMatchObject({ kind: 'waiting', message });
    expect(finding).toHaveProperty('reason', off === undefined ? 'InUse' : 'Replacing');
    expect('untimed' in finding ? finding.untimed : undefined).toBe(untimed);
    expect(deploy).toEqual(off === undefined ? undefined : without(off));
  });
});

describe('a label that another writer took from an operand that runs', () => {
  // Its proof has gone for another cause, so that the walk itself restores it.
  it('is restored in its state, and the pod is evidence', () => {
    const { finding, deploy } = look('driver', {}, without('driver'));
    expect([finding.kind, deploy]).toEqual(['done', held]);
  });
  it('is restored in its state after the pods that came of its change have gone', () => {
    const changed = { ...held, driver: 'other' };
    const { finding, deploy } = look('driver', { pods: [...PODS, otherPod('driver')] }, changed);
    expect(finding).toEqual(waiting('Replacing', 'waiting for the previous driver pod to go'));
    expect(deploy).toEqual(without('driver'));
  });

  it.each<[what: string, parts: Parts, isRestored: boolean]>([
    ['is restored at once on a proven node', {}, true],
    ['is restored though its pod has gone', { pods: podsWithout('driver') }, true],
    ['is not restored beside a pod of another revision', { pods: [...PODS, otherPod('driver')] }, false],
    [
      'is not restored while a pod of another revision is alone',
      { pods: [...podsWithout('driver'), otherPod('driver')] },
      false,
    ],
    ['is not restored without a proof', { seen: { proof: undefined } }, false],
    ['is not restored while the stack is replaced', { walk: { renew: true } }, false],
    ['is not restored for a revision that never ran here', { walk: { evidence: {} } }, false],
    [
      'is not restored for another revision than the one that ran here',
      { walk: { evidence: { driver: { revision: 'x', pod: 'p', started: '', boot: 'boot-1' } } } },
      false,
    ],
    [
      'is not given to a component that another installer brings',
      { walk: { target: { ...base.walk.target, driver: { external: 'unwatched' } } } },
      false,
    ],
  ])('%s', (_, parts, isRestored) =>
    expect(putBack({ ...seenOf(parts), deployed: without('driver') })).toEqual(isRestored ? held : without('driver')),
  );
  it('is changed back where its value was changed', () =>
    expect(putBack({ ...seenOf({}), deployed: { ...held, driver: 'other' } })).toEqual(held));
});

describe('what is reported of a pod that does not come', () => {
  const state = (of: object): PodObject['containers'] => [{ name: 'c', ready: false, restartCount: 0, state: of }];
  const pulling = state({ waiting: { reason: 'ContainerCreating' } });
  const ran = state({ terminated: { exitCode: 1 } });
  const runs = state({ running: { startedAt: '2026-11-24T10:00:00Z' } });
  it.each<[what: string, pod: Partial<PodObject>, trouble: string | undefined]>([
    ['counts before a container has started', { containers: pulling }, 'no mount'],
    ['counts before there is a container', {}, 'no mount'],
    [
      'counts where a container is there without a state',
      { containers: [{ name: 'c', ready: false, restartCount: 0 }] },
      'no mount',
    ],
    ['is of the past once one runs', { containers: runs }, undefined],
    ['is of the past once one has ended', { containers: ran }, undefined],
    ['is of the past once an init container has run', { containers: pulling, initContainers: ran }, undefined],
  ])('%s', (_, pod, trouble) =>
    expect(troubleOfPod({ ...base.input, troubles: new Map([['u', 'no mount']]) }, keptPod(pod))).toBe(trouble),
  );
  it('is added to what is waited for, and not to a failure', () => {
    expect(withTrouble(waiting('R', 'waiting'), 'no mount')).toEqual({
      ...waiting('R', 'waiting; no mount'),
      trouble: true,
    });
    expect(withTrouble(waiting('R', 'waiting'), undefined)).toEqual(waiting('R', 'waiting'));
    expect(withTrouble(failed('R', 'failed'), 'no mount')).toEqual(failed('R', 'failed'));
    expect(withTrouble({ kind: 'done' }, 'no mount')).toEqual({ kind: 'done' });
  });
});

describe('a driver-manager that found a driver on the host', () => {
  const found = { terminated: { exitCode: 1, message: 'the driver is pre-installed' } };
  const podsOf = (component: Component, ready: boolean): readonly PodObject[] =>
    PODS.map((pod) =>
      pod.labels[COMPONENT] === POD_COMPONENT[component]
        ? {
            ...pod,
            conditions: ready ? pod.conditions : [],
            initContainers: [{ name: DRIVER_MANAGER, ready: false, restartCount: 1, state: found }],
          }
        : pod,
    );
  it.each<[component: Component, ready: boolean, finding: object]>([
    ['driver', false, { kind: 'failed', reason: 'DriverPreInstalled' }],
    ['driver', true, { kind: 'done' }],
    ['toolkit', false, { kind: 'waiting', reason: 'PodNotReady' }],
  ])('of the %s, Ready: %s', (component, ready, finding) =>
    expect(look(component, { pods: podsOf(component, ready) }).finding).toMatchObject(finding),
  );
});
