// `npm run clean`: removes the programs that were built, and says how much that was. What Go keeps
// of the compiled packages is Go's own: `go clean -cache` removes it.
import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { cacheFolder, sizeOf } from '../lab/cluster/binaries.ts';

const folder = cacheFolder(process.env['XDG_CACHE_HOME']);
const size = sizeOf(folder);
/** An option that is not understood must not remove anything. */
function wantsHelp(): boolean {
  try {
    return parseArgs({ options: { help: { type: 'boolean', default: false } } }).values.help;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n\nnpm run clean takes no options.`);
    process.exit(2);
  }
}
if (wantsHelp()) {
  console.log(
    `npm run clean: removes ${folder} (${size ?? 'not there'}), the programs that were built for tests and demo.`,
  );
} else {
  rmSync(folder, { recursive: true, force: true });
  console.log(size === undefined ? `nothing is at ${folder}` : `removed ${folder} (${size})`);
}
