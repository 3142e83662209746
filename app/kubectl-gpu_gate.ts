#!/usr/bin/env node
// The program `kubectl-gpu_gate`, which kubectl finds as `kubectl gpu-gate`: arguments and terminal
// → command → exit code.
import { join } from 'node:path';
import { explainPod } from './explain.ts';
import { parseCommand } from '../kubectl/args.ts';
import { runCommand } from '../kubectl/command.ts';
import { explainError } from '../platform/log.ts';

const out = (text: string): void => void process.stdout.write(text);
const err = (text: string): void => void process.stderr.write(text);

async function main(): Promise<number> {
  const parsed = parseCommand(process.argv.slice(2), process.env);
  if (!parsed.ok) {
    err(`${parsed.because}\n`);
    return 2;
  }
  if ('help' in parsed) {
    out(parsed.help);
    return 0;
  }
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  return runCommand(parsed.command, {
    print: out,
    complain: err,
    width: process.stdout.isTTY ? process.stdout.columns : undefined,
    now: Date.now,
    signal: stop.signal,
    pageFolder: join(import.meta.dirname, 'page'),
    explain: (command, manifest) =>
      explainPod(
        {
          ...command,
          output: command.output === 'json' ? 'json' : 'text',
          ...(manifest === undefined ? {} : { manifest }),
        },
        out,
        err,
      ),
  });
}

// A pipe whose reader has gone (`| head`) is not an error.
process.stdout.on('error', () => process.exit(0));
main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    err(`${explainError(error)}\n`);
    process.exit(1);
  },
);
