import { describe, expect, it } from 'vitest';
import { DEPLOY_PREFIX, MANAGED, WALK } from '../../../core/keys.ts';
import { hasForeignFields, trimDaemonSet } from '../../../reconciler/model.ts';
import { leftOver, leftOverTemplates, wantedOperands, wantedTemplates } from '../../../reconciler/operands/wanted.ts';
import type { NodeObject } from '../../../reconciler/model.ts';
import { claimTemplate } from '../../../reconciler/manifests/claim-template.ts';
import { renderOperand, type Rendered } from '../../../reconciler/manifests/render.ts';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { fleetOf } from '../../builders/caches.ts';
import { aNode, aPolicy } from '../../builders/objects.ts';

const toolkit = (policy: GpuPolicy): readonly Rendered[] => [
  renderOperand('toolkit', policy, { namespace: 'gpu-gate-operands' }),
];
const named = (name: string, spec: object = {}, metadata: object = {}): GpuPolicy =>
  aPolicy(spec, { metadata: { name, uid: name, creationTimestamp: '2026-11-01T00:00:00Z', ...metadata } });
const names = (policies: readonly GpuPolicy[], nodes = [aNode()]): string[] =>
  [...wantedOperands(policies, fleetOf(nodes, policies), toolkit).values()].flatMap((one) =>
    one.policies.map((policy) => policy.name),
  );

describe('wanted is what a policy with an opted-in node deploys', () => {
  it.each([
    ['one policy, one node', [named('a')], [aNode()], ['a']],
    ['no node opted in', [named('a')], [aNode({ labels: { [MANAGED]: 'false' } })], []],
    ['the policy is going', [named('a', {}, { deletionTimestamp: 'x' })], [aNode()], []],
    [
      'the node is the older policy’s',
      [named('b', {}, { creationTimestamp: '2026-11-02T00:00:00Z' }), named('a')],
      [aNode()],
      ['a'],
    ],
  ])('%s', (_, policies, nodes, whose) => expect(names(policies, nodes)).toEqual(whose));

  it('policies that render the same share one DaemonSet', () => {
    const pools = [named('a', { nodeSelector: { pool: 'a' } }), named('b', { nodeSelector: { pool: 'b' } })];
    const nodes = [aNode({ name: 'a', labels: { pool: 'a' } }), aNode({ name: 'b', labels: { pool: 'b' } })];
    expect(wantedOperands(pools, fleetOf(nodes, pools), toolkit).size).toBe(1);
    expect(names(pools, nodes)).toEqual(['a', 'b']);
  });
});

describe('a claim template is wanted', () => {
  const template = (policy: GpuPolicy) => claimTemplate(policy, 'gpu-gate-operands', () => true);
  const walk = (target: object): Record<string, string> => ({
    [WALK]: JSON.stringify({ node: 'uid-node-a', boot: 'b', stage: 'done', target }),
  });
  const byClaim = aNode({ annotations: walk({ 'dra-driver': { revision: 'x' } }) });
  it.each<[what: string, policies: readonly GpuPolicy[], nodes: readonly NodeObject[], whose: readonly string[]]>([
    ['by a policy that allocates by claim', [named('a', { allocation: 'DRA' })], [aNode()], ['a']],
    ['and by none without a node', [named('a', { allocation: 'DRA' })], [], []],
    ['and by none that is going', [named('a', { allocation: 'DRA' }, { deletionTimestamp: 'x' })], [aNode()], []],
    ['and by none with device plugins', [aPolicy()], [aNode()], []],
    ['but one that has a node which keeps its claims', [aPolicy()], [byClaim], ['default']],
    ['and by none that counts no class', [named('a', { allocation: 'DRA', deviceClasses: [] })], [aNode()], []],
  ])('%s', (_, policies, nodes, whose) =>
    expect(
      [...wantedTemplates(policies, fleetOf(nodes, policies), template).values()].flatMap((one) =>
        one.policies.map(({ name }) => name),
      ),
    ).toEqual(whose),
  );
  it('is left over if no policy wants it', () => {
    const policies = [named('a', { allocation: 'DRA' }), named('b', { allocation: 'DRA' })];
    const wanted = wantedTemplates(policies, fleetOf([aNode()], policies), template);
    expect(wanted.size).toBe(1);
    const present = ['gpu-gate-operands/dra-validation-old', 'gpu-gate-operands/other', 'team/dra-validation-x'];
    const ours = [...wanted.keys()].map((name) => `gpu-gate-operands/${name}`);
    expect(leftOverTemplates([...present, ...ours], 'gpu-gate-operands', wanted)).toEqual(['dra-validation-old']);
  });
});

it('an object is left over if no policy wants it and no node names it', () => {
  const present = ['container-toolkit-old', 'container-toolkit-used', 'theirs'].map((name) => ({
    ...trimDaemonSet({ metadata: { name, uid: `ds-${name}`, labels: { 'app.kubernetes.io/part-of': 'gpu-gate' } } }),
    ours: name !== 'theirs',
  }));
  const node = aNode({ labels: { [`${DEPLOY_PREFIX}toolkit`]: 'used' } });
  expect(leftOver(present, new Map(), fleetOf([node], []))).toEqual(['container-toolkit-old']);
});

it.each([
  ['our apply alone', [{ manager: 'gpu-gate-reconciler', fieldsV1: { 'f:spec': {} } }], false],
  [
    'the controller’s status',
    [{ manager: 'kube-controller-manager', subresource: 'status', fieldsV1: { 'f:status': {} } }],
    false,
  ],
  ['an annotation of another writer', [{ manager: 'kubectl', fieldsV1: { 'f:metadata': {} } }], false],
  ['an env of another writer', [{ manager: 'kubectl-set', fieldsV1: { 'f:spec': { 'f:template': {} } } }], true],
  ['no managed fields', undefined, false],
])('foreign fields: %s', (_, entries, foreign) => expect(hasForeignFields(entries)).toBe(foreign));
