// The composition root: options → clients → parts → servers → signals. The only file of the product that reads arguments and
// environment, writes what the user sees, and ends the process.
import { hostname } from 'node:os';
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { certFollower, webhookCas, type CertFollower, type TrustedCas } from './certs/follower.ts';
import { certMetrics } from './certs/metrics.ts';
import { ownObjects } from './certs/own-objects.ts';
import { certProbe } from './certs/probe.ts';
import { canaryApp } from './certs/routes.ts';
import { CANARY_SECRET, certStore, EXTENDER_SECRET, WEBHOOK_SECRET } from './certs/store.ts';
import { explain } from './explain/command.ts';
import { EXPLAIN_USAGE, parseExplainArgs } from './explain/args.ts';
import { parsePolicy, type GpuPolicy } from './core/gpu-policy.ts';
import { POLICIES_PATH } from './core/keys.ts';
import type { NodeView } from './gate/node-proof.ts';
import { optionsHelp, parseOptions, type Options } from './app/options.ts';
import { extenderMetrics } from './extender/metrics.ts';
import { extenderApp } from './extender/routes.ts';
import { NodeTable } from './extender/by-name/table.ts';
import { nodeFacts, type NodeFacts } from './gate/verdict.ts';
import { startServer, type RunningServer } from './platform/http.ts';
import { openKube, type Kube, type KubeOptions } from './platform/kube.ts';
import { leaseElection, type Leadership } from './platform/lease.ts';
import { explainError, jsonLog, type Log } from './platform/log.ts';
import { metricsApp } from './platform/monitoring.ts';
import { reflector, type Reflector } from './platform/reflector.ts';
import { reconcilerMetrics } from './reconciler/metrics.ts';
import { reconciler } from './reconciler/reconciler.ts';
import { webhookMetrics } from './webhook/metrics.ts';
import { webhookApp } from './webhook/routes.ts';
import type { RuntimeClassFacts } from './webhook/inject.ts';

const USAGE = `gpu-gate: a GPU pod starts only on a node whose GPU stack has been proven to work

  node main.ts [run] [options]                     run the parts named by --roles
${EXPLAIN_USAGE}
options of run; each is also an environment variable, GPU_GATE_LIKE_THIS for --like-this:
${optionsHelp()}
`;

/** What a running part adds to the whole. */
interface Part {
  /** Why this replica should not be asked yet. */
  notReady(): readonly string[];
  readonly servers: readonly RunningServer[];
}

interface Shared {
  readonly options: Options;
  readonly kube: Kube;
  /** How `kube` was opened. */
  readonly access: KubeOptions;
  readonly log: Log;
  readonly registry: Registry;
  readonly now: () => number;
  /** Ages of watches in ms, read at each scrape. */
  readonly watchAges: (() => Readonly<Record<string, number>>)[];
  /** Ends the watches and loops; comes after the servers have drained. */
  readonly signal: AbortSignal;
}

type Watches = Readonly<Record<string, Reflector<unknown>>>;

const ageOf = (shared: Shared, watch: Reflector<unknown>): number => shared.now() - watch.lastContact();

const staleWatches = (shared: Shared, watches: Watches): string[] =>
  Object.entries(watches).flatMap(([name, watch]) => {
    if (!watch.synced) return [`the list of ${name} is not loaded yet`];
    const age = ageOf(shared, watch);
    return age > shared.options.watchLimit
      ? [`the watch of ${name} has been silent for ${Math.round(age / 1000)} s`]
      : [];
  });

/** Why no verdict should be given: for a pod's event, so without a figure that is another one each time. */
const whyNoVerdict = (shared: Shared, watches: Watches): string | undefined => {
  for (const [name, watch] of Object.entries(watches)) {
    if (!watch.synced) return `the list of ${name} is not loaded yet, the pod is tried again`;
    if (ageOf(shared, watch) > shared.options.watchLimit)
      return `the watch of ${name} has been silent for longer than --watch-limit, the pod is tried again`;
  }
  return undefined;
};
const agesOf = (watches: Watches, now: number): Record<string, number> =>
  Object.fromEntries(Object.entries(watches).map(([name, watch]) => [name, now - watch.lastContact()]));

