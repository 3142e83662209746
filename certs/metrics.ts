// What certificates show on the metrics port.
import { Counter, Gauge, type Registry } from 'prom-client';

export type CertMetrics = ReturnType<typeof certMetrics>;

/** The leader's. */
export function certMetrics(registry: Registry, now: () => number) {
  const registers = [registry];
  const ends = new Map<string, number>();
  const gauge = (name: string, help: string, labelNames: readonly string[] = []): Gauge =>
    new Gauge({ name: `gpu_gate_${name}`, help, labelNames: [...labelNames], registers });
  const notAfter = gauge('certificate_not_after_seconds', 'When a certificate ends, seconds since the epoch.', [
    'certificate',
  ]);
  registry.registerMetric(
    new Gauge({
      name: 'gpu_gate_certificate_left_seconds',
      help: 'Seconds until a certificate ends; of extender-ca: until schedulers must have read the next one.',
      labelNames: ['certificate'],
      registers: [],
      collect() {
        for (const [certificate, to] of ends) this.set({ certificate }, (to - now()) / 1000);
      },
    }),
  );
  return {
    /** `to`: ms since the epoch. */
    ends(certificate: string, to: number): void {
      ends.set(certificate, to);
      notAfter.set({ certificate }, to / 1000);
    },
    rotations: new Counter({
      name: 'gpu_gate_certificate_rotations_total',
      help: 'Steps of making and replacing certificates.',
      labelNames: ['kind', 'result'],
      registers,
    }),
    step: gauge('certificate_step', '1 for the step taken last, or for what is awaited.', ['step']),
    bundle: gauge('ca_bundle_certificates', 'CAs that the webhook configuration trusts.'),
    extenderBundle: gauge(
      'extender_ca_certificates',
      'CAs that schedulers should know; more than 1: restart those that read the file before.',
    ),
    canary: gauge('certificate_canary_ok', '1: the last canary came back through every API server.'),
    clockOffset: gauge(
      'certificate_clock_offset_seconds',
      "The API server's clock less ours, when a certificate was last made.",
    ),
    lastError: gauge('certificate_last_error_timestamp_seconds', 'When a step last failed; 0: never.'),
  };
}
