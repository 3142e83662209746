// The check of a patch against two libraries that apply patches: what it lets through applies, what
// it refuses does not.
import fc from 'fast-check';
import { applyPatch as independently } from 'rfc6902';
import { describe, expect, it } from 'vitest';
import { add, append, assertApplies, put, type AddOperation } from '../../webhook/patch.ts';
import { applied } from '../support/applied.ts';

const passes = (check: () => void): boolean => {
  try {
    check();
    return true;
  } catch {
    return false;
  }
};
const POD = {
  metadata: { labels: { 'a/b': 'x' }, annotations: null },
  spec: { containers: [{ name: 'a', env: [{ name: 'E' }] }, { name: 'b' }], volumes: [], nodeName: '' },
};

const step = fc.constantFrom(
  'metadata',
  'labels',
  'annotations',
  'spec',
  'containers',
  'volumes',
  'nodeName',
  'env',
  'name',
  '0',
  '1',
  '7',
  '-',
  'a~1b',
);
/**
 * Where operations of the webhook may point: a new or present field of an object, or the end of a
 * list.
 */
const path = fc.array(step, { minLength: 1, maxLength: 5 }).map((steps) => `/${steps.join('/')}`);

describe('the check of a patch', () => {
  it('agrees with both libraries on 5,000 operations, most of which do not apply', () => {
    const seen = { yes: 0, no: 0 };
    fc.assert(
      fc.property(path, (pointer) => {
        // Positions in a list and fields called '-' are nothing that the webhook writes; the
        // libraries take them.
        fc.pre(!/\/(containers|volumes|env)\/\d+$|(^|metadata|labels|spec|\d)\/-$/.test(pointer));
        const operations = [add(pointer, 'x')];
        const ours = passes(() => assertApplies(structuredClone(POD), operations));
        expect([pointer, passes(() => applied(POD, operations))]).toEqual([pointer, ours]);
        const copy = structuredClone(POD);
        const theirs = passes(() => {
          const [error] = independently(copy, structuredClone(operations));
          if (error !== null) throw error;
        });
        if (ours) expect([theirs, copy]).toEqual([true, applied(POD, operations)]);
        seen[ours ? 'yes' : 'no'] += 1;
      }),
      { numRuns: 5000 },
    );
    expect(seen.yes).toBeGreaterThan(100);
    expect(seen.no).toBeGreaterThan(500);
  });

  it.each<[string, AddOperation, boolean]>([
    ['a field of an object', add('/spec/runtimeClassName', 'x'), true],
    ['the end of a list', add('/spec/volumes/-', {}), true],
    ['the end of a list that is null', add('/metadata/annotations/-', {}), false],
    ['a key of a map that is null', add('/metadata/annotations/x', 'y'), false],
    ['a container that is not there', add('/spec/containers/2/env', []), false],
    ['a field of a text', add('/spec/nodeName/x', 'y'), false],
    ['a field that every object inherits', add('/constructor/prototype/x', 'y'), false],
    ['the prototype', add('/__proto__/x', 'y'), false],
  ])('%s: %j %s', (_, operation, expected) => expect(passes(() => assertApplies(POD, [operation]))).toBe(expected));
});

it.each([
  ['to a list', append('/l', [1], [2, 3]), [add('/l/-', 2), add('/l/-', 3)]],
  ['to none', append('/l', undefined, [2]), [add('/l', [2])]],
  ['to null', append('/l', null, [2]), [add('/l', [2])]],
  ['a key to a map', put('/m', {}, 'a/b~c', 'v'), [add('/m/a~1b~0c', 'v')]],
  ['a key to none', put('/m', undefined, 'a/b', 'v'), [add('/m', { 'a/b': 'v' })]],
  ['a key to null', put('/m', null, 'a', 'v'), [add('/m', { a: 'v' })]],
])('adds %s', (_, made, expected) => expect(made).toEqual(expected));
