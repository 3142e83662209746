// Every option of the program: one table gives flag, environment variable, default, parser and
// help. Parsing returns all problems at once, so that a Deployment is not corrected one crash at a
// time.

const ROLES = ['webhook', 'extender', 'reconciler', 'certs'] as const;
export type Role = (typeof ROLES)[number];

interface Parsed<T> {
  readonly value?: T;
  readonly problem?: string;
}

interface Option<T> {
  readonly flag: string;
  readonly help: string;
  readonly otherwise: string;
  readonly parse: (text: string) => Parsed<T>;
}

const text = (value: string): Parsed<string> => ({ value });
const name = (value: string): Parsed<string> =>
  /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(value)
    ? { value }
    : { problem: `${JSON.stringify(value)} is not a Kubernetes name: use lower-case letters, digits and '-'` };
const port = (value: string): Parsed<number> =>
  /^\d{1,5}$/.test(value) && Number(value) <= 65_535
    ? { value: Number(value) }
    : { problem: `${JSON.stringify(value)} is not a valid port: use a number from 0 to 65535` };
const count = (value: string): Parsed<number> =>
  /^\d{1,9}$/.test(value)
    ? { value: Number(value) }
    : { problem: `${JSON.stringify(value)} is not a whole number: use digits only, such as 1000` };
const duration =
  (minimum: number) =>
  (value: string): Parsed<number> => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value);
    const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
    const ms = match === null ? Number.NaN : Number(match[1]) * (units[match[2] ?? ''] ?? Number.NaN);
    return ms >= minimum
      ? { value: ms }
      : {
          problem: `${JSON.stringify(value)} is not a duration of ${minimum} ms or more: use one such as 15s, 5m, 1h or 90d`,
        };
  };
const size = (value: string): Parsed<number> => {
  const match = /^(\d{1,9})(KiB|MiB|GiB)$/.exec(value);
  const units: Readonly<Record<string, number>> = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
  const bytes = match === null ? Number.NaN : Number(match[1]) * (units[match[2] ?? ''] ?? Number.NaN);
  if (value === '') return { value: 0 };
  return bytes > 0 ? { value: bytes } : { problem: `${JSON.stringify(value)} is not a size: use one such as 64MiB` };
};
const oneOf =
  <T extends string>(...values: readonly T[]) =>
  (value: string): Parsed<T> => {
    const found = values.find((v) => v === value);
    return found === undefined
      ? { problem: `${JSON.stringify(value)} is not one of ${values.join(', ')}` }
      : { value: found };
  };
const roles = (value: string): Parsed<readonly Role[]> => {
  const given = value.split(',').map((part) => part.trim());
  const unknown = given.filter((part) => !ROLES.some((role) => role === part));
  return unknown.length === 0
    ? { value: ROLES.filter((role) => given.includes(role)) }
    : { problem: `${JSON.stringify(unknown.join(','))} is not one of ${ROLES.join(', ')}` };
};
export interface ConfigMapKey {
  readonly namespace: string;
  readonly name: string;
  readonly key: string;
}
const configMapKey = (value: string): Parsed<ConfigMapKey | undefined> => {
  if (value === '') return { value: undefined };
  const match = /^([-.a-z0-9]+)\/([-.a-z0-9]+)\/([-._a-zA-Z0-9]+)$/.exec(value);
  return match === null
    ? { problem: `${JSON.stringify(value)} is not a key of a ConfigMap: write NAMESPACE/NAME/KEY` }
    : { value: { namespace: match[1] ?? '', name: match[2] ?? '', key: match[3] ?? '' } };
};
const list = (value: string): Parsed<readonly string[]> => ({
  value: value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== ''),
});
const durations = (value: string): Parsed<readonly number[]> => {
  const parsed = value
    .split(',')
    .filter((part) => part.trim() !== '')
    .map((part) => duration(0)(part.trim()));
  const bad = parsed.find(({ problem }) => problem !== undefined);
  return bad?.problem === undefined ? { value: parsed.map((one) => one.value ?? 0) } : { problem: bad.problem };
};
const option = <T>(flag: string, otherwise: string, parse: (value: string) => Parsed<T>, help: string): Option<T> => ({
  flag,
  otherwise,
  parse,
  help,
});

/**
 * The table. Keys are the names in the parsed Options; flags are `--like-this`, variables
 * `GPU_GATE_LIKE_THIS`.
 */
