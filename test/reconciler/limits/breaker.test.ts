// When proofs about to be withdrawn are kept: waves of losses, with a clock of the test's own.
import { describe, expect, it } from 'vitest';
import { BREAKER_RELEASE, NODE_POLICY, PROOF } from '../../../core/keys.ts';
import { jsonLog } from '../../../platform/log.ts';
import { circuitBreaker, SETTLE_MS } from '../../../reconciler/limits/breaker.ts';
import type { NodeObject } from '../../../reconciler/model.ts';
import { aNode, aPolicy } from '../../builders/objects.ts';

/** A pool of proven nodes and its breaker. */
function pool(size: number) {
  const nodes = new Map<string, NodeObject>();
  for (let i = 0; i < size; i += 1)
    nodes.set(`n${i}`, aNode({ name: `n${i}`, annotations: { [NODE_POLICY]: 'default', [PROOF]: '{}' } }));
  let now = 0;
  const breaker = circuitBreaker({ nodes, now: () => now, log: jsonLog('error', () => undefined) });
  return {
    breaker,
    pass: (ms: number) => void (now += ms),
    /** Judges, and takes the proof away where the breaker lets it. */
    lose: (node: string, policy = aPolicy()) => {
      const keep = breaker.judge(policy, node);
      if (keep === undefined) nodes.set(node, aNode({ name: node, annotations: { [NODE_POLICY]: 'default' } }));
      return keep;
    },
  };
}

describe('the circuit breaker', () => {
  it('a wave: the first nodes are only closed until the others are seen, then every proof is kept', () => {
    const { breaker, lose, pass } = pool(4);
    expect([lose('n0'), lose('n1')]).toEqual(['loss being judged', 'loss being judged']);
    pass(SETTLE_MS - 1);
    expect([lose('n2'), lose('n3')]).toEqual(['circuit breaker', 'circuit breaker']);
    pass(1);
    expect([lose('n0'), lose('n1')]).toEqual(['circuit breaker', 'circuit breaker']);
    expect(breaker.anywhere).toBe(true);
    const released = { ...aPolicy(), annotations: { [BREAKER_RELEASE]: '1' } };
    expect(['n0', 'n1', 'n2', 'n3'].map((node) => lose(node, released))).toEqual(Array(4).fill(undefined));
    expect(breaker.anywhere).toBe(false);
  });
  it('a loss that stays alone is believed once it was judged', () => {
    const { lose, pass } = pool(10);
    expect(lose('n0')).toBe('loss being judged');
    pass(SETTLE_MS);
    expect(lose('n0')).toBeUndefined();
  });
  it('a node that mends while it is judged, and is lost again later, is judged anew', () => {
    const { breaker, lose, pass } = pool(10);
    expect(lose('n0')).toBe('loss being judged');
    breaker.calm('n0');
    pass(SETTLE_MS);
    expect(lose('n0')).toBe('loss being judged');
  });
  it('in a pool too small for it ever to trip nothing is waited for', () => {
    const { lose } = pool(2);
    expect([lose('n0'), lose('n1')]).toEqual([undefined, undefined]);
  });
  it('losses more than ten minutes apart are no wave', () => {
    const { lose, pass } = pool(4);
    for (const node of ['n0', 'n1', 'n2', 'n3']) {
      lose(node);
      pass(SETTLE_MS);
      expect(lose(node)).toBeUndefined();
      pass(600_001);
    }
  });
});
