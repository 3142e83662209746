// What webhook and extender have in common: servers whose certificates follow Secrets.
import { totalmem } from 'node:os';
import { Counter, Gauge } from 'prom-client';
import { certFollower, type CertFollower, type TrustedCas } from '../certs/follower.ts';
import { startServer, type RunningServer, type ServerOptions, type TlsMaterial } from '../platform/http.ts';
import { intake, memoryLimit } from '../platform/intake.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';
import type { ConfigMapKey } from './options.ts';
import { agesOf, staleWatches, type Part, type Shared, type Watches } from './part.ts';

/**
 * Time that a call which is still running at the end of a stop gets: the longest time limit of a
 * caller, the scheduler's.
 */
const LAST_CALL_MS = 5000;
const SERVED_UNTIL = 'gpu_gate_served_certificate_not_after_seconds';

/**
 * Share of the memory limit that bodies and answers may hold: reading one takes several times its
 * size.
 */
const SHARE = 8;

export interface Serving {
  /** A server of the request path: bounded with all others of the process, and counted. */
  server(name: string, options: Pick<ServerOptions, 'port' | 'portOption' | 'handler' | 'tls'>): Promise<RunningServer>;
}

/** What bounds and counts the calls of this process. */
export function serving({ options, registry }: Shared): Serving {
  const registers = [registry];
  const refused = new Counter({
    name: 'gpu_gate_refused_calls_total',
    help: 'Calls that got 503 and connections that were closed because a limit was reached.',
    labelNames: ['limit'],
    registers,
  });
  const limits = intake({
    calls: options.maxCallsInFlight,
    bytes: options.maxBytesInFlight || memoryLimit(process.constrainedMemory(), totalmem()) / SHARE,
    refused: (limit) => refused.inc({ limit }),
  });
  for (const limit of ['calls', 'bytes', 'connections']) refused.inc({ limit }, 0);
  const servers = new Map<string, RunningServer>();
  registry.registerMetric(
    new Gauge({
      name: 'gpu_gate_in_flight_bytes',
      help: 'Bytes of bodies and answers that are held now.',
      registers: [],
      collect() {
        this.set(limits.bytes);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: 'gpu_gate_open_connections',
      help: 'Connections that are open now.',
      labelNames: ['server'],
      registers: [],
      collect() {
        for (const [server, { connections }] of servers) this.set({ server }, connections);
      },
    }),
  );
  return {
    async server(name, own) {
      const server = await startServer({
        ...own,
        host: options.bindAddress,
        callsPerConnection: options.callsPerConnection,
        intake: limits,
        maxConnections: options.maxConnections,
        closedConnection: () => refused.inc({ limit: 'connections' }),
      });
      servers.set(name, server);
      return server;
    },
  };
}

/** The CAs by which callers' client certificates are checked, followed. */
export interface CallerCas {
  readonly watch: Reflector<unknown>;
  /** PEM; empty if there are none. */
  text(): string;
  problem(): string | undefined;
  onChange(listener: () => void): void;
}

/** Follows the CAs in a key of a ConfigMap until the signal. */
export function callerCas({ kube, log }: Shared, place: ConfigMapKey, signal: AbortSignal): CallerCas {
  const listeners: (() => void)[] = [];
  const watch = reflector<string>({
    kube,
    log,
    path: `/api/v1/namespaces/${place.namespace}/configmaps`,
    query: { fieldSelector: `metadata.name=${place.name}` },
    trim: ({ data }: { readonly data?: Readonly<Record<string, string>> }) => data?.[place.key] ?? '',
    onChange() {
      for (const listener of listeners) listener();
    },
  });
  watch.start(signal);
  const text = (): string => watch.get(`${place.namespace}/${place.name}`) ?? '';
  return {
    watch,
    text,
    problem: () =>
      text().includes('BEGIN CERTIFICATE')
        ? undefined
        : `ConfigMap ${place.namespace}/${place.name} holds no certificate in ${place.key}: put the CAs of the API servers' client certificates there, as PEM`,
    onChange: (listener) => void listeners.push(listener),
  };
}

/** Keeps `server` on the newest usable certificate of a Secret until the signal. */
export function follow(
  { options, kube, log, registry, now }: Shared,
  served: {
    readonly secret: string;
    readonly service: string;
    readonly server: RunningServer;
    readonly trusted?: TrustedCas;
    /** The CAs of callers, in place of those that the Secret names. */
    readonly callers?: CallerCas;
  },
  signal: AbortSignal,
): CertFollower {
  const { secret, service, server, trusted, callers } = served;
  let current: TlsMaterial | undefined;
  const use = (): void => {
    if (current !== undefined) server.setTls(callers === undefined ? current : { ...current, ca: callers.text() });
  };
  callers?.onChange(use);
  // Several servers of a process share the metric.
  const servedUntil =
    (registry.getSingleMetric(SERVED_UNTIL) as Gauge | undefined) ??
    new Gauge({
      name: SERVED_UNTIL,
      help: 'When the certificate that this replica serves ends, seconds since the epoch.',
      labelNames: ['secret'],
      registers: [registry],
    });
  const follower = certFollower({
    kube,
    namespace: options.namespace,
    secret,
    log,
    now,
    // Another issuer's certificate may carry other names.
    names: options.certSource === 'self' ? [`${service}.${options.namespace}.svc`] : [],
    ...(trusted === undefined ? {} : { trusted }),
    served: (until) => servedUntil.set({ secret }, until / 1000),
    use(material) {
      current = material;
      use();
    },
  });
  follower.start(signal);
  return follower;
}

/** Servers and what they stand on as one part. */
export function servingPart(
  { options, now }: Shared,
  part: {
    readonly name: string;
    readonly servers: readonly RunningServer[];
    /** Those without whose certificate the part is not ready. */
    readonly followers: readonly { problem(): string | undefined }[];
    /** Watches whose silence makes the part not ready. */
    readonly watches: Watches;
    /** Watches of which only the age is reported. */
    readonly besides: Watches;
    /** Ends the watches. */
    readonly work: AbortController;
  },
): Part {
  const { name, servers, followers, watches, besides, work } = part;
  return {
    name,
    notReady: () => [
      ...staleWatches(watches, options.watchLimit, now()),
      ...followers.flatMap((follower) => follower.problem() ?? []),
    ],
    watchAges: () => agesOf({ ...watches, ...besides }, now()),
    drain() {
      for (const server of servers) server.drain();
    },
    async stop() {
      await Promise.all(servers.map((server) => server.close(LAST_CALL_MS)));
      work.abort();
    },
    ended: Promise.race(servers.map((server) => server.ended)),
  };
}
