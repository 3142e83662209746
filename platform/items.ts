// A whole list of the API, in pages: the pods of a large cluster are hundreds of MiB.
import type { Kube, Query } from './kube.ts';

const PAGE = 500;

/** The items of each page, one page after the other. */
export async function* pagesOf<T>(kube: Kube, path: string, query: Query = {}, signal?: AbortSignal) {
  let next: string | undefined;
  do {
    const page: { items: T[]; metadata?: { continue?: string } } = await kube.request('GET', path, {
      query: { ...query, limit: PAGE, continue: next },
      timeoutMs: 60_000,
      ...(signal === undefined ? {} : { signal }),
    });
    yield page.items as readonly T[];
    next = page.metadata?.continue === '' ? undefined : page.metadata?.continue;
  } while (next !== undefined);
}

/** All items together. */
export async function itemsOf<T>(kube: Kube, path: string, query: Query = {}, signal?: AbortSignal): Promise<T[]> {
  const all: T[] = [];
  for await (const page of pagesOf<T>(kube, path, query, signal)) all.push(...page);
  return all;
}
