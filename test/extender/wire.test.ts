import { describe, expect, it } from 'vitest';
import { decodeArgs, decodePreemption, encodeError, encodeFilter } from '../../extender/wire.ts';
import { REASONS } from '../../gate/reasons.ts';
import { aNode } from '../builders/objects.ts';

describe('the scheduler’s protocol', () => {
  it('takes whole nodes, and sends back those that pass', () => {
    const nodes = [aNode({ name: 'a' }), aNode({ name: 'b' })];
    const decoded = decodeArgs({ Pod: {}, Nodes: { items: nodes }, NodeNames: null });
    if (!decoded.ok) throw new Error(decoded.because);
    const result = { passed: ['a'], refused: new Map([['b', REASONS.held]]) };
    expect(JSON.parse(encodeFilter(result, decoded.args.nodes))).toMatchObject({
      Nodes: { items: [{ metadata: { name: 'a' } }] },
      NodeNames: null,
      FailedAndUnresolvableNodes: { b: 'GPU node held by an operator' },
    });
  });
  it('carries an error in an answer that the scheduler reads', () =>
    expect(JSON.parse(encodeError('the list of nodes is not loaded yet'))).toMatchObject({
      NodeNames: [],
      Error: 'gpu-gate: the list of nodes is not loaded yet',
    }));
  const victims = (body: object): unknown => {
    const decoded = decodePreemption({ Pod: {}, ...body });
    return decoded.ok ? Object.fromEntries(decoded.args.victims) : decoded.because;
  };
  it.each([
    ['none', {}, {}],
    [
      'by UID',
      { NodeNameToMetaVictims: { a: { Pods: [{ UID: 'x' }, { UID: 7 }, null], NumPDBViolations: 2 } } },
      { a: { uids: ['x'], violations: 2 } },
    ],
    [
      'as whole pods',
      { NodeNameToMetaVictims: null, NodeNameToVictims: { a: { Pods: [{ metadata: { uid: 'y' } }, {}] } } },
      { a: { uids: ['y'], violations: 0 } },
    ],
    [
      'of an odd form',
      { NodeNameToVictims: { a: null, b: { Pods: 'x', NumPDBViolations: 'x' } } },
      {
        a: { uids: [], violations: 0 },
        b: { uids: [], violations: 0 },
      },
    ],
  ])('reads victims, %s', (_, body, expected) => expect(victims(body)).toEqual(expected));
  it.each([null, [], {}, { Pod: 'x' }])('says that %j is not a call', (body) =>
    expect(decodePreemption(body)).toMatchObject({ ok: false, because: expect.stringContaining('with a Pod') }),
  );
});
