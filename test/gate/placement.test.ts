// What keeps a pod off a node apart from the gate, as Kubernetes' own filters judge it.
import { describe, expect, it } from 'vitest';
import { STARTUP_TAINT } from '../../core/keys.ts';
import { namedNodes, obstacleTo, placementOf } from '../../gate/placement.ts';
import type { NodeView } from '../../gate/node-proof.ts';

type Taint = NonNullable<NonNullable<NodeView['spec']>['taints']>[number];
const LABELS = { pool: 'a', gpus: '8', empty: '' };
const nodeWith = (...taints: Taint[]): NodeView => ({
  metadata: { name: 'gpu-1', uid: 'u', labels: LABELS },
  spec: { taints },
});
const why = (spec: object, ...taints: Taint[]): string | undefined =>
  obstacleTo(placementOf(spec), nodeWith(...taints))?.text;
const required = (...nodeSelectorTerms: object[]): object => ({
  affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms } } },
});
const label = (key: string, operator: string, ...values: string[]): object => ({
  matchExpressions: [{ key, operator, values }],
});
const field = (operator: string, ...values: string[]): object => ({
  matchFields: [{ key: 'metadata.name', operator, values }],
});
const AFFINITY = "the pod's node affinity is not met";

describe('a nodeSelector', () => {
  it.each([
    [{}, undefined],
    [{ pool: 'a', gpus: '8' }, undefined],
    [{ empty: '' }, undefined],
    [{ pool: 'b' }, "the pod's nodeSelector pool=b is not met"],
    [{ gpus: '8', zone: 'x' }, "the pod's nodeSelector zone=x is not met"],
    [{ constructor: 'x' }, "the pod's nodeSelector constructor=x is not met"],
  ])('%j', (nodeSelector, text) => expect(why({ nodeSelector })).toBe(text));
});

describe('a required node affinity', () => {
  it.each<[string, object, boolean]>([
    ['In', required(label('pool', 'In', 'b', 'a')), true],
    ['In, another value', required(label('pool', 'In', 'b')), false],
    ['In, no label', required(label('zone', 'In', 'b')), false],
    ['NotIn', required(label('pool', 'NotIn', 'a')), false],
    ['NotIn, no label', required(label('zone', 'NotIn', 'a')), true],
    ['Exists', required(label('pool', 'Exists')), true],
    ['Exists, no label', required(label('zone', 'Exists')), false],
    ['NotIn, another value', required(label('pool', 'NotIn', 'b')), true],
    ['DoesNotExist', required(label('pool', 'DoesNotExist')), false],
    ['DoesNotExist, no label', required(label('zone', 'DoesNotExist')), true],
    ['Gt, a number with a unit', required(label('gpus', 'Gt', '7x')), false],
    ['Gt, text that ends as a number', required(label('gpus', 'Gt', 'x7')), false],
    ['Gt, two digits', required(label('gpus', 'Gt', '10')), false],
    ['Lt, two digits', required(label('gpus', 'Lt', '10')), true],
    ['Gt, below zero', required(label('gpus', 'Gt', '-1')), true],
    ['Gt', required(label('gpus', 'Gt', '7')), true],
    ['Gt, as many', required(label('gpus', 'Gt', '8')), false],
    ['Gt, not a number', required(label('pool', 'Gt', '7')), false],
    ['Lt', required(label('gpus', 'Lt', '9')), true],
    ['Lt, no label', required(label('zone', 'Lt', '9')), false],
    ['an operator of tomorrow', required(label('pool', 'Like', 'a*')), true],
    ['one of two terms', required(label('pool', 'In', 'b'), label('gpus', 'Exists')), true],
    [
      'both expressions of a term',
      required({
        matchExpressions: [
          { key: 'pool', operator: 'Exists' },
          { key: 'zone', operator: 'Exists' },
        ],
      }),
      false,
    ],
    ['an empty term', required({}), false],
    ['the node by its name', required(field('In', 'gpu-1')), true],
    ['another node by its name', required(field('In', 'gpu-2')), false],
    ['any node but one', required(field('NotIn', 'gpu-1')), false],
    [
      'a preferred one alone',
      {
        affinity: {
          nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ preference: label('zone', 'Exists') }] },
        },
      },
      true,
    ],
  ])('%s', (_, spec, met) => expect(why(spec)).toBe(met ? undefined : AFFINITY));
  it.each([
    ['one', required(field('In', 'gpu-3')), ['gpu-3']],
    ['one for each term', required(field('In', 'gpu-3'), field('In', 'gpu-4')), ['gpu-3', 'gpu-4']],
    ['a term without a name', required(field('In', 'gpu-3'), label('pool', 'Exists')), undefined],
    ['all but one', required(field('NotIn', 'gpu-3')), undefined],
    ['none', {}, undefined],
  ])('names nodes: %s', (_, spec, names) => expect(namedNodes(placementOf(spec))).toEqual(names));
});

