// `kubectl gpu-gate` as users get it: packed, and installed from the tarball.
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
