// A keyed work queue as controllers use it: a key is handled by one worker at a time, and a key added while it is being
// handled is handled once more. Delays are the only timers of the reconciler.

export interface Queue {
  add(key: string): void;
  /** Adds the key after `ms`; an earlier date for the same key wins. */
  addAfter(key: string, ms: number): void;
  readonly depth: number;
}

export interface QueueOptions {
  readonly workers: number;
  readonly handle: (key: string) => Promise<void>;
  /** A handler threw: the key is tried again by the queue, with exponential backoff from 50 ms to 30 s. */
  readonly failed: (key: string, error: unknown) => void;
  readonly signal: AbortSignal;
}

export function workQueue(options: QueueOptions): Queue {
  const waiting = new Set<string>();
  const running = new Set<string>();
  const again = new Set<string>();
  const timers = new Map<string, { at: number; timer: NodeJS.Timeout }>();
  const failures = new Map<string, number>();

  const add = (key: string): void => {
    if (options.signal.aborted) return;
    if (running.has(key)) again.add(key);
    else waiting.add(key);
    fill();
  };
  const addAfter = (key: string, ms: number): void => {
    if (options.signal.aborted) return;
    const at = performance.now() + ms;
    const present = timers.get(key);
    if (present !== undefined && present.at <= at) return;
    clearTimeout(present?.timer);
    const timer = setTimeout(
      () => {
        timers.delete(key);
        add(key);
      },
      Math.min(ms, 2 ** 31 - 1),
    );
    timers.set(key, { at, timer });
  };
  const fill = (): void => {
    while (running.size < options.workers && !options.signal.aborted) {
      const [key] = waiting;
      if (key === undefined) return;
      waiting.delete(key);
      running.add(key);
      void work(key);
    }
  };
  const work = async (key: string): Promise<void> => {
    try {
      await options.handle(key);
      failures.delete(key);
    } catch (error) {
      const count = (failures.get(key) ?? 0) + 1;
      failures.set(key, count);
      options.failed(key, error);
      addAfter(key, Math.min(30_000, 50 * 2 ** Math.min(count, 12)) * (0.5 + Math.random() / 2));
    }
    running.delete(key);
    if (again.delete(key)) waiting.add(key);
    fill();
  };
  options.signal.addEventListener('abort', () => {
    for (const { timer } of timers.values()) clearTimeout(timer);
    timers.clear();
    waiting.clear();
  });
  return {
    add,
    addAfter,
    get depth() {
      return waiting.size + running.size;
    },
  };
}
