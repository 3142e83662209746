// What a reflector does after a watch has ended: how long it waits, and whether it lists again.
// Pure.

/**
 * A stream that lived for so long was a good one, quiet or not: only shorter ones count as
 * failures.
 */
const STEADY_MS = 1000;
const LONGEST_PAUSE_MS = 10_000;
/** After so many refusals in a row the version that is asked for may be what is wrong. */
const REFUSALS = 5;

export interface Retry {
  /** Failures in a row, of whatever kind. */
  readonly failures: number;
  /** Answers in a row by which the server refused to go on from the version. */
  readonly refusals: number;
  /** The version was gone, and no stream has lived since. */
  readonly gone: boolean;
}
export const CALM: Retry = { failures: 0, refusals: 0, gone: false };

/** How one attempt ended. */
export interface Ended {
  /** ms that the stream was open; `undefined` if it was never opened. */
  readonly lived: number | undefined;
  /**
   * `none` is an ordinary end; `gone` says 410; `refused` is any other answer of the server; `cut`
   * is all else.
   */
  readonly failure: 'none' | 'gone' | 'refused' | 'cut';
}

export interface Next {
  readonly retry: Retry;
  /** ms to wait before the next attempt. */
  readonly pauseMs: number;
  /** False: the watch goes on from the last version that was seen. */
  readonly list: boolean;
  /** Worth a line in the log. */
  readonly report: boolean;
}

/** `chance` is between 0 and 1. */
export function afterWatch(before: Retry, { lived, failure }: Ended, chance: number): Next {
  const steady = lived !== undefined && lived >= STEADY_MS;
  const { failures, refusals, gone } = steady ? CALM : before;
  // List at once if the version is gone. A server that repeats it is in trouble, and lists cost it
  // most.
  if (failure === 'gone' && !gone)
    return { retry: { failures, refusals, gone: true }, pauseMs: 0, list: true, report: false };
  if (failure === 'none' && steady) return { retry: CALM, pauseMs: 0, list: false, report: false };
  const retry: Retry = {
    failures: failures + 1,
    refusals: failure === 'refused' ? refusals + 1 : 0,
    gone: gone || failure === 'gone',
  };
  const backoff = Math.min(LONGEST_PAUSE_MS, 100 * 2 ** Math.min(retry.failures, 10)) * (0.5 + chance / 2);
  return {
    retry,
    // The pause counts from when the stream was opened: one that lived has waited already.
    pauseMs: Math.max(0, backoff - (lived ?? 0)),
    list: failure === 'gone' || retry.refusals >= REFUSALS,
    report: failure !== 'none' && (retry.failures === 1 || retry.failures % 10 === 0),
  };
}
