import { describe, expect, it } from 'vitest';
import { readSaid, timeless, withTimes } from '../../core/said.ts';

const said = { text: 'driver: crashed', at: 'T1', retryAt: 'T2', command: 'kubectl x' };

describe('the report about a node', () => {
  it.each([
    [{ text: 'a' }, 'a'],
    [{ text: 'a', at: 'T1' }, 'a, since T1'],
    [{ text: 'a', retryAt: 'T2' }, 'a; retried after T2'],
    [said, 'driver: crashed, since T1; retried after T2, or now: kubectl x'],
    [{ text: 'a', command: 'kubectl x' }, 'a; now: kubectl x'],
  ])('%j reads %j', (one, text) => expect(withTimes(one)).toBe(text));
  it('has a sentence without times', () => expect(timeless(said)).toBe('driver: crashed'));
  it.each([null, 7, 'x', [], {}, { text: 7 }])('%j is not a report', (value) =>
    expect(readSaid(value)).toBeUndefined(),
  );
  it('is read back as it was written, and no more of it', () => {
    expect(readSaid(JSON.parse(JSON.stringify(said)))).toEqual(said);
    expect(readSaid({ text: 'a', at: 7, more: 1 })).toEqual({ text: 'a' });
  });
});