export const OPTIONS = {
  roles: option('roles', 'webhook,extender,reconciler,certs', roles, 'which parts this process runs'),
  kubeconfig: option('kubeconfig', '', text, 'path of a kubeconfig; empty uses the ServiceAccount of the pod'),
  namespace: option('namespace', 'gpu-gate', name, 'namespace of gpu-gate itself'),
  operandNamespace: option('operand-namespace', 'gpu-gate-operands', name, 'namespace of operands and validation pods'),
  excludedNamespaces: option(
    'excluded-namespaces',
    'kube-system',
    list,
    'namespaces that are never injected, in addition to --namespace and --operand-namespace',
  ),
  webhookResources: option(
    'webhook-resources',
    'nvidia.com/gpu,nvidia.com/gpu.shared',
    list,
    'resources for which the webhook configuration calls the webhook, in addition to nvidia.com/mig-*; a policy that names others is Degraded',
  ),
  runtimeClass: option(
    'runtime-class',
    'nvidia',
    text,
    'RuntimeClass that the reconciler creates if there is none of that name; empty: it creates none',
  ),
  runtimeClassHandler: option('runtime-class-handler', 'nvidia', name, 'handler of that RuntimeClass'),
  bindAddress: option('bind-address', '', text, 'address to listen on; empty listens on all'),
  webhookPort: option('webhook-port', '8443', port, 'port of /mutate'),
  canaryPort: option('canary-port', '8445', port, 'port of /canary, which shows whether API servers trust a new CA'),
  extenderPort: option('extender-port', '8444', port, 'port of /filter, /prioritize, /preempt'),
  metricsPort: option('metrics-port', '9090', port, 'port of /metrics, /healthz, /readyz'),
  callsPerConnection: option(
    'calls-per-connection',
    '10000',
    count,
    'calls after which a connection to webhook, extender or canary ends, so that new replicas get their share; 0 never ends one',
  ),
  maxConnections: option(
    'max-connections',
    '1000',
    count,
    'connections that webhook, extender and canary each keep open; one more closes the oldest that has no call',
  ),
  maxCallsInFlight: option(
    'max-calls-in-flight',
    '1000',
    count,
    'calls that webhook, extender and canary answer at a time, together; further ones get 503',
  ),
  maxBytesInFlight: option(
    'max-bytes-in-flight',
    '',
    size,
    "bytes of bodies and answers in flight, together; beyond that the largest call gets 503; empty uses an eighth of the container's memory limit",
  ),
  leaseName: option('lease-name', 'gpu-gate-reconciler', name, 'Lease of the leader election'),
  leaseDuration: option('lease-duration', '15s', duration(500), 'how long a silent leader keeps the lease'),
  notReadyGrace: option(
    'not-ready-grace',
    '60s',
    duration(0),
    'how long a node may be not Ready before its proof is withdrawn',
  ),
  wakeAfter: option(
    'wake-after',
    '1s,3s,10s',
    durations,
    'delays after a node opens at which to re-trigger scheduling while a pod that fits is still pending; empty disables',
  ),
  watchLimit: option(
    'watch-limit',
    '150s',
    duration(1000),
    'silence of a watch after which the replica is not ready and its extender answers with that error',
  ),
  drain: option('drain', '10s', duration(0), 'how long to keep serving after readiness fails on shutdown'),
  certLife: option(
    'cert-life',
    '90d',
    duration(10_000),
    'lifetime of serving certificates; they are renewed after two thirds',
  ),
  caLife: option('ca-life', '1825d', duration(20_000), "lifetime of the webhook's CA; it is renewed after two thirds"),
  extenderCaLife: option(
    'extender-ca-life',
    '3650d',
    duration(20_000),
    "lifetime of the extender's CA, which schedulers read only at their start",
  ),
  extenderCaOverlap: option(
    'extender-ca-overlap',
    '60d',
    duration(0),
    'how long the previous CA of the extender still signs what is served after a change; restart schedulers within that time',
  ),
  canaryWindow: option(
    'canary-window',
    '1m',
    duration(0),
    'how long the canary must succeed through every API server before a certificate of a new CA is served; one address may hide several servers',
  ),
  caGrace: option(
    'ca-grace',
    '10m',
    duration(0),
    'how long a previous CA stays trusted after the last replica has stopped serving its certificates',
  ),
  certCheck: option('cert-check', '5s', duration(100), 'how often certificates are checked against the wall clock'),
  certSource: option('cert-source', 'self', oneOf('self', 'cert-manager'), 'who issues the certificates'),
  apiServers: option(
    'api-servers',
    '',
    list,
    'host:port of every API server, for the canary; empty reads the EndpointSlice default/kubernetes',
  ),
  apiServerName: option(
    'api-server-name',
    'kubernetes.default.svc',
    text,
    "name that API servers' certificates are checked for, at any address",
  ),
  webhookReplicas: option(
    'webhook-replicas',
    '',
    list,
    'host:port of every replica of the webhook; empty reads the EndpointSlices of its Service',
  ),
  extenderReplicas: option(
    'extender-replicas',
    '',
    list,
    'host:port of every replica of the extender; empty: the EndpointSlices of its Service',
  ),
  extenderClients: option(
    'extender-clients',
    'gpu-gate-scheduler',
    list,
    'common names of the client certificates that the extender serves; empty serves every caller',
  ),
  webhookClientCa: option(
    'webhook-client-ca',
    '',
    configMapKey,
    "NAMESPACE/NAME/KEY of a ConfigMap with the CAs of the API servers' client certificates; empty serves every caller",
  ),
  webhookClients: option(
    'webhook-clients',
    '',
    list,
    'common names of the client certificates that the webhook serves, with --webhook-client-ca',
  ),
  certExtraSans: option('cert-extra-sans', '', list, 'additional names or addresses in the serving certificates'),
  logLevel: option('log-level', 'info', oneOf('debug', 'info', 'error'), 'minimum log level'),
} as const;