const serviceNames = (service: string, namespace: string, extra: readonly string[]): string[] => [
  `${service}.${namespace}.svc`,
  `${service}.${namespace}.svc.cluster.local`,
  `${service}.${namespace}`,
  ...extra,
];

const WEBHOOK_SERVICE = 'gpu-gate-webhook';
const EXTENDER_SERVICE = 'gpu-gate-extender';
/** What a call that is still running at the end of a stop gets: the longest time limit of a caller, the scheduler's. */
const LAST_CALL_MS = 5000;

/** Webhook and extender share their caches: they are the request path, and write nothing. */
async function startRequestPath(shared: Shared): Promise<Part> {
  const { options, kube, log, registry, now, signal } = shared;
  const facts = new NodeTable();
  const policies = reflector<GpuPolicy>({
    kube,
    log,
    path: POLICIES_PATH,
    optional: true,
    trim: (raw) => parsePolicy(raw),
  });
  const nodes = reflector<NodeFacts>({
    kube,
    log,
    path: '/api/v1/nodes',
    trim: (raw: NodeView) => nodeFacts(raw),
    onChange: (name, _, after) => facts.set(name, after),
  });
  const namespaces = reflector<Readonly<Record<string, string>>>({
    kube,
    log,
    path: '/api/v1/namespaces',
    trim: (raw: { metadata: { labels?: Record<string, string> } }) => raw.metadata.labels ?? {},
  });
  const runtimeClasses = reflector<RuntimeClassFacts>({
    kube,
    log,
    path: '/apis/node.k8s.io/v1/runtimeclasses',
    trim: (raw: { handler?: string; scheduling?: { nodeSelector?: Record<string, string> } }) => ({
      handler: raw.handler ?? '',
      nodeSelector: raw.scheduling?.nodeSelector ?? {},
    }),
  });
  const servers: RunningServer[] = [];
  const followers: CertFollower[] = [];
  const watches: Record<string, Reflector<unknown>> = { gpupolicies: policies };
  /** Of the certificates that are served; their followers start them. */
  const secrets: Record<string, Reflector<unknown>> = {};
  /** Their age is told; what they bring is no matter of readiness. */
  const besides: Record<string, Reflector<unknown>> = {};
  const servedUntil = new Gauge({
    name: 'gpu_gate_served_certificate_not_after_seconds',
    help: 'When the certificate that this replica serves ends, seconds since the epoch.',
    labelNames: ['secret'],
    registers: [registry],
  });
  const follow = (secret: string, service: string, server: RunningServer, trusted?: TrustedCas): CertFollower => {
    const follower = certFollower({
      kube,
      namespace: options.namespace,
      secret,
      log,
      now,
      // A certificate of another maker may be called by another name.
      names: options.certSource === 'self' ? [`${service}.${options.namespace}.svc`] : [],
      ...(trusted === undefined ? {} : { trusted }),
      served: (until) => servedUntil.set({ secret }, until / 1000),
      use: (material) => server.setTls(material),
    });
    follower.start(signal);
    return follower;
  };
  if (options.roles.includes('webhook')) {
    Object.assign(watches, { namespaces, runtimeclasses: runtimeClasses });
    const excluded = new Set([options.namespace, options.operandNamespace, ...options.excludedNamespaces]);
    const app = webhookApp({
      log,
      metrics: webhookMetrics(registry),
      facts: (namespace) =>
        policies.synced && runtimeClasses.synced && namespaces.synced
          ? {
              policies,
              runtimeClasses,
              namespaceLabels: namespaces.get(namespace),
              namespace,
              excludedNamespaces: excluded,
            }
          : undefined,
    });
    const server = await startServer({
      port: options.webhookPort,
      host: options.bindAddress,
      portOption: 'webhook-port',
      callsPerConnection: options.callsPerConnection,
      handler: app,
      tls: {},
    });
    servers.push(server);
    // Another maker's certificates and caBundle are that one's business.
    const trusted = options.certSource === 'self' ? webhookCas({ kube, log }) : undefined;
    if (trusted !== undefined) {
      trusted.watch.start(signal);
      besides['mutatingwebhookconfigurations'] = trusted.watch;
    }
    const follower = follow(WEBHOOK_SECRET, WEBHOOK_SERVICE, server, trusted);
    followers.push(follower);
    secrets[`secrets/${WEBHOOK_SECRET}`] = follower.watch;
    if (options.certSource === 'self') {
      const canary = await startServer({
        port: options.canaryPort,
        host: options.bindAddress,
        portOption: 'canary-port',
        callsPerConnection: options.callsPerConnection,
        handler: canaryApp(),
        tls: {},
      });
      servers.push(canary);
      // Not a matter of readiness: only a change of CA waits for the canary.
      besides[`secrets/${CANARY_SECRET}`] = follow(CANARY_SECRET, WEBHOOK_SERVICE, canary).watch;
    }
  }
  if (options.roles.includes('extender')) {
    watches['nodes'] = nodes;
    const view = { nodes: facts, policies, operandNamespace: options.operandNamespace };
    const needed = { nodes, gpupolicies: policies };
    const app = extenderApp({
      metrics: extenderMetrics(registry, () => facts.facts()),
      nodes: facts,
      now,
      log,
      view() {
        // Not being ready takes a replica out of the Service for new connections only, and a scheduler keeps its one.
        const because = whyNoVerdict(shared, needed);
        return because === undefined ? view : { because };
      },
    });
    const server = await startServer({
      port: options.extenderPort,
      host: options.bindAddress,
      portOption: 'extender-port',
      callsPerConnection: options.callsPerConnection,
      handler: app,
      tls: options.extenderClients.length === 0 ? {} : { client: { names: options.extenderClients } },
    });
    servers.push(server);
    const follower = follow(EXTENDER_SECRET, EXTENDER_SERVICE, server);
    followers.push(follower);
    secrets[`secrets/${EXTENDER_SECRET}`] = follower.watch;
  }
  for (const watch of Object.values(watches)) watch.start(signal);
  shared.watchAges.push(() => agesOf({ ...watches, ...secrets, ...besides }, now()));
  return {
    servers,
    notReady: () => [
      ...staleWatches(shared, { ...watches, ...secrets }),
      ...followers.flatMap((follower) => follower.problem() ?? []),
    ],
  };
}

