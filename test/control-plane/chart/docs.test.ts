// The commands of quick start, plugin, pending pods and upgrade, as the pages have them, on one
// cluster. Those of the uninstall run in their own test.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { binariesFromEnvironment, startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until } from '../../../lab/cluster/gate.ts';
import { viewOf } from '../../builders/view.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
let cluster: Cluster;
let home: string;
const { kubectl, validated, gpuPod, restore } = viewOf(() => cluster);

/** The block of a page that begins so; what a reader puts in stands in for words in capitals. */
function block(page: string, start: string, words: Readonly<Record<string, string>> = {}): string {
  const blocks = [...readFileSync(join(ROOT, page), 'utf8').matchAll(/^```sh\n([^]*?)^```$/gm)].map(
    ([, body = '']) => body,
  );
  const found = blocks.filter((body) => body.startsWith(start));
  expect(found, `${page}: ${start}`).toHaveLength(1);
  return Object.entries(words).reduce(
    (text, [word, value]) => text.replaceAll(new RegExp(`\\b${word}\\b`, 'g'), value),
    found[0] ?? '',
  );
}

/** Runs it as a reader does, in a checkout, up to the first command that fails. */
const run = (commands: string): Promise<{ readonly code: number | null; readonly output: string }> =>
  new Promise((resolve) => {
    const child = spawn('bash', ['-e', '-o', 'pipefail', '-c', commands], {
      cwd: join(home, 'checkout'),
      env: {
        PATH: `${home}/bin:${home}/global/bin:${process.env['PATH']}`,
        HOME: home,
        KUBECONFIG: cluster.kubeconfig,
        npm_config_prefix: `${home}/global`,
        npm_config_loglevel: 'error',
        npm_config_offline: 'true',
      },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('close', (code) => resolve({ code, output }));
  });
const ends = async (commands: string): Promise<string> => {
  const { code, output } = await run(commands);
  expect(code, output).toBe(0);
  return output;
};

beforeAll(async () => {
  cluster = await startCluster({ nodes: 1, say: console.log });
  home = join(cluster.dir, 'reader');
  for (const folder of ['bin', 'checkout', 'global']) mkdirSync(join(home, folder), { recursive: true });
  for (const entry of readdirSync(ROOT)) symlinkSync(join(ROOT, entry), join(home, 'checkout', entry));
  const binaries = await binariesFromEnvironment(console.log);
  for (const name of ['kubectl', 'helm'])
    writeFileSync(join(home, 'bin', name), `#!/bin/sh\nexec ${binaries(name)} "$@"\n`, { mode: 0o755 });
});
afterAll(async () => cluster?.stop());

it('README, the plugin, pending pods and the upgrade: each command ends well', { timeout: 600_000 }, async () => {
  const install = block('README.md', 'helm install', { REGISTRY: 'registry.example.com', TAG: '0.1.0', NODE: 'gpu-0' });
  expect(await ends(install)).toContain('STATUS: deployed');
  // What follows needs gpu-gate's processes, which no kubelet runs here.
  await ends(
    'kubectl label node gpu-0 gpu-gate.dev/managed- && helm uninstall gpu-gate --namespace gpu-gate --no-hooks',
  );
  await startGate(cluster);
  await restore('gpu-0');
  expect(await ends(block('docs/kubectl.md', 'npm pack'))).toContain('1 of 1 GPU nodes open');
  expect(await ends(block('README.md', 'kubectl apply --server-side'))).toContain('STATUS: deployed');

  await gpuPod('first');
  await gpuPod('waits', 'gpu-0', 1000);
  await until('the second to wait', async () =>
    (await kubectl('get', 'pod', 'waits', '-o', 'jsonpath={.status.conditions[*].reason}')).includes('Unschedulable'),
  );
  const pending = block('docs/pending.md', 'kubectl gpu-gate explain', { POD: 'waits', NODE: 'gpu-0' });
  // The last command ends with 1 while a pod waits.
  expect((await run(pending)).output).toContain('default/waits');

  await kubectl('delete', 'pod', 'first', 'waits', '--force', '--grace-period=0');
  const [patch = '', get = ''] = block('docs/upgrade.md', 'kubectl patch gpupolicy').split('\n');
  await ends(patch);
  expect(await ends(get)).toContain('ROLLOUT');
  const version = async (): Promise<boolean> =>
    (await kubectl('get', 'node', 'gpu-0', '-o', 'jsonpath={.metadata.annotations.gpu-gate\\.dev/proof}')).includes(
      '595.91.07',
    );
  await until('the new driver to be proven', version);
  await validated('gpu-0');
});
