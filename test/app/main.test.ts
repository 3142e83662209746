// The process as a kubelet sees it: it ends, with an exit code, whatever keeps it from serving.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { freePort } from '../../lab/cluster/control-plane.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'main.ts');
const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-main-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** Runs the program to its end. */
const program = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  new Promise<{ readonly code: number | null; readonly text: string }>((resolve) => {
    const child = spawn(process.execPath, [MAIN, ...args], { env: { ...process.env, ...env } });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
    child.on('close', (code) => resolve({ code, text }));
  });

it.each(['webhook-port', 'canary-port', 'extender-port', 'metrics-port'])(
  'a taken --%s ends the process with exit code 1',
  async (taken) => {
    // Nothing listens there: the parts that did start go on trying, and must not keep the process
    // alive.
    const server = `https://127.0.0.1:${await freePort()}`;
    const kubeconfig = join(dir, 'kubeconfig');
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'c', cluster: { server } }],
        users: [{ name: 'u', user: { token: 't' } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      }),
    );
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    const ports = ['webhook-port', 'canary-port', 'extender-port', 'metrics-port'];
    const { code, text } = await program([
      'run',
      '--kubeconfig',
      kubeconfig,
      '--bind-address',
      '127.0.0.1',
      ...ports.flatMap((name) => [`--${name}`, name === taken ? String(port) : '0']),
    ]);
    other.close();
    expect(text).toContain(`gpu-gate stopped: port ${port} is in use: choose another one with --${taken}`);
    expect(code).toBe(1);
  },
);

it('bad options end it with exit code 2 and every problem at once', async () => {
  const { code, text } = await program(['--roles', 'cook', '--nope', 'x'], { GPU_GATE_WEBHOK_PORT: '1' });
  expect(code).toBe(2);
  expect(text).toMatch(/gpu-gate cannot start:\n(.*--nope.*|.*GPU_GATE_WEBHOK_PORT.*|.*cook.*|\n)*$/);
  expect(text.trim().split('\n')).toHaveLength(4);
});

it('the help ends it with exit code 0, an unknown command with 2', async () => {
  const help = await program(['--help']);
  expect([help.code, help.text]).toEqual([0, expect.stringContaining('--webhook-port')]);
  const unknown = await program(['cook']);
  expect([unknown.code, unknown.text]).toEqual([
    2,
    'unknown command "cook": write run, explain or images; see --help\n',
  ]);
});
