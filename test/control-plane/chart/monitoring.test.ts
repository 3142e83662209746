// The chart's alerts: rendered by the real helm, read by the real promtool, and every metric that they name is one that we have.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
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
  const files = ['core', 'platform', 'webhook', 'extender', 'reconciler', 'certs'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => join(folder, file)),
  );
  const source = ['main.ts', ...files].map((file) => readFileSync(join(ROOT, file), 'utf8')).join('\n');
  for (const { alert, expr, annotations } of rules) {
    const metrics = expr.match(/gpu_gate_[a-z_]+/g) ?? [];
    expect(metrics.length, alert).toBeGreaterThan(0);
    for (const metric of metrics) expect(source.includes(`'${metric}'`), `${alert} names ${metric}`).toBe(true);
    expect(annotations.description, alert).toMatch(/kubectl|Event|log/);
  }
});

/** Runs promtool on the chart's rules, in a folder that holds them as `rules.yaml`, and `tests.yaml` where there are tests. */
async function promtool(args: readonly string[], tests: object = {}): Promise<void> {
  const rule = (await rendered()).find((object) => object?.kind === 'PrometheusRule');
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-rules-'));
  try {
    writeFileSync(join(dir, 'rules.yaml'), stringify({ groups: rule?.spec.groups }));
    writeFileSync(join(dir, 'tests.yaml'), stringify(tests));
    const { status, stdout, stderr } = spawnSync('promtool', args, { encoding: 'utf8', cwd: dir });
    expect(status, stdout + stderr).toBe(0);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

it.skipIf(noPromtool)('promtool takes the rules', () => promtool(['check', 'rules', 'rules.yaml']));

/** What Prometheus scrapes of one replica of the request path: how long its certificate holds, how long its watches have been silent. */
const replica = (instance: string, certificate: number, silent: number): object[] =>
  Object.entries({
    'gpu_gate_extender_known_nodes{state="validated",open="true",': 3,
    'gpu_gate_admission_in_flight{': 0,
    'gpu_gate_served_certificate_not_after_seconds{secret="gpu-gate-extender-tls",': certificate,
    'gpu_gate_served_certificate_not_after_seconds{secret="gpu-gate-webhook-tls",': certificate,
    'gpu_gate_watch_age_seconds{watch="nodes",': silent,
    'gpu_gate_watch_age_seconds{watch="gpupolicies",': 1,
  }).map(([name, value]) => ({ series: `${name}instance="${instance}"}`, values: `${value}x300` }));
const YEAR = 365 * 86_400;

it.skipIf(noPromtool).each([
  ['quiet while a replica is ready and another is not', [...replica('a', YEAR, 1), ...replica('b', YEAR, 9999)], []],
  ['up when nothing is scraped', [], ['GPUGateExtenderDown', 'GPUGateWebhookDown']],
  [
    'up when every certificate has ended',
    replica('a', 1, 1),
    ['GPUGateExtenderDown', 'GPUGateWebhookDown', 'GPUGateServedCertificateExpires'],
  ],
  ['up when every replica is cut off', replica('a', YEAR, 200), ['GPUGateExtenderDown', 'GPUGateWebhookDown']],
  ['up when certificates are soon to end', replica('a', 13 * 86_400, 1), ['GPUGateServedCertificateExpires']],
])('the alerts of the request path are %s', (_, series, firing) =>
  promtool(['test', 'rules', 'tests.yaml'], {
    rule_files: ['rules.yaml'],
    tests: [
      {
        interval: '1m',
        input_series: series,
        promql_expr_test: ['GPUGateExtenderDown', 'GPUGateWebhookDown', 'GPUGateServedCertificateExpires'].map(
          (alert) => ({
            expr: `count(ALERTS{alertname="${alert}",alertstate="firing"}) or vector(0)`,
            eval_time: '90m',
            // A certificate's alert is one for each of the two Secrets.
            exp_samples: [
              {
                labels: '{}',
                value: firing.includes(alert) ? (alert === 'GPUGateServedCertificateExpires' ? 2 : 1) : 0,
              },
            ],
          }),
        ),
      },
    ],
  }),
);
