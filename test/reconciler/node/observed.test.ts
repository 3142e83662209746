// What is known of a node, as values: which pods count as what, and what it remembers.
import { describe, expect, it } from 'vitest';
import { COMPONENT, PROOF, PROVE, RETRY, WALK } from '../../../core/keys.ts';
import {
  componentPods,
  gpuUsers,
  isManagedHere,
  isOfNode,
  observe,
  operandPod,
  remembered,
  type WithPolicy,
} from '../../../reconciler/node/observed.ts';
import type { NodeObject, PodObject } from '../../../reconciler/model.ts';
import { newWalk, type Walk } from '../../../reconciler/walk.ts';
import { aPolicy, keptPod, NOW } from '../../builders/objects.ts';
import { World } from './world.ts';

const OPERANDS = 'gpu-gate-operands';
const gpus = { gpus: { 'nvidia.com/gpu': 1 } };
const at = (ms: number): string => new Date(NOW + ms).toISOString();
const nodeWith = (annotations: Record<string, string>): NodeObject => {
  const { node } = new World();
  return { ...node, metadata: { ...node.metadata, annotations } };
};

describe('a validation’s pod', () => {
  const node = nodeWith({});
  it.each<[what: string, pod: Partial<PodObject>, yes: boolean]>([
    ['is of the node that it is on', { nodeName: 'n', validates: undefined }, true],
    ['is of the node that owns it while it is on none', { nodeName: undefined, validates: 'node-uid' }, true],
    ['is of no other node', { nodeName: 'other', validates: 'other-uid' }, false],
  ])('%s', (_, pod, yes) => expect(isOfNode(keptPod(pod), node)).toBe(yes));
});

describe('users of GPUs', () => {
  it.each<[what: string, pod: Partial<PodObject>, yes: boolean]>([
    ['are pods with GPUs', { namespace: 'team', ...gpus }, true],
    ['are not pods without', { namespace: 'team' }, false],
    ['are not pods that have ended', { namespace: 'team', phase: 'Succeeded', ...gpus }, false],
    ['are not ours', { namespace: OPERANDS, ...gpus }, false],
  ])('%s', (_, pod, yes) => {
    const pods = [keptPod(pod)];
    expect(gpuUsers({ pods, operandNamespace: OPERANDS, policy: aPolicy() })).toEqual(yes ? pods : []);
  });
});

describe('pods of a component', () => {
  const driver = { labels: { [COMPONENT]: 'driver' }, controller: { kind: 'DaemonSet', uid: 'ds' } };
  it.each<[what: string, pod: Partial<PodObject>, yes: boolean, isEvidence: boolean]>([
    ['are those of our DaemonSet', driver, true, true],
    [
      'are those of a DaemonSet that is not ours too',
      { ...driver, controller: { kind: 'DaemonSet', uid: 'x' } },
      true,
      false,
    ],
    ['are those on their way out too', { ...driver, deleting: true }, true, false],
    ['are not those of other namespaces', { ...driver, namespace: 'team' }, false, false],
    ['are not those of other controllers', { ...driver, controller: { kind: 'ReplicaSet', uid: 'ds' } }, false, false],
    ['are not those that nobody controls', { ...driver, controller: undefined }, false, false],
    ['are not those of other components', { ...driver, labels: { [COMPONENT]: 'toolkit' } }, false, false],
  ])('%s', (_, pod, yes, isEvidence) => {
    const pods = [keptPod(pod)];
    const input = { ...new World().input(), pods, daemonSets: new Map([['driver-r', 'ds']]) };
    expect(componentPods(input, 'driver')).toEqual(yes ? pods : []);
    expect(operandPod(input, 'driver', 'r')).toBe(isEvidence ? pods[0] : undefined);
    // Whatever controls it: there is no DaemonSet of that revision.
    expect(operandPod(input, 'driver', 'other')).toBeUndefined();
  });
});

it.each<[what: string, target: Walk['target'], yes: boolean]>([
  ['a revision of ours', { driver: { revision: 'r' } }, true],
  ['another installer’s', { driver: { external: 'unwatched' } }, false],
  ['nothing yet', {}, false],
])('a component comes from a DaemonSet of ours where the node is to run %s', (_, target, yes) =>
  expect(isManagedHere({ walk: { ...newWalk('u', 'b', NOW), target } }, 'driver')).toBe(yes),
);

