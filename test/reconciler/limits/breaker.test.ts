// When proofs about to be withdrawn are kept: waves of losses, with a clock of the test's own.
import { describe, expect, it } from 'vitest';
import { BREAKER_RELEASE } from '../../../core/keys.ts';
import { circuitBreaker, SETTLE_MS } from '../../../reconciler/limits/breaker.ts';
import { aPolicy } from '../../builders/objects.ts';

/** A pool of proven nodes and its breaker. */
function pool(size: number) {
  const proven = new Set(Array.from({ length: size }, (_, i) => `n${i}`));
  let now = 0;
  const breaker = circuitBreaker();
  return {
    breaker,
    pass: (ms: number) => void (now += ms),
    /** Judges, and takes the proof away where the breaker lets it. */
    lose: (node: string, policy = aPolicy()) => {
      const { keep } = breaker.judge(policy, node, proven.size, now);
      if (keep === undefined) proven.delete(node);
      return keep;
    },
    restore: (node: string) => {
      proven.add(node);
      breaker.calm(node, true);
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
    expect(breaker.holds).toBe(true);
    const released = { ...aPolicy(), annotations: { [BREAKER_RELEASE]: '1' } };
    expect(['n0', 'n1', 'n2', 'n3'].map((node) => lose(node, released))).toEqual(Array(4).fill(undefined));
    expect(breaker.holds).toBe(false);
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
    breaker.calm('n0', true);
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
  it('losses that have gone before they were judged do not count', () => {
    const { lose, restore, pass } = pool(4);
    expect([lose('n0'), lose('n1')]).toEqual(['loss being judged', 'loss being judged']);
    restore('n0');
    restore('n1');
    pass(1000);
    expect([lose('n2'), lose('n3')]).toEqual(['loss being judged', 'loss being judged']);
  });
  it('is over when the last node that it kept has recovered, or is gone', () => {
    const { breaker, lose, restore } = pool(4);
    for (const node of ['n0', 'n1', 'n2', 'n3']) lose(node);
    expect(breaker.holds).toBe(true);
    for (const node of ['n0', 'n1', 'n2']) restore(node);
    expect(breaker.holds).toBe(true);
    breaker.forget('n3');
    expect(breaker.holds).toBe(false);
  });
  it('a node that is lost, proven and lost again counts once', () => {
    const { lose, restore, pass } = pool(4);
    for (let i = 0; i < 4; i += 1) {
      lose('n0');
      pass(SETTLE_MS);
      expect(lose('n0')).toBeUndefined();
      restore('n0');
    }
    expect(lose('n1')).toBe('loss being judged');
    expect(lose('n2')).toBe('circuit breaker');
  });
});
