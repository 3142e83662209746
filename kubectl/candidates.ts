// What `kubectl gpu-gate` can go on with, for shells: kubectl asks the program
// `kubectl_complete-gpu_gate` when a user presses Tab. Pure.
import { COMMANDS, GLOBAL_FLAGS, SHELLS } from './args.ts';

export interface Candidates {
  readonly words: readonly string[];
  /** Names in the cluster that fit too. */
  readonly also?: 'nodes' | 'pods';
}

/** `words`: what stands after `kubectl gpu-gate`; the last one is being typed, and may be empty. */
export function candidatesFor(words: readonly string[]): Candidates {
  const typed = words.at(-1) ?? '';
  const fitting = (all: readonly string[]): readonly string[] => all.filter((word) => word.startsWith(typed));
  const [name] = words;
  if (words.length < 2) return { words: fitting(COMMANDS.map((command) => command.name)) };
  const command = COMMANDS.find((one) => one.name === name);
  if (command === undefined) return { words: [] };
  const flags = [...GLOBAL_FLAGS, ...command.flags];
  const before = words.at(-2) ?? '';
  const flag = flags.find(
    (one) => before === `--${one.name}` || (one.short !== undefined && before === `-${one.short}`),
  );
  // Values that are to be chosen among stand in the flag's own description.
  if (flag?.value !== undefined) return { words: flag.value.includes('|') ? fitting(flag.value.split('|')) : [] };
  if (typed.startsWith('-')) return { words: fitting([...new Set(flags.map((one) => `--${one.name}`))]) };
  const { completes } = command;
  if (completes === 'shells') return { words: fitting(SHELLS) };
  return completes === undefined ? { words: [] } : { words: [], also: completes };
}

/** As kubectl reads it: a word a line, and that nothing is a file. */
export const completionText = (words: readonly string[]): string => [...words, ':4', ''].join('\n');
