// The toolkit's readiness probe, run by a shell as the kubelet would, on files as the stock toolkit
// leaves them at each moment.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderOperand } from '../../../reconciler/manifests/render.ts';
import { aPolicy } from '../../builders/objects.ts';

const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-probe-'));
const SOCKET = join(dir, 'runtime/sock-dir/containerd.sock');
const PID = join(dir, 'run/nvidia/toolkit/toolkit.pid');
const DROP_IN = join(dir, 'runtime/config-dir.d/99-nvidia.toml');
const RUNTIME = join(dir, 'usr/local/nvidia/toolkit/nvidia-container-runtime');
const server = createServer();

beforeAll(async () => {
  for (const file of [SOCKET, PID, DROP_IN, RUNTIME]) mkdirSync(dirname(file), { recursive: true });
  writeFileSync(RUNTIME, '');
  chmodSync(RUNTIME, 0o755);
  await new Promise<void>((resolve) => server.listen(SOCKET, resolve));
});
afterAll(() => {
  server.close();
  rmSync(dir, { recursive: true });
});

/** The probe in a folder in place of the root. */
function probe(env: readonly { name: string; value: string }[] = []): string {
  const { daemonSet } = renderOperand('toolkit', aPolicy({ components: { toolkit: { env } } }), { namespace: 'n' });
  const { template } = daemonSet['spec'] as {
    template: { spec: { containers: { readinessProbe: { exec: { command: string[] } } }[] } };
  };
  const script = template.spec.containers[0]?.readinessProbe.exec.command[2] ?? '';
  return script.replaceAll(/ (\/(run|runtime|usr)\/)/g, ` ${dir}$1`);
}

/** Times in seconds; undefined: the file is not there. */
const moment = (times: { pid?: number; dropIn?: number; socket: number }): void => {
  for (const [file, time] of [
    [PID, times.pid],
    [DROP_IN, times.dropIn],
  ] as const) {
    if (time === undefined) rmSync(file, { force: true });
    else {
      writeFileSync(file, 'x');
      utimesSync(file, time, time);
    }
  }
  utimesSync(SOCKET, times.socket, times.socket);
};

const SHELLS = [['sh'], ['bash'], ['busybox', 'sh']].filter(
  ([program = '']) => spawnSync(program, ['-c', 'true']).error === undefined,
);

describe.each(SHELLS.map((words) => [words.join(' '), words] as const))('the toolkit’s probe in %s', (_, words) => {
  const ready = (script: string): boolean => {
    const [program = '', ...args] = words;
    return spawnSync(program, [...args, '-c', script]).status === 0;
  };
  it.each([
    ['nothing is there yet', { socket: 100 }, false],
    ['it runs, and has written nothing', { pid: 200, socket: 100 }, false],
    ['it runs again, its former configuration still there', { pid: 200, dropIn: 50, socket: 100 }, false],
    ['the configuration is written, the runtime not restarted', { pid: 200, dropIn: 202, socket: 201 }, false],
    ['the runtime started after both', { pid: 200, dropIn: 202, socket: 203 }, true],
    ['all within one second', { pid: 200, dropIn: 200, socket: 200 }, true],
    ['no drop-in is made, and the runtime was restarted', { pid: 200, socket: 203 }, true],
    ['the runtime was restarted once more', { pid: 200, dropIn: 202, socket: 900 }, true],
  ])('%s', (_name, times, expected) => {
    moment(times);
    expect(ready(probe())).toBe(expected);
  });
  it('where another installer restarts the runtime, the probe can only see that the toolkit is installed', () => {
    moment({ pid: 200, dropIn: 202, socket: 100 });
    expect(ready(probe([{ name: 'RUNTIME_RESTART_MODE', value: 'none' }]))).toBe(true);
  });
});
