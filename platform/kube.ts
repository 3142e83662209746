// The Kubernetes API as one function: authentication comes from @kubernetes/client-node (credentials.ts), the transport is a keep-alive pool.
// Knows paths and status codes, no kinds.
import { Agent, request as httpsRequest } from 'node:https';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { accessOf, type Access } from './credentials.ts';

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

/** How often is looked whether the credentials have changed: ServiceAccount tokens rotate on disk. */
const LOOK_MS = 30_000;

/** Opens the API; rejects with one sentence where there is no usable configuration. Nothing is sent yet. */
export async function openKube(options: KubeOptions): Promise<Kube> {
  const source = { kubeconfig: options.kubeconfig ?? '', context: options.context };
  const first = await accessOf(source);
  const server = options.server ?? first.server;
  const send = server.startsWith('http:') ? httpRequest : httpsRequest;
  const base = new URL(server);
  let agent: Agent | undefined;
  let credentials: Promise<Access> = Promise.resolve(first);
  let fetched = performance.now();

  const authenticate = async (): Promise<Access['https']> => {
    const now = performance.now();
    if (now - fetched > LOOK_MS) {
      fetched = now;
      const before = credentials;
      // A file that is just being replaced is read the next time.
      credentials = accessOf(source).catch(() => before);
    }
    return (await credentials).https;
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
          ...(auth.auth === undefined ? {} : { auth: auth.auth }),
          headers: {
            accept: JSON_TYPE,
            'user-agent': options.userAgent,
            ...auth.headers,
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