describe('a taint', () => {
  const POOL: Taint = { key: 'nvidia.com/gpu', value: 'present', effect: 'NoSchedule' };
  const text = 'the pod does not tolerate the taint nvidia.com/gpu=present:NoSchedule';
  it.each<[string, object[] | null | undefined, boolean]>([
    ['no toleration', undefined, false],
    ['null', null, false],
    ['the key, Exists', [{ key: 'nvidia.com/gpu', operator: 'Exists' }], true],
    ['the key and the effect', [{ key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' }], true],
    ['another effect', [{ key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoExecute' }], false],
    ['the value, no operator', [{ key: 'nvidia.com/gpu', value: 'present' }], true],
    ['another value', [{ key: 'nvidia.com/gpu', operator: 'Equal', value: 'x' }], false],
    ['everything', [{ operator: 'Exists' }], true],
    ['another key', [{ key: 'amd.com/gpu', operator: 'Exists' }], false],
    ['an operator of tomorrow', [{ key: 'nvidia.com/gpu', operator: 'Like', value: 'p*' }], true],
  ])('and %s', (_, tolerations, yes) => expect(why({ tolerations }, POOL)).toBe(yes ? undefined : text));
  it.each([
    ['Gt', '5', true],
    ['Gt', '9', false],
    ['Lt', '9', true],
    ['Lt', '7', false],
  ])('with a number and a toleration %s %s', (operator, value, yes) => {
    const taint = { key: 'slots', value: '7', effect: 'NoExecute' };
    const found = why({ tolerations: [{ key: 'slots', operator, value }] }, taint);
    expect(found === undefined).toBe(yes);
  });
  it('without a value', () =>
    expect(why({}, { key: 'dedicated', effect: 'NoExecute' })).toBe(
      'the pod does not tolerate the taint dedicated:NoExecute',
    ));
  it.each<Taint>([
    { key: STARTUP_TAINT, effect: 'NoSchedule' },
    { key: 'node.kubernetes.io/not-ready', effect: 'NoExecute' },
    { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' },
    { key: 'node.cloudprovider.kubernetes.io/uninitialized', value: 'true', effect: 'NoSchedule' },
    { key: 'nvidia.com/gpu', effect: 'PreferNoSchedule' },
  ])('that goes by itself, or keeps nothing off: %j', (taint) => expect(why({}, taint)).toBeUndefined());
  it('is looked at after selector and affinity, the first that is not tolerated', () => {
    const other = { key: 'other', effect: 'NoSchedule' };
    expect(why({ nodeSelector: { zone: 'x' } }, POOL)).toContain('nodeSelector');
    expect(why({ tolerations: [{ key: 'nvidia.com/gpu', operator: 'Exists' }] }, POOL, other)).toContain('other');
  });
});

it('whatever the JSON holds, it is read without a fault', () => {
  for (const spec of [
    undefined,
    {},
    { affinity: 7 },
    { affinity: { nodeAffinity: [] } },
    { tolerations: [null, 7] },
    required(null as never, 7 as never),
  ])
    expect(() => obstacleTo(placementOf(spec as never), nodeWith({ key: 'k', effect: 'NoSchedule' }))).not.toThrow();
});