type Table = typeof OPTIONS;
export type Options = { readonly [K in keyof Table]: Table[K] extends Option<infer T> ? T : never };

export const variableOf = (flag: string): string => `GPU_GATE_${flag.toUpperCase().replaceAll('-', '_')}`;

/**
 * Kubernetes sets GPU_GATE_WEBHOOK_PORT=tcp://… and the like in pods beside Services of that name.
 */
const isServiceLink = (key: string, value: string | undefined): boolean =>
  /_SERVICE_(HOST|PORT)/.test(key) ||
  /_PORT_\d+_/.test(key) ||
  (key.endsWith('_PORT') && value?.startsWith('tcp://') === true);

/**
 * Arguments and environment → options, or every problem as one sentence. Flags win over the
 * environment.
 */
export function parseOptions(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): { readonly ok: true; readonly options: Options } | { readonly ok: false; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const given = new Map<string, string>();
  const flags = new Map(Object.values(OPTIONS).map((o) => [o.flag, o]));
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i] ?? '';
    const match = /^--([a-z][a-z-]*)(?:=(.*))?$/s.exec(arg);
    const flag = match?.[1] ?? '';
    if (!flags.has(flag)) {
      problems.push(`unknown option ${JSON.stringify(arg)}: see --help`);
      if (match !== null && match[2] === undefined && args[i + 1]?.startsWith('--') === false) i += 1;
      continue;
    }
    const value = match?.[2] ?? args[i + 1];
    if (match?.[2] === undefined) i += 1;
    if (value === undefined || (match?.[2] === undefined && value.startsWith('--'))) {
      problems.push(`--${flag} needs a value`);
      if (value !== undefined) i -= 1;
    } else given.set(flag, value);
  }
  const known = new Set(Object.values(OPTIONS).map((o) => variableOf(o.flag)));
  for (const [key, value] of Object.entries(env)) {
    if (
      key.startsWith('GPU_GATE_') &&
      !known.has(key) &&
      !isServiceLink(key, value) &&
      !key.startsWith('GPU_GATE_TEST_')
    ) {
      problems.push(`unknown environment variable ${key}: see --help`);
    }
  }
  const options: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(OPTIONS)) {
    const variable = env[variableOf(entry.flag)];
    const fromEnv = isServiceLink(variableOf(entry.flag), variable) ? undefined : variable;
    const source = given.has(entry.flag) ? `--${entry.flag}` : variableOf(entry.flag);
    const parsed: Parsed<unknown> = entry.parse(given.get(entry.flag) ?? fromEnv ?? entry.otherwise);
    if (parsed.problem !== undefined) problems.push(`${source}: ${parsed.problem}`);
    options[key] = parsed.value;
  }
  const { webhookClientCa, webhookClients } = options as Partial<Options>;
  if (webhookClientCa !== undefined && webhookClients?.length === 0)
    problems.push(
      "--webhook-client-ca needs --webhook-clients: a CA of a cluster signs other users' certificates too, so name the API servers'",
    );
  return problems.length > 0 ? { ok: false, problems } : { ok: true, options: options as Options };
}

/** The table as text for `--help` and the docs. */
export const optionsHelp = (): string =>
  Object.values(OPTIONS)
    .map((o) => `  --${o.flag.padEnd(22)} ${o.help}${o.otherwise === '' ? '' : ` (${o.otherwise})`}`)
    .join('\n');
