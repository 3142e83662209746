// A keyed work queue as controllers use it: one worker at a time handles a key, and a key added while it is handled is
// handled once more. Delays are the only timers of the reconciler.

export interface Queue<K> {
  add(key: K): void;
  /** Adds the key after `ms`; an earlier date for the same key wins. */
  addAfter(key: K, ms: number): void;
  readonly depth: number;
  /** Resolves when the signal has aborted and no handler runs any more. */
  drained(): Promise<void>;
}

export interface QueueOptions<K> {
  readonly workers: number;
  /** What makes two keys the same. */
  readonly id: (key: K) => string;
  readonly handle: (key: K) => Promise<void>;
  /** A handler threw: the queue tries the key again, with exponential backoff from 50 ms to 30 s. */
  readonly failed: (key: K, error: unknown) => void;
  readonly signal: AbortSignal;
}

export function workQueue<K>(options: QueueOptions<K>): Queue<K> {
  const { id, signal } = options;
  const waiting = new Map<string, K>();
  const running = new Set<string>();
  const again = new Map<string, K>();
  const timers = new Map<string, { at: number; timer: NodeJS.Timeout }>();
  const failures = new Map<string, number>();
  let idle: () => void = () => undefined;
  const drained = new Promise<void>((resolve) => (idle = resolve));

  const add = (key: K): void => {
    if (signal.aborted) return;
    (running.has(id(key)) ? again : waiting).set(id(key), key);
    fill();
  };
  const addAfter = (key: K, ms: number): void => {
    if (signal.aborted) return;
    const at = performance.now() + ms;
    const present = timers.get(id(key));
    if (present !== undefined && present.at <= at) return;
    clearTimeout(present?.timer);
    const timer = setTimeout(
      () => {
        timers.delete(id(key));
        add(key);
      },
      Math.min(ms, 2 ** 31 - 1),
    );
    timers.set(id(key), { at, timer });
  };
  const fill = (): void => {
    while (running.size < options.workers && !signal.aborted) {
      const [next] = waiting;
      if (next === undefined) return;
      waiting.delete(next[0]);
      running.add(next[0]);
      void work(...next);
    }
  };
  const work = async (name: string, key: K): Promise<void> => {
    try {
      await options.handle(key);
      failures.delete(name);
    } catch (error) {
      const count = (failures.get(name) ?? 0) + 1;
      failures.set(name, count);
      options.failed(key, error);
      addAfter(key, Math.min(30_000, 50 * 2 ** Math.min(count, 12)) * (0.5 + Math.random() / 2));
    }
    running.delete(name);
    const next = again.get(name);
    again.delete(name);
    if (next !== undefined) waiting.set(name, next);
    fill();
    if (signal.aborted && running.size === 0) idle();
  };
  const stop = (): void => {
    for (const { timer } of timers.values()) clearTimeout(timer);
    timers.clear();
    waiting.clear();
    again.clear();
    if (running.size === 0) idle();
  };
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  return {
    add,
    addAfter,
    get depth() {
      return waiting.size + running.size;
    },
    drained: () => drained,
  };
}
