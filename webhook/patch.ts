// Checks a patch before it leaves: it must apply to the object that came in, by an implementation that is not ours.
import fastJsonPatch from 'fast-json-patch';
import type { AddOperation } from './inject.ts';

/** The object with the operations applied; the original stays as it is. Throws where one does not apply. */
export function applied<T extends object>(object: T, operations: readonly AddOperation[]): T {
  return fastJsonPatch.applyPatch(object, operations, true, false, true).newDocument;
}
