// The only writers, under one Lease: the reconciler and the keeper of certificates.
import { hostname } from 'node:os';
import { certMetrics } from '../certs/metrics.ts';
import { certProbe } from '../certs/probe.ts';
import { certStore, ownObjects } from '../certs/store.ts';
import { leaseElection, type Leadership } from '../platform/lease.ts';
import { reconcilerMetrics } from '../reconciler/metrics.ts';
import { reconciler } from '../reconciler/reconciler.ts';
import {
  agesOf,
  excludedNamespaces,
  EXTENDER_SERVICE,
  serviceNames,
  WEBHOOK_SERVICE,
  type Part,
  type Shared,
} from './part.ts';

/** A loop of the leader: what it watches, and the promise of its work. */
interface Loop {
  readonly synced: () => boolean;
  readonly watchAges: () => Readonly<Record<string, number>>;
  readonly ran: Promise<void>;
}

function startReconciler(shared: Shared, leadership: Leadership, signal: AbortSignal): Loop {
  const { options, kube, log, registry, now } = shared;
  const loop = reconciler({
    kube,
    log,
    metrics: reconcilerMetrics(registry),
    leadership,
    operandNamespace: options.operandNamespace,
    runtimeClass: { name: options.runtimeClass, handler: options.runtimeClassHandler },
    excludedNamespaces: excludedNamespaces(options),
    webhookResources: options.webhookResources,
    notReadyGrace: options.notReadyGrace,
    wakeAfter: options.wakeAfter,
    now,
  });
  return { synced: () => loop.synced, watchAges: () => loop.watchAges(), ran: loop.run(signal) };
}

async function startKeeper(shared: Shared, leads: () => boolean, signal: AbortSignal): Promise<Loop> {
  const { options, kube, log, registry, now } = shared;
  const webhookSans = serviceNames(WEBHOOK_SERVICE, options.namespace, options.certExtraSans);
  // The request path does not load what issues certificates.
  const { CertKeeper } = await import('../certs/keeper.ts');
  const keeper = new CertKeeper({
    store: certStore(kube, options.namespace, leads),
    probe: certProbe({
      kube,
      access: shared.access,
      namespace: options.namespace,
      apiServers: options.apiServers,
      apiServerName: options.apiServerName,
      webhook: { service: WEBHOOK_SERVICE, replicas: options.webhookReplicas },
      extender: { service: EXTENDER_SERVICE, replicas: options.extenderReplicas },
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
  return { synced: () => true, watchAges: () => agesOf(own, now()), ran: keeper.run(signal) };
}

/** Starts the election and the loops of this process's roles. */
export async function startLeader(shared: Shared): Promise<Part> {
  const { options, kube, log } = shared;
  const work = new AbortController();
  const candidacy = new AbortController();
  const leadership = leaseElection({
    kube,
    namespace: options.namespace,
    name: options.leaseName,
    identity: `${hostname()}_${process.pid}_${Math.random().toString(36).slice(2, 8)}`,
    durationMs: options.leaseDuration,
    log,
  });
  const loops: Loop[] = [];
  if (options.roles.includes('reconciler')) loops.push(startReconciler(shared, leadership, work.signal));
  if (options.roles.includes('certs') && options.certSource === 'self')
    loops.push(await startKeeper(shared, () => leadership.held, work.signal));
  const election = leadership.run(candidacy.signal);
  return {
    name: 'leader',
    notReady: () => (loops.every(({ synced }) => synced()) ? [] : ['nodes, pods and policies are not loaded yet']),
    watchAges: () => Object.assign({}, ...loops.map(({ watchAges }) => watchAges())) as Record<string, number>,
    async stop() {
      work.abort();
      // The Lease is given back only when no write is under way: the next leader must not meet one.
      await Promise.allSettled(loops.map(({ ran }) => ran));
      candidacy.abort();
      await election;
    },
    ended: Promise.race([election, ...loops.map(({ ran }) => ran)]),
  };
}
