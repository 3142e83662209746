// Checks a patch before it leaves: it must apply to the object that came in, by an implementation that is not ours.
import fastJsonPatch from 'fast-json-patch';
import type { AddOperation } from './draft.ts';

/** The object with the operations applied; the original stays as it is. Throws where one does not apply. */
export function applied<T extends object>(object: T, operations: readonly AddOperation[]): T {
  return fastJsonPatch.applyPatch(object, operations, true, false, true).newDocument;
}

/** Throws where an operation does not apply. The object is changed: for a caller that needs it no more, since copying it is most of the work. */
export function assertApplies(object: object, operations: readonly AddOperation[]): void {
  // A copy of the few operations: what is inserted first may be added to by a later one, and the patch must stay as it is. They are JSON,
  // and reading that anew takes a fifth of what structuredClone does.
  fastJsonPatch.applyPatch(object, JSON.parse(JSON.stringify(operations)) as AddOperation[], true, true, true);
}
