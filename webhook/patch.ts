// JSON Patch operations of the webhook, and the check that they apply. Pure.
import { isObject } from '../core/raw.ts';

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
 * Throws unless every operation adds to a list or an object that the pod has. An API server rejects
 * a pod whose patch does not apply even under `failurePolicy: Ignore`, so a fault in the rules
 * would cost the pod. No operation of a decision builds on an earlier one. Tests hold this check to
 * two libraries that apply patches.
 */
export function assertApplies(object: object, operations: readonly AddOperation[]): void {
  for (const { path } of operations) {
    const keys = path.split('/');
    const last = keys.pop();
    let place: unknown = object;
    for (const key of keys.slice(1)) place = isContainer(place) && Object.hasOwn(place, key) ? place[key] : undefined;
    if (last === '-' ? !Array.isArray(place) : !isObject(place)) throw new TypeError('an operation has no place');
  }
}

/** Keys above the last one are names of fields and positions, which need no unescaping. */
const isContainer = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;
