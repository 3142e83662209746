// The extender and pods with claims, both ways: refused nodes with their reason, and an Error while
// a claim is not known.
import { describe, expect, it } from 'vitest';
import { byNameWay } from '../../extender/by-name/way.ts';
import { NodeTable } from '../../extender/by-name/table.ts';
import { plain } from '../../extender/plain.ts';
import { HOLD } from '../../core/keys.ts';
import { nodeFacts } from '../../gate/verdict.ts';
import { claiming, DEVICES } from '../builders/devices.ts';
import { aNode, aPod, aPolicy } from '../builders/objects.ts';

const nodes = new NodeTable();
for (const node of [aNode({ name: 'node-a', annotations: { [HOLD]: 'x' } }), aNode({ name: 'node-b' })])
  nodes.set(node.metadata.name, nodeFacts(node));
const view = {
  nodes,
  policies: new Map([['default', aPolicy()]]),
  devices: DEVICES,
  operandNamespace: 'o',
};
const call = (how: object): Buffer =>
  Buffer.from(JSON.stringify({ Pod: aPod({ spec: claiming(how) }), Nodes: null, NodeNames: ['node-a', 'node-b'] }));
const HELD = 'GPU node held by an operator';

describe.each([
  ['by names', byNameWay()],
  ['as every call is answered', plain],
])('a filter call %s', (_, way) => {
  const refused = (how: object): unknown => {
    const answered = way.filter(call(how), view);
    if (answered?.ok !== true) throw new Error(JSON.stringify(answered));
    return (JSON.parse(answered.body.toString()) as { FailedAndUnresolvableNodes: unknown }).FailedAndUnresolvableNodes;
  };
  it.each([
    ['not allocated', { resourceClaimName: 'gpu' }, HELD],
    ['of a template', { resourceClaimTemplateName: 'gpu' }, HELD],
    ['allocated', { resourceClaimName: 'here' }, `the pod waits for the node of its allocated GPU claim: ${HELD}`],
  ])('refuses a node that is not open to a claim that is %s', (_, how, sentence) =>
    expect(refused(how)).toEqual({ 'node-a': sentence }),
  );
  it('refuses nothing to a claim for another device', () => expect(refused({ resourceClaimName: 'fpga' })).toEqual({}));
  it('answers in error while the claim is not known, so that the scheduler tries again soon', () =>
    expect(way.filter(call({ resourceClaimName: 'late' }), view)).toEqual({
      ok: false,
      because: 'ResourceClaim team/late is not known yet; the pod is retried',
      withheld: true,
    }));
});
