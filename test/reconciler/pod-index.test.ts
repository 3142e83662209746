// The index against a scan: whatever pods do, both find the same.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { keyOf, type PodObject } from '../../reconciler/model.ts';
import { podIndex } from '../../reconciler/pod-index.ts';
import { OPERANDS } from '../builders/caches.ts';
import { aNode, keptPod } from '../builders/objects.ts';

const NODES = ['a', 'b'];
const change = fc.record({
  name: fc.constantFrom('p', 'q', 'r'),
  namespace: fc.constantFrom('team', OPERANDS),
  nodeName: fc.constantFrom(...NODES, undefined),
  validates: fc.constantFrom('uid-a', 'uid-b', 'uid-gone', undefined),
  gone: fc.boolean(),
});
const keys = (pods: Iterable<PodObject>): string[] => [...pods].map(keyOf).toSorted();

it('finds what a scan finds after any changes', () =>
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
      const all = new Map<string, PodObject>();
      const index = podIndex(OPERANDS);
      for (const { gone, ...parts } of changes) {
        const pod = keptPod(parts);
        const before = all.get(keyOf(pod));
        if (gone) all.delete(keyOf(pod));
        else all.set(keyOf(pod), pod);
        index.update(before, gone ? undefined : pod);
      }
      const scan = (which: (pod: PodObject) => boolean): string[] => keys([...all.values()].filter(which));
      expect([...index.unbound.keys()].toSorted()).toEqual(scan((pod) => pod.nodeName === undefined));
      for (const name of NODES) {
        expect(keys(index.podsOn(name))).toEqual(scan((pod) => pod.nodeName === name));
        expect(keys(index.validationsOf(aNode({ name })).values())).toEqual(
          scan(
            (pod) =>
              pod.namespace === OPERANDS &&
              pod.validates !== undefined &&
              (pod.validates === `uid-${name}` || pod.nodeName === name),
          ),
        );
      }
    }),
    { numRuns: 300 },
  ));