/** Reconciler and certificate authority: elected, and the only writers. */
async function startWriters(shared: Shared, leadership: Leadership): Promise<Part> {
  const { options, kube, log, registry, now, signal } = shared;
  const leads = (): boolean => leadership.held;
  let ready = (): boolean => true;
  if (options.roles.includes('reconciler')) {
    const loop = reconciler({
      kube,
      log,
      metrics: reconcilerMetrics(registry),
      leadership,
      operandNamespace: options.operandNamespace,
      excludedNamespaces: new Set([options.namespace, options.operandNamespace, ...options.excludedNamespaces]),
      webhookResources: options.webhookResources,
      notReadyGrace: options.notReadyGrace,
      wakeAfter: options.wakeAfter,
      now,
    });
    shared.watchAges.push(() => loop.watchAges());
    ready = () => loop.synced;
    void loop.run(signal);
  }
  if (options.roles.includes('certs') && options.certSource === 'self') {
    const webhookSans = serviceNames(WEBHOOK_SERVICE, options.namespace, options.certExtraSans);
    // Only here: what can make certificates is not loaded into the request path.
    const { CertKeeper } = await import('./certs/keeper.ts');
    const keeper = new CertKeeper({
      store: certStore(kube, options.namespace, leads),
      probe: certProbe({
        kube,
        access: shared.access,
        namespace: options.namespace,
        apiServers: options.apiServers,
        apiServerName: options.apiServerName,
        service: WEBHOOK_SERVICE,
        replicas: options.webhookReplicas,
        serverName: webhookSans[0] ?? '',
      }),
      log,
      metrics: certMetrics(registry, now),
      leads,
      now,
      webhookSans,
      extenderSans: serviceNames(EXTENDER_SERVICE, options.namespace, options.certExtraSans),
      certLife: options.certLife,
      caLife: options.caLife,
      extenderCaLife: options.extenderCaLife,
      extenderCaOverlap: options.extenderCaOverlap,
      canaryWindow: options.canaryWindow,
      caGrace: options.caGrace,
      checkEvery: options.certCheck,
    });
    const own = ownObjects({ kube, log, namespace: options.namespace, onChange: () => keeper.wake() });
    for (const watch of Object.values(own)) watch.start(signal);
    shared.watchAges.push(() => agesOf(own, now()));
    void keeper.run(signal);
  }
  return { servers: [], notReady: () => (ready() ? [] : ['nodes, pods and policies are not loaded yet']) };
}

