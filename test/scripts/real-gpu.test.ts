// scripts/real-gpu.sh against programs that stand in for NVIDIA's: no GPU is seen here.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const SCRIPT = join(import.meta.dirname, '..', '..', 'scripts', 'real-gpu.sh');
const SYSTEM = [
  'awk',
  'bash',
  'cat',
  'chmod',
  'date',
  'dirname',
  'env',
  'grep',
  'mkdir',
  'mktemp',
  'rm',
  'sed',
  'sh',
  'tail',
  'tr',
  'uname',
];

let dir: string;
let file: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'gpu-gate-real-gpu-'));
  file = join(dir, 'out', 'evidence.md');
  mkdirSync(join(dir, 'bin'));
  // Nothing of NVIDIA's that this machine may have.
  for (const name of SYSTEM) {
    const { stdout } = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' });
    symlinkSync(stdout.trim(), join(dir, 'bin', name));
  }
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const program = (name: string, script: string): void =>
  writeFileSync(join(dir, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
/** A vectorAdd that passes on every GPU but one, and finds none where none is visible. */
const VECTOR_ADD = `case "$CUDA_VISIBLE_DEVICES" in
"") echo "cudaMalloc: no CUDA-capable device is detected"; exit 1 ;;
GPU-broken) echo "Test FAILED: element 7 is 0, not 3"; exit 1 ;;
*) echo "Test PASSED" ;;
esac`;
const withGpus = (...uuids: readonly string[]): void => {
  program('nvidia-smi', uuids.map((uuid, i) => `echo "${i}, ${uuid}, NVIDIA H200, 580.1, 143771 MiB"`).join('\n'));
  program(
    'nvcc',
    `if [ "$1" = --version ]; then echo "Cuda compilation tools, release 13.0"; exit; fi
[ "$1" = -o ] && grep -q '__global__' "$3" || { echo "no source"; exit 2; }
cat >"$2" <<'END'\n#!/bin/sh\n${VECTOR_ADD}\nEND\nchmod +x "$2"`,
  );
};
const run = (...args: readonly string[]) =>
  spawnSync('bash', [SCRIPT, ...args], { encoding: 'utf8', env: { PATH: join(dir, 'bin'), TMPDIR: dir } });
/** Each step and what came of it. */
const steps = (): readonly string[] =>
  [...readFileSync(file, 'utf8').matchAll(/^## (.*)$/gm)].map(([, step = '']) => step);

describe('real-gpu.sh', () => {
  it('writes what it saw of each GPU, of none, and of the toolkit', () => {
    withGpus('GPU-1a', 'GPU-2b');
    program('nvidia-ctk', 'echo "kind: nvidia.com/gpu" >"${3#--output=}"');
    const { status, stdout } = run(file);
    expect([status, stdout.trim().split('\n').at(-1)]).toEqual([0, `8 of 8 steps held: ${file}`]);
    expect(steps()).toEqual([
      'The cards: held',
      'The compiler: held',
      'vectorAdd is built from our source: held',
      'The validation on GPU-1a: held',
      'The validation on GPU-2b: held',
      'The validation with no GPU visible: held',
      'The validation of a program that is not there: held',
      'The toolkit describes the GPUs: held',
    ]);
    const text = readFileSync(file, 'utf8');
    expect(text).toContain('NVIDIA H200, 580.1');
    expect(text).toContain(
      String.raw`{"gpuGate":1,"verdict":"fail","exit":1,"words":"cudaMalloc: no CUDA-capable device is detected\n"}`,
    );
    expect(text).toMatch(/^Exit code 0, \d+\.\d\d s, expected `"verdict":"pass"`\.$/m);
  });

  it('says which GPU does not compute, and goes on with the next', () => {
    withGpus('GPU-broken', 'GPU-2b');
    const { status, stdout } = run(file);
    expect([status, stdout.trim().split('\n').at(-1)]).toEqual([0, `6 of 7 steps held: ${file}`]);
    expect(steps()).toContain('The validation on GPU-broken: **did not hold**');
    expect(steps()).toContain('The validation on GPU-2b: held');
    expect(steps()).toContain('The toolkit describes the GPUs: not run');
  });

  it('proves nothing of a program that is not built', () => {
    withGpus('GPU-1a');
    program('nvcc', '[ "$1" = --version ] && echo "release 13.0" || { echo "unsupported"; exit 1; }');
    expect(run(file).status).toBe(0);
    expect(steps().filter((step) => step.startsWith('The validation'))).toEqual([]);
    expect(steps()).toContain('vectorAdd is built from our source: **did not hold**');
  });

  it.each(['nvidia-smi', 'nvcc'])('writes nothing on a machine without %s, which is not a fault', (missing) => {
    withGpus('GPU-1a');
    rmSync(join(dir, 'bin', missing));
    const { status, stdout } = run(file);
    expect([status, stdout]).toEqual([0, expect.stringContaining(`no evidence written: ${missing} is not here`)]);
    expect(existsSync(file)).toBe(false);
  });

  it('leaves nothing behind, says how it is called, and refuses other options', () => {
    withGpus('GPU-1a');
    run(file);
    expect(spawnSync('ls', [dir], { encoding: 'utf8' }).stdout.trim().split('\n')).toEqual(['bin', 'out']);
    expect(run('--help').stdout).toContain('real-gpu.sh [FILE]');
    expect(run('--what').status).toBe(2);
  });
});
