// The index against a scan: whatever changes, in whatever order, both say the same.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CLOSED, DEPLOY_PREFIX, MANAGED, NODE_POLICY, PROOF, STATE, WALK } from '../../core/keys.ts';
import { selectorId } from '../../reconciler/evidence.ts';
import { fleet, isSilent, marksOf, rememberedBy } from '../../reconciler/fleet.ts';
import { figuresOf } from '../../reconciler/gauges.ts';
import type { NodeObject } from '../../reconciler/model.ts';
import { enforcement } from '../../reconciler/policies/status.ts';
import { newWalk } from '../../reconciler/walk.ts';
import { fleetOf } from '../builders/caches.ts';
import { aNode, aPolicy, NOW } from '../builders/objects.ts';

const policy = (name: string, nodeSelector: Record<string, string>) =>
  aPolicy({ nodeSelector }, { metadata: { name, uid: name, creationTimestamp: `2026-11-0${name}T00:00:00Z` } });
const POLICIES = [policy('1', {}), policy('2', { pool: 'a' }), policy('3', { pool: 'b' })];
const NAMES = ['x', 'y', 'z'];

const someNode = fc
  .record({
    name: fc.constantFrom(...NAMES),
    managed: fc.boolean(),
    state: fc.constantFrom('validated', 'driver', 'failed', undefined),
    pool: fc.constantFrom('a', 'b', 'c'),
    of: fc.constantFrom('1', '2'),
    proof: fc.boolean(),
    closed: fc.boolean(),
    revision: fc.constantFrom('r1', 'r2', undefined),
    ready: fc.constantFrom('True', 'Unknown'),
    driver: fc.constantFrom('a', 'b', undefined),
  })
  .map((it): NodeObject => {
    const node = aNode({ name: it.name });
    const labels: Record<string, string> = { [MANAGED]: String(it.managed), pool: it.pool };
    if (it.state !== undefined) labels[STATE] = it.state;
    if (it.revision !== undefined) labels[`${DEPLOY_PREFIX}driver`] = it.revision;
    const annotations: Record<string, string> = { [NODE_POLICY]: it.of };
    if (it.proof) annotations[PROOF] = node.metadata.annotations?.[PROOF] ?? '';
    if (it.closed) annotations[CLOSED] = 'x';
    if (it.driver !== undefined)
      annotations[WALK] = JSON.stringify({
        ...newWalk(node.metadata.uid, 'boot-1', NOW),
        target: { driver: { external: { namespace: 'theirs', matchLabels: { app: it.driver } } } },
      });
    const [, validated] = node.status?.conditions ?? [];
    const conditions = [{ type: 'Ready', status: it.ready }, ...(validated === undefined ? [] : [validated])];
    return { ...node, metadata: { ...node.metadata, labels, annotations }, status: { ...node.status, conditions } };
  });
const change = fc.oneof(
  { weight: 6, arbitrary: someNode.map((node) => ({ node }) as const) },
  { weight: 1, arbitrary: fc.constantFrom(...NAMES).map((gone) => ({ gone }) as const) },
  { weight: 1, arbitrary: fc.subarray(POLICIES).map((policies) => ({ policies }) as const) },
);

it('counts what a scan counts after any changes', () =>
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
      const nodes = new Map<string, NodeObject>();
      let policies = POLICIES;
      const index = fleet();
      index.select(policies, []);
      for (const one of changes) {
        if ('node' in one) {
          nodes.set(one.node.metadata.name, one.node);
          index.update(one.node.metadata.name, one.node);
        } else if ('gone' in one) {
          nodes.delete(one.gone);
          index.update(one.gone, undefined);
        } else {
          policies = one.policies;
          index.select(policies, nodes.values());
        }
      }
      const scanned = new Map<string, Set<string>>();
      for (const node of nodes.values())
        for (const mark of marksOf(node, policies))
          scanned.set(mark.join(' '), (scanned.get(mark.join(' ')) ?? new Set()).add(node.metadata.name));
      for (const node of nodes.values())
        for (const mark of marksOf(node, policies)) {
          expect(new Set(index.names(...mark))).toEqual(scanned.get(mark.join(' ')));
          expect(index.count(...mark)).toBe(scanned.get(mark.join(' '))?.size);
        }
      const remembered = [...nodes.values()].flatMap(rememberedBy).map(selectorId);
      expect([...index.remembered()].map(selectorId).toSorted()).toEqual([...new Set(remembered)].toSorted());
      const states = [...index.states()].map(({ policy, state }) => `state ${policy} ${state}`);
      expect(states.toSorted()).toEqual([...scanned.keys()].filter((mark) => mark.startsWith('state ')).toSorted());
    }),
    { numRuns: 300 },
  ));

