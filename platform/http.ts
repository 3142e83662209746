// HTTP servers for the API server and the scheduler: HTTP/1.1, connections that outlive Go's idle
// timeout (Go does not repeat a POST on a connection that the server closed), certificates that are
// swapped without a gap, limits that hold against any caller, and a stop that drains.
import {
  createServer as createHttp,
  type RequestListener,
  type Server as HttpServer,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttps, type Server as HttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { replyText, TOO_BUSY } from './body.ts';
import { setPlace, type Intake } from './intake.ts';

/** Go's clients keep idle connections for 90 s. */
export const KEEP_ALIVE_MS = 120_000;
/** Time that a caller has to read why its connection ends. */
const LINGER_MS = 1000;

export interface TlsMaterial {
  readonly key: string;
  readonly cert: string;
  /**
   * CAs of client certificates, in place of those given at the start. Without a CA no caller is
   * served.
   */
  readonly ca?: string;
}

export interface ServerOptions {
  readonly port: number;
  /** Empty: all addresses. */
  readonly host?: string;
  /** Name of the option that sets the port, for the sentence on a port in use. */
  readonly portOption: string;
  readonly handler: RequestListener;
  /** HTTPS if present. Handshakes fail until `setTls` is called. */
  readonly tls?: {
    readonly material?: TlsMaterial;
    /** Callers must show a certificate with one of these common names. Without a CA none can. */
    readonly client?: { readonly ca?: string; readonly names: readonly string[] };
  };
  /** Calls after which a connection ends, by a header that the caller heeds; 0 never ends one. */
  readonly callsPerConnection?: number;
  /** Time that a caller has for its headers before it is cut off; default 10 s. */
  readonly headersTimeoutMs?: number;
  /**
   * Time that a caller has to send a whole call, and then to take its answer; default 30 s each.
   */
  readonly requestTimeoutMs?: number;
  /** Bounds the calls and bytes in flight; absent: not bounded. */
  readonly intake?: Intake;
  /**
   * Connections that are open at a time; one more takes the place of the oldest that has no call;
   * default 1000.
   */
  readonly maxConnections?: number;
  /** Counts connections that were closed for that. */
  readonly closedConnection?: () => void;
}

export interface RunningServer {
  readonly port: number;
  /** Connections that are open now. */
  readonly connections: number;
  setTls(material: TlsMaterial): void;
  /**
   * The beginning of a stop: serves on, and each answer asks its caller to close the connection. A
   * connection that the server closes while idle may have a call on its way, which is lost because
   * Go does not repeat a POST. So callers should be gone before `close`.
   */
  drain(): void;
  /**
   * Takes no new connections, closes idle ones, lets running calls end, closes what is left after
   * `graceMs`.
   */
  close(graceMs: number): Promise<void>;
  /** Resolves once the port is closed; rejects if the server fails after it began to listen. */
  readonly ended: Promise<void>;
}

/**
 * Takes POST calls of these paths past express, which routes all others. Only for the extender,
 * whose calls are so short that the router shows (docs/adr/0009). A listener must catch what it
 * throws.
 */
export const routed =
  (calls: ReadonlyMap<string, RequestListener>, others: RequestListener): RequestListener =>
  (request, response) => {
    const url = request.url ?? '';
    const query = url.indexOf('?');
    const call = request.method === 'POST' ? calls.get(query < 0 ? url : url.slice(0, query)) : undefined;
    (call ?? others)(request, response);
  };

/** Node replaces an empty text by its list of public CAs; here it means that no CA is trusted. */
const casOf = (ca: string | undefined): string[] => (ca?.includes('-----BEGIN CERTIFICATE-----') === true ? [ca] : []);

/** The same for a connection and for the TLS over it. */
const keyOf = (socket: Socket): string => `${socket.remoteAddress} ${socket.remotePort}`;

const callers = new WeakMap<TLSSocket, string>();
/**
 * Common name of the caller's certificate, which is fixed for a connection. Node parses the whole
 * certificate each time that it is asked, which takes half as long as a call of 100 nodes.
 */
function callerOf(socket: TLSSocket): string {
  const known = callers.get(socket);
  if (known !== undefined) return known;
  const name = String(socket.getPeerCertificate().subject?.CN ?? '');
  callers.set(socket, name);
  return name;
}

/** Starts listening; rejects with one sentence if the port is taken. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  let draining = false;
  /** Calls that are not answered to the end, and since when, in ms of the monotonic clock. */
  const unanswered = new Map<ServerResponse, number>();
  const handler: RequestListener = (request, response) => {
    const place = options.intake?.admit(() => void request.socket.destroy());
    unanswered.set(response, performance.now());
    response.once('close', () => {
      unanswered.delete(response);
      place?.end();
    });
    if (place !== undefined) setPlace(request, place);
    else if (options.intake !== undefined) {
      request.pause();
      return replyText(response, 503, TOO_BUSY);
    }
    const names = options.tls?.client?.names;
    if (names !== undefined && !names.includes(callerOf(request.socket as TLSSocket))) {
      replyText(
        response,
        403,
        'this client certificate is not served: its common name is not among those that this port serves',
      );
      return;
    }
    if (draining) response.setHeader('connection', 'close');
    options.handler(request, response);
  };
  const [headersTimeout, requestTimeout] = [options.headersTimeoutMs ?? 10_000, options.requestTimeoutMs ?? 30_000];
  // Node looks only every 30 s by itself, which would make a time limit of 10 s one of 40.
  const connectionsCheckingInterval = Math.min(headersTimeout, requestTimeout) / 2;
  // Node watches over what a caller sends. A caller that does not take its answer is cut off here.
  const sweep = setInterval(() => {
    const limit = performance.now() - 2 * requestTimeout;
    for (const [response, since] of unanswered) if (since < limit) response.socket?.destroy();
  }, connectionsCheckingInterval).unref();
  const server: HttpServer | HttpsServer =
    options.tls === undefined
      ? createHttp({ connectionsCheckingInterval }, handler)
      : createHttps(
          {
            connectionsCheckingInterval,
            handshakeTimeout: headersTimeout,
            minVersion: 'TLSv1.2',
            ALPNProtocols: ['http/1.1'],
            ...options.tls.material,
            ...(options.tls.client === undefined
              ? {}
              : { requestCert: true, rejectUnauthorized: true, ca: casOf(options.tls.client.ca) }),
          },
          handler,
        );
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.headersTimeout = headersTimeout;
  server.requestTimeout = requestTimeout;
  server.maxRequestsPerSocket = options.callsPerConnection ?? 0;
  // HTTP's own closing does not know connections whose handshake is not done, so a silent caller
  // would hold up a stop for ever. Oldest first.
  const sockets = new Map<string, Socket>();
  const makeRoom = (): boolean => {
    const busy = new Set(Array.from(unanswered.keys(), ({ req }) => keyOf(req.socket)));
    for (const [key, socket] of sockets)
      if (!busy.has(key)) {
        sockets.delete(key);
        socket.destroy();
        return true;
      }
    return false;
  };
  server.on('connection', (socket: Socket) => {
    if (sockets.size >= (options.maxConnections ?? 1000)) {
      options.closedConnection?.();
      if (!makeRoom()) return void socket.destroy();
    }
    const key = keyOf(socket);
    sockets.set(key, socket);
    socket.once('close', () => sockets.delete(key));
  });
  // Runs after `clientError`, whose sentence waits for a handshake that never comes.
  server.on('tlsClientError', (_: Error, socket: TLSSocket) => void socket.destroy());
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    // The caller may keep its half of the connection open, or never read.
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
    if (!socket.writable) return;
    const [status, sentence] =
      error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'the call was not whole in time\n']
        : ['400 Bad Request', 'malformed HTTP/1.1 request\n'];
    socket.end(
      `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: ${sentence.length}\r\n\r\n${sentence}`,
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new Error(`port ${options.port} is in use: choose another one with --${options.portOption}`)
          : new Error(`listening on port ${options.port}`, { cause: error }),
      ),
    );
    server.listen(
      { port: options.port, ...(options.host === undefined || options.host === '' ? {} : { host: options.host }) },
      resolve,
    );
  });
  const ended = new Promise<void>((resolve, reject) => {
    server.once('close', () => {
      clearInterval(sweep);
      resolve();
    });
    server.once('error', reject);
  });
  // A server that nobody supervises, such as that of the metrics, ends without a listener.
  ended.catch(() => undefined);
  return {
    port: (server.address() as AddressInfo).port,
    ended,
    get connections() {
      return sockets.size;
    },
    setTls(material) {
      const { key, cert } = material;
      const client = options.tls?.client;
      const ca = client === undefined ? undefined : casOf(material.ca ?? client.ca);
      (server as HttpsServer).setSecureContext({
        key,
        cert,
        minVersion: 'TLSv1.2',
        ...(ca === undefined ? {} : { ca }),
      });
    },
    drain() {
      draining = true;
    },
    close(graceMs) {
      draining = true;
      return new Promise((resolve) => {
        // A call that was already running got no such header, so its connection turns idle after
        // it.
        const idle = setInterval(() => server.closeIdleConnections(), 50);
        const hard = setTimeout(() => {
          for (const socket of sockets.values()) socket.destroy();
        }, graceMs);
        server.close(() => {
          clearInterval(idle);
          clearTimeout(hard);
          resolve();
        });
        server.closeIdleConnections();
      });
    },
  };
}
