// The machine that a real node runs in must leave nothing here, however it ends. Skipped with its
// reason where none can be made.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { until } from '../../../lab/cluster/gate.ts';
import { commandLines, traces, whyNoMachine } from '../../../lab/real-node/machine.ts';

const reason = whyNoMachine();
if (reason !== undefined) console.log(`skipped: ${reason}`);

/** What a node does to a machine: mounts, a bridge, cgroups, processes that lose their parent. */
const LITTER = `
mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up && ip link add gpugate0 type bridge
mkdir /sys/fs/cgroup/memory$(grep memory: /proc/self/cgroup | cut -d: -f3)/inner 2>/dev/null
(setsid sleep 987654 >/dev/null 2>&1 &)
echo littered
`;
const folders = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('gpu-gate-machine-'));
const sleepers = (): number => commandLines().filter((line) => line === 'sleep 987654').length;

/** A process that makes a machine, and what it has printed. */
function user(...args: string[]) {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../support/machine-user.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { said: () => said, kill: (signal: 'SIGINT' | 'SIGKILL') => child.kill(signal), ended };
}

const untilAsBefore = (before: readonly string[]): Promise<unknown> =>
  until('everything to be as before', () => JSON.stringify(traces()) === JSON.stringify(before)).catch(() =>
    expect(traces()).toEqual(before),
  );

it.skipIf(reason !== undefined).each([
  ['by itself, failed', `${LITTER}exit 3`, undefined],
  ['by Ctrl-C', `${LITTER}sleep 600`, 'SIGINT'],
  ['killed', `${LITTER}sleep 600`, 'SIGKILL'],
] as const)('a machine that ends %s leaves nothing behind', async (_, script, signal) => {
  const [before, folders_] = [traces(), folders()];
  const { said, kill, ended } = user(script);
  await until('the machine to be littered', () => said().includes('littered'));
  if (signal === undefined) expect(await ended).toBe(3);
  else {
    await until('the littering process to run', () => sleepers() === 1);
    expect(folders().length).toBeGreaterThan(folders_.length);
    kill(signal);
    await ended;
  }
  await untilAsBefore(before);
  expect(sleepers()).toBe(0);
});

// Programs are built once, for minutes, where they are not in the cache yet.
const BUILD = 15 * 60_000;

it.skipIf(reason !== undefined).each(['SIGINT', 'SIGKILL'] as const)(
  'a real node ended by %s while its images are packed leaves nothing behind',
  async (signal) => {
    const before = traces();
    const old = folders();
    const { kill, ended } = user();
    const packing = (): boolean =>
      folders().some((name) => !old.includes(name) && existsSync(join(tmpdir(), name, 'images/gate/app')));
    await until('gpu-gate’s image to be packed', packing, BUILD);
    kill(signal);
    await ended;
    await untilAsBefore(before);
    expect(commandLines().filter((line) => line.includes('image-tree.mjs'))).toEqual([]);
  },
  BUILD,
);

it.skipIf(reason !== undefined)(
  'a real node killed with a kubelet, containerd and a pod running leaves nothing behind',
  async () => {
    const before = traces();
    const { said, kill, ended } = user();
    await until('a pod to run there', () => said().includes('a pod runs'), BUILD);
    expect(traces().some((line) => line.includes('containerd-shim'))).toBe(true);
    kill('SIGKILL');
    await ended;
    await untilAsBefore(before);
  },
  BUILD,
);
