// What certificates show on the metrics port.
import { Counter, Gauge, type Registry } from 'prom-client';
import { fromZero } from '../platform/counters.ts';
import type { Change, Step } from './chain.ts';

export type CertMetrics = ReturnType<typeof certMetrics>;

/** One that is missing here does not compile. */
const CHANGES = {
  'make-ca': true,
  adopt: true,
  publish: true,
  'hand-out': true,
  'issue-canary': true,
  confirm: true,
  'issue-leaf': true,
  'issue-client': true,
  retire: true,
  'drop-old': true,
} as const satisfies Record<Change['kind'], true>;

/** The leader's. */
export function certMetrics(registry: Registry, now: () => number) {
  const registers = [registry];
  const ends = new Map<string, number>();
  const gauge = (name: string, help: string, labelNames: readonly string[] = []): Gauge => {
    const made = new Gauge({ name: `gpu_gate_${name}`, help, labelNames: [...labelNames], registers });
    // Absent until there is something to report, because a 0 would be a statement.
    if (labelNames.length === 0) made.remove();
    return made;
  };
  registry.registerMetric(
    new Gauge({
      name: 'gpu_gate_certificate_not_after_seconds',
      help: 'When a certificate ends, seconds since the epoch.',
      labelNames: ['certificate'],
      registers: [],
      collect() {
        this.reset();
        for (const [certificate, to] of ends) this.set({ certificate }, to / 1000);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: 'gpu_gate_certificate_left_seconds',
      help: 'Seconds until a certificate ends.',
      labelNames: ['certificate'],
      registers: [],
      collect() {
        this.reset();
        for (const [certificate, to] of ends) this.set({ certificate }, (to - now()) / 1000);
      },
    }),
  );
  const step = gauge('certificate_step', '1 for the step that a chain took last, or for what it waits for.', [
    'chain',
    'step',
  ]);
  const steps = new Map<string, string>();
  const bundle = gauge('ca_bundle_certificates', 'CAs that the webhook configuration trusts.');
  const extenderBundle = gauge(
    'extender_ca_certificates',
    'CAs that schedulers should know; more than 1: restart those that read the file before.',
  );
  const canary = gauge('certificate_canary_ok', '1: the last canary came back through every API server.');
  const clockOffset = gauge(
    'certificate_clock_offset_seconds',
    "The API server's clock less ours, when a certificate was last made.",
  );
  const restartBy = new Gauge({
    name: 'gpu_gate_schedulers_restart_by_seconds',
    help: "By when schedulers must have been restarted, because the extender's CA changes: seconds since the epoch. Absent: no change is under way.",
    registers,
  });
  restartBy.remove();
  return {
    /** `to` in milliseconds since the epoch. `undefined` if there is no such certificate. */
    ends(certificate: string, to: number | undefined): void {
      if (to === undefined) ends.delete(certificate);
      else ends.set(certificate, to);
    },
    /** Milliseconds since the epoch. `undefined` if no change is under way. */
    restartBy(at: number | undefined): void {
      if (at === undefined) restartBy.remove();
      else restartBy.set(at / 1000);
    },
    rotations: fromZero(
      new Counter({
        name: 'gpu_gate_certificate_rotations_total',
        help: 'Steps of making and replacing certificates.',
        labelNames: ['chain', 'kind', 'result'],
        registers,
      }),
      ['webhook', 'extender'].flatMap((chain) =>
        Object.keys(CHANGES).flatMap((kind) => ['ok', 'conflict', 'error'].map((result) => ({ chain, kind, result }))),
      ),
    ),
    step(chain: string, { kind, ...rest }: Step): void {
      const before = steps.get(chain);
      if (before !== undefined) step.remove({ chain, step: before });
      const label = 'on' in rest ? `wait-${rest.on}` : kind;
      steps.set(chain, label);
      step.set({ chain, step: label }, 1);
    },
    bundle,
    extenderBundle,
    canary,
    clockOffset,
    lastError: new Gauge({
      name: 'gpu_gate_certificate_last_error_timestamp_seconds',
      help: 'When a step last failed; 0: never.',
      registers,
    }),
    /** Another process leads now and reports. What was true here may not be true any more. */
    forget(): void {
      ends.clear();
      step.reset();
      steps.clear();
      for (const one of [bundle, extenderBundle, canary, clockOffset, restartBy]) one.remove();
    },
  };
}
