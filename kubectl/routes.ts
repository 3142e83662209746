// `kubectl gpu-gate ui`: the status page on loopback, with the caller's own rights. Nothing listens
// in the cluster, and the page asks nobody else.
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { printableJson } from '../core/printable.ts';
import type { Fleet } from './fleet.ts';
import type { NodeStory } from './story.ts';
import { updateOf } from './updates.ts';

export interface UiSource {
  readonly fleet: () => Promise<Fleet>;
  readonly node: (name: string) => Promise<NodeStory>;
  /** One sentence for a person. */
  readonly sentence: (error: unknown) => string;
}

export interface UiOptions {
  /** 0: any free one. */
  readonly port: number;
  /** Where the built page is. */
  readonly folder: string;
  readonly now: () => number;
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
}

const EVERY_MS = 2000;

const FILES: Readonly<Record<string, readonly [file: string, type: string]>> = {
  '': ['index.html', 'text/html; charset=utf-8'],
  'page.js': ['page.js', 'text/javascript; charset=utf-8'],
  'page.css': ['page.css', 'text/css; charset=utf-8'],
};

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};

const isSame = (a: string, b: string): boolean =>
  a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));

/** Serves until the signal; rejects where the page is not built or the port is taken. */
export async function serveUi(source: UiSource, options: UiOptions): Promise<void> {
  const files = new Map<string, { readonly body: Buffer; readonly type: string }>();
  for (const [path, [file, type]] of Object.entries(FILES))
    files.set(path, {
      type,
      body: await readFile(join(options.folder, file)).catch(() => {
        throw new Error('the page is not built: run npm pack ./kubectl, and use the plugin from that package');
      }),
    });
  const token = randomBytes(24).toString('base64url');
  const watchers = new Set<ServerResponse>();
  let last: Fleet | undefined;
  let at = '';
  /** Resolves once a browser looks. */
  let looked = Promise.withResolvers<void>();
  options.signal.addEventListener('abort', () => looked.resolve());

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => end(response, 500, source.sentence(error)));
  });
  const hosts = (): readonly string[] => {
    const { port } = server.address() as AddressInfo;
    return [`127.0.0.1:${port}`, `localhost:${port}`];
  };
  const end = (response: ServerResponse, status: number, text: string): void => {
    if (!response.headersSent) response.writeHead(status, { ...HEADERS, 'content-type': 'text/plain; charset=utf-8' });
    response.end(text);
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A name that an attacker points to 127.0.0.1 stands here.
    if (!hosts().includes(request.headers.host ?? '')) return end(response, 421, 'open the address that was printed');
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://127.0.0.1');
    const [, given = '', path = ''] = pathname.split('/', 3);
    if (request.method !== 'GET' || !isSame(given, token))
      return end(response, 404, 'open the address that was printed');
    const file = files.get(path);
    if (file !== undefined) {
      response.writeHead(200, { ...HEADERS, 'content-type': file.type });
      response.end(file.body);
    } else if (path === 'node') {
      const story = await source.node(searchParams.get('name') ?? '');
      response.writeHead(200, { ...HEADERS, 'content-type': 'application/json' });
      response.end(printableJson(story, 0));
    } else if (path === 'updates') {
      response.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream' });
      if (last !== undefined) send(response, 'update', updateOf(undefined, last, at));
      watchers.add(response);
      looked.resolve();
      response.on('close', () => {
        watchers.delete(response);
        // The next browser is shown nothing that is old.
        if (watchers.size === 0) last = undefined;
      });
    } else end(response, 404, 'there is no such page');
  }

  const send = (response: ServerResponse, event: string, value: unknown): void =>
    void response.write(`event: ${event}\ndata: ${printableJson(value, 0)}\n\n`);

  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE' ? new Error(`port ${options.port} is in use: give another with --port`) : error,
      ),
    );
    server.listen(options.port, '127.0.0.1', resolve);
  });
  try {
    options.say(`http://${hosts()[0] ?? ''}/${token}/`);
    options.say('Open this address in a browser of this machine. Ctrl-C ends it.');
    for (;;) {
      // The cluster is read only while a browser looks.
      if (watchers.size === 0) {
        looked = Promise.withResolvers();
        if (!options.signal.aborted) await looked.promise;
      }
      if (options.signal.aborted) break;
      const began = options.now();
      try {
        const fleet = await source.fleet();
        at = new Date(options.now()).toISOString();
        const update = updateOf(last, fleet, at);
        last = watchers.size === 0 ? undefined : fleet;
        for (const watcher of watchers) send(watcher, 'update', update);
      } catch (error) {
        for (const watcher of watchers) send(watcher, 'trouble', source.sentence(error));
      }
      // A large cluster is read less often: reading takes a fifth of the time at most.
      const pause = Math.max(EVERY_MS, 4 * (options.now() - began));
      await sleep(pause, undefined, { signal: options.signal }).catch(() => undefined);
    }
  } finally {
    for (const watcher of watchers) watcher.end();
    server.close();
    server.closeAllConnections();
  }
}
