// Queries of Prometheus, read by Prometheus' own grammar: which metrics and labels they name, and
// whether the product has them.
import { parser } from '@prometheus-io/lezer-promql';
import type { MetricRow } from '../../app/metrics.ts';

type SyntaxNode = ReturnType<typeof parser.parse>['topNode'];

interface Named {
  readonly metric: string;
  readonly labels: readonly string[];
}

/** Labels that Prometheus adds to what it scrapes. */
const ADDED = new Set(['instance', 'job', 'namespace', 'pod']);
/** Series of a histogram. */
const PARTS = /_(bucket|sum|count)$/;

/** What Grafana writes into a query before it sends it. */
export const withoutVariables = (expr: string, range = '1m'): string =>
  expr.replaceAll('$policy', '.*').replaceAll(/\[\$__(rate_interval|range)\]/g, `[${range}]`);

const under = (node: SyntaxNode, type: string): readonly SyntaxNode[] => {
  const found: SyntaxNode[] = [];
  node.cursor().iterate((at) => {
    if (at.name === type) found.push(at.node);
  });
  return found;
};

/** Every metric of the query with the labels that the query relies on. Throws where it is none. */
export function named(expr: string): readonly Named[] {
  const top = parser.parse(expr).topNode;
  const text = (node: SyntaxNode | null | undefined): string =>
    node === null || node === undefined ? '' : expr.slice(node.from, node.to);
  const selectors = (node: SyntaxNode): readonly Named[] =>
    under(node, 'VectorSelector').map((selector) => ({
      metric: text(selector.getChild('Identifier')),
      labels: under(selector, 'LabelName').map(text),
    }));
  const [error] = under(top, '⚠');
  if (error !== undefined) throw new SyntaxError(`no PromQL at ${error.from}: ${expr}`);
  const grouped = under(top, 'AggregateExpr').flatMap((aggregate) => {
    const by = aggregate.getChild('AggregateModifier');
    const labels = by === null ? [] : under(by, 'LabelName').map(text);
    return selectors(aggregate).map(({ metric }) => ({ metric, labels }));
  });
  return [...selectors(top), ...grouped];
}

/** What is wrong with the names in a query. Metrics of others are theirs to keep. */
export function wrongNames(expr: string, table: readonly MetricRow[]): readonly string[] {
  const rows = new Map(table.map((row) => [row.name, row]));
  const wrong = named(expr).flatMap(({ metric, labels }) => {
    if (!metric.startsWith('gpu_gate_')) return [];
    const whole = metric.replace(PARTS, '');
    const row = rows.get(metric) ?? (rows.get(whole)?.type === 'histogram' ? rows.get(whole) : undefined);
    if (row === undefined) return [`${metric} does not exist`];
    if (row.type === 'histogram' && metric === row.name)
      return [`${metric} is a histogram, which has no series of its own name`];
    return labels
      .filter((label) => !row.labels.includes(label) && !ADDED.has(label))
      .filter((label) => label !== 'le' || !metric.endsWith('_bucket'))
      .map((label) => `${metric} has no label ${label}`);
  });
  return [...new Set(wrong)];
}
