// The Kubernetes API as one function: credentials.ts gives the authentication, the transport is a
// keep-alive pool for as long as CA and client certificate stay the same. Knows paths and status
// codes, but no kinds.
import { Agent, request as httpsRequest } from 'node:https';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { accessOf, type Access, type PodSource } from './credentials.ts';
import { lines } from './lines.ts';
import { explainError } from './log.ts';

const JSON_TYPE = 'application/json';
export const MERGE_PATCH = 'application/merge-patch+json';
export const STRATEGIC_PATCH = 'application/strategic-merge-patch+json';
/** JSON is valid YAML, so that server-side apply takes it. */
export const APPLY = 'application/apply-patch+yaml';

/** The API server answered with an error status. */
export class KubeError extends Error {
  readonly status: number;
  readonly reason: string;
  /** The server's own words, without what was called. */
  readonly sentence: string;
  constructor(status: number, reason: string, what: string, sentence: string) {
    super(`${what}: ${sentence}`);
    this.status = status;
    this.reason = reason;
    this.sentence = sentence;
  }
}

const hasStatus = (error: unknown, status: number, reason?: string): boolean =>
  error instanceof KubeError && error.status === status && (reason === undefined || error.reason === reason);
/** No API server answered. */
export class NotReached extends Error {}

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
  /** Limit of the call with all its retries; default 15 s. */
  readonly timeoutMs?: number;
  /** How often 429 is retried; default 3. */
  readonly retries?: number;
  /** Called before each attempt, also before a retry after 429; what it throws ends the call. */
  readonly beforeAttempt?: () => void;
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface Kube {
  readonly server: string;
  /** The kubeconfig's, or the pod's own. */
  readonly namespace: string;
  /** One call; throws KubeError for an error status, Error if the server was not reached. */
  request<T = unknown>(method: Method, path: string, options?: CallOptions): Promise<T>;
  /** Lines of a watch, until the server or the signal ends it. */
  stream(path: string, query: Query, signal: AbortSignal): Promise<AsyncIterable<string>>;
}

export interface KubeOptions {
  /**
   * Path, or several that are merged as kubectl does. Empty or absent means the pod's
   * ServiceAccount.
   */
  readonly kubeconfig?: string | readonly string[];
  readonly context?: string;
  readonly userAgent: string;
  /**
   * Address of one of several API servers, in place of the kubeconfig's; credentials and name
   * checks stay.
   */
  readonly server?: string;
  readonly serverName?: string;
  /** A new connection for each call, because several servers may share one address. */
  readonly freshConnections?: boolean;
  /** How often credentials on disk are checked for changes; default 30 s. */
  readonly lookEveryMs?: number;
  /** Time that a credential program gets; default 20 s. */
  readonly credentialsWithinMs?: number;
  /** The pod whose ServiceAccount is used without a kubeconfig; default: this process's own. */
  readonly pod?: PodSource;
}

/** Credentials, and the connections that were opened with them. */
interface Transport {
  readonly access: Access;
  readonly agent: Agent;
}

/** What a connection is opened with; the rest goes with each call. */
const tlsOf = ({ https }: Access, options: KubeOptions) =>
  Object.fromEntries(
    Object.entries({
      ca: https.ca,
      cert: https.cert,
      key: https.key,
      rejectUnauthorized: https.rejectUnauthorized,
      servername: options.serverName ?? https.servername,
    }).filter(([, value]) => value !== undefined),
  );

