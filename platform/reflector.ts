// Keeps a trimmed copy of a collection of Kubernetes objects up to date: paged list, watch with
// bookmarks, endless retry. docs/adr/0007 says why the library's informer does not do.
import { setTimeout as sleep } from 'node:timers/promises';
import { errorOf, isGone, isNotFound, KubeError, type Kube } from './kube.ts';
import type { Log } from './log.ts';
import { afterWatch, CALM, type Ended } from './retry.ts';

interface KubeObject {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly resourceVersion?: string };
}

export interface ReflectorOptions<T> {
  readonly kube: Kube;
  /** Path of the collection, such as `/api/v1/nodes`. */
  readonly path: string;
  readonly query?: { readonly labelSelector?: string; readonly fieldSelector?: string };
  /** Raw object → what is kept; `undefined` if it is not kept. */
  readonly trim: (raw: never) => T | undefined;
  readonly log: Log;
  readonly now?: () => number;
  /** Called for each object added (before undefined), changed, or gone (after undefined). */
  readonly onChange?: (key: string, before: T | undefined, after: T | undefined) => void;
  /** A list is in, and was read by what `trim` keeps now. */
  readonly onListed?: () => void;
  readonly onError?: (error: unknown) => void;
  /** Objects per page of a list; default 500. */
  readonly pageSize?: number;
  /**
   * Silence after which a watch is cut; default 90 s, because the server sends a bookmark every
   * minute.
   */
  readonly inactivityMs?: number;
  /** The kind may not be installed; then the collection is empty. */
  readonly optional?: boolean;
  /** How often it is looked whether an optional kind is installed now, ms; default 1 s. */
  readonly absentMs?: number;
  /** Called when the kind is found not to be installed, once until it is. */
  readonly onAbsent?: () => void;
  /** Test hook: delay of every event, as of a slow watch. */
  readonly delayMs?: () => number;
}

export interface Reflector<T> {
  start(signal: AbortSignal): void;
  readonly synced: boolean;
  /** False while an optional kind is not installed. */
  readonly installed: boolean;
  /** Resolves once the first list is in. */
  whenSynced(): Promise<void>;
  /** Time of the server's last message, ms since the epoch; 0 before the first list. */
  lastContact(): number;
  /** Lists again, because `trim` now keeps other objects. */
  relist(): void;
  /** Key: `name`, or `namespace/name`. */
  get(key: string): T | undefined;
  values(): Iterable<T>;
  entries(): Iterable<[string, T]>;
  readonly size: number;
}

const keyOf = (object: KubeObject): string =>
  object.metadata.namespace === undefined
    ? object.metadata.name
    : `${object.metadata.namespace}/${object.metadata.name}`;

/** A reflector, not started yet. */
export function reflector<T>(options: ReflectorOptions<T>): Reflector<T> {
  const now = options.now ?? Date.now;
  /** An object that cannot be read is left out alone, so that it does not hide the others. */
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
  let absent = false;
  let cut = new AbortController();
  /**
   * When the stream of the last attempt was opened, ms of the monotonic clock; `undefined` if it
   * was not.
   */
  let opened: number | undefined;
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
    absent = false;
    for (const key of store.keys()) if (!found.has(key)) set(key, undefined);
    for (const [key, value] of found) {
      const before = store.get(key);
      if (before === undefined || JSON.stringify(before) !== JSON.stringify(value)) set(key, value);
    }
    if (!again) options.onListed?.();
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
      opened = performance.now();
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
      // Neither the idle timer nor a relist is an error: the next watch goes on from the same
      // version.
      if ((!idle.signal.aborted && !cut.signal.aborted) || stop.aborted) throw error;
    } finally {
      clearTimeout(timer);
    }
  };

  /** The kind is not installed: the collection is empty. */
  const nothingThere = (): void => {
    for (const key of store.keys()) set(key, undefined);
    contact = now();
    if (!synced) {
      synced = true;
      release();
    }
  };

  const run = async (signal: AbortSignal): Promise<void> => {
    let retry = CALM;
    let listed = false;
    while (!signal.aborted) {
      let failure: Ended['failure'] = 'none';
      let thrown: unknown;
      opened = undefined;
      try {
        if (!listed || again) {
          again = false;
          await list(signal);
          listed = true;
        }
        // Requested while the list was under way, which may have used the old `trim`.
        if (again) continue;
        await watch(signal);
      } catch (error) {
        if (signal.aborted) return;
        thrown = error;
        failure = isGone(error) ? 'gone' : error instanceof KubeError ? 'refused' : 'cut';
      }
      if (options.optional === true && isNotFound(thrown)) {
        listed = false;
        const first = !absent;
        absent = true;
        nothingThere();
        if (first) options.onAbsent?.();
        await sleep(options.absentMs ?? 1000, undefined, { signal }).catch(() => undefined);
        continue;
      }
      const lived = opened === undefined ? undefined : performance.now() - opened;
      const next = afterWatch(retry, { lived, failure }, Math.random());
      retry = next.retry;
      if (next.list) listed = false;
      if (failure !== 'none' && failure !== 'gone') options.onError?.(thrown);
      if (next.report)
        options.log.error('watch failed, trying again', {
          path: options.path,
          failures: retry.failures,
          error: thrown,
        });
      if (next.pauseMs > 0) await sleep(next.pauseMs, undefined, { signal }).catch(() => undefined);
    }
  };

  return {
    start(signal) {
      void run(signal);
    },
    get synced() {
      return synced;
    },
    get installed() {
      return synced && !absent;
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
