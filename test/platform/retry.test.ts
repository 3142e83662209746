import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { afterWatch, CALM, type Ended, type Next } from '../../platform/retry.ts';

/** What follows each of these ends. */
const following = (...ends: readonly Ended[]): readonly Next[] => {
  let retry = CALM;
  return ends.map((end) => {
    const next = afterWatch(retry, end, 1);
    retry = next.retry;
    return next;
  });
};
const times = (count: number, end: Ended): readonly Ended[] => Array.from({ length: count }, () => end);

describe('after a watch has ended', () => {
  it('a quiet stream that is cut again and again goes on at once, from its version', () => {
    for (const next of following(...times(20, { lived: 12_000, failure: 'cut' })))
      expect([next.pauseMs, next.list]).toEqual([0, false]);
  });
  it('an ordinary end goes on at once', () =>
    expect(following({ lived: 300_000, failure: 'none' })).toEqual([
      { retry: CALM, pauseMs: 0, list: false, report: false },
    ]));
  it('streams that end at once are opened less and less often, whatever ends them', () => {
    for (const failure of ['none', 'cut'] as const) {
      const pauses = following(...times(8, { lived: 10, failure })).map(({ pauseMs }) => pauseMs);
      expect(pauses).toEqual([190, 390, 790, 1590, 3190, 6390, 9990, 9990]);
    }
  });
  it('an unreachable server keeps its place in the watch: nothing is listed again', () => {
    const all = following(...times(30, { lived: undefined, failure: 'cut' }));
    expect(all.some(({ list }) => list)).toBe(false);
    expect(all.at(-1)?.pauseMs).toBe(10_000);
    expect(all.flatMap(({ report }, i) => (report ? [i + 1] : []))).toEqual([1, 10, 20, 30]);
  });
  it('a version that is gone is listed at once, and then less and less often', () => {
    const all = following(...times(4, { lived: undefined, failure: 'gone' }));
    expect(all.map(({ pauseMs, list }) => [pauseMs, list])).toEqual([
      [0, true],
      [200, true],
      [400, true],
      [800, true],
    ]);
    const [, , again] = following(
      { lived: undefined, failure: 'gone' },
      { lived: 5000, failure: 'cut' },
      { lived: undefined, failure: 'gone' },
    );
    expect(again).toMatchObject({ pauseMs: 0, list: true });
  });
  it('a server that goes on refusing the version is listed', () =>
    expect(following(...times(6, { lived: 20, failure: 'refused' })).map(({ list }) => list)).toEqual([
      false,
      false,
      false,
      false,
      true,
      true,
    ]));
  it('waits for no longer than 10 s, and for less the longer the stream has lived', () => {
    const end = fc.record({
      lived: fc.option(fc.nat(20_000), { nil: undefined }),
      failure: fc.constantFrom<Ended['failure']>('none', 'gone', 'refused', 'cut'),
    });
    fc.assert(
      fc.property(fc.array(end, { maxLength: 30 }), fc.double({ min: 0, max: 1, noNaN: true }), (ends, chance) => {
        let retry = CALM;
        for (const one of ends) {
          const next = afterWatch(retry, one, chance);
          expect(next.pauseMs).toBeGreaterThanOrEqual(0);
          expect(next.pauseMs + (next.pauseMs > 0 ? (one.lived ?? 0) : 0)).toBeLessThanOrEqual(10_000);
          retry = next.retry;
        }
      }),
    );
  });
});
