// The marks that a node should carry → the fewest writes, in the safe order.
import { describe, expect, it } from 'vitest';
import {
  CLOSED,
  DEPLOY_PREFIX,
  GPU_VALIDATED,
  NODE_POLICY,
  PROOF,
  STARTUP_TAINT,
  STATE,
  WAKE,
  WALK,
} from '../../../core/keys.ts';
import { differences, hasOurTaint, type Desired } from '../../../reconciler/node/marks.ts';
import type { NodeObject, Taint } from '../../../reconciler/model.ts';
import { newWalk } from '../../../reconciler/walk.ts';
import { afterWrite, NOW } from '../../builders/objects.ts';

const bare: NodeObject = { metadata: { name: 'n', uid: 'u', resourceVersion: '1' } };
const walk = newWalk('u', 'boot-1', NOW);
const proof = { node: 'u', boot: 'boot-1', at: new Date(NOW).toISOString(), level: 'full', components: {} } as const;
const all: Desired = {
  state: 'validated',
  deploy: { driver: 'd1' },
  proof,
  closed: 'roll-out',
  walk,
  policy: 'default',
  condition: { status: 'True', reason: 'Validated', said: { text: 'validated' } },
  taint: true,
};
const nothing: Desired = {
  state: undefined,
  deploy: {},
  proof: undefined,
  closed: undefined,
  walk: undefined,
  policy: undefined,
  condition: undefined,
  taint: false,
};
/** The node after the writes, as an API server would have it. */
const written = (node: NodeObject, desired: Desired): NodeObject =>
  differences(node, desired).reduce((before, action) => afterWrite(before, action) ?? before, node);
const kinds = (node: NodeObject, desired: Desired): readonly string[] =>
  differences(node, desired).map(({ kind }) => kind);
const tainted = (node: NodeObject, taints: readonly Taint[]): NodeObject => ({
  ...node,
  spec: { ...node.spec, taints },
});
const marked = written(bare, all);
const OTHER: Taint = { key: 'other', effect: 'NoExecute' };
const OURS: Taint = { key: STARTUP_TAINT, effect: 'NoSchedule' };

describe('the writes', () => {
  it('put every mark on a node that has none', () => {
    expect(marked.metadata.labels).toEqual({ [STATE]: 'validated', [`${DEPLOY_PREFIX}driver`]: 'd1' });
    expect(Object.keys(marked.metadata.annotations ?? {}).toSorted()).toEqual(
      [CLOSED, NODE_POLICY, PROOF, WALK].toSorted(),
    );
    expect(marked.spec?.taints).toEqual([OURS]);
    expect(marked.status?.conditions).toMatchObject([
      { type: GPU_VALIDATED, status: 'True', reason: 'Validated', message: 'validated' },
    ]);
  });
  it('are none where all is as it should be', () => {
    expect(differences(marked, all)).toEqual([]);
    expect(differences(bare, nothing)).toEqual([]);
  });
  it('take every mark off, and the wake of waiting pods with them', () => {
    const { metadata } = marked;
    const woken = { ...marked, metadata: { ...metadata, annotations: { ...metadata.annotations, [WAKE]: '1' } } };
    const left = written(woken, nothing);
    expect([left.metadata.labels, left.metadata.annotations, left.spec?.taints]).toEqual([{}, {}, []]);
    expect(left.status?.conditions).toEqual([]);
  });
  it('leave the wake of waiting pods on a node that keeps its marks', () => {
    const { metadata } = marked;
    const woken = { ...marked, metadata: { ...metadata, annotations: { ...metadata.annotations, [WAKE]: '1' } } };
    expect(differences(woken, all)).toEqual([]);
  });
  it('put the taint on before the condition, and take it off after it', () => {
    expect(kinds(bare, all)).toEqual(['patch-node', 'set-taints', 'set-node-condition']);
    expect(kinds(marked, nothing)).toEqual(['patch-node', 'set-node-condition', 'set-taints']);
  });
  it('leave the taints of others', () => {
    expect(written(tainted(bare, [OTHER]), all).spec?.taints).toEqual([OTHER, OURS]);
    expect(written(tainted(marked, [OURS, OTHER]), nothing).spec?.taints).toEqual([OTHER]);
    expect(kinds(tainted(marked, [OTHER, OURS]), all)).toEqual([]);
  });
  it.each<[what: string, condition: Desired['condition']]>([
    ['status', { status: 'False', reason: 'Validated', said: { text: 'validated' } }],
    ['reason', { status: 'True', reason: 'Closed', said: { text: 'validated' } }],
    ['message', { status: 'True', reason: 'Validated', said: { text: 'closed' } }],
  ])('write the condition where its %s differs', (_, condition) =>
    expect(kinds(marked, { ...all, condition })).toContain('set-node-condition'),
  );
  it('do not depend on the order of the fields of the memory', () => {
    const turned = Object.fromEntries(Object.entries(walk).toReversed()) as unknown as typeof walk;
    expect(differences(marked, { ...all, walk: turned })).toEqual([]);
  });
});

it.each<[what: string, node: NodeObject, yes: boolean]>([
  ['with it', tainted(bare, [OTHER, OURS]), true],
  ['with another', tainted(bare, [OTHER]), false],
  ['with none', bare, false],
])('a node %s has our taint', (_, node, yes) => expect(hasOurTaint(node)).toBe(yes));
