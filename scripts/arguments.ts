// What every script behind `npm run` does with its arguments before it begins anything: `--help`
// prints how it is called and ends, and a word that it does not know is refused.
import { parseArgs, type ParseArgsConfig } from 'node:util';

/** Says what is wrong and how the script is called, and ends. */
export function refuse(problem: string, usage: string): never {
  console.error(`${problem}\n\n${usage}`);
  process.exit(2);
}

/** Prints the usage and ends if the arguments ask for help. */
export function helpIfAsked(usage: string): void {
  if (!process.argv.slice(2).some((word) => word === '--help' || word === '-h')) return;
  console.log(usage);
  process.exit(0);
}

export function readArguments<const T extends ParseArgsConfig>(
  usage: string,
  config: T,
): ReturnType<typeof parseArgs<T>> {
  helpIfAsked(usage);
  try {
    return parseArgs(config);
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error), usage);
  }
}
