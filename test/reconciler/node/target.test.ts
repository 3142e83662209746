// Which stack a node is to run, as values; test/reconciler/node/adversary.test.ts loses labels,
// policies and memories, and finds the stack kept.
import { describe, expect, it } from 'vitest';
import type { ComponentEvidence, Proof } from '../../../gate/node-proof.ts';
import { heldTarget, provesTarget, targetOf, UNWATCHED, type TargetInput } from '../../../reconciler/node/target.ts';
import { newWalk } from '../../../reconciler/walk.ts';
import { NOW } from '../../builders/objects.ts';

const walk = newWalk('n', 'b', NOW);
const selector = (app: string) => ({
  external: { namespace: 'other', matchLabels: { app } },
});
const ours = (revision: string) => ({ revision });
const at = '2026-11-24T09:00:00Z';
const proofOf = (components: Proof['components']): Proof => ({ node: 'n', boot: 'b', at, components }) as Proof;
const evidence = (started: string, pod = 'p'): ComponentEvidence => ({ revision: 'external', pod, started });

describe('what a node runs', () => {
  it.each<[what: string, target: TargetInput['held'], deployed: object, held: TargetInput['held']]>([
    ['is what it remembers', { driver: ours('d1') }, { driver: 'x' }, { driver: ours('d1') }],
    ['is what its labels say where it remembers nothing', {}, { driver: 'x' }, { driver: ours('x') }],
    [
      'has one allocator: that which it remembers',
      { 'dra-driver': ours('r') },
      { 'device-plugin': 'x' },
      { 'dra-driver': ours('r') },
    ],
    ['is nothing of what gates nothing', {}, { 'dcgm-exporter': 'x' }, {}],
  ])('%s', (_, target, deployed, held) => expect(heldTarget({ ...walk, target }, deployed)).toEqual(held));
});

describe('a proof is of the stack', () => {
  it.each<[what: string, target: TargetInput['held'], yes: boolean]>([
    ['where the driver is the same', { driver: ours('d1'), toolkit: ours('t1') }, true],
    [
      'where the device plugin is another',
      { driver: ours('d1'), toolkit: ours('t1'), 'device-plugin': ours('x') },
      true,
    ],
    ['not where the driver is another', { driver: ours('d2'), toolkit: ours('t1') }, false],
    ['not where the toolkit is another', { driver: ours('d1'), toolkit: ours('t2') }, false],
    ['not where another installer brings the driver now', { driver: selector('d'), toolkit: ours('t1') }, false],
  ])('%s', (_, target, yes) => {
    const of = (revision: string): ComponentEvidence => ({ revision, pod: 'p', started: at });
    expect(provesTarget(proofOf({ driver: of('d1'), toolkit: of('t1'), 'device-plugin': of('p1') }), target)).toBe(yes);
    expect(provesTarget(proofOf({}), target)).toBe(true);
  });
});

describe('the target', () => {
  const held = { driver: ours('d1'), 'device-plugin': ours('p1') };
  const wanted = { driver: ours('d2'), 'device-plugin': ours('p2') };
  it.each<[what: string, input: Partial<TargetInput>, target: TargetInput['held']]>([
    ['stays though the policy says another one', {}, held],
    ['is what the policy says on a node without one', { held: {} }, wanted],
    ['is what the node takes', { takes: wanted }, wanted],
    ['stays where the policy says nothing of it', { wanted: {} }, held],
    [
      'stays where what another installer brings is not in the policy',
      { held: { driver: selector('a') }, wanted: {} },
      { driver: selector('a') },
    ],
    [
      'follows the selector of another installer at once',
      { held: { driver: selector('a') }, wanted: { driver: selector('b') } },
      { driver: selector('b') },
    ],
    [
      'keeps another installer’s component though the policy would install it',
      { held: { driver: selector('a') }, wanted: { driver: ours('d2') } },
      { driver: selector('a') },
    ],
    ['keeps ours though the policy leaves it to another installer', { wanted: { driver: selector('a') } }, held],
    ['keeps the allocator', { wanted: { driver: ours('d2'), 'dra-driver': ours('r') } }, held],
    [
      'takes another allocator',
      {
        takes: { driver: ours('d2'), 'dra-driver': ours('r') },
        wanted: { driver: ours('d2'), 'dra-driver': ours('r') },
      },
      { driver: ours('d2'), 'dra-driver': ours('r') },
    ],
  ])('%s', (_, input, target) =>
    expect(targetOf({ walk, proof: undefined, held, wanted, takes: undefined, ...input }).target).toEqual(target),
  );
});

describe('the proof of a node whose policy names other pods of another installer', () => {
  const followed = (started: string, pod = 'p', to = selector('b')) =>
    targetOf({
      walk,
      proof: proofOf({ driver: evidence(started, pod), toolkit: { revision: 't', pod: 'q', started: at } }),
      held: { driver: selector('a') },
      wanted: { driver: to },
      takes: undefined,
    }).proof?.components;
  const toolkit = { revision: 't', pod: 'q', started: at };
  it.each<[what: string, before: string, pod: string, started: string]>([
    ['is believed of starts before it was made', '2026-11-24T08:00:00Z', 'p', at],
    ['is believed of a start that it was made with', at, 'p', at],
    ['is believed of a later start that was known', '2026-11-24T09:30:00Z', 'p', '2026-11-24T09:30:00Z'],
    [
      'is believed of nothing more where the pods were named otherwise before',
      '2026-11-24T08:00:00Z',
      '',
      '2026-11-24T08:00:00Z',
    ],
  ])('%s', (_, before, pod, started) =>
    expect(followed(before, pod)).toEqual({ driver: { ...UNWATCHED, started }, toolkit }),
  );
  it('stays as it is where the selector does', () =>
    expect(followed('2026-11-24T08:00:00Z', 'p', selector('a'))).toEqual({
      driver: evidence('2026-11-24T08:00:00Z'),
      toolkit,
    }));
});
