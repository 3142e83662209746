// The chart's alerts: rendered by the real helm, read by the real promtool, and every metric that they name is one that we have.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import { binariesFromEnvironment } from '../cluster/cluster.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const noPromtool = spawnSync('promtool', ['--version']).status !== 0;
if (noPromtool) console.log('promtool check rules: skipped, promtool is not here (apt-get install prometheus)');

interface Rule {
  kind?: string;
  spec: { groups: { rules: { alert: string; expr: string; annotations: { description: string } }[] }[] };
}

async function rendered(): Promise<readonly Rule[]> {
  const binaries = await binariesFromEnvironment(console.log);
  const { status, stdout, stderr } = spawnSync(
    binaries('helm'),
    [
      'template',
      'gpu-gate',
      join(ROOT, 'deploy/chart'),
      '--namespace',
      'gpu-gate',
      '--set',
      'monitoring.prometheusRule=true,monitoring.podMonitor=true',
    ],
    { encoding: 'utf8', maxBuffer: 16 << 20 },
  );
  expect(status, stderr).toBe(0);
  return parseAllDocuments(stdout).map((document) => document.toJSON() as Rule);
}

it('every alert names metrics that exist, and says what to do', async () => {
  const objects = await rendered();
  expect(objects.filter((object) => object?.kind === 'PodMonitor')).toHaveLength(1);
  const rules =
    objects.find((object) => object?.kind === 'PrometheusRule')?.spec.groups.flatMap((group) => group.rules) ?? [];
  expect(rules.length).toBeGreaterThan(5);
  const source = ['core', 'platform', 'webhook', 'extender', 'reconciler', 'certs']
    .flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
        .filter((file) => file.endsWith('.ts'))
        .map((file) => readFileSync(join(ROOT, folder, file), 'utf8')),
    )
    .join('\n');
  for (const { alert, expr, annotations } of rules) {
    const metrics = expr.match(/gpu_gate_[a-z_]+/g) ?? [];
    expect(metrics.length, alert).toBeGreaterThan(0);
    for (const metric of metrics) expect(source.includes(`'${metric}'`), `${alert} names ${metric}`).toBe(true);
    expect(annotations.description, alert).toMatch(/kubectl|Event|log/);
  }
});

it.skipIf(noPromtool)('promtool takes the rules', async () => {
  const rule = (await rendered()).find((object) => object?.kind === 'PrometheusRule');
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-rules-'));
  try {
    writeFileSync(join(dir, 'rules.yaml'), stringify({ groups: rule?.spec.groups }));
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', join(dir, 'rules.yaml')], {
      encoding: 'utf8',
    });
    expect(status, stdout + stderr).toBe(0);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
