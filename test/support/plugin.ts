// `kubectl gpu-gate` as users get it: packed, and installed from the tarball.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { runCommand } from '../../lab/cluster/control-plane.ts';

const ROOT = join(import.meta.dirname, '..', '..');

/** Installs it below a folder; the path of the program. */
export async function installPlugin(home: string): Promise<string> {
  const npm = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runCommand(
      'npm',
      [...args, '--loglevel', 'error'],
      process.env as Record<string, string>,
    );
    if (code !== 0 || stderr !== '') throw new Error(`npm ${args[0]} ended with ${code}: ${stderr}`);
    return stdout;
  };
  const packed = await npm('pack', join(ROOT, 'kubectl'), '--pack-destination', home);
  const tarball = packed.trim().split('\n').at(-1) ?? '';
  await npm('install', '--prefix', home, '--no-audit', '--no-fund', '--offline', join(home, tarball));
  return join(home, 'node_modules/.bin/kubectl-gpu_gate');
}

export interface PluginResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Both, in the order in which they came. */
  readonly output: string;
}

/** Runs an installed program to its end, as a user whose home is that folder. */
export const runPlugin = (
  program: string,
  args: readonly string[],
  home: string,
  kubeconfig: string,
): Promise<PluginResult> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], {
      env: { PATH: process.env['PATH'] ?? '', HOME: home, KUBECONFIG: kubeconfig },
    });
    let [stdout, stderr, output] = ['', '', ''];
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      output += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
      output += chunk.toString();
    });
    child.on('close', (code) => resolve({ code: code ?? -1, stdout, stderr, output }));
  });
