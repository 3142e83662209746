// The only file of the product that reads arguments and environment, writes what the user sees, and
// ends the process: arguments → run or explain, signals, exit code.
import { optionsHelp, parseOptions } from './app/options.ts';
import { EXPLAIN_USAGE, parseExplainArgs } from './explain/args.ts';
import { printable } from './core/printable.ts';
import { errorPlace, explainError } from './platform/log.ts';

const USAGE = `gpu-gate: a GPU pod starts only on a node whose GPU stack has been proven to work

  node main.ts [run] [options]                     run the parts named by --roles
  node main.ts images [-]                          print the operands' images, to mirror them; -: of the GPUPolicy on stdin
${EXPLAIN_USAGE}
options of run; each is also an environment variable, GPU_GATE_LIKE_THIS for --like-this:
${optionsHelp()}
`;

const out = (text: string): void => void process.stdout.write(text);
const err = (text: string): void => void process.stderr.write(text);

async function runCommand(args: readonly string[]): Promise<number> {
  const parsed = parseOptions(args, process.env);
  if (!parsed.ok) {
    err(`gpu-gate cannot start:\n${parsed.problems.map((problem) => `  ${problem}\n`).join('')}`);
    return 2;
  }
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => (stop.signal.aborted ? process.exit(1) : stop.abort()));
  const { run } = await import('./app/run.ts');
  await run(parsed.options, stop.signal, (line) => out(`${line}\n`));
  return 0;
}

async function explainCommand(args: readonly string[]): Promise<number> {
  const parsed = parseExplainArgs(args, process.env);
  if (!parsed.ok) {
    err(`${parsed.because}\n`);
    return 2;
  }
  const { explainPod } = await import('./app/explain.ts');
  return explainPod(parsed.args, out, err);
}

async function imagesCommand(args: readonly string[]): Promise<number> {
  let policy: unknown = { spec: {} };
  if (args[0] === '-') {
    const { text } = await import('node:stream/consumers');
    try {
      policy = JSON.parse(await text(process.stdin));
    } catch {
      err('this is not a GPUPolicy as JSON; write: kubectl get gpupolicy default -o json | node main.ts images -\n');
      return 2;
    }
  }
  const { imagesOf } = await import('./app/images.ts');
  out(`${imagesOf(policy).join('\n')}\n`);
  return 0;
}

async function main(args: readonly string[]): Promise<number> {
  const [command = 'run', ...rest] = args[0]?.startsWith('-') === false ? args : ['run', ...args];
  if (args.includes('--help') || args.includes('-h') || command === 'help') {
    out(USAGE);
    return 0;
  }
  if (command === 'run') return runCommand(rest);
  if (command === 'explain') return explainCommand(rest);
  if (command === 'images') return imagesCommand(rest);
  err(`unknown command ${JSON.stringify(command)}: write run, explain or images; see --help\n`);
  return 2;
}

/** Whatever a part left open must not keep a process alive that has come to its end. */
const end = (code: number): never => process.exit(code);
const stopped = (because: string): never => {
  err(`gpu-gate stopped: ${printable(because)}\n`);
  return end(1);
};
// What no code expected may quote the body of a request.
for (const event of ['uncaughtException', 'unhandledRejection'])
  process.on(event, (error: unknown) => stopped(errorPlace(error)));

main(process.argv.slice(2)).then(end, (error: unknown) => stopped(explainError(error)));
