// A scenario with an order: each test plays a chapter of it.
import { it } from 'vitest';

/** The first test of a shuffled file may have to play all of it. */
const WHOLE_STORY_MS = 1_800_000;

/**
 * Registers chapters. Each test plays the chapters before its own that nobody has played yet, so
 * that it passes alone and in any order; a chapter is played once. Where one fails, those behind it
 * fail with its error.
 */
export function story(): (name: string, play: () => Promise<void> | void) => void {
  const chapters: (() => Promise<void>)[] = [];
  return (name, play) => {
    let played: Promise<void> | undefined;
    chapters.push(() => (played ??= (async () => play())()));
    const upToHere = chapters.slice();
    it(name, { timeout: WHOLE_STORY_MS }, async () => {
      for (const chapter of upToHere) await chapter();
    });
  };
}
