// The machine that a real node runs in must leave nothing here, however it ends. Skipped with its reason where none can be made.
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { until } from '../cluster/gate.ts';
import { traces, whyNoMachine } from '../real-node/machine.ts';

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
const sleepers = (): number =>
  spawnSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter((line) => line === 'sleep 987654').length;

it.skipIf(reason !== undefined).each([
  ['by itself, failed', `${LITTER}exit 3`, undefined],
  ['by Ctrl-C', `${LITTER}sleep 600`, 'SIGINT'],
  ['killed', `${LITTER}sleep 600`, 'SIGKILL'],
] as const)('a machine that ends %s leaves nothing behind', async (_, script, signal) => {
  const before = [traces(), folders()];
  const user = spawn(process.execPath, [join(import.meta.dirname, '../support/machine-user.ts'), script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<number | null>((resolve) => user.once('close', resolve));
  let said = '';
  user.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await until('the machine to be littered', () => said.includes('littered'), 20_000);
  if (signal === undefined) expect(await ended).toBe(3);
  else {
    await until('the littering process to run', () => sleepers() === 1, 5000);
    expect(folders().length).toBeGreaterThan(before[1]?.length ?? 0);
    user.kill(signal);
    await ended;
  }
  await until(
    'everything to be gone',
    () => JSON.stringify([traces(), folders()]) === JSON.stringify(before) && sleepers() === 0,
    20_000,
  );
});
