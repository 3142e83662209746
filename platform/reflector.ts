// Keeps a trimmed copy of a collection of Kubernetes objects up to date: paged list, watch with bookmarks, retry for ever.
// The library's informer stops on most errors and tells nobody when it is synced; a gate cannot rest on that.
import { setTimeout as sleep } from 'node:timers/promises';
import { errorOf, isGone, isNotFound, type Kube } from './kube.ts';
import type { Log } from './log.ts';

interface KubeObject {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly resourceVersion?: string };
}

export interface ReflectorOptions<T> {
  readonly kube: Kube;
  /** Path of the collection, such as `/api/v1/nodes`. */
  readonly path: string;
  readonly query?: { readonly labelSelector?: string; readonly fieldSelector?: string };
  /** Raw object → what is kept; undefined: not kept. */
  readonly trim: (raw: never) => T | undefined;
  readonly log: Log;
  readonly now?: () => number;
  /** Called for each object added (before undefined), changed, or gone (after undefined). */
  readonly onChange?: (key: string, before: T | undefined, after: T | undefined) => void;
  readonly onError?: (error: unknown) => void;
  /** Objects per page of a list; default 500. */
  readonly pageSize?: number;
  /** A watch with no event or bookmark for this long is cut; default 90 s: the server sends a bookmark a minute. */
  readonly inactivityMs?: number;
  /** The kind may not be installed: its 404 is an empty collection. */
  readonly optional?: boolean;
  /** Test hook: holds every event back by so many milliseconds, as a slow watch would. */
  readonly delayMs?: () => number;
}

export interface Reflector<T> {
  start(signal: AbortSignal): void;
  readonly synced: boolean;
  /** Resolves once the first list is in. */
  whenSynced(): Promise<void>;
  /** When the server was last heard, ms since the epoch; 0 before the first list. */
  lastContact(): number;
  /** Reads the collection anew: `trim` keeps others from now on. */
  relist(): void;
  /** Key: `name`, or `namespace/name`. */
  get(key: string): T | undefined;
  values(): Iterable<T>;
  entries(): Iterable<[string, T]>;
  readonly size: number;
}

/** A watch that still brought something after so long was a good one: what ends it is a first failure. */
const STEADY_MS = 10_000;

const keyOf = (object: KubeObject): string =>
  object.metadata.namespace === undefined
    ? object.metadata.name
    : `${object.metadata.namespace}/${object.metadata.name}`;

