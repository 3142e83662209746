// Running until Ctrl-C or SIGTERM, and undoing in order whenever that comes: also half-way through
// the start.

type Undo = () => Promise<void>;

/**
 * Runs `work`, then waits for a signal unless `once`; in every case undoes what was handed to
 * `stopping`.
 */
export async function untilStopped(
  work: (stopping: (undo: Undo) => void, signal: AbortSignal) => Promise<void>,
  once = false,
): Promise<void> {
  const undo: Undo[] = [];
  const ended = new AbortController();
  const signalled = new Promise<'signalled'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        process.exitCode = signal === 'SIGINT' ? 130 : 143;
        ended.abort();
        resolve('signalled');
      });
    }
  });
  const cleanUp = async (): Promise<void> => {
    for (const action of undo.splice(0).toReversed()) await action();
  };
  const working = work((action) => void undo.push(action), ended.signal).then(() => 'done' as const);
  try {
    const first = await Promise.race([working, signalled]);
    if (first === 'done' && !once) await signalled;
    // A start that a signal interrupted may still hand over things to undo.
    if (first === 'signalled') working.catch(() => undefined);
  } finally {
    await cleanUp();
    if (ended.signal.aborted) process.exit();
  }
}
