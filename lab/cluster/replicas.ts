// Several replicas of the webhook behind its one Service, as processes: each at an address of a
// private `lo`, in an EndpointSlice that follows their readiness as Kubernetes' own would. The API
// server must run with --enable-aggregator-routing and in a network namespace that has the
// addresses (test/support/network.ts).
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlPlane } from './control-plane.ts';
import { PATIENCE_MS, type Running } from './lifetime.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const SLICES = '/apis/discovery.k8s.io/v1/namespaces/gpu-gate/endpointslices';
const METRICS_PORT = 9090;
/** How often readiness is looked at, ms: the chart's probe looks every 2 s. */
const PROBE_EVERY = 200;

export interface Replica {
  readonly address: string;
  readonly metricsUrl: string;
  start(): Promise<void>;
  /** SIGTERM; it leaves the EndpointSlice as soon as it says that it is not ready. */
  stop(): Promise<void>;
  /** SIGKILL, so the replica cannot announce that it stops. */
  kill(): Promise<void>;
}

export interface ReplicasOptions {
  /** Addresses of `lo`, one a replica. */
  readonly addresses: readonly string[];
  readonly roles?: string;
  /** Further options of each replica. */
  readonly flags?: readonly string[];
}

/**
 * Starts a process of gpu-gate as one of the chart's ServiceAccounts at an address of its own;
 * resolves at once.
 */
export async function startProcess(
  cp: ControlPlane,
  name: string,
  account: string,
  address: string,
  flags: readonly string[],
): Promise<Running> {
  const kubeconfig = await cp.serviceAccountKubeconfig('gpu-gate', account);
  const args = [join(ROOT, 'main.ts'), 'run', '--kubeconfig', kubeconfig, '--bind-address', address, ...flags];
  return cp.lifetime.start(name, process.execPath, args);
}

/**
 * Starts the replicas, not waiting for their readiness, and keeps the EndpointSlice. The chart must
 * be installed.
 */
export async function startReplicas(cp: ControlPlane, options: ReplicasOptions): Promise<readonly Replica[]> {
  const replicas = options.addresses.map((address): Replica => {
    let running: Running | undefined;
    const metricsUrl = `http://${address}:${METRICS_PORT}/metrics`;
    return {
      address,
      metricsUrl,
      async start() {
        const flags = ['--roles', options.roles ?? 'webhook', ...(options.flags ?? [])];
        running = await startProcess(cp, `replica-${address}`, 'gpu-gate', address, flags);
      },
      stop: async () => running?.stop(15_000),
      async kill() {
        if (running === undefined) return;
        process.kill(running.pid, 'SIGKILL');
        await running.stop();
      },
    };
  });
  for (const replica of replicas) await replica.start();
  keepSlice(cp, options.addresses);
  return replicas;
}

/**
 * A refused connection or a 503 says no; an answer that is slow is waited for, as on a busy
 * machine.
 */
const isReady = async (address: string): Promise<boolean> => {
  try {
    return (await fetch(`http://${address}:${METRICS_PORT}/readyz`, { signal: AbortSignal.timeout(PATIENCE_MS) })).ok;
  } catch {
    return false;
  }
};

/** Plays the kubelet's probe and the EndpointSlice controller until the control plane stops. */
function keepSlice(cp: ControlPlane, addresses: readonly string[]): void {
  const ending = new AbortController();
  let written = '';
  const ready = addresses.map(() => false);
  const body = (which: readonly boolean[]) => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: 'gpu-gate-webhook-test',
      namespace: 'gpu-gate',
      labels: {
        'kubernetes.io/service-name': 'gpu-gate-webhook',
        'endpointslice.kubernetes.io/managed-by': 'gpu-gate-test',
      },
    },
    addressType: 'IPv4',
    ports: [
      { name: 'https', port: 8443, protocol: 'TCP' },
      { name: 'canary', port: 8445, protocol: 'TCP' },
    ],
    endpoints: addresses.map((address, i) => ({ addresses: [address], conditions: { ready: which[i] ?? false } })),
  });
  const probe = async (address: string, i: number): Promise<void> => {
    while (!ending.signal.aborted) {
      ready[i] = await isReady(address);
      await sleep(PROBE_EVERY);
    }
  };
  // Each by itself: a replica that answers late says nothing about another one.
  addresses.forEach((address, i) => void probe(address, i));
  const loop = (async () => {
    while (!ending.signal.aborted) {
      const text = JSON.stringify(ready);
      if (text !== written) {
        try {
          await cp.admin.request('PATCH', `${SLICES}/gpu-gate-webhook-test`, {
            contentType: 'application/apply-patch+yaml',
            query: { fieldManager: 'gpu-gate-test', force: true },
            body: body(ready),
          });
          written = text;
        } catch {
          // The API server is away: the next round tries again.
        }
      }
      await sleep(PROBE_EVERY);
    }
  })();
  cp.lifetime.onStop(async () => {
    ending.abort();
    await loop;
  });
}
