// `npm run bench [-- NAME] [--json FILE]`: every measurement, or one. Exit code 1 where a bar is
// missed.
import { writeFileSync } from 'node:fs';
import { load, measurements } from '../bench/reports/measurements.ts';
import { tableOf, type Row } from '../bench/rows.ts';

const NAMES = measurements();

const args = process.argv.slice(2);
const jsonAt = args.indexOf('--json');
const [, jsonFile] = jsonAt < 0 ? [] : args.splice(jsonAt, 2);
const named = args[0]?.startsWith('--') === false ? args.shift() : undefined;
if (named !== undefined && !NAMES.includes(named)) {
  console.error(`npm run bench -- ${named}: there is no such measurement; write one of ${NAMES.join(', ')}`);
  process.exit(2);
}

const all: (Row & { bench: string })[] = [];
for (const name of named === undefined ? NAMES : [named]) {
  console.log(`== ${name}`);
  const bench = await load(name);
  const rows = await bench.run({ say: (line) => console.log(`  ${line}`), args });
  console.log(tableOf(rows));
  all.push(...rows.map((row) => ({ bench: name, ...row })));
}
if (jsonFile !== undefined) writeFileSync(jsonFile, `${JSON.stringify(all, undefined, 2)}\n`);
const missed = all.filter(({ held }) => held === false);
console.log(missed.length === 0 ? 'every bar held' : `${missed.length} of ${all.length} figures missed their bar`);
process.exitCode = missed.length === 0 ? 0 : 1;
