// A program of its own, run by credentials.ts: reads kubeconfigs with @kubernetes/client-node and
// ends, because the library holds 80 MB for as long as a process lives. The source comes on stdin
// and the answer goes to stdout, so that no credential is in an argument or a file.
import { existsSync, readFileSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { text } from 'node:stream/consumers';
import { KubeConfig, type User } from '@kubernetes/client-node';
import { nameOf, stampOf, type Access, type Answer, type Source } from './credentials.ts';

function loadFile(path: string): KubeConfig {
  const config = new KubeConfig();
  try {
    config.loadFromFile(path);
  } catch (error) {
    throw new Error(`kubeconfig ${path} cannot be read`, { cause: error });
  }
  return config;
}

/**
 * The first file wins, as in kubectl. The library would refuse doubles and take the last current
 * context.
 */
function merged(first: KubeConfig, more: KubeConfig): KubeConfig {
  const both = <T extends { readonly name: string }>(a: readonly T[], b: readonly T[]): T[] => [
    ...a,
    ...b.filter(({ name }) => !a.some((one) => one.name === name)),
  ];
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: both(first.getClusters(), more.getClusters()),
    users: both(first.getUsers(), more.getUsers()),
    contexts: both(first.getContexts(), more.getContexts()),
    currentContext: first.getCurrentContext() || more.getCurrentContext(),
  });
  return config;
}

function loadConfig(source: Source): KubeConfig {
  const { kubeconfigs, context } = source;
  // A single file must exist; of several, those that exist count.
  const there = kubeconfigs.length === 1 ? kubeconfigs : kubeconfigs.filter((path) => existsSync(path));
  if (there.length === 0) throw new Error(`${nameOf(source)} cannot be read: no such file`);
  const config = there.map(loadFile).reduce(merged);
  if (context !== undefined) config.setCurrentContext(context);
  if (config.getCurrentCluster() === null)
    throw new Error(`${nameOf(source)} names no current cluster: set current-context in it`);
  return config;
}

/** The library reads PEM as bytes. */
const pem = (value: unknown): string | undefined =>
  typeof value === 'string' ? value : Buffer.isBuffer(value) ? value.toString() : undefined;

/** What the library will get credentials from, if that may take long. */
const asked = (user: User | null, source: Source): string | undefined => {
  if (typeof user?.exec?.command === 'string')
    return `the credential program ${user.exec.command} of ${nameOf(source)}`;
  const provider = user?.authProvider?.name;
  return provider === undefined || provider === 'tokenFile'
    ? undefined
    : `the auth-provider ${String(provider)} of ${nameOf(source)}`;
};

/**
 * A token that was written into a file often ends with a newline, which node:http takes in no
 * header.
 */
const trimmed = (headers: Readonly<Record<string, string>> = {}): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.trim()]));

const say = (answer: Answer): Promise<void> =>
  new Promise((resolve) => process.stdout.write(`${JSON.stringify(answer)}\n`, () => resolve()));

async function read(source: Source): Promise<Access> {
  // Noted before they are read, so that a change in between is seen as one.
  const files: Record<string, string> = {};
  const note = (path: unknown): void => {
    if (typeof path === 'string' && path !== '') files[path] = stampOf(path);
  };
  source.kubeconfigs.forEach(note);
  const config = loadConfig(source);
  const cluster = config.getCurrentCluster();
  const user = config.getCurrentUser();
  const provider = user?.authProvider as { config?: { tokenFile?: unknown } } | null | undefined;
  [cluster?.caFile, user?.certFile, user?.keyFile, provider?.config?.tokenFile].forEach(note);
  const asking = asked(user, source);
  if (asking !== undefined) await say({ asking });
  const named = user?.token ?? user?.certFile ?? user?.certData ?? user?.username ?? user?.exec ?? user?.authProvider;
  // The library does not know this field and would send no credentials at all.
  if (named === undefined && source.kubeconfigs.some((path) => /\btokenFile\b/.test(readFileSync(path, 'utf8'))))
    throw new Error(`${nameOf(source)} names a tokenFile, which is not read: write token, or an exec plugin`);
  const found: RequestOptions & { servername?: string } = {};
  await config.applyToHTTPSOptions(found);
  const { ca, cert, key, servername, rejectUnauthorized, auth, headers } = found;
  return {
    server: cluster?.server ?? '',
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? 'default',
    // What else the library sets, such as an agent, is up to the transport.
    https: {
      ca: pem(ca),
      cert: pem(cert),
      key: pem(key),
      servername,
      rejectUnauthorized,
      auth: auth ?? undefined,
      headers: trimmed(headers as Record<string, string> | undefined),
    },
    files,
    fleeting: asking !== undefined,
  };
}

const textOf = (value: unknown): string | undefined => (value instanceof Error ? value.message : undefined);

await say(
  await read(JSON.parse(await text(process.stdin)) as Source).then(
    (access): Answer => ({ access }),
    (error: unknown): Answer => ({
      error: textOf(error) ?? String(error),
      cause: error instanceof Error ? textOf(error.cause) : undefined,
    }),
  ),
);
