// What webhook and extender have in common: servers whose certificates follow Secrets.
import { totalmem } from 'node:os';
import type { Gauge } from 'prom-client';
import { certFollower, type CertFollower, type TrustedCas } from '../certs/follower.ts';
import { startServer, type RunningServer, type ServerOptions, type TlsMaterial } from '../platform/http.ts';
import { intake, memoryLimit } from '../platform/intake.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';
import { servingMetrics } from './metrics.ts';
import type { ConfigMapKey } from './options.ts';
import { agesOf, staleWatches, type Part, type Shared, type Watches } from './part.ts';

/**
 * Time that a call which is still running at the end of a stop gets: the longest time limit of a
 * caller, the scheduler's.
 */
const LAST_CALL_MS = 5000;

/**
 * Share of the memory limit that bodies and answers may hold: reading one takes several times its
 * size.
 */
const SHARE = 8;

export interface Serving {
  /** A server of the request path: bounded with all others of the process, and counted. */
  server(name: string, options: Pick<ServerOptions, 'port' | 'portOption' | 'handler' | 'tls'>): Promise<RunningServer>;
  /** Keeps a server on the newest usable certificate of a Secret until the signal. */
  follow(served: Served, signal: AbortSignal): CertFollower;
}

interface Served {
  readonly secret: string;
  readonly service: string;
  readonly server: RunningServer;
  readonly trusted?: TrustedCas;
  /** The CAs of callers, in place of those that the Secret names. */
  readonly callers?: CallerCas;
}

/** What bounds and counts the calls of this process. */
export function serving(shared: Shared): Serving {
  const { options, registry } = shared;
  const servers = new Map<string, RunningServer>();
  const { refused, servedUntil } = servingMetrics(
    registry,
    () => limits.bytes,
    () => [...servers].map(([server, { connections }]) => [server, connections] as const),
  );
  const limits = intake({
    calls: options.maxCallsInFlight,
    bytes: options.maxBytesInFlight || memoryLimit(process.constrainedMemory(), totalmem()) / SHARE,
    refused: (limit) => refused.inc({ limit }),
  });
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
    follow: (served, signal) => follow(shared, servedUntil, served, signal),
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

function follow(
  { options, kube, log, now }: Shared,
  servedUntil: Gauge,
  { secret, service, server, trusted, callers }: Served,
  signal: AbortSignal,
): CertFollower {
  let current: TlsMaterial | undefined;
  const use = (): void => {
    if (current !== undefined) server.setTls(callers === undefined ? current : { ...current, ca: callers.text() });
  };
  callers?.onChange(use);
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
