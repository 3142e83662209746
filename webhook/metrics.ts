// What the webhook counts.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

export type WebhookMetrics = ReturnType<typeof webhookMetrics>;

export function webhookMetrics(registry: Registry) {
  const registers = [registry];
  return {
    calls: new Counter({
      name: 'gpu_gate_admission_total',
      help: 'Admission calls by outcome (injected, left, refused, malformed, failed) and reason.',
      labelNames: ['outcome', 'reason'],
      registers,
    }),
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
