// What the webhook counts.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { fromZero } from '../platform/counters.ts';
import { LEAVES, REFUSALS, type Leave, type Refuse } from './inject.ts';

export type WebhookMetrics = ReturnType<typeof webhookMetrics>;

/** How a call ended, as it is counted. */
export type Counts =
  | { readonly outcome: 'injected'; readonly reason: '' }
  | { readonly outcome: 'left'; readonly reason: Leave }
  | { readonly outcome: 'refused'; readonly reason: Refuse }
  | { readonly outcome: 'malformed'; readonly reason: (typeof MALFORMED)[number] }
  | { readonly outcome: 'failed'; readonly reason: (typeof FAILED)[number] };
const MALFORMED = ['content-type', 'body', 'json', 'review'] as const;
const FAILED = ['too-busy', 'not-ready', 'internal-error'] as const;
const ALL: readonly Counts[] = [
  { outcome: 'injected', reason: '' },
  ...LEAVES.map((reason) => ({ outcome: 'left', reason }) as const),
  ...REFUSALS.map((reason) => ({ outcome: 'refused', reason }) as const),
  ...MALFORMED.map((reason) => ({ outcome: 'malformed', reason }) as const),
  ...FAILED.map((reason) => ({ outcome: 'failed', reason }) as const),
];

export function webhookMetrics(registry: Registry) {
  const registers = [registry];
  return {
    calls: fromZero(
      new Counter({
        name: 'gpu_gate_admission_total',
        help: 'Admission calls by outcome (injected, left, refused, malformed, failed) and reason.',
        labelNames: ['outcome', 'reason'],
        registers,
      }),
      ALL,
    ),
    duration: new Histogram({
      name: 'gpu_gate_admission_duration_seconds',
      help: 'Time from the headers of a call to its answer, reading the body included.',
      buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1],
      registers,
    }),
    inFlight: new Gauge({ name: 'gpu_gate_admission_in_flight', help: 'Admission calls being answered.', registers }),
    size: new Histogram({
      name: 'gpu_gate_admission_body_bytes',
      help: 'Size of admission requests.',
      buckets: [1e3, 4e3, 1.6e4, 6.4e4, 2.56e5, 1e6, 4e6],
      registers,
    }),
  };
}
