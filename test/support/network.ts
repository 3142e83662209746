// Scenarios that need more than loopback: one of our scripts in a network namespace of its own,
// whose `lo` has further addresses.
import { spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Why no network namespace can be made here; undefined: it can. */
export const noOwnNetwork = (): string | undefined => {
  if (process.getuid?.() !== 0) return 'not root: a network namespace of its own cannot be made';
  const tried = spawnSync('unshare', ['--net', 'ip', 'link', 'set', 'lo', 'up']);
  return tried.status === 0
    ? undefined
    : `no network namespace can be made: ${String(tried.error?.message ?? tried.stderr).trim()}`;
};

/**
 * Runs a script in its own network namespace with these addresses on `lo`. What it prints is passed
 * on line by line, but for its last line that begins with RESULT: the JSON after it is the result.
 */
export function inOwnNetwork<T>(
  script: string,
  options: { readonly addresses: readonly string[]; readonly argument: unknown; readonly say: (line: string) => void },
): Promise<T> {
  const setUp = ['ip link set lo up', ...options.addresses.map((address) => `ip addr add ${address}/32 dev lo`)];
  const child = spawn(
    'unshare',
    [
      '--net',
      'sh',
      '-c',
      `${setUp.join(' && ')} && exec "$@"`,
      'sh',
      process.execPath,
      script,
      JSON.stringify(options.argument),
    ],
    { stdio: ['pipe', 'pipe', 'pipe'] },
  );
  let result: string | undefined;
  let errors = '';
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line.startsWith('RESULT ')) result = line.slice(7);
    else options.say(line);
  });
  child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4000)));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 && result !== undefined
        ? resolve(JSON.parse(result) as T)
        : reject(new Error(`${script} ended with ${code}:\n${errors}`)),
    );
  });
}
