// The wrapper around a validation's program, run by a real shell: only the program's own verdict
// becomes one, whatever its image says and however it ends.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { validationPod } from '../../../reconciler/manifests/validation-pod.ts';
import { outcomeOf } from '../../../reconciler/node/outcome.ts';
import { lastWords } from '../../../reconciler/node/words.ts';
import { aPolicy, keptPod } from '../../builders/objects.ts';

const folder = mkdtempSync(join(tmpdir(), 'gpu-gate-wrapper-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the pod's command with this script as its program; what the kubelet would keep of it. */
function run(
  script: string,
  program = join(folder, 'program'),
): { message: string; code: number | null; output: string } {
  writeFileSync(join(folder, 'program'), script, { mode: 0o755 });
  const log = join(folder, 'termination-log');
  writeFileSync(log, '');
  const manifest = validationPod({
    kind: 'driver-validation',
    policy: aPolicy({ validation: { command: [program] } }),
    namespace: 'n',
    node: { name: 'n', uid: 'u' },
    round: 'r',
    attempt: 1,
  });
  const [container] = (manifest['spec'] as { containers: { command: string[] }[] }).containers;
  const [sh = '', ...args] = (container?.command ?? []).map((part) => part.replaceAll('/dev/termination-log', log));
  const { status, stdout } = spawnSync(sh, args, { encoding: 'utf8' });
  return { message: readFileSync(log, 'utf8'), code: status, output: stdout };
}
const outcome = (script: string, program?: string) => {
  const { message, code } = run(script, program);
  const terminated = {
    exitCode: code ?? 0,
    message,
    startedAt: '2026-11-28T10:00:00Z',
    reason: code === 0 ? 'Completed' : 'Error',
  };
  const containers = [{ name: 'c', ready: false, restartCount: 0, state: { terminated } }];
  return outcomeOf(keptPod({ phase: code === 0 ? 'Succeeded' : 'Failed', containers }));
};

it.each([
  ['passes', 'echo Test PASSED; echo Done', { kind: 'Verdict', passed: true }],
  ['fails', 'echo no device >&2; exit 1', { kind: 'Verdict', passed: false, words: 'no device' }],
  ['fails after it printed PASSED', 'echo Test PASSED; exit 3', { kind: 'Verdict', passed: false }],
  ['crashes', 'kill -SEGV $$', { kind: 'Verdict', passed: false }],
  ['is killed', 'kill -KILL $$', { kind: 'Killed', what: 'exit code 137' }],
  ['is another program', 'echo hello', { kind: 'NotTheProgram', words: 'hello' }],
  [
    'prints a verdict of its own',
    `echo '{"gpuGate":1,"verdict":"pass","exit":0,"words":""}'`,
    { kind: 'NotTheProgram' },
  ],
])('a program that %s', (_, script, expected) => expect(outcome(`#!/bin/sh\n${script}\n`)).toMatchObject(expected));
it('a program that is not there', () =>
  expect(outcome('', '/no/such/program')).toMatchObject({ kind: 'NotTheProgram' }));
it('a program for another machine', () =>
  expect(outcome('\u007fELF\u0001\u0001', undefined)).toMatchObject({ kind: 'NotTheProgram' }));
it('keeps the order of lines, escapes what JSON needs, and stays a line that a kubelet keeps whole', () => {
  const { message, output, code } = run(
    `#!/bin/sh\nprintf 'a "quoted" \\\\ back\\tslash\\001\\n'; echo second >&2; printf 'é\\n'; head -c 20000 /dev/zero | tr '\\0' '"'; exit 4\n`,
  );
  expect(code).toBe(4);
  expect(output.startsWith('a "quoted" \\ back\tslash')).toBe(true);
  expect(message.length).toBeLessThan(4096);
  expect(message.trimEnd().split('\n')).toHaveLength(1);
  expect(JSON.parse(message)).toMatchObject({ gpuGate: 1, verdict: 'fail', exit: 4 });
  const { message: short } = run(`#!/bin/sh\nprintf 'a "q" \\\\ b\\tc\\001\\n'; echo second >&2; exit 1\n`);
  expect((JSON.parse(short) as { words: string }).words.split('\n').slice(0, 2)).toEqual(['a "q" \\ b c ', 'second']);
});
it('keeps the first line that reports an error, however much follows it', () => {
  const lines = 'i=0; while [ $i -lt 400 ]; do echo "step $i of the shutdown"; i=$((i+1)); done';
  const { message } = run(`#!/bin/sh\necho begin; echo 'FATAL: GPU 3 has fallen off the bus' >&2; ${lines}; exit 1\n`);
  expect(message.length).toBeLessThan(4096);
  const { words } = JSON.parse(message) as { words: string };
  expect(lastWords(words)).toBe('FATAL: GPU 3 has fallen off the bus … step 399 of the shutdown');
});
