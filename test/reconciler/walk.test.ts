// The annotation is read as hostile input: whatever stands in it, the node's walk goes on.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DEPLOY_PREFIX, PROOF, RETRY, WALK } from '../../core/keys.ts';
import { planNode } from '../../reconciler/node/plan.ts';
import { newWalk, parseWalk } from '../../reconciler/walk.ts';
import { NOW } from '../builders/objects.ts';
import { World } from './node/world.ts';

const validated = new World().validated();
const text = validated.node.metadata.annotations?.[WALK] ?? '';
const walk = JSON.parse(text) as Record<string, unknown>;

describe('the walk’s annotation', () => {
  it('is read as it was written', () => expect(parseWalk(text, 'node-uid')).toEqual({ ...walk, said: undefined }));
  it.each([
    ['{'],
    ['null'],
    ['[]'],
    ['"x"'],
    ['{"node":"other","boot":"b","stage":"driver"}'],
    ['{"node":"node-uid"}'],
  ])('%s is not a walk of the node', (value) => expect(parseWalk(value, 'node-uid')).toBeUndefined());
  it.each(Object.keys(walk).filter((key) => !['node', 'boot', 'stage'].includes(key)))(
    '%s may be of any type: what cannot be read starts afresh, the rest stays',
    (key) => {
      for (const value of [null, 7, -1, 'x', [], {}, true, { driver: null }, [null]]) {
        const read = parseWalk(JSON.stringify({ ...walk, [key]: value }), 'node-uid');
        expect(read).toMatchObject({ node: 'node-uid', boot: 'boot-1', stage: 'done' });
        const fresh = Object.keys(newWalk('n', 'b', NOW));
        for (const field of fresh) expect(read).toHaveProperty(field);
      }
    },
  );
  it('never makes the plan throw, or take a component from a proven node', () => {
    const value = fc.oneof(fc.jsonValue(), fc.constant(null), fc.string(), fc.date().map(String));
    const broken = fc.dictionary(
      fc.constantFrom(...Object.keys(walk), 'failed', 'renew', 'notReady', 'labelGone'),
      value,
    );
    fc.assert(
      fc.property(broken, fc.constantFrom(WALK, PROOF), (fields, key) => {
        const world = new World().validated();
        world.pods.set('user', { ...[...world.pods.values()][0]!, namespace: 'team', gpus: { 'nvidia.com/gpu': 1 } });
        const was = JSON.parse(world.node.metadata.annotations?.[key] ?? '{}') as object;
        world.annotate(key, JSON.stringify({ ...was, ...fields }));
        for (let i = 0; i < 3; i += 1)
          for (const action of world.step())
            if (action.kind === 'patch-node')
              expect(Object.entries(action.labels)).not.toContainEqual([expect.stringContaining(DEPLOY_PREFIX), null]);
      }),
      { numRuns: 200 },
    );
  });
  it('any text there, and as the retry’s value, is survived', () => {
    fc.assert(
      fc.property(fc.string(), fc.constantFrom(WALK, PROOF, RETRY), (value, key) => {
        const world = new World();
        world.settle(4);
        world.annotate(key, value);
        expect(() => planNode(world.input())).not.toThrow();
      }),
      { numRuns: 100 },
    );
  });
});
