// `npm run test:stress`: every test three times, each time in another order, while other work burns
// every core. A long form, not for CI.
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { readArguments } from './arguments.ts';

const SEEDS = [1, 2, 3];

/** Runs all tests once, and passes on what they print; returns their last line. */
const suite = (args: readonly string[]): Promise<{ code: number; last: string }> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'test.ts'), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      process.stdout.write(chunk);
      text = (text + chunk.toString()).slice(-500);
    });
    child.on('close', (code) => resolve({ code: code ?? 1, last: text.trimEnd().split('\n').at(-1) ?? '' }));
  });

const USAGE = `npm run test:stress -- [options]   every test three times, in other orders, on a busy machine

  --in-order   tests in the order in which they stand
  --idle       without the load on every core`;
const { values } = readArguments(USAGE, {
  options: {
    'in-order': { type: 'boolean', default: false },
    idle: { type: 'boolean', default: false },
  },
});
const load = values.idle ? 0 : availableParallelism();
// Threads of this process: they end with it, whatever ends it.
const burners = Array.from({ length: load }, () => new Worker('for (;;) Math.random();', { eval: true }));
const results: string[] = [];
let failures = 0;
for (const seed of SEEDS) {
  const began = Date.now();
  const { code, last } = await suite(values['in-order'] ? [] : ['--shuffle', String(seed)]);
  if (code !== 0) failures += 1;
  const order = values['in-order'] ? 'in order' : `seed ${seed}`;
  results.push(`${order}, ${load} burning threads: ${last} in ${Math.round((Date.now() - began) / 1000)} s`);
}
for (const burner of burners) await burner.terminate();
console.log(`\n${results.join('\n')}`);
process.exitCode = failures === 0 ? 0 : 1;
