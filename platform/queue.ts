// A keyed work queue as controllers use it: one worker at a time handles a key, and a key added
// while it is handled is handled once more. Urgent keys come first, and some workers are kept for
// them. Delays are the only timers of the reconciler.

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
  /** So many of the workers handle urgent keys only; default 0. */
  readonly reserved?: number;
  /** Asked whenever a key is added. */
  readonly urgent?: (key: K) => boolean;
  /** What makes two keys the same. */
  readonly id: (key: K) => string;
  readonly handle: (key: K) => Promise<void>;
  /**
   * A handler threw: the queue tries the key again, with exponential backoff from 50 ms to 30 s.
   */
  readonly failed: (key: K, error: unknown) => void;
  readonly signal: AbortSignal;
}

export function workQueue<K>(options: QueueOptions<K>): Queue<K> {
  const { id, signal } = options;
  const waiting = { urgent: new Map<string, K>(), other: new Map<string, K>() };
  /** Keys being handled, and whether each came as an urgent one. */
  const running = new Map<string, boolean>();
  let others = 0;
  const again = new Map<string, K>();
  const timers = new Map<string, { at: number; timer: NodeJS.Timeout }>();
  const failures = new Map<string, number>();
  let idle: () => void = () => undefined;
  const drained = new Promise<void>((resolve) => (idle = resolve));

  const add = (key: K): void => {
    if (signal.aborted) return;
    if (running.has(id(key))) again.set(id(key), key);
    else enqueue(key);
    fill();
  };
  /** A key that has become urgent leaves its place among the others. */
  const enqueue = (key: K): void => {
    if (options.urgent?.(key) === true) {
      waiting.other.delete(id(key));
      waiting.urgent.set(id(key), key);
    } else if (!waiting.urgent.has(id(key))) waiting.other.set(id(key), key);
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
      const isUrgent = waiting.urgent.size > 0;
      if (!isUrgent && others >= options.workers - (options.reserved ?? 0)) return;
      const lane = isUrgent ? waiting.urgent : waiting.other;
      const [next] = lane;
      if (next === undefined) return;
      lane.delete(next[0]);
      running.set(next[0], isUrgent);
      if (!isUrgent) others += 1;
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
    if (running.get(name) === false) others -= 1;
    running.delete(name);
    const next = again.get(name);
    again.delete(name);
    if (next !== undefined && !signal.aborted) enqueue(next);
    fill();
    if (signal.aborted && running.size === 0) idle();
  };
  const stop = (): void => {
    for (const { timer } of timers.values()) clearTimeout(timer);
    timers.clear();
    for (const keys of [waiting.urgent, waiting.other, again]) keys.clear();
    if (running.size === 0) idle();
  };
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  return {
    add,
    addAfter,
    get depth() {
      return waiting.urgent.size + waiting.other.size + running.size;
    },
    drained: () => drained,
  };
}
