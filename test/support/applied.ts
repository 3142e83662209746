// A pod as the API server would have it after a patch.
import fastJsonPatch from 'fast-json-patch';
import type { AddOperation } from '../../webhook/patch.ts';

/**
 * The object with the operations applied; the original stays as it is. Throws if one does not
 * apply.
 */
export function applied<T extends object>(object: T, operations: readonly AddOperation[]): T {
  return fastJsonPatch.applyPatch(object, operations, true, false, true).newDocument;
}
