// The chart's alerts: rendered by the real helm, read by the real promtool, and every metric that
// they name is one that we have.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import { everyMetric } from '../../../app/metrics.ts';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { named, wrongNames } from '../../support/promql.ts';

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
  for (const { alert, expr, annotations } of rules) {
    expect(named(expr).length, alert).toBeGreaterThan(0);
    expect(wrongNames(expr, everyMetric()), alert).toEqual([]);
    expect(annotations.description, alert).toMatch(/kubectl|Event|log/);
  }
});

/**
 * Runs promtool on the chart's rules, in a folder that holds them as `rules.yaml`, and `tests.yaml`
 * where there are tests.
 */
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

/**
 * What Prometheus scrapes of one replica of the request path: how long its certificate holds, how
 * long its watches have been silent.
 */
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

/**
 * A cluster in good order, as Prometheus sees it; each row of the table below changes one thing.
 */
const healthy: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [...replica('a', YEAR, 1)].map((row) => {
      const { series, values } = row as { series: string; values: string };
      return [series, values];
    }),
  ),
  'gpu_gate_nodes{state="validated",policy="default",instance="r"}': '4x300',
  'gpu_gate_nodes{state="driver",policy="default",instance="r"}': '0x300',
  'gpu_gate_nodes{state="failed",policy="default",instance="r"}': '0x300',
  'gpu_gate_open_nodes{instance="r"}': '4x300',
  'gpu_gate_gates_pending{instance="r"}': '0x300',
  'gpu_gate_breaker_tripped{instance="r"}': '0x300',
  'gpu_gate_leader{instance="r"}': '1x300',
  'gpu_gate_leader{instance="s"}': '0x300',
  'gpu_gate_reconcile_errors_total{kind="node",instance="r"}': '0x300',
  'gpu_gate_writes_total{kind="patch-node",result="error",instance="r"}': '0x300',
  'gpu_gate_stage_failures_total{stage="driver",reason="TimedOut",instance="r"}': '0x300',
  'gpu_gate_missed_pods_total{instance="r"}': '0x300',
  'gpu_gate_extender_calls_total{result="error",instance="a"}': '0x300',
  'gpu_gate_extender_duration_seconds_bucket{le="0.1",instance="a"}': '0+60x300',
  'gpu_gate_extender_duration_seconds_bucket{le="5",instance="a"}': '0+60x300',
  'gpu_gate_extender_duration_seconds_bucket{le="+Inf",instance="a"}': '0+60x300',
  'gpu_gate_refused_calls_total{instance="a"}': '0x300',
  'gpu_gate_certificate_left_seconds{certificate="webhook",instance="r"}': `${YEAR}x300`,
  'apiserver_admission_webhook_fail_open_count{name="pods.gpu-gate.dev",instance="k"}': '0x300',
};
const BAD: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  GPUGateNodesFailed: { 'gpu_gate_nodes{state="failed",policy="default",instance="r"}': '1x300' },
  GPUGateNodesStuck: { 'gpu_gate_nodes{state="driver",policy="default",instance="r"}': '1x300' },
  GPUGateValidationFails: { 'gpu_gate_stage_failures_total{stage="driver",reason="TimedOut",instance="r"}': '0+1x300' },
  GPUGateManyNodesClosed: { 'gpu_gate_open_nodes{instance="r"}': '1x300' },
  GPUGateGatesPending: { 'gpu_gate_gates_pending{instance="r"}': '2x300' },
  GPUGateBreakerTripped: { 'gpu_gate_breaker_tripped{instance="r"}': '1x300' },
  GPUGateNoLeader: { 'gpu_gate_leader{instance="r"}': '0x300' },
  GPUGateReconcileErrors: { 'gpu_gate_reconcile_errors_total{kind="node",instance="r"}': '0+30x300' },
  GPUGateRollOutStopped: {
    'gpu_gate_rollout_stopped{policy="default",node="gpu-3",reason="driver: CrashLoop",instance="r"}': '1x300',
  },
  GPUGateWritesFail: { 'gpu_gate_writes_total{kind="patch-node",result="error",instance="r"}': '0+3x300' },
  GPUGateMissedPods: { 'gpu_gate_missed_pods_total{instance="r"}': '0+1x300' },
  GPUGateWatchStale: { 'gpu_gate_watch_age_seconds{watch="nodes",instance="a"}': '130x300' },
  GPUGateExtenderErrors: { 'gpu_gate_extender_calls_total{result="error",instance="a"}': '0+5x300' },
  GPUGateExtenderSlow: { 'gpu_gate_extender_duration_seconds_bucket{le="0.1",instance="a"}': '0+1x300' },
  GPUGateRefusesCalls: { 'gpu_gate_refused_calls_total{instance="a"}': '0+1x300' },
  GPUGateWebhookFailsOpen: {
    'apiserver_admission_webhook_fail_open_count{name="pods.gpu-gate.dev",instance="k"}': '0+1x300',
  },
  GPUGateCertificateExpires: {
    'gpu_gate_certificate_left_seconds{certificate="webhook",instance="r"}': `${13 * 86_400}x300`,
  },
  GPUGateRestartSchedulers: { 'gpu_gate_schedulers_restart_by_seconds{instance="r"}': `${20 * 86_400}x300` },
};
const firing = (name: string, series: Readonly<Record<string, string>>, alerts: readonly string[]): object => ({
  name,
  interval: '1m',
  input_series: Object.entries(series).map(([key, values]) => ({ series: key, values })),
  promql_expr_test: [
    {
      expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
      eval_time: '150m',
      exp_samples: alerts.map((alertname) => ({ labels: `{alertname="${alertname}"}`, value: 1 })),
    },
  ],
});

it('every alert has a row here or above, so that none is never tried', async () => {
  const rule = (await rendered()).find((object) => object?.kind === 'PrometheusRule');
  const names = rule?.spec.groups.flatMap((group) => group.rules).map(({ alert }) => alert) ?? [];
  const above = ['GPUGateExtenderDown', 'GPUGateWebhookDown', 'GPUGateServedCertificateExpires'];
  expect(names.toSorted()).toEqual([...Object.keys(BAD), ...above].toSorted());
});

it.skipIf(noPromtool)('each alert is up where its cause is, alone, and none is up in good order', () =>
  promtool(['test', 'rules', 'tests.yaml'], {
    rule_files: ['rules.yaml'],
    tests: [
      firing('in good order', healthy, []),
      ...Object.entries(BAD).map(([alert, cause]) => firing(alert, { ...healthy, ...cause }, [alert])),
    ],
  }),
);

it.skipIf(noPromtool)('the first pod that the webhook is not asked about is enough', () => {
  const count = { series: 'apiserver_admission_webhook_fail_open_count{name="pods.gpu-gate.dev",instance="k"}' };
  const up = (minute: number, exp_samples: readonly object[]): object => ({
    expr: 'ALERTS{alertname="GPUGateWebhookFailsOpen",alertstate="firing"}',
    eval_time: `${minute}m`,
    exp_samples,
  });
  const labels = 'ALERTS{alertname="GPUGateWebhookFailsOpen",alertstate="firing",severity="warning"}';
  return promtool(['test', 'rules', 'tests.yaml'], {
    rule_files: ['rules.yaml'],
    tests: [
      {
        interval: '1m',
        input_series: [{ ...count, values: '_x20 1x40' }],
        promql_expr_test: [up(19, []), up(25, [{ labels, value: 1 }]), up(45, [])],
      },
    ],
  });
});