describe('a node that remembers its walk', () => {
  const walk: Walk = { ...newWalk('node-uid', 'boot-1', NOW), stage: 'driver' };
  const known = (more: Partial<Walk>): Walk =>
    remembered(nodeWith({ [WALK]: JSON.stringify({ ...walk, ...more }) }), NOW);
  it('remembers it as it was', () => expect(known({})).toEqual(walk));
  it('remembers nothing of another Node object of that name', () =>
    expect(known({ node: 'other' })).toMatchObject({ node: 'node-uid', stage: 'preflight' }));
  it.each<[key: string, of: (time: string) => Partial<Walk>]>([
    ['since', (since) => ({ since })],
    ['booted', (booted) => ({ booted })],
    ['notReady', (notReady) => ({ notReady })],
    ['labelGone', (labelGone) => ({ labelGone })],
    ['unselected', (unselected) => ({ unselected })],
    ['leaving', (leaving) => ({ leaving })],
    ['rollOut', (since) => ({ rollOut: { phase: 'drain', since } })],
  ])('takes a time that lies ahead for now, and leaves one that is past: %s', (_, of) => {
    expect(known(of(at(3_600_000)))).toMatchObject(of(at(0)));
    expect(known(of(at(-1)))).toMatchObject(of(at(-1)));
  });
});

describe('a node that has lost its memory', () => {
  const proof = {
    node: 'node-uid',
    boot: 'boot-1',
    at: at(-1000),
    level: 'full',
    driver: '595.91.07',
    components: {
      driver: { revision: 'd1', pod: 'p', started: at(-2000) },
      toolkit: { revision: 'external', pod: '', started: '' },
    },
  };
  const lost = (of: object | undefined, annotations: Record<string, string> = {}): Walk =>
    remembered(nodeWith({ ...(of === undefined ? {} : { [PROOF]: JSON.stringify(of) }), ...annotations }), NOW);
  it('begins from the start without a proof, in rounds of other names', () =>
    expect(lost(undefined)).toEqual({ ...newWalk('node-uid', 'boot-1', NOW), epoch: NOW / 1000 }));
  it('remembers what its proof says', () =>
    expect(lost(proof)).toEqual({
      ...newWalk('node-uid', 'boot-1', NOW),
      epoch: NOW / 1000,
      proven: 'boot-1',
      driver: '595.91.07',
      target: { driver: { revision: 'd1' }, toolkit: { external: 'unwatched' } },
      evidence: {
        driver: { ...proof.components.driver, boot: 'boot-1', proven: true },
        toolkit: { ...proof.components.toolkit, boot: 'boot-1', proven: true },
      },
    }));
  it('has booted now where its proof is of another boot', () =>
    expect(lost({ ...proof, boot: 'boot-0' })).toMatchObject({ proven: 'boot-0', booted: at(0) }));
  it('believes no proof of another Node object', () =>
    expect(lost({ ...proof, node: 'other' })).toEqual(lost(undefined)));
  it('knows no driver that the proof does not name', () => {
    const { driver: _, ...unnamed } = proof;
    expect(Object.keys(lost(unnamed))).not.toContain('driver');
  });
  it('takes words of a person for old that were there before', () =>
    expect(lost(undefined, { [RETRY]: '1', [PROVE]: 'full-2' })).toMatchObject({ retry: '1', prove: 'full-2' }));
});

describe('a proof counts', () => {
  const observed = (bootId: string | undefined, proof: string) => {
    const world = new World();
    const annotations = {
      [PROOF]: JSON.stringify({ node: 'node-uid', boot: proof, at: at(-1000), components: {} }),
    };
    const node = nodeWith(annotations);
    return observe({
      ...world.input({ ...node, status: { ...node.status, nodeInfo: bootId === undefined ? {} : { bootID: bootId } } }),
    } as WithPolicy).proof;
  };
  it.each([
    ['on its boot', 'boot-1', 'boot-1', true],
    ['on no other boot', 'boot-2', 'boot-1', false],
    ['while the status names no boot, also where the memory of the walk is lost', undefined, 'boot-1', true],
  ])('%s', (_, boot, proof, yes) => expect(observed(boot, proof) !== undefined).toBe(yes));
});
