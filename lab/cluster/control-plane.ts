// A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
// One place knows their ports, credentials and flags.
import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { openKube, type Kube } from '../../platform/kube.ts';
import type { Binaries } from './binaries.ts';
import { openLifetime, PATIENCE_MS, untilReady, type Lifetime, type Running } from './lifetime.ts';

export interface ControlPlaneOptions {
  readonly binaries: Binaries;
  readonly say?: (line: string) => void;
  readonly apiServerArgs?: readonly string[];
  readonly managerArgs?: readonly string[];
  /** For every scheduler. */
  readonly schedulerArgs?: readonly string[];
  /** Rules of the audit policy that come before the cluster's own. */
  readonly auditRules?: readonly object[];
  /**
   * Where the API server listens and what it advertises; default 127.0.0.1. Another one must exist,
   * say on a private `lo`.
   */
  readonly address?: string;
  /** Further users with a token of their own, such as a kubelet. */
  readonly users?: readonly { readonly name: string; readonly groups: readonly string[] }[];
  /** How long the API server is waited for; default: `PATIENCE_MS`. */
  readonly readyWithinMs?: number;
  readonly scheduler?: boolean;
  readonly controllerManager?: boolean;
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ControlPlane {
  /** The version of Kubernetes, such as `1.37.2`. */
  readonly kubernetes: string;
  readonly dir: string;
  readonly server: string;
  readonly kubeconfig: string;
  readonly caFile: string;
  readonly auditLog: string;
  /** The API as cluster-admin: for tests and the simulated hardware, never for gpu-gate. */
  readonly admin: Kube;
  readonly lifetime: Lifetime;
  kubectl(args: readonly string[], input?: string): Promise<CommandResult>;
  helm(args: readonly string[]): Promise<CommandResult>;
  /** A kubeconfig of one of the options' users. */
  userKubeconfig(name: string): string;
  /**
   * A kubeconfig with a real token of that ServiceAccount, bound to a pod as the kubelet's are if
   * one is given.
   */
  serviceAccountKubeconfig(
    namespace: string,
    name: string,
    pod?: { readonly name: string; readonly uid: string },
  ): Promise<string>;
  /** One more kube-scheduler with that configuration, as that ServiceAccount's kubeconfig. */
  startScheduler(name: string, configuration: object): Promise<Running>;
  /**
   * One more API server at another address, on the same etcd: straight, or through a port of
   * loopback.
   */
  addApiServer(address: string, etcdPort?: number): Promise<Kube>;
  readonly etcdPort: number;
  /** Throws etcd's history away, as the API server does every five minutes. */
  compactEtcd(): Promise<void>;
  stopApiServer(): Promise<void>;
  startApiServer(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Below what the kernel hands out to outgoing connections: one of those on a port picked here would
 * keep our listener off it.
 */
const PORTS = { from: 20_000, to: 30_000 };

/**
 * A port of loopback that is this process's own until it ends. The claim is the same number in UDP,
 * which nothing here uses: other processes that pick ports at the same time see it, and the kernel
 * gives it up with the process, however that ends.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(PORTS.from, PORTS.to);
    if ((await claimed(port)) && (await unused(port))) return port;
  }
}

/** Only a port in use justifies a try with another port. */
const taken = (error: NodeJS.ErrnoException): boolean => error.code === 'EADDRINUSE';

const claimed = (port: number): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const claim = createSocket('udp4');
    claim.on('error', (error) => {
      claim.close();
      if (taken(error)) resolve(false);
      else reject(error);
    });
    claim.bind({ port, address: '127.0.0.1', exclusive: true }, () => {
      claim.unref();
      resolve(true);
    });
  });

const unused = (port: number): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', (error) => (taken(error) ? resolve(false) : reject(error)));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });

/** Runs a command to its end. */
export const runCommand = (
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  input?: string,
): Promise<CommandResult> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { PATH: process.env['PATH'] ?? '', ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? 1, stdout, stderr }));
    child.stdin.end(input);
  });

