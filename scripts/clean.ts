// `npm run clean`: removes the programs that were built, and says how much that was. What Go keeps
// of the compiled packages is Go's own: `go clean -cache` removes it.
import { rmSync } from 'node:fs';
import { cacheFolder, sizeOf } from '../lab/cluster/binaries.ts';
import { readArguments } from './arguments.ts';

readArguments('npm run clean                    removes the programs that were built', { options: {} });
const folder = cacheFolder(process.env['XDG_CACHE_HOME']);
const size = sizeOf(folder);
rmSync(folder, { recursive: true, force: true });
console.log(size === undefined ? `nothing is at ${folder}` : `removed ${folder} (${size})`);
