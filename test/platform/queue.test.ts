import { describe, expect, it } from 'vitest';
import { workQueue } from '../../platform/queue.ts';

/** A queue whose handlers end when the test says so. */
function aQueue(workers = 1) {
  const end = new AbortController();
  const begun: string[] = [];
  const running = new Map<string, { end: () => void; fail: (error: Error) => void }>();
  const failures: string[] = [];
  const queue = workQueue<string>({
    workers,
    id: (key) => key,
    signal: end.signal,
    handle: (key) =>
      new Promise((resolve, reject) => {
        begun.push(key);
        running.set(key, { end: resolve, fail: reject });
      }),
    failed: (key) => void failures.push(key),
  });
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  return { queue, end, begun, failures, running, settled };
}

describe('a work queue', () => {
  it('handles a key that comes while it is handled once more, and only once', async () => {
    const { queue, begun, running, settled } = aQueue(2);
    queue.add('a');
    for (let i = 0; i < 3; i += 1) queue.add('a');
    expect([begun, queue.depth]).toEqual([['a'], 1]);
    running.get('a')?.end();
    await settled();
    expect(begun).toEqual(['a', 'a']);
    running.get('a')?.end();
    await settled();
    expect([begun.length, queue.depth]).toEqual([2, 0]);
  });
  it('tries a key that failed again', async () => {
    const { queue, begun, failures, running } = aQueue();
    queue.add('a');
    running.get('a')?.fail(new Error('no'));
    while (begun.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(failures).toEqual(['a']);
    running.get('a')?.end();
  });
  it('is drained when the last handler has ended, and begins nothing after the signal', async () => {
    const { queue, end, begun, running, settled } = aQueue();
    let drained = false;
    void queue.drained().then(() => (drained = true));
    queue.add('a');
    queue.add('b');
    queue.addAfter('c', 0);
    end.abort();
    await settled();
    expect(drained).toBe(false);
    running.get('a')?.end();
    await queue.drained();
    queue.add('d');
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(begun).toEqual(['a']);
  });
  it('handles urgent keys first, and keeps workers for them', async () => {
    const begun: string[] = [];
    const never = new Promise<void>(() => undefined);
    const queue = workQueue<string>({
      workers: 4,
      reserved: 2,
      urgent: (key) => key.startsWith('loss'),
      id: (key) => key.replace('loss of ', ''),
      signal: new AbortController().signal,
      handle: (key) => {
        begun.push(key);
        return never;
      },
      failed: () => undefined,
    });
    for (let i = 0; i < 1000; i += 1) queue.add(`walk ${i}`);
    expect(begun).toEqual(['walk 0', 'walk 1']);
    queue.add('loss of x');
    queue.add('loss of walk 500');
    expect(begun.slice(2)).toEqual(['loss of x', 'loss of walk 500']);
    expect(queue.depth).toBe(1001);
  });
  it('with nothing to do is drained at once', async () => {
    const { queue, end } = aQueue();
    end.abort();
    await queue.drained();
  });
});
