// What a process counts beside its parts, and every metric of the product as one table.
import { Counter, Gauge, Registry } from 'prom-client';
import { certMetrics } from '../certs/metrics.ts';
import { extenderMetrics } from '../extender/metrics.ts';
import { fromZero } from '../platform/counters.ts';
import { reconcilerMetrics } from '../reconciler/metrics.ts';
import { webhookMetrics } from '../webhook/metrics.ts';

/** `collect` reads what it shows at each scrape. */
const read = (
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  collect: (gauge: Gauge) => void,
): void =>
  registry.registerMetric(
    new Gauge({
      name,
      help,
      labelNames: [...labelNames],
      registers: [],
      collect() {
        collect(this);
      },
    }),
  );

/** `ages`: milliseconds since each watch heard of its API server. */
export const watchMetrics = (registry: Registry, ages: () => Iterable<readonly [watch: string, ms: number]>): void =>
  read(
    registry,
    'gpu_gate_watch_age_seconds',
    'Time since the API server was last heard on a watch.',
    ['watch'],
    (gauge) => {
      for (const [watch, ms] of ages()) gauge.set({ watch }, ms / 1000);
    },
  );

/** What bounds the calls of the request path; both functions are read at each scrape. */
export function servingMetrics(
  registry: Registry,
  held: () => number,
  connections: () => Iterable<readonly [server: string, count: number]>,
) {
  const registers = [registry];
  const refused = fromZero(
    new Counter({
      name: 'gpu_gate_refused_calls_total',
      help: 'Calls that got 503 and connections that were closed because a limit was reached.',
      labelNames: ['limit'],
      registers,
    }),
    ['calls', 'bytes', 'connections'].map((limit) => ({ limit })),
  );
  read(registry, 'gpu_gate_in_flight_bytes', 'Bytes of bodies and answers that are held now.', [], (gauge) =>
    gauge.set(held()),
  );
  read(registry, 'gpu_gate_open_connections', 'Connections that are open now.', ['server'], (gauge) => {
    for (const [server, count] of connections()) gauge.set({ server }, count);
  });
  return {
    refused,
    servedUntil: new Gauge({
      name: 'gpu_gate_served_certificate_not_after_seconds',
      help: 'When the certificate that this replica serves ends, seconds since the epoch.',
      labelNames: ['secret'],
      registers,
    }),
  };
}

export interface MetricRow {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
  readonly help: string;
  /** The processes that have it. */
  readonly process: 'request path' | 'reconciler' | 'both';
}

/** prom-client's types leave out the names of labels. */
interface Known {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly labelNames: readonly string[];
}

const rowsOf = (process: MetricRow['process'], register: (registry: Registry) => void): readonly MetricRow[] => {
  const registry = new Registry();
  register(registry);
  return registry.getMetricsAsArray().map((metric) => {
    const { name, type, help, labelNames } = metric as unknown as Known;
    return { name, type, help, labels: labelNames, process };
  });
};

/** What each process registers, by the code that does it; prom-client adds metrics of Node.js. */
export const REGISTERED: Readonly<Record<MetricRow['process'], (registry: Registry) => void>> = {
  'request path': (registry) => {
    webhookMetrics(registry);
    extenderMetrics(registry, () => []);
    servingMetrics(
      registry,
      () => 0,
      () => [],
    );
  },
  reconciler: (registry) => {
    reconcilerMetrics(registry);
    certMetrics(registry, () => 0);
  },
  both: (registry) => watchMetrics(registry, () => []),
};

/** Every metric of gpu-gate. */
export const everyMetric = (): readonly MetricRow[] =>
  (['request path', 'reconciler', 'both'] as const)
    .flatMap((process) => rowsOf(process, REGISTERED[process]))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
