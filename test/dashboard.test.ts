// The dashboard names what the product has: metrics, labels, states, alerts.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { everyMetric } from '../app/metrics.ts';
import { STATES } from '../core/stages.ts';
import { dashboard } from './support/dashboard.ts';
import { named, withoutVariables, wrongNames } from './support/promql.ts';

const { panels } = dashboard();
const queries = panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr, legendFormat }) => ({ title, expr, legendFormat })),
);
const text = (path: string): string => readFileSync(join(import.meta.dirname, '..', path), 'utf8');

it.each(queries)('$title: $expr', ({ expr, legendFormat }) => {
  const query = withoutVariables(expr);
  expect(wrongNames(query, everyMetric())).toEqual([]);
  // A legend shows labels that the query leaves.
  const labels = new Set(named(query).flatMap((name) => name.labels));
  for (const [, label = ''] of legendFormat.matchAll(/{{(\w+)}}/g)) expect([...labels]).toContain(label);
  for (const [, state] of query.matchAll(/\bstate="(\w+)"/g)) expect(STATES).toContain(state);
});

it('each metric of the product is in the table, by the names in its sources', () => {
  const sources = [
    'app/metrics.ts',
    ...['webhook', 'extender', 'reconciler', 'certs'].map((part) => `${part}/metrics.ts`),
  ]
    .map(text)
    .join('\n');
  // The certificates' gauges are named without the prefix.
  const names = [...sources.matchAll(/'(gpu_gate_\w+)'|= gauge\(\s*'(\w+)'/g)].map(
    ([, whole, part]) => whole ?? `gpu_gate_${part}`,
  );
  expect(everyMetric().map(({ name }) => name)).toEqual(names.toSorted());
});

it('each alert that a panel names is one, and panels neither share a number nor overlap', () => {
  const alerts = text('deploy/chart/templates/monitoring.yaml');
  for (const { title, description = '' } of panels)
    for (const [alert] of description.matchAll(/GPUGate\w+/g)) expect(alerts, title).toContain(`- alert: ${alert}\n`);
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, i) => `${x + (i % w)} ${y + Math.floor(i / w)}`),
  );
  expect(new Set(cells).size).toBe(cells.length);
});

describe('a query is refused', () => {
  it.each([
    ['with a metric that is not there', 'sum(gpu_gate_absent)', ['gpu_gate_absent does not exist']],
    ['with a label that is not there', 'gpu_gate_nodes{zone="a"}', ['gpu_gate_nodes has no label zone']],
    ['grouped by a label that is not there', 'sum by (zone) (gpu_gate_nodes)', ['gpu_gate_nodes has no label zone']],
    [
      'for a histogram as such',
      'gpu_gate_stage_seconds',
      ['gpu_gate_stage_seconds is a histogram, which has no series of its own name'],
    ],
    ['for a sum that is not there', 'gpu_gate_nodes_sum', ['gpu_gate_nodes_sum does not exist']],
    ['for le of a sum', 'sum by (le) (gpu_gate_stage_seconds_sum)', ['gpu_gate_stage_seconds_sum has no label le']],
  ])('%s', (_, expr, wrong) => expect(wrongNames(expr, everyMetric())).toEqual(wrong));

  it('that does not parse', () => expect(() => named('sum by (a (b)')).toThrow('no PromQL'));
});
