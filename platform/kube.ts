// The Kubernetes API as one function: authentication comes from @kubernetes/client-node, the transport is a keep-alive pool.
// Knows paths and status codes, no kinds.
import { readFileSync } from 'node:fs';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { KubeConfig } from '@kubernetes/client-node';

const JSON_TYPE = 'application/json';
export const MERGE_PATCH = 'application/merge-patch+json';
export const STRATEGIC_PATCH = 'application/strategic-merge-patch+json';
/** JSON is valid YAML, so that server-side apply takes it. */
export const APPLY = 'application/apply-patch+yaml';

/** The API server answered with an error status. */
export class KubeError extends Error {
  readonly status: number;
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

const hasStatus = (error: unknown, status: number, reason?: string): boolean =>
  error instanceof KubeError && error.status === status && (reason === undefined || error.reason === reason);
export const isNotFound = (error: unknown): boolean => hasStatus(error, 404);
export const isConflict = (error: unknown): boolean => hasStatus(error, 409) && !isAlreadyExists(error);
export const isAlreadyExists = (error: unknown): boolean => hasStatus(error, 409, 'AlreadyExists');
export const isForbidden = (error: unknown): boolean => hasStatus(error, 403);
export const isGone = (error: unknown): boolean => hasStatus(error, 410);

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export interface CallOptions {
  readonly body?: unknown;
  readonly contentType?: string;
  readonly query?: Query;
  readonly signal?: AbortSignal;
  /** Default 15 s. */
  readonly timeoutMs?: number;
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface Kube {
  readonly server: string;
  /** One call; throws KubeError for an error status, Error where the server was not reached. */
  request<T = unknown>(method: Method, path: string, options?: CallOptions): Promise<T>;
  /** Lines of a watch, until the server or the signal ends it. */
  stream(path: string, query: Query, signal: AbortSignal): Promise<AsyncIterable<string>>;
}

export interface KubeOptions {
  /** Path; empty or absent: the pod's ServiceAccount. */
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly userAgent: string;
  /** Replaces the server's address of the kubeconfig, keeping name checks and credentials: one of several API servers. */
  readonly server?: string;
  readonly serverName?: string;
  /** A connection for each call, closed after it: behind one address there may be several servers. */
  readonly freshConnections?: boolean;
}

/** For how long credentials are used before the library is asked again: ServiceAccount tokens rotate on disk. */
const CREDENTIALS_MS = 30_000;

function loadConfig(options: KubeOptions): KubeConfig {
  const config = new KubeConfig();
  if (options.kubeconfig === undefined || options.kubeconfig === '') {
    try {
      readFileSync('/var/run/secrets/kubernetes.io/serviceaccount/token');
    } catch (error) {
      throw new Error('no API server to talk to: give --kubeconfig PATH, or run in a pod with a ServiceAccount token', {
        cause: error,
      });
    }
    config.loadFromCluster();
    return config;
  }
  try {
    config.loadFromFile(options.kubeconfig);
  } catch (error) {
    throw new Error(`kubeconfig ${options.kubeconfig} cannot be read`, { cause: error });
  }
  if (options.context !== undefined) config.setCurrentContext(options.context);
  if (config.getCurrentCluster() === null)
    throw new Error(`kubeconfig ${options.kubeconfig} names no current cluster: set current-context in it`);
  return config;
}

/** Opens the API; throws one sentence where there is no usable configuration. Nothing is sent yet. */
export function openKube(options: KubeOptions): Kube {
  const config = loadConfig(options);
  const server = options.server ?? config.getCurrentCluster()?.server ?? '';
  const send = server.startsWith('http:') ? httpRequest : httpsRequest;
  const base = new URL(server);
  let agent: Agent | undefined;
  let credentials: Promise<RequestOptions> | undefined;
  let fetched = 0;

  const authenticate = async (): Promise<RequestOptions> => {
    const now = performance.now();
    if (credentials === undefined || now - fetched > CREDENTIALS_MS) {
      fetched = now;
      credentials = (async () => {
        const found: RequestOptions = {};
        await config.applyToHTTPSOptions(found);
        return found;
      })();
      credentials.catch(() => (credentials = undefined));
    }
    return credentials;
  };

  const open = async (
    method: Method,
    path: string,
    query: Query,
    headers: Record<string, string | number>,
    body: string | undefined,
    signal: AbortSignal,
  ): Promise<IncomingMessage> => {
    const auth = await authenticate();
    agent ??= new Agent({
      keepAlive: options.freshConnections !== true,
      maxSockets: 64,
      keepAliveMsecs: 30_000,
      ...(auth.ca === undefined ? {} : { ca: auth.ca }),
      ...(auth.cert === undefined ? {} : { cert: auth.cert }),
      ...(auth.key === undefined ? {} : { key: auth.key }),
      ...(auth.rejectUnauthorized === undefined ? {} : { rejectUnauthorized: auth.rejectUnauthorized }),
      ...(options.serverName === undefined ? {} : { servername: options.serverName }),
    });
    const used = agent;
    const url = new URL(base.pathname.replace(/\/$/, '') + path, base);
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, String(value));
    return new Promise((resolve, reject) => {
      const call = send(
        url,
        {
          method,
          signal,
          ...(base.protocol === 'http:' ? {} : { agent: used }),
          ...(auth.auth === undefined || auth.auth === null ? {} : { auth: auth.auth }),
          headers: {
            accept: JSON_TYPE,
            'user-agent': options.userAgent,
            ...(auth.headers as Record<string, string> | undefined),
            ...headers,
          },
        },
        resolve,
      );
      call.setNoDelay(true);
      call.on('error', reject);
      call.end(body);
    });
  };

  const once = async (
    method: Method,
    path: string,
    call: CallOptions,
  ): Promise<{ status: number; text: string; retryAfter: number | undefined }> => {
    const timeout = AbortSignal.timeout(call.timeoutMs ?? 15_000);
    const signal = call.signal === undefined ? timeout : AbortSignal.any([call.signal, timeout]);
    const body = call.body === undefined ? undefined : JSON.stringify(call.body);
    const headers =
      body === undefined
        ? {}
        : { 'content-type': call.contentType ?? JSON_TYPE, 'content-length': Buffer.byteLength(body) };
    try {
      const response = await open(method, path, call.query ?? {}, headers, body, signal);
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      const retry = Number(response.headers['retry-after']);
      return {
        status: response.statusCode ?? 0,
        text: Buffer.concat(chunks).toString(),
        retryAfter: Number.isFinite(retry) ? retry : undefined,
      };
    } catch (error) {
      throw new Error(
        `API server ${server} not reached for ${method} ${path}${timeout.aborted ? ` within ${call.timeoutMs ?? 15_000} ms` : ''}`,
        { cause: error },
      );
    }
  };

  return {
    server,
    async request<T>(method: Method, path: string, call: CallOptions = {}): Promise<T> {
      for (let attempt = 0; ; attempt += 1) {
        const { status, text, retryAfter } = await once(method, path, call);
        if (status >= 200 && status < 300) return (text === '' ? {} : JSON.parse(text)) as T;
        // 429 says that nothing was done, and when to come back.
        if (status === 429 && attempt < 3) {
          await sleep((retryAfter ?? 1) * 1000);
          continue;
        }
        throw errorOf(status, text, `${method} ${path}`);
      }
    },
    async stream(path, query, signal) {
      const response = await open('GET', path, query, {}, undefined, signal);
      if (response.statusCode !== 200) {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        throw errorOf(response.statusCode ?? 0, Buffer.concat(chunks).toString(), `watch of ${path}`);
      }
      return linesOf(response, signal);
    },
  };
}

async function* linesOf(response: IncomingMessage, signal: AbortSignal): AsyncGenerator<string> {
  const lines = createInterface({ input: response });
  // readline swallows its input's errors; a cut connection must end the loop with one.
  let failure: unknown;
  response.on('error', (error) => {
    failure = error;
    lines.close();
  });
  response.on('aborted', () => lines.close());
  try {
    for await (const line of lines) yield line;
    if (failure !== undefined && !signal.aborted) throw failure;
  } finally {
    response.destroy();
  }
}

/** A Status object, or whatever text came, as a KubeError. */
export function errorOf(status: number, text: string, what: string): KubeError {
  try {
    const parsed = JSON.parse(text) as { reason?: string; message?: string };
    return new KubeError(status, parsed.reason ?? '', `${what}: ${parsed.message ?? `status ${status}`}`);
  } catch {
    return new KubeError(status, '', `${what}: status ${status} ${text.slice(0, 200)}`);
  }
}