/** A reflector, not started yet. */
export function reflector<T>(options: ReflectorOptions<T>): Reflector<T> {
  const now = options.now ?? Date.now;
  /** An object that cannot be understood is left out by itself: it must not keep the others from being known. */
  const trim = (raw: KubeObject): T | undefined => {
    try {
      return (options.trim as (raw: unknown) => T | undefined)(raw);
    } catch (error) {
      options.log.error('object not understood, left out', { path: options.path, name: keyOf(raw), error });
      return undefined;
    }
  };
  const store = new Map<string, T>();
  let version = '';
  let contact = 0;
  let synced = false;
  let again = false;
  let cut = new AbortController();
  let release: () => void = () => undefined;
  const whenSynced = new Promise<void>((resolve) => (release = resolve));

  const set = (key: string, after: T | undefined): void => {
    const before = store.get(key);
    if (after === undefined) store.delete(key);
    else store.set(key, after);
    if (before !== undefined || after !== undefined) options.onChange?.(key, before, after);
  };

  /** Reads the whole collection in pages; the copy is changed only when all pages are in. */
  const list = async (signal: AbortSignal): Promise<void> => {
    const found = new Map<string, T>();
    let next: string | undefined;
    let at = '';
    do {
      const page: { metadata?: { continue?: string; resourceVersion?: string }; items?: KubeObject[] } =
        await options.kube.request('GET', options.path, {
          query: {
            ...options.query,
            limit: options.pageSize ?? 500,
            ...(next === undefined ? {} : { continue: next }),
          },
          signal,
          timeoutMs: 60_000,
        });
      for (const item of page.items ?? []) {
        const kept = trim(item);
        if (kept !== undefined) found.set(keyOf(item), kept);
      }
      next = page.metadata?.continue === '' ? undefined : page.metadata?.continue;
      at = page.metadata?.resourceVersion ?? '';
    } while (next !== undefined);
    version = at;
    contact = now();
    for (const key of store.keys()) if (!found.has(key)) set(key, undefined);
    for (const [key, value] of found) {
      const before = store.get(key);
      if (before === undefined || JSON.stringify(before) !== JSON.stringify(value)) set(key, value);
    }
    if (!synced) {
      synced = true;
      release();
    }
  };

  const watch = async (stop: AbortSignal): Promise<void> => {
    const idle = new AbortController();
    cut = new AbortController();
    const signal = AbortSignal.any([stop, idle.signal, cut.signal]);
    const limit = options.inactivityMs ?? 90_000;
    const timer = setTimeout(() => idle.abort(), limit);
    try {
      const lines = await options.kube.stream(
        options.path,
        {
          ...options.query,
          watch: true,
          allowWatchBookmarks: true,
          resourceVersion: version,
          timeoutSeconds: 300 + Math.floor(Math.random() * 300),
        },
        signal,
      );
      contact = now();
      for await (const line of lines) {
        timer.refresh();
        const delay = options.delayMs?.() ?? 0;
        if (delay > 0) await sleep(delay);
        const event = JSON.parse(line) as { type: string; object: KubeObject & { code?: number } };
        if (event.type === 'ERROR')
          throw errorOf(event.object.code ?? 500, JSON.stringify(event.object), `watch of ${options.path}`);
        contact = now();
        version = event.object.metadata.resourceVersion ?? version;
        if (event.type === 'BOOKMARK') continue;
        set(keyOf(event.object), event.type === 'DELETED' ? undefined : trim(event.object));
      }
    } catch (error) {
      // Our own idle timer is no error: the next watch goes on from the same version. Nor is a relist.
      if ((!idle.signal.aborted && !cut.signal.aborted) || stop.aborted) throw error;
    } finally {
      clearTimeout(timer);
    }
  };

  const run = async (signal: AbortSignal): Promise<void> => {
    let failures = 0;
    let relisted = false;
    let listed = false;
    while (!signal.aborted) {
      let began = now();
      try {
        if (!listed || again) {
          again = false;
          await list(signal);
          listed = true;
        }
        // Asked for while the list was on its way: what it kept may be the old choice.
        if (again) continue;
        began = now();
        await watch(signal);
        failures = 0;
        relisted = false;
        // A server that ends every watch at once must not be asked in a tight loop.
        if (now() - began < 100) await sleep(100, undefined, { signal }).catch(() => undefined);
      } catch (error) {
        if (signal.aborted) return;
        if (contact - began >= STEADY_MS) {
          failures = 0;
          relisted = false;
        }
        if (isGone(error)) {
          listed = false;
          // What is gone once is listed anew at once; a server that goes on saying so is in trouble, and a list costs it most.
          if (!relisted) {
            relisted = true;
            continue;
          }
        }
        if (options.optional === true && isNotFound(error)) {
          listed = false;
          for (const key of store.keys()) set(key, undefined);
          contact = now();
          if (!synced) {
            synced = true;
            release();
          }
          await sleep(1000, undefined, { signal }).catch(() => undefined);
          continue;
        }
        failures += 1;
        options.onError?.(error);
        if (failures === 1 || failures % 10 === 0)
          options.log.error('watch failed, trying again', { path: options.path, failures, error });
        // After some failures in a row the version may be what is wrong: list anew.
        if (failures >= 5) listed = false;
        const backoff = Math.min(10_000, 100 * 2 ** Math.min(failures, 10));
        await sleep(backoff * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
      }
    }
  };

  return {
    start(signal) {
      void run(signal);
    },
    get synced() {
      return synced;
    },
    whenSynced: () => whenSynced,
    relist() {
      again = true;
      cut.abort();
    },
    lastContact: () => contact,
    get: (key) => store.get(key),
    values: () => store.values(),
    entries: () => store.entries(),
    get size() {
      return store.size;
    },
  };
}