/** The transport for new credentials; it keeps the connections if they would be opened alike. */
function transportOf(access: Access, options: KubeOptions, before?: Transport): Transport {
  const tls = tlsOf(access, options);
  if (before !== undefined) {
    if (JSON.stringify(tls) === JSON.stringify(tlsOf(before.access, options))) return { access, agent: before.agent };
    // Calls under way end on the old connections, which are not kept after that.
    before.agent.maxFreeSockets = 0;
    for (const sockets of Object.values(before.agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }
  const keepAlive = options.freshConnections !== true;
  return { access, agent: new Agent({ keepAlive, maxSockets: 64, keepAliveMsecs: 30_000, ...tls }) };
}

/**
 * Opens the API; rejects with one sentence if there is no usable configuration. Sends nothing yet.
 */
export async function openKube(options: KubeOptions): Promise<Kube> {
  const source = {
    kubeconfigs: [options.kubeconfig ?? []].flat().filter((path) => path !== ''),
    context: options.context,
    withinMs: options.credentialsWithinMs,
    pod: options.pod,
  };
  const first = await accessOf(source);
  const server = options.server ?? first.server;
  const send = server.startsWith('http:') ? httpRequest : httpsRequest;
  const base = new URL(server);
  let transport = transportOf(first, options);
  let looked = performance.now();
  let reading = false;
  /** Error of the last check: a file may be half replaced, a credential program may hang. */
  let unread: unknown;

  const renew = async (): Promise<void> => {
    looked = performance.now();
    reading = true;
    try {
      transport = transportOf(await accessOf(source), options, transport);
      unread = undefined;
    } catch (error) {
      unread = error;
    }
    reading = false;
  };
  /**
   * The transport for a call. No call waits for new credentials: the old ones mostly hold, and
   * callers retry.
   */
  const current = (): Transport => {
    if (!reading && performance.now() - looked > (options.lookEveryMs ?? 30_000)) void renew();
    return transport;
  };
  const withOldCredentials = (): string =>
    unread === undefined ? '' : ` (new credentials could not be read: ${explainError(unread)})`;

  const open = (
    method: Method,
    path: string,
    query: Query,
    headers: Record<string, string | number>,
    body: string | undefined,
    signal: AbortSignal,
  ): Promise<IncomingMessage> => {
    const { access, agent } = current();
    const auth = access.https;
    const url = new URL(base.pathname.replace(/\/$/, '') + path, base);
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, String(value));
    return new Promise((resolve, reject) => {
      const call = send(
        url,
        {
          method,
          signal,
          ...(base.protocol === 'http:' ? {} : { agent }),
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
    signal: AbortSignal,
  ): Promise<{ status: number; text: string; retryAfter: number | undefined }> => {
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
      const late = signal.aborted && call.signal?.aborted !== true;
      throw new NotReached(
        `API server ${server} not reached for ${method} ${path}${late ? ` within ${call.timeoutMs ?? 15_000} ms` : ''}${withOldCredentials()}`,
        { cause: error },
      );
    }
  };
  const refusal = (status: number, text: string, what: string): KubeError =>
    errorOf(status, text, `${what}${status === 401 ? withOldCredentials() : ''}`);

  return {
    server,
    namespace: first.namespace,
    async request<T>(method: Method, path: string, call: CallOptions = {}): Promise<T> {
      const limit = call.timeoutMs ?? 15_000;
      const end = performance.now() + limit;
      const timeout = AbortSignal.timeout(limit);
      const signal = call.signal === undefined ? timeout : AbortSignal.any([call.signal, timeout]);
      for (let attempt = 0; ; attempt += 1) {
        call.beforeAttempt?.();
        const { status, text, retryAfter } = await once(method, path, call, signal);
        if (status >= 200 && status < 300) return (text === '' ? {} : JSON.parse(text)) as T;
        // 429 means that nothing was done and when to retry. Retry only if the caller still waits
        // then.
        const pause = (retryAfter ?? 1) * 1000;
        if (status === 429 && attempt < (call.retries ?? 3) && performance.now() + pause < end) {
          await sleep(pause, undefined, { signal });
          continue;
        }
        throw refusal(status, text, `${method} ${path}`);
      }
    },
    async stream(path, query, signal) {
      const response = await open('GET', path, query, {}, undefined, signal);
      if (response.statusCode !== 200) {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        throw refusal(response.statusCode ?? 0, Buffer.concat(chunks).toString(), `watch of ${path}`);
      }
      return linesOf(response, signal);
    },
  };
}

function linesOf(response: IncomingMessage, signal: AbortSignal): AsyncIterable<string> {
  // The reader gets the error of a connection that was cut. Until it begins to read, an error that
  // nobody listens to would end the process.
  response.on('error', () => undefined);
  return (async function* () {
    try {
      yield* lines(response as AsyncIterable<Buffer>);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      response.destroy();
    }
  })();
}

/** Longest text of an answer that is not a Status object, in characters. */
const LONGEST_ANSWER = 200;

/** A Status object, or whatever text came, as a KubeError; `what` says what was called. */
export function errorOf(status: number, text: string, what: string): KubeError {
  try {
    const parsed = JSON.parse(text) as { readonly reason?: string; readonly message?: string };
    return new KubeError(status, parsed.reason ?? '', what, parsed.message ?? `status ${status}`);
  } catch {
    return new KubeError(status, '', what, `status ${status} ${text.slice(0, LONGEST_ANSWER)}`);
  }
}