async function run(options: Options, stop: AbortSignal): Promise<void> {
  const log = jsonLog(options.logLevel, (line) => process.stdout.write(`${line}\n`), {
    roles: options.roles.join(','),
  });
  const access = { kubeconfig: options.kubeconfig, userAgent: `gpu-gate/${options.roles.join('+')}` };
  const kube = await openKube(access);
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  // Gauges that prom-client names like counters, which `promtool check metrics` and dashboards rightly dislike.
  for (const what of ['handles', 'requests', 'resources']) registry.removeSingleMetric(`nodejs_active_${what}_total`);
  const work = new AbortController();
  const watchAges: Shared['watchAges'] = [];
  const watchAge = new Gauge({
    name: 'gpu_gate_watch_age_seconds',
    help: 'Time since the API server was last heard on a watch.',
    labelNames: ['watch'],
    registers: [],
    collect() {
      for (const ages of watchAges) for (const [watch, ms] of Object.entries(ages())) this.set({ watch }, ms / 1000);
    },
  });
  registry.registerMetric(watchAge);
  const shared: Shared = { options, kube, access, log, registry, now: Date.now, watchAges, signal: work.signal };
  const parts: Part[] = [];
  let election: Promise<void> = Promise.resolve();
  const metrics = await startServer({
    port: options.metricsPort,
    host: options.bindAddress,
    portOption: 'metrics-port',
    handler: metricsApp(registry, {
      notReady: () =>
        stop.aborted ? ['stopping'] : parts.length === 0 ? ['starting'] : parts.flatMap((part) => part.notReady()),
    }),
  });
  if (options.roles.includes('webhook') || options.roles.includes('extender'))
    parts.push(await startRequestPath(shared));
  if (options.roles.includes('reconciler') || options.roles.includes('certs')) {
    const identity = `${hostname()}_${process.pid}_${Math.random().toString(36).slice(2, 8)}`;
    const leadership = leaseElection({
      kube,
      namespace: options.namespace,
      name: options.leaseName,
      identity,
      durationMs: options.leaseDuration,
      log,
    });
    parts.push(await startWriters(shared, leadership));
    election = leadership.run(work.signal);
  }
  log.info('started', { server: kube.server, metrics: metrics.port });
  await new Promise<void>((resolve) =>
    stop.aborted ? resolve() : stop.addEventListener('abort', () => resolve(), { once: true }),
  );
  // Readiness has failed by now; those who still come are served until the endpoints have been taken out.
  log.info('stopping', { drain: options.drain });
  const servers = parts.flatMap((part) => part.servers);
  for (const server of servers) server.drain();
  if (servers.length > 0) await new Promise((resolve) => setTimeout(resolve, options.drain));
  await Promise.all(servers.map((server) => server.close(LAST_CALL_MS)));
  work.abort();
  await election;
  await metrics.close(0);
}

async function main(args: readonly string[]): Promise<number> {
  const [command = 'run', ...rest] = args[0]?.startsWith('-') === false ? args : ['run', ...args];
  if (args.includes('--help') || args.includes('-h') || command === 'help') {
    process.stdout.write(USAGE);
    return 0;
  }
  if (command === 'explain') {
    const parsed = parseExplainArgs(rest, process.env);
    if (parsed.ok)
      return explain(
        parsed.args,
        (text) => void process.stdout.write(text),
        (text) => void process.stderr.write(text),
      );
    process.stderr.write(`${parsed.because}\n`);
    return 2;
  }
  if (command !== 'run') {
    process.stderr.write(`unknown command ${JSON.stringify(command)}: run, explain; see --help\n`);
    return 2;
  }
  const parsed = parseOptions(rest, process.env);
  if (!parsed.ok) {
    process.stderr.write(`gpu-gate cannot start:\n${parsed.problems.map((problem) => `  ${problem}\n`).join('')}`);
    return 2;
  }
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => (stop.signal.aborted ? process.exit(1) : stop.abort()));
  await run(parsed.options, stop.signal);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`gpu-gate stopped: ${explainError(error)}\n`);
  process.exitCode = 1;
}
