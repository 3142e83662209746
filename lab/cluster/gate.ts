// gpu-gate on a test cluster: its own chart by `helm install`, its processes beside the control
// plane under the chart's own ServiceAccounts, and the chart's second scheduler with the chart's
// own configuration.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort, runCommand, type ControlPlane } from './control-plane.ts';
import { PATIENCE_MS, untilReady, type Running } from './lifetime.ts';

const ROOT = join(import.meta.dirname, '..', '..');

export interface Gate {
  readonly webhookPort: number;
  readonly canaryPort: number;
  readonly extenderPort: number;
  readonly metricsUrls: { readonly requestPath: string; readonly reconciler: string };
  /** Metrics of both processes as one text. */
  metrics(): Promise<string>;
  stopReconciler(): Promise<void>;
  startReconciler(): Promise<void>;
  /** SIGKILL: it gives no Lease back. */
  killReconciler(): Promise<void>;
  /** Starts what a test has stopped and not started again: the request path, or both. */
  requestPathRuns(): Promise<void>;
  allRunning(): Promise<void>;
  requestPathPid(): number;
  /** Resolves with its exit code, or the signal that it took after half a minute. */
  stopRequestPath(): Promise<number | string | undefined>;
  startRequestPath(): Promise<void>;
  /**
   * One more process of the request path, on ports of its own: its extender's port, where it says
   * whether it is ready, how to kill it.
   */
  startReplica(
    flags?: readonly string[],
  ): Promise<{ readonly extenderPort: number; readonly readyUrl: string; kill(): Promise<void> }>;
  upgrade(values: object): Promise<void>;
}

export interface GateOptions {
  /** Chart values on top of those that processes need. */
  readonly values?: object;
  /** Further options of the program. */
  readonly flags?: readonly string[];
  /** Options of Node.js for the reconciler; default: those of the chart's Deployment. */
  readonly nodeFlags?: readonly string[];
  readonly scheduler?: boolean;
  /**
   * Where the request path reaches the API server, such as a slow proxy; default: the API server
   * itself.
   */
  readonly requestPathServer?: string;
}

const merged = (
  a: Readonly<Record<string, unknown>>,
  b: Readonly<Record<string, unknown>>,
): Record<string, unknown> => {
  const both: Record<string, unknown> = { ...a };
  for (const [key, value] of Object.entries(b)) {
    const before = both[key];
    const isMap = (v: unknown): v is Record<string, unknown> =>
      typeof v === 'object' && v !== null && !Array.isArray(v);
    both[key] = isMap(before) && isMap(value) ? merged(before, value) : value;
  }
  return both;
};

/**
 * Waits for a condition that is checked every 100 ms; says what was awaited where it does not come,
 * and what `explain` finds out then.
 */
export async function until<T>(
  what: string,
  check: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = PATIENCE_MS,
  explain?: () => Promise<string>,
): Promise<T> {
  const end = Date.now() + timeoutMs;
  let last: unknown;
  while (Date.now() < end) {
    try {
      const value = await check();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    await sleep(100);
  }
  const why = explain === undefined ? '' : `: ${await explain().catch((error: unknown) => String(error))}`;
  throw new Error(`waited ${Math.round(timeoutMs / 1000)} s for ${what}${why}`, { cause: last });
}

/** Resolves once the policy enforces. */
export const untilEnforcing = (cp: ControlPlane, policy = 'default'): Promise<unknown> =>
  until(`policy ${policy} to enforce`, async () => {
    const { status } = await cp.admin.request<{ status?: { enforcingSince?: string } }>(
      'GET',
      `/apis/gpu-gate.dev/v1alpha1/gpupolicies/${policy}`,
    );
    return status?.enforcingSince;
  });

/** The chart by real helm into namespace gpu-gate. */
export async function installChart(
  cp: ControlPlane,
  verb: 'install' | 'upgrade',
  values: Readonly<Record<string, unknown>>,
): Promise<void> {
  const file = join(cp.dir, 'values.json');
  writeFileSync(file, JSON.stringify(values));
  const place = ['--namespace', 'gpu-gate', '--create-namespace', '--values', file];
  const result = await cp.helm([verb, 'gpu-gate', join(ROOT, 'deploy', 'chart'), ...place]);
  if (result.code !== 0) throw new Error(`helm ${verb} failed: ${result.stderr.trim()}`);
}

/** What the chart's Deployment of the reconciler sets for Node.js. */
function reconcilerNodeFlags(): readonly string[] {
  const text = readFileSync(join(ROOT, 'deploy/chart/templates/deployments.yaml'), 'utf8');
  const [, value] = /"NODE_OPTIONS" "value" "([^"]+)"/.exec(text) ?? [];
  if (value === undefined) throw new Error('the chart sets no NODE_OPTIONS');
  return value.split(' ');
}

