// The test cluster itself: what it says where it cannot start, and that it leaves nothing behind
// whatever ends it.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { CONTROL_PLANE, ensureBinaries } from '../../../lab/cluster/binaries.ts';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { freePort, startControlPlane } from '../../../lab/cluster/control-plane.ts';
import { until } from '../../../lab/cluster/gate.ts';
import { openLifetime } from '../../../lab/cluster/lifetime.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const quiet = (): void => undefined;
const empty = mkdtempSync(join(tmpdir(), 'gpu-gate-empty-'));
afterAll(() => rmSync(empty, { recursive: true, force: true }));

/** Runs main.ts or a script to its end. */
const script = (
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number | null; output: string }> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [...args], { cwd: ROOT, env: { PATH: process.env['PATH'] ?? '', ...env } });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('close', (code) => resolve({ code, output }));
  });

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe('where something is missing', () => {
  it('no Go and no binaries: one sentence with both ways out', async () => {
    await expect(ensureBinaries({ modules: CONTROL_PLANE, cacheHome: empty, path: empty, say: quiet })).rejects.toThrow(
      /Go is not on PATH; install Go .* or set GPU_GATE_TEST_BIN/,
    );
  });
  it('a folder that lacks programs: which ones', async () => {
    await expect(ensureBinaries({ modules: CONTROL_PLANE, folder: empty, say: quiet })).rejects.toThrow(
      `GPU_GATE_TEST_BIN=${empty} lacks etcd`,
    );
  });
  it('an API server that never comes up: a sentence and the tail of its log', async () => {
    const binaries = await binariesFromEnvironment(quiet);
    await expect(
      startControlPlane({ binaries, apiServerArgs: ['--secure-port', String(await freePort())], readyWithinMs: 4000 }),
    ).rejects.toThrow(/kube-apiserver (was not ready within 4 s|ended at once)[\s\S]*the end of its log:\n {4}\S/);
  });
  it('an API server with a wrong flag: at once', async () => {
    const binaries = await binariesFromEnvironment(quiet);
    await expect(startControlPlane({ binaries, apiServerArgs: ['--bogus'] })).rejects.toThrow(
      /kube-apiserver ended at once[\s\S]*bogus/,
    );
  });
});

describe('the program', () => {
  it('with a wrong option: every problem at once, exit code 2', async () => {
    const { code, output } = await script(['main.ts', '--bogus', '--webhook-port', 'x']);
    expect([code, output.match(/^ {2}\S/gm)?.length]).toEqual([2, 2]);
  });
  it('with an unknown command, or a script with a wrong number: exit code 2', async () => {
    expect((await script(['main.ts', 'fly'])).code).toBe(2);
    expect(await script(['scripts/cluster.ts', '--nodes', 'many'])).toMatchObject({
      code: 2,
      output: expect.stringContaining('--nodes many: write a whole number'),
    });
  });
  it('with no API server to talk to: one sentence, exit code 1', async () => {
    expect(await script(['main.ts', 'run'], { HOME: empty })).toMatchObject({
      code: 1,
      output: expect.stringContaining('give --kubeconfig PATH'),
    });
  });
  it('with a port in use: one sentence, exit code 1', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as AddressInfo;
    const kubeconfig = join(empty, 'kubeconfig');
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:1' } }],
        users: [{ name: 'u', user: {} }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      }),
    );
    const { code, output } = await script([
      'main.ts',
      'run',
      '--kubeconfig',
      kubeconfig,
      '--bind-address',
      '127.0.0.1',
      '--metrics-port',
      String(port),
    ]);
    taken.close();
    expect([code, output.includes(`port ${port} is in use: choose another one with --metrics-port`)]).toEqual([
      1,
      true,
    ]);
  });
});

describe('when it ends', () => {
  it('a stopped lifetime leaves no process and no folder', async () => {
    const lifetime = openLifetime('test');
    const { pid } = lifetime.start('sleeper', 'sleep', ['600']);
    await lifetime.stop();
    expect([isAlive(pid), existsSync(lifetime.dir)]).toEqual([false, false]);
  });
  it.each(['SIGINT', 'SIGTERM', 'SIGKILL'] as const)(
    '`npm run cluster` ended by %s leaves no process and no folder',
    async (signal) => {
      const child = spawn(process.execPath, ['scripts/cluster.ts', '--nodes', '1'], {
        cwd: ROOT,
        env: { ...process.env },
      });
      let output = '';
      child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
      while (!output.includes('export KUBECONFIG=')) {
        if (child.exitCode !== null) throw new Error(output);
        await sleep(100);
      }
      const dir = /KUBECONFIG=(.*)\/admin/.exec(output)?.[1] ?? '';
      const pids = readFileSync(join(dir, 'pids'), 'utf8').trim().split('\n').map(Number);
      expect(pids.length).toBeGreaterThan(4);
      const exited = new Promise<number | null>((resolve) => child.on('close', (code) => resolve(code)));
      child.kill(signal);
      const code = await exited;
      await until(
        'the folder and all processes to be gone',
        () => !existsSync(dir) && !pids.some(isAlive),
        undefined,
        async () => JSON.stringify([existsSync(dir), pids.filter(isAlive)]),
      );
      expect(code).toBe({ SIGINT: 130, SIGTERM: 143, SIGKILL: null }[signal]);
    },
  );
});
