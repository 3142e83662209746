// When proofs about to be withdrawn are kept: waves of losses, with a clock of the test's own.
import { describe, expect, it } from 'vitest';
import { BREAKER_RELEASE, CLOSED } from '../../../core/keys.ts';
import { circuitBreaker, SETTLE_MS } from '../../../reconciler/limits/breaker.ts';
import { aNode, aPolicy } from '../../builders/objects.ts';

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
  it('a node that recovers while it is judged, and is lost again later, is judged again', () => {
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
  it('goes on with the next leader: tripped, released, and over when its last node has recovered', () => {
    const { breaker, lose } = pool(4);
    for (const node of ['n0', 'n1', 'n2', 'n3']) lose(node);
    const status = { breaker: breaker.statusOf('default') ?? {} };
    expect(status.breaker).toEqual({ trippedAt: '1970-01-01T00:00:00.000Z', release: '' });
    const closed = (name: string) => aNode({ name, annotations: { [CLOSED]: 'circuit breaker' } });
    const next = circuitBreaker();
    next.recall([{ ...aPolicy(), status }], [closed('n0'), closed('n1'), aNode({ name: 'n2' })], 0);
    expect([next.holds, next.pending('default')]).toEqual([true, 2]);
    expect(next.judge(aPolicy(), 'n2', 4, 0).keep).toBe('circuit breaker');
    for (const node of ['n0', 'n1']) expect(next.calm(node, true)).toBe(false);
    expect([next.calm('n2', true), next.holds]).toEqual([true, false]);
    expect(next.statusOf('default')).toBeUndefined();
  });
  it('that was released stays released with the next leader, for the rest of the wave', () => {
    const released = { breaker: { releasedAt: new Date(0).toISOString() } };
    const next = circuitBreaker();
    next.recall([{ ...aPolicy(), status: released }], [], 60_000);
    for (const node of ['n0', 'n1', 'n2', 'n3']) expect(next.judge(aPolicy(), node, 4, 60_000).keep).toBeUndefined();
    expect(next.statusOf('default')).toEqual(released.breaker);
    next.recall([{ ...aPolicy(), status: released }], [], 700_000);
    expect(next.judge(aPolicy(), 'n0', 4, 700_000).keep).toBe('loss being judged');
  });
  it('whose nodes had all recovered while no replica led is over', () => {
    const status = { breaker: { trippedAt: new Date(0).toISOString(), release: '' } };
    const next = circuitBreaker();
    next.recall([{ ...aPolicy(), status }], [aNode()], 1000);
    expect([next.holds, next.statusOf('default')]).toEqual([false, undefined]);
  });
  it('says what a loss made of it', () => {
    const { breaker } = pool(4);
    const became = ['n0', 'n1', 'n2'].map((node) => breaker.judge(aPolicy(), node, 4, 0).became);
    expect(became).toEqual([undefined, undefined, 'tripped']);
    const released = { ...aPolicy(), annotations: { [BREAKER_RELEASE]: '1' } };
    expect(['n0', 'n1'].map((node) => breaker.judge(released, node, 4, 0).became)).toEqual(['released', undefined]);
  });
});