/** Installs and starts everything; resolves when every process is ready. */
export async function startGate(cp: ControlPlane, options: GateOptions = {}): Promise<Gate> {
  const [webhookPort, canaryPort, extenderPort, requestMetrics, reconcilerMetrics] = await Promise.all([
    freePort(),
    freePort(),
    freePort(),
    freePort(),
    freePort(),
  ]);
  const base = {
    deployments: { create: false },
    webhook: {
      url: `https://127.0.0.1:${webhookPort}/mutate`,
      canaryUrl: `https://127.0.0.1:${canaryPort}/canary`,
    },
  };
  let values = merged(base, (options.values ?? {}) as Record<string, unknown>);
  await installChart(cp, 'install', values);

  const common = [
    '--namespace',
    'gpu-gate',
    '--bind-address',
    '127.0.0.1',
    '--cert-extra-sans',
    '127.0.0.1,localhost',
    '--drain',
    '200ms',
    // Longer than a busy machine holds a renewal up: a leader that stops gives the Lease back.
    '--lease-duration',
    '15s',
    ...(options.flags ?? []),
  ];
  const launch = async (
    account: string,
    roles: string,
    metricsPort: number,
    more: readonly string[],
    nodeFlags: readonly string[] = [],
  ): Promise<Running> => {
    const kubeconfig = await cp.serviceAccountKubeconfig('gpu-gate', account);
    if (options.requestPathServer !== undefined && account === 'gpu-gate') {
      const text = readFileSync(kubeconfig, 'utf8').replaceAll(cp.server, options.requestPathServer);
      writeFileSync(kubeconfig, text);
    }
    const args = [
      ...nodeFlags,
      join(ROOT, 'main.ts'),
      'run',
      '--roles',
      roles,
      '--kubeconfig',
      kubeconfig,
      '--metrics-port',
      String(metricsPort),
      ...more,
      ...common,
    ];
    const process_ = cp.lifetime.start(account, process.execPath, args, {}, 0);
    await untilReady(process_, async () => (await fetch(`http://127.0.0.1:${metricsPort}/readyz`)).ok);
    return process_;
  };
  let requestPath: Running | undefined;
  let reconciler: Running | undefined;
  const startRequestPath = async (): Promise<void> => {
    requestPath = await launch('gpu-gate', 'webhook,extender', requestMetrics, [
      '--webhook-port',
      String(webhookPort),
      '--canary-port',
      String(canaryPort),
      '--extender-port',
      String(extenderPort),
    ]);
  };
  const requestPathRuns = async (): Promise<void> => {
    if (requestPath?.exitCode() !== undefined) await startRequestPath();
  };
  const startReconciler = async (): Promise<void> => {
    reconciler = await launch(
      'gpu-gate-reconciler',
      'reconciler,certs',
      reconcilerMetrics,
      [
        // No Service here, and a control plane on loopback advertises an address that it does not
        // listen on.
        '--webhook-replicas',
        `127.0.0.1:${webhookPort}`,
        '--extender-replicas',
        `127.0.0.1:${extenderPort}`,
        '--api-servers',
        new URL(cp.server).host,
      ],
      options.nodeFlags ?? reconcilerNodeFlags(),
    );
  };
  await until('the ServiceAccounts of the chart', () =>
    cp.admin.request('GET', '/api/v1/namespaces/gpu-gate/serviceaccounts/gpu-gate-reconciler'),
  );
  // At once: the request path waits for the certificates that the other one makes.
  await Promise.all([startReconciler(), startRequestPath()]);
  // The reconciler creates it; a pod that came before it would run without the class.
  await until('the RuntimeClass', () => cp.admin.request('GET', '/apis/node.k8s.io/v1/runtimeclasses/nvidia'));
  if (options.scheduler !== false) await startSecondScheduler(cp, extenderPort);
  const metricsUrls = {
    requestPath: `http://127.0.0.1:${requestMetrics}/metrics`,
    reconciler: `http://127.0.0.1:${reconcilerMetrics}/metrics`,
  };
  return {
    webhookPort,
    canaryPort,
    extenderPort,
    metricsUrls,
    metrics: async () => (await runCommand('curl', ['-s', ...Object.values(metricsUrls)], {})).stdout,
    stopReconciler: async () => reconciler?.stop(),
    startReconciler,
    killReconciler: async () => reconciler?.stop(0),
    requestPathRuns,
    async allRunning() {
      if (reconciler?.exitCode() !== undefined) await startReconciler();
      await requestPathRuns();
    },
    requestPathPid: () => requestPath?.pid ?? 0,
    async stopRequestPath() {
      await requestPath?.stop(30_000);
      return requestPath?.exitCode();
    },
    startRequestPath,
    async startReplica(flags = []) {
      const [webhook, canary, extender, metrics] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
      const replica = await launch('gpu-gate', 'webhook,extender', metrics, [
        '--webhook-port',
        String(webhook),
        '--canary-port',
        String(canary),
        '--extender-port',
        String(extender),
        ...flags,
      ]);
      return {
        extenderPort: extender,
        readyUrl: `http://127.0.0.1:${metrics}/readyz`,
        async kill() {
          process.kill(replica.pid, 'SIGKILL');
          await replica.stop();
        },
      };
    },
    async upgrade(more) {
      values = merged(values, more as Record<string, unknown>);
      await installChart(cp, 'upgrade', values);
    },
  };
}

