// What the extender counts.
import { Counter, Histogram, type Registry } from 'prom-client';

export type ExtenderMetrics = ReturnType<typeof extenderMetrics>;

export function extenderMetrics(registry: Registry) {
  const registers = [registry];
  return {
    verdicts: new Counter({
      name: 'gpu_gate_verdicts_total',
      help: 'Verdicts on nodes by reason; an empty reason is a yes.',
      labelNames: ['verdict', 'reason'],
      registers,
    }),
    calls: new Counter({
      name: 'gpu_gate_extender_calls_total',
      help: 'Calls of the scheduler by verb and result.',
      labelNames: ['verb', 'result'],
      registers,
    }),
    wouldRefuse: new Counter({
      name: 'gpu_gate_would_refuse_total',
      help: 'Nodes that would have been refused, were the policy to enforce.',
      registers,
    }),
    duration: new Histogram({
      name: 'gpu_gate_extender_duration_seconds',
      help: 'Time from the whole body to the answer.',
      labelNames: ['verb'],
      buckets: [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5],
      registers,
    }),
    nodes: new Histogram({
      name: 'gpu_gate_extender_nodes',
      help: 'Nodes per call.',
      buckets: [1, 10, 100, 500, 1000, 5000, 15_000],
      registers,
    }),
  };
}

/** Reasons for a metric's label: those that carry a stage, an operator's or a pod's words are folded. */
export const reasonLabel = (reason: string): string =>
  reason.startsWith('annotation ')
    ? 'malformed annotation'
    : reason.replace(/^(GPU node closed|GPU stack failed|GPU stack not validated): .*$/, '$1');
