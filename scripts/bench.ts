// `npm run bench [-- NAME] [--json FILE]`: every measurement, or one. Exit code 1 where a bar is
// missed.
import { writeFileSync } from 'node:fs';
import { load, measurements } from '../bench/reports/measurements.ts';
import { read, usageOf, type Asked } from '../bench/reports/usage.ts';
import { tableOf, type Bench, type Row } from '../bench/rows.ts';
import { helpIfAsked, refuse } from './arguments.ts';

const benches = new Map<string, Bench>();
for (const name of measurements()) benches.set(name, await load(name));
const usage = usageOf(benches);

function asked(): Asked {
  helpIfAsked(usage);
  try {
    return read(process.argv.slice(2), benches);
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error), usage);
  }
}
const { names, args, json } = asked();

const all: (Row & { bench: string })[] = [];
for (const name of names) {
  console.log(`== ${name}`);
  const rows = (await benches.get(name)?.run({ say: (line) => console.log(`  ${line}`), args })) ?? [];
  console.log(tableOf(rows));
  all.push(...rows.map((row) => ({ bench: name, ...row })));
}
if (json !== undefined) writeFileSync(json, `${JSON.stringify(all, undefined, 2)}\n`);
const missed = all.filter(({ held }) => held === false);
console.log(missed.length === 0 ? 'every bar held' : `${missed.length} of ${all.length} figures missed their bar`);
process.exitCode = missed.length === 0 ? 0 : 1;