export interface SchedulerConfig {
  extenders: {
    urlPrefix: string;
    tlsConfig: { caFile?: string; serverName: string; certFile?: string; keyFile?: string };
    httpTimeout?: string;
    preemptVerb?: string;
  }[];
  [key: string]: unknown;
}

/**
 * The configuration of the chart's scheduler as a process can use it: but for the address, the
 * files' places and what `edit` changes.
 */
export async function startSecondScheduler(
  cp: ControlPlane,
  extenderPort: number,
  name = 'gpu-gate-scheduler',
  edit: (configuration: SchedulerConfig) => object = (configuration) => configuration,
): Promise<void> {
  const { data } = await cp.admin.request<{ data: Record<string, string> }>(
    'GET',
    '/api/v1/namespaces/gpu-gate/configmaps/gpu-gate-scheduler',
  );
  const ca = await until(
    'the CA of the extender',
    async () =>
      (
        await cp.admin.request<{ data?: Record<string, string> }>(
          'GET',
          '/api/v1/namespaces/gpu-gate/configmaps/gpu-gate-extender-ca',
        )
      ).data?.['ca.crt'],
  );
  const caFile = join(cp.dir, 'extender-ca.crt');
  writeFileSync(caFile, ca);
  const { parse } = await import('yaml');
  const configuration = parse(data['config.yaml'] ?? '') as SchedulerConfig;
  const kubeconfig = await cp.serviceAccountKubeconfig('gpu-gate', 'gpu-gate-scheduler');
  for (const extender of configuration.extenders) {
    extender.urlPrefix = `https://127.0.0.1:${extenderPort}`;
    const { serverName, certFile } = extender.tlsConfig;
    extender.tlsConfig = { caFile, serverName, ...(certFile === undefined ? {} : await clientFiles(cp)) };
  }
  await cp.startScheduler(name, edit({ ...configuration, clientConnection: { kubeconfig, qps: 1000, burst: 2000 } }));
}

/** The client certificate of the chart's scheduler, PEM. */
export async function schedulerClient(cp: ControlPlane): Promise<{ readonly cert: string; readonly key: string }> {
  const { data } = await until('the client certificate of the scheduler', () =>
    cp.admin.request<{ data: Record<string, string> }>(
      'GET',
      '/api/v1/namespaces/gpu-gate/secrets/gpu-gate-scheduler-client',
    ),
  );
  const text = (key: string): string => Buffer.from(data[key] ?? '', 'base64').toString();
  return { cert: text('tls.crt'), key: text('tls.key') };
}

/** The same as files, as the kubelet would mount the Secret. */
async function clientFiles(cp: ControlPlane): Promise<{ certFile: string; keyFile: string }> {
  const { cert, key } = await schedulerClient(cp);
  const files = { certFile: join(cp.dir, 'scheduler-client.crt'), keyFile: join(cp.dir, 'scheduler-client.key') };
  writeFileSync(files.certFile, cert);
  writeFileSync(files.keyFile, key, { mode: 0o600 });
  return files;
}
