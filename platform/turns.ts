// Work that takes long, one piece in a turn of the event loop. Many large bodies may end in the
// same turn; answered at once, they would keep small calls that arrive meanwhile waiting for all of
// them.

/** Runs each work in a turn of its own, in the order given. */
export function turns(): (work: () => void) => void {
  const waiting: (() => void)[] = [];
  let due = false;
  const schedule = (): void => {
    if (due || waiting.length === 0) return;
    due = true;
    setImmediate(() => {
      due = false;
      try {
        waiting.shift()?.();
      } finally {
        schedule();
      }
    });
  };
  return (work) => {
    waiting.push(work);
    schedule();
  };
}
