// JSON Patch operations of the webhook, and the check that they apply. Pure.
//
// The check stays although `decide` builds only operations that apply and property tests hold it to that: an API server rejects a pod
// whose patch does not apply even under `failurePolicy: Ignore`, so a fault here would cost the pod.
import fastJsonPatch from 'fast-json-patch';

export interface AddOperation {
  readonly op: 'add';
  readonly path: string;
  readonly value: unknown;
}

export const add = (path: string, value: unknown): AddOperation => ({ op: 'add', path, value });

/** Adds to a list, or creates the list if there is none (null counts as none). */
export const append = (
  path: string,
  present: readonly unknown[] | null | undefined,
  values: readonly unknown[],
): AddOperation[] => (Array.isArray(present) ? values.map((value) => add(`${path}/-`, value)) : [add(path, values)]);

/** Adds a key to a map, or creates the map if there is none. */
export const put = (
  path: string,
  present: Readonly<Record<string, string>> | null | undefined,
  key: string,
  value: string,
): AddOperation[] =>
  typeof present === 'object' && present !== null
    ? [add(`${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, value)]
    : [add(path, { [key]: value })];

/**
 * Throws if an operation does not apply. It changes the object, because copying a pod is most of the work, so the caller must not need
 * the object afterwards.
 */
export function assertApplies(object: object, operations: readonly AddOperation[]): void {
  // The operations are copied: a later one may add to a value that an earlier one inserted, and the answer must not change. They are
  // JSON, and reading their text takes a fifth of the time of structuredClone.
  fastJsonPatch.applyPatch(object, JSON.parse(JSON.stringify(operations)) as AddOperation[], true, true, true);
}
