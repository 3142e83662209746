// A program of its own, run by credentials.ts: reads a kubeconfig, or the pod's ServiceAccount, with @kubernetes/client-node, and ends.
// The library holds 80 MB of generated classes for as long as a process lives, and gpu-gate uses none of them. The source comes on
// stdin, the answer goes to stdout: pipes, so that no credential is in an argument or a file.
import { readFileSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { text } from 'node:stream/consumers';
import { KubeConfig } from '@kubernetes/client-node';
import { TOKEN_FILE, type Access, type Answer, type Source } from './credentials.ts';

function loadConfig({ kubeconfig, context }: Source): KubeConfig {
  const config = new KubeConfig();
  if (kubeconfig === '') {
    try {
      readFileSync(TOKEN_FILE);
    } catch (error) {
      throw new Error('no API server to talk to: give --kubeconfig PATH, or run in a pod with a ServiceAccount token', {
        cause: error,
      });
    }
    config.loadFromCluster();
    return config;
  }
  try {
    config.loadFromFile(kubeconfig);
  } catch (error) {
    throw new Error(`kubeconfig ${kubeconfig} cannot be read`, { cause: error });
  }
  if (context !== undefined) config.setCurrentContext(context);
  if (config.getCurrentCluster() === null)
    throw new Error(`kubeconfig ${kubeconfig} names no current cluster: set current-context in it`);
  return config;
}

/** The library reads PEM as bytes. */
const pem = (value: unknown): string | undefined =>
  typeof value === 'string' ? value : Buffer.isBuffer(value) ? value.toString() : undefined;

async function read(source: Source): Promise<Access> {
  const config = loadConfig(source);
  const found: RequestOptions = {};
  await config.applyToHTTPSOptions(found);
  const { ca, cert, key, rejectUnauthorized, auth, headers } = found;
  const user = config.getCurrentUser();
  return {
    server: config.getCurrentCluster()?.server ?? '',
    // Whatever else the library sets, such as an agent, is the transport's business.
    https: {
      ca: pem(ca),
      cert: pem(cert),
      key: pem(key),
      rejectUnauthorized,
      auth: auth ?? undefined,
      headers: { ...(headers as Record<string, string> | undefined) },
    },
    fleeting:
      source.kubeconfig !== '' &&
      ((user?.exec ?? user?.authProvider ?? undefined) !== undefined ||
        readFileSync(source.kubeconfig, 'utf8').includes('tokenFile')),
  };
}

const textOf = (value: unknown): string | undefined => (value instanceof Error ? value.message : undefined);

const answer = await read(JSON.parse(await text(process.stdin)) as Source).then(
  (access): Answer => ({ access }),
  (error: unknown): Answer => ({
    error: textOf(error) ?? String(error),
    cause: error instanceof Error ? textOf(error.cause) : undefined,
  }),
);
process.stdout.write(JSON.stringify(answer));
