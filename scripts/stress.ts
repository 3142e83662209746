// `npm run test:stress`: every test three times, each time in another order, while other work burns
// every core. A long form, not for CI.
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { readArguments } from './arguments.ts';

const SEEDS = [1, 2, 3];

/** Runs the tests once, and passes on what they print; returns their last line and what failed. */
const suite = (args: readonly string[]): Promise<{ code: number; last: string; failed: readonly string[] }> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'test.ts'), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, GPU_GATE_TEST_LONG: '1' },
    });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      process.stdout.write(chunk);
      text += chunk.toString();
    });
    child.on('close', (code) => {
      const lines = text.trimEnd().split('\n');
      resolve({
        code: code ?? 1,
        last: lines.at(-1) ?? '',
        failed: lines.filter((line) => line.startsWith('failed: ')),
      });
    });
  });

const USAGE = `npm run test:stress -- [options] [WORDS]   tests three times, in other orders, with more histories, on a busy machine

  WORDS        which, as npm test takes them; none: every test
  --in-order   tests in the order in which they stand
  --idle       without the load on every core`;
const { values, positionals } = readArguments(USAGE, {
  allowPositionals: true,
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
  const shuffle = values['in-order'] ? [] : ['--shuffle', String(seed)];
  const { code, last, failed } = await suite([...shuffle, ...positionals]);
  if (code !== 0) failures += 1;
  const order = values['in-order'] ? 'in order' : `seed ${seed}`;
  results.push(`${order}, ${load} burning threads: ${last} in ${Math.round((Date.now() - began) / 1000)} s`);
  results.push(...failed.map((line) => `  ${line}`));
}
for (const burner of burners) await burner.terminate();
console.log(`\n${results.join('\n')}`);
process.exitCode = failures === 0 ? 0 : 1;