const kubeconfigText = (server: string, ca: string, token: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server, 'certificate-authority-data': ca } }],
    users: [{ name: 'test', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  });

/** Starts it; rejects with one sentence and a log's tail where a part does not come up. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { binaries } = options;
  const lifetime = openLifetime('cluster');
  const { dir } = lifetime;
  try {
    return await bringUp(options, binaries, lifetime, dir);
  } catch (error) {
    await lifetime.stop();
    throw error;
  }
}

async function bringUp(
  options: ControlPlaneOptions,
  binaries: Binaries,
  lifetime: Lifetime,
  dir: string,
): Promise<ControlPlane> {
  const within = options.readyWithinMs ?? PATIENCE_MS;
  const say = options.say ?? (() => undefined);
  const [etcdPort, peerPort, port, schedulerPort, managerPort] = await Promise.all([
    freePort(),
    freePort(),
    freePort(),
    freePort(),
    freePort(),
  ]);
  const address = options.address ?? '127.0.0.1';
  const server = `https://${address}:${port}`;
  const token = (): string => randomBytes(16).toString('hex');
  const tokens = { admin: token(), scheduler: token(), manager: token() };
  const users = (options.users ?? []).map((user) => ({ ...user, token: token() }));
  const keys = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  });
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  };
  const saKey = file('sa.key', keys.privateKey);
  const saPub = file('sa.pub', keys.publicKey);
  const tokenFile = file(
    'tokens.csv',
    [
      `${tokens.admin},admin,admin,system:masters`,
      `${tokens.scheduler},system:kube-scheduler,scheduler`,
      `${tokens.manager},system:kube-controller-manager,manager`,
      ...users.map((user) => `${user.token},${user.name},${user.name},"${user.groups.join(',')}"`),
      '',
    ].join('\n'),
  );
  const auditLog = join(dir, 'audit.log');
  const auditPolicy = file(
    'audit-policy.json',
    JSON.stringify({
      apiVersion: 'audit.k8s.io/v1',
      kind: 'Policy',
      omitStages: ['RequestReceived'],
      rules: [
        ...(options.auditRules ?? []),
        {
          level: 'RequestResponse',
          verbs: ['create', 'patch', 'update', 'delete'],
          resources: [
            { group: '', resources: ['nodes', 'nodes/status', 'pods/binding'] },
            { group: 'resource.k8s.io', resources: ['resourceclaims/status', 'devicetaintrules'] },
          ],
        },
        {
          level: 'Metadata',
          verbs: ['create', 'patch', 'update', 'delete'],
          resources: [{ group: '', resources: ['pods', 'pods/status'] }],
        },
        { level: 'None' },
      ],
    }),
  );

  // Killed when the cluster stops, because a graceful end takes seconds and saves what nobody
  // reads. Garbage is collected less often: a tenth less of processor time until all is ready, for
  // a hundred MB.
  const begin = (name: string, command: string, args: readonly string[]): Running =>
    lifetime.start(name, command, args, { GOGC: '400' }, 0);
  say('starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler');
  const etcd = begin('etcd', binaries('etcd'), [
    '--data-dir',
    join(dir, 'etcd'),
    '--unsafe-no-fsync',
    '--listen-client-urls',
    `http://127.0.0.1:${etcdPort}`,
    '--advertise-client-urls',
    `http://127.0.0.1:${etcdPort}`,
    '--listen-peer-urls',
    `http://127.0.0.1:${peerPort}`,
    '--initial-advertise-peer-urls',
    `http://127.0.0.1:${peerPort}`,
    '--initial-cluster',
    `default=http://127.0.0.1:${peerPort}`,
    '--log-level',
    'warn',
  ]);
  await untilReady(etcd, async () => (await fetch(`http://127.0.0.1:${etcdPort}/health`)).ok);

  const certDir = join(dir, 'certs');
  mkdirSync(certDir);
  let apiServer: Running | undefined;
  const launchApiServer = (name = 'kube-apiserver', at = options.address, via = etcdPort): Running =>
    begin(name, binaries('kube-apiserver'), [
      '--etcd-servers',
      `http://127.0.0.1:${via}`,
      '--secure-port',
      String(port),
      '--bind-address',
      at ?? '127.0.0.1',
      // The API server cannot advertise a loopback address. Without the flag it picks one of the
      // machine's addresses.
      ...(at === undefined ? [] : ['--advertise-address', at]),
      '--cert-dir',
      certDir,
      '--service-account-issuer',
      'https://kubernetes.default.svc',
      '--service-account-key-file',
      saPub,
      '--service-account-signing-key-file',
      saKey,
      '--token-auth-file',
      tokenFile,
      '--authorization-mode',
      'Node,RBAC',
      '--enable-admission-plugins',
      'NodeRestriction',
      '--allow-privileged=true',
      '--service-cluster-ip-range',
      '10.96.0.0/16',
      '--profiling=false',
      '--audit-policy-file',
      auditPolicy,
      '--audit-log-path',
      name === 'kube-apiserver' ? auditLog : join(dir, `${name}-audit.log`),
      '--audit-log-maxsize',
      '2000',
      ...(options.apiServerArgs ?? []),
    ]);
  const apiReady = async (): Promise<boolean> => {
    const ca = readFileSync(join(certDir, 'apiserver.crt'));
    const kubeconfig = file('admin.kubeconfig', kubeconfigText(server, ca.toString('base64'), tokens.admin));
    await (
      await openKube({ kubeconfig, userAgent: 'test' })
    ).request('GET', '/api/v1/namespaces/kube-system', {
      timeoutMs: 2000,
    });
    return (await runCommand('curl', ['-skf', '-m', '2', `${server}/readyz`], {})).code === 0;
  };
  apiServer = launchApiServer();
  await untilReady(apiServer, apiReady, within);
  const kubeconfig = join(dir, 'admin.kubeconfig');
  const ca = readFileSync(join(certDir, 'apiserver.crt')).toString('base64');
  const admin = await openKube({ kubeconfig, userAgent: 'gpu-gate-test' });

  const httpsReady = (url: string) => async (): Promise<boolean> =>
    (await runCommand('curl', ['-skf', '-m', '2', url], {})).code === 0;
  const startManager = async (): Promise<void> => {
    const config = file('manager.kubeconfig', kubeconfigText(server, ca, tokens.manager));
    const manager = begin('kube-controller-manager', binaries('kube-controller-manager'), [
      '--kubeconfig',
      config,
      '--authentication-kubeconfig',
      config,
      '--authorization-kubeconfig',
      config,
      '--service-account-private-key-file',
      saKey,
      '--use-service-account-credentials=true',
      '--root-ca-file',
      join(certDir, 'apiserver.crt'),
      '--leader-elect=false',
      // It makes the folder, and its default one is this machine's.
      '--flex-volume-plugin-dir',
      join(dir, 'volume-plugins'),
      '--secure-port',
      String(managerPort),
      '--bind-address',
      '127.0.0.1',
      '--profiling=false',
      '--kube-api-qps',
      '500',
      '--kube-api-burst',
      '1000',
      '--concurrent-serviceaccount-token-syncs',
      '2',
      ...(options.managerArgs ?? []),
    ]);
    await untilReady(manager, httpsReady(`https://127.0.0.1:${managerPort}/healthz`));
  };
  const startScheduler = async (name: string, configuration: object, at: number): Promise<Running> => {
    const config = file(`${name}.json`, JSON.stringify(configuration));
    const scheduler = begin(name, binaries('kube-scheduler'), [
      '--config',
      config,
      '--secure-port',
      String(at),
      '--bind-address',
      '127.0.0.1',
      ...(options.schedulerArgs ?? []),
    ]);
    await untilReady(scheduler, httpsReady(`https://127.0.0.1:${at}/healthz`));
    return scheduler;
  };
  const startDefaultScheduler = (): Promise<Running> => {
    const config = file('scheduler.kubeconfig', kubeconfigText(server, ca, tokens.scheduler));
    return startScheduler(
      'kube-scheduler',
      {
        apiVersion: 'kubescheduler.config.k8s.io/v1',
        kind: 'KubeSchedulerConfiguration',
        leaderElection: { leaderElect: false },
        clientConnection: { kubeconfig: config, qps: 1000, burst: 2000 },
      },
      schedulerPort,
    );
  };
  // Each takes a second or two to be ready.
  await Promise.all([
    options.controllerManager === false ? undefined : startManager(),
    options.scheduler === false ? undefined : startDefaultScheduler(),
  ]);

  return {
    kubernetes: binaries.kubernetes,
    dir,
    server,
    kubeconfig,
    caFile: join(certDir, 'apiserver.crt'),
    auditLog,
    admin,
    lifetime,
    kubectl: (args, input) => runCommand(binaries('kubectl'), args, { KUBECONFIG: kubeconfig, HOME: dir }, input),
    helm: (args) => runCommand(binaries('helm'), args, { KUBECONFIG: kubeconfig, HOME: dir }),
    userKubeconfig(name) {
      const user = users.find((known) => known.name === name);
      if (user === undefined) throw new Error(`${name} is none of the control plane's users`);
      return file(`${name.replaceAll(':', '-')}.kubeconfig`, kubeconfigText(server, ca, user.token));
    },
    async serviceAccountKubeconfig(namespace, name, pod) {
      const bound = pod === undefined ? {} : { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', ...pod } };
      const { status } = await admin.request<{ status: { token: string } }>(
        'POST',
        `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`,
        {
          body: {
            apiVersion: 'authentication.k8s.io/v1',
            kind: 'TokenRequest',
            spec: { expirationSeconds: 86_400, ...bound },
          },
        },
      );
      return file(
        `${namespace}-${name}${pod === undefined ? '' : `-${pod.name}`}.kubeconfig`,
        kubeconfigText(server, ca, status.token),
      );
    },
    startScheduler: async (name, configuration) => startScheduler(name, configuration, await freePort()),
    etcdPort,
    async addApiServer(at, via = etcdPort) {
      // All servers use the first server's certificate, so clients verify the name in that
      // certificate.
      const more = launchApiServer(`kube-apiserver-${at}`, at, via);
      const kube = await openKube({
        kubeconfig,
        server: `https://${at}:${port}`,
        serverName: 'kubernetes.default.svc',
        userAgent: 'gpu-gate-test',
      });
      await untilReady(
        more,
        async () => {
          await kube.request('GET', '/api/v1/namespaces/kube-system', { timeoutMs: 10_000 });
          return (await runCommand('curl', ['-skf', '-m', '10', `https://${at}:${port}/readyz`], {})).code === 0;
        },
        within,
      );
      return kube;
    },
    async compactEtcd() {
      const etcdCall = async (path: string, body: object): Promise<{ header: { revision: string } }> =>
        (
          await fetch(`http://127.0.0.1:${etcdPort}/v3/kv/${path}`, { method: 'POST', body: JSON.stringify(body) })
        ).json() as Promise<{ header: { revision: string } }>;
      const { header } = await etcdCall('range', { key: 'AA==' });
      await etcdCall('compaction', { revision: header.revision, physical: true });
    },
    stopApiServer: () => apiServer?.stop(0) ?? Promise.resolve(),
    async startApiServer() {
      apiServer = launchApiServer();
      await untilReady(apiServer, apiReady, within);
    },
    stop: () => lifetime.stop(),
  };
}
