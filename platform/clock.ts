// A clock that does not jump: it takes the wall's time once and goes on by what has elapsed since.

/** ms since the epoch. A wall clock that is set while it runs changes nothing. */
export function steadyClock(wall: () => number, elapsed: () => number = () => performance.now()): () => number {
  const start = wall() - elapsed();
  return () => Math.round(start + elapsed());
}
