// A real Prometheus scrapes gpu-gate and the API server: every query of the dashboard has data, and
// alerts arrive by a real Alertmanager.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { everyMetric } from '../../../app/metrics.ts';
import { binariesFromEnvironment, startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, untilEnforcing, type Gate } from '../../../lab/cluster/gate.ts';
import { drawn } from '../../support/dashboard-svg.ts';
import { viewOf } from '../../builders/view.ts';
import { dashboard, type Panel } from '../../support/dashboard.ts';
import { lacksPrometheus, startPrometheus, type Prometheus, type Series } from '../../support/prometheus.ts';
import { withoutVariables } from '../../support/promql.ts';

const lacks = lacksPrometheus();
if (lacks !== undefined) console.log(`Prometheus and Alertmanager: skipped, ${lacks}`);
const ROOT = join(import.meta.dirname, '..', '..', '..');
/** A panel that may be empty says when that is so. */
const mayBeEmpty = ({ description = '' }: Panel): boolean => /\bempty (while|with)\b/i.test(description);
/** A folder for pictures; none are taken without it. */
const PICTURES = process.env['GPU_GATE_TEST_PICTURES'];

/** The chart's rules. promtool tries how long each waits; here each waits a second. */
async function rules(): Promise<unknown> {
  const helm = (await binariesFromEnvironment(console.log))('helm');
  const { stdout } = spawnSync(
    helm,
    [
      'template',
      'gpu-gate',
      join(ROOT, 'deploy/chart'),
      '--namespace',
      'gpu-gate',
      '--set',
      'monitoring.prometheusRule=true',
      '--show-only',
      'templates/monitoring.yaml',
    ],
    { encoding: 'utf8', maxBuffer: 16 << 20 },
  );
  const [rule] = parseAllDocuments(stdout).map(
    (document) => document.toJS() as { spec: { groups: { rules: object[] }[] } },
  );
  return rule?.spec.groups.map((group) => ({
    ...group,
    rules: group.rules.map((one) => ('for' in one ? { ...one, for: '1s' } : one)),
  }));
}

describe.skipIf(lacks !== undefined)('a Prometheus that scrapes gpu-gate', () => {
  let cluster: Cluster;
  let gate: Gate;
  let prometheus: Prometheus;
  const { kubectl, annotate, validated, gpuPod, state } = viewOf(() => cluster);
  const firing = (alert: string): Promise<unknown> =>
    until(`${alert} to arrive`, () => prometheus.alerts.get(alert) === 'firing');

  /** Answers by panel and query, at the end of the story. */
  const answers = new Map<Panel, readonly (readonly Series[])[]>();
  /** How the alert of an outage stood while it lasted, and after it. */
  const outage: unknown[] = [];

  // One node is proven and runs a pod, one fails and a pod waits for it; the request path goes and
  // comes back, and pods are made meanwhile.
  beforeAll(async () => {
    cluster = await startCluster({ nodes: 2, say: console.log });
    gate = await startGate(cluster, {
      // A leader that changes takes its figures along.
      flags: ['--lease-duration', '30s'],
      values: { policy: { spec: { validation: { backoff: { initial: '5m', max: '10m' } } } } },
    });
    prometheus = await startPrometheus(cluster, Object.values(gate.metricsUrls), await rules());
    await until('a first scrape', async () => (await prometheus.query('gpu_gate_missed_pods_total')).length > 0);
    await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
    await validated('gpu-0');
    await annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails=boom');
    await kubectl('label', 'node', 'gpu-1', 'gpu-gate.dev/managed=true');
    await until('gpu-1 to fail', async () => (await state('gpu-1')) === 'failed');
    await untilEnforcing(cluster);
    await annotate('gpu-0', 'gpu-gate.dev/hold=test');
    await gpuPod('runs', 'gpu-0');
    const refusals = 'gpu_gate_verdicts_total{verdict="refuse"}';
    await until('a refusal to be scraped', async () => (await prometheus.query(refusals)).length > 0);
    await annotate('gpu-0', 'gpu-gate.dev/hold-');
    await gpuPod('waits', 'gpu-1');
    await firing('GPUGateNodesFailed');
    await until(
      'the pods to be counted',
      async () => (await prometheus.query('gpu_gate_waiting_pods == 1')).length === 1,
    );

    await gate.stopRequestPath();
    await gpuPod('missed', 'gpu-0');
    await firing('GPUGateWebhookFailsOpen');
    await firing('GPUGateMissedPods');
    await firing('GPUGateWebhookDown');
    await firing('GPUGateExtenderDown');
    await gate.startRequestPath();
    await until('the outage to be over', () => prometheus.alerts.get('GPUGateWebhookDown') === 'resolved');
    outage.push(prometheus.alerts.get('GPUGateWebhookDown'));

    // Rates need two scrapes of the new process.
    await gpuPod('later', 'gpu-0');
    const admissions = 'rate(gpu_gate_admission_total[1m]) > 0';
    await until('admissions to be scraped', async () => (await prometheus.query(admissions)).length > 0);
    await until('a leader that knows both nodes', async () => {
      const both = 'sum(gpu_gate_leader) == 1 and sum(gpu_gate_nodes) == 2 and sum(gpu_gate_open_nodes) == 1';
      return (await prometheus.query(both)).length === 1;
    });
    for (const panel of dashboard().panels) {
      const queries = (panel.targets ?? []).map(({ expr }) => withoutVariables(expr));
      answers.set(panel, await Promise.all(queries.map((query) => prometheus.query(query))));
    }
    if (PICTURES !== undefined) {
      mkdirSync(PICTURES, { recursive: true });
      writeFileSync(
        join(PICTURES, 'dashboard.svg'),
        await drawn(dashboard(), 3, (expr, minutes) => prometheus.range(expr, minutes)),
      );
    }
  });
  afterAll(async () => cluster?.stop());

  it('finds every metric of the table and no other, of the type that the table states', async () => {
    const served = [...(await gate.metrics()).matchAll(/^# TYPE (gpu_gate_\w+) (\w+)$/gm)].map(
      ([, name, type]) => `${name} ${type}`,
    );
    expect([...new Set(served)].toSorted()).toEqual(
      everyMetric()
        .map(({ name, type }) => `${name} ${type}`)
        .toSorted(),
    );
  });

  it('has data for every query of the dashboard; a panel without any says when that is so', () => {
    const silent = [...answers]
      .filter(([, found]) => found.some((series) => series.length === 0))
      .map(([panel]) => panel);
    expect(silent.filter((panel) => !mayBeEmpty(panel)).map(({ title }) => title)).toEqual([]);
    // What did not happen in this story.
    expect(silent.map(({ title }) => title)).toEqual([
      'Nodes that stop a roll-out',
      'Schedulers must have restarted in',
    ]);
  });

  it('shows what is so', () => {
    const value = (title: string): readonly string[] =>
      [...answers]
        .filter(([panel]) => panel.title === title)
        .flatMap(([, found]) => found.flat().map((series) => series.value?.[1] ?? ''));
    expect(['Open nodes', 'Opted-in nodes', 'Failed nodes', 'Breaker', 'Replicas that lead'].map(value)).toEqual([
      ['1'],
      ['2'],
      ['1'],
      ['0'],
      ['1'],
    ]);
    expect(value('GPU pods that wait')[0]).toBe('1');
  });

  it('sends alerts that arrive, and that are taken back when their cause is gone', () =>
    expect(outage).toEqual(['resolved']));
});
