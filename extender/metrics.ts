// What the extender counts.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { STATES } from '../core/stages.ts';
import type { NodeFacts } from '../gate/verdict.ts';
import { fromZero } from '../platform/counters.ts';

export type ExtenderMetrics = ReturnType<typeof extenderMetrics>;

export const VERBS = ['filter', 'prioritize', 'preempt'] as const;
export type Verb = (typeof VERBS)[number];
const RESULTS = ['ok', 'error', 'malformed'] as const;
export type Result = (typeof RESULTS)[number];

/** `nodes` is read at each scrape. */
export function extenderMetrics(registry: Registry, nodes: () => Iterable<NodeFacts>) {
  const registers = [registry];
  const known = new Gauge({
    name: 'gpu_gate_extender_known_nodes',
    help: 'Nodes that this replica knows, by state, and whether new GPU pods may come.',
    labelNames: ['state', 'open'],
    registers: [],
    collect() {
      this.reset();
      for (const state of [...STATES, 'unmanaged']) this.set({ state, open: 'false' }, 0);
      for (const { state, ours, closed } of nodes()) this.inc({ state, open: String(ours && closed === undefined) });
    },
  });
  registry.registerMetric(known);
  return {
    /** Not there before the first: no alert asks for them, and reasons are many. */
    verdicts: new Counter({
      name: 'gpu_gate_verdicts_total',
      help: 'Verdicts on nodes by reason; an empty reason is a yes.',
      labelNames: ['verdict', 'reason'],
      registers,
    }),
    calls: fromZero(
      new Counter({
        name: 'gpu_gate_extender_calls_total',
        help: 'Calls of the scheduler by verb and result.',
        labelNames: ['verb', 'result'],
        registers,
      }),
      VERBS.flatMap((verb) => RESULTS.map((result) => ({ verb, result }))),
    ),
    wouldRefuse: new Counter({
      name: 'gpu_gate_would_refuse_total',
      help: 'Nodes that would have been refused if the policy enforced.',
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
    bytes: new Histogram({
      name: 'gpu_gate_extender_request_bytes',
      help: 'Size of the calls.',
      labelNames: ['verb'],
      buckets: [4096, 16_384, 65_536, 262_144, 1_048_576, 16_777_216],
      registers,
    }),
  };
}