describe('a change names the marks that it changed', () => {
  const index = fleetOf([aNode()], [aPolicy()]);
  it.each([
    ['the same node again', aNode(), []],
    ['closed', aNode({ annotations: { [CLOSED]: 'x' } }), ['open', 'on its way']],
    ['open again', aNode(), ['open', 'on its way']],
    ['a revision', aNode({ labels: { [`${DEPLOY_PREFIX}driver`]: 'r' } }), ['runs']],
    ['gone', undefined, ['open', 'of', 'state', 'proven', 'runs', 'managed', 'selected', 'led']],
  ])('%s', (_, node, marks) => expect([...index.update('node-a', node)].toSorted()).toEqual([...marks].toSorted()));
});

it('a node is silent while its kubelet reports nothing, and not if the kubelet reports that it is not ready', () => {
  const ready = (status: string) => ({ ...aNode(), status: { conditions: [{ type: 'Ready', status }] } });
  expect(['True', 'False', 'Unknown'].map((status) => isSilent(ready(status)))).toEqual([false, false, true]);
});

it('figures show the states of a policy that no node is in, and nodes of a policy that is gone', () => {
  const nodes = [aNode(), aNode({ name: 'b', annotations: { [NODE_POLICY]: 'gone' } })];
  const { nodes: figures, open } = figuresOf(fleetOf(nodes, [aPolicy()]), [aPolicy()]);
  expect(open).toBe(2);
  expect(figures).toContainEqual({ state: 'validated', policy: 'default', count: 1 });
  expect(figures).toContainEqual({ state: 'validated', policy: 'gone', count: 1 });
  expect(figures).toContainEqual({ state: 'failed', policy: 'default', count: 0 });
});

describe('GPUs by Dynamic Resource Allocation', () => {
  const plain = { ...aNode({ name: 'plain', gpus: '0' }), metadata: { name: 'plain', uid: 'u', resourceVersion: '1' } };
  const auditing = aPolicy({}, { status: {} });
  const cluster = () => {
    const index = fleetOf([aNode(), plain], [auditing]);
    const tell = (name: string, node: string | undefined): void => {
      for (const changed of index.slice(name, node)) if (changed === 'plain') index.update(changed, plain);
    };
    return { index, tell, enforces: () => enforcement(auditing, index) };
  };
  it('hold up Auto on a node that is not opted in, though its kubelet offers none; they go with its last slice', () => {
    const { tell, enforces } = cluster();
    expect(enforces().enforcing).toBe(true);
    tell('a', 'plain');
    tell('b', 'plain');
    tell('b', 'plain');
    expect(enforces()).toMatchObject({ enforcing: false, reason: 'NodesNotValidated' });
    expect(enforces().message).toContain('opt them in: kubectl label node plain gpu-gate.dev/managed=true');
    tell('a', undefined);
    expect(enforces().enforcing).toBe(false);
    tell('b', 'another');
    expect(enforces().enforcing).toBe(true);
  });
  it('that are known before their node hold up Auto when it comes', () => {
    const index = fleetOf([aNode()], [auditing]);
    expect(index.slice('a', 'plain')).toEqual(['plain']);
    expect(index.update('plain', plain)).toContain('awaited');
    expect(enforcement(auditing, index).enforcing).toBe(false);
  });
  it('hold up nothing on a node that was validated', () => {
    const index = fleetOf([aNode()], [auditing]);
    index.slice('a', 'node-a');
    index.update('node-a', aNode());
    expect(enforcement(auditing, index).enforcing).toBe(true);
  });
});
