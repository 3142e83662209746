// Telling a story whose every sentence is checked: a step says what should hold, waits for it,
// shows what was observed, and ends the story loudly where it does not come.
import { until } from '../lab/cluster/gate.ts';

export interface Story {
  /** A heading; numbers count by themselves. */
  chapter(title: string): void;
  /**
   * Something that must hold within `seconds`; `check` returns what was observed, or undefined
   * while it does not hold yet.
   */
  holds(claim: string, check: () => Promise<string | undefined>, seconds?: number): Promise<void>;
  /** Something observed, with no claim. */
  shows(text: string): void;
}

const indent = (text: string): string =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => `        ${line}`)
    .join('\n');

export function storyTeller(say: (line: string) => void, failed: () => Promise<string>): Story {
  let chapters = 0;
  return {
    chapter(title) {
      chapters += 1;
      say(`\n${chapters}. ${title}`);
    },
    async holds(claim, check, seconds = 120) {
      const began = Date.now();
      const slow = setTimeout(() => say(`   ... waiting: ${claim}`), 2000);
      try {
        const observed = await until(claim, check, seconds * 1000);
        say(`   ok   ${claim} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
        if (observed !== '') say(indent(observed));
      } catch (error) {
        say(`   FAILED  ${claim}`);
        say(indent(await failed()));
        throw new Error(`the story does not hold: ${claim}`, { cause: error });
      } finally {
        clearTimeout(slow);
      }
    },
    shows: (text) => say(indent(text)),
  };
}
