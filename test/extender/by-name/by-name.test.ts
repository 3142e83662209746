// Compares the fast way for calls by name with the plain way, on anything that a scheduler or
// another caller may send.
import { NO_DEVICES } from '../../../gate/devices.ts';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { ABSENT, NodeTable, TWICE } from '../../../extender/by-name/table.ts';
import { byNameWay } from '../../../extender/by-name/way.ts';
import { plain } from '../../../extender/plain.ts';
import type { Answered } from '../../../extender/way.ts';
import { nodeFacts, type NodeFacts } from '../../../gate/verdict.ts';
import { aNode, aPod, aPolicy, NOW } from '../../builders/objects.ts';

const table = new NodeTable();
for (let i = 0; i < 40; i += 1)
  table.set(
    `node-${i}`,
    nodeFacts(i % 3 === 0 ? aNode({ name: `node-${i}`, boot: 'other' }) : aNode({ name: `node-${i}` })),
  );
const view = { nodes: table, policies: new Map([['default', aPolicy()]]), devices: NO_DEVICES, operandNamespace: 'o' };
const fastWay = byNameWay();

const answered = (filtered: Answered | undefined, scored: Answered | undefined) => {
  if (filtered?.ok !== true || scored?.ok !== true) return undefined;
  const read = (body: string | Buffer): unknown => JSON.parse(body.toString());
  return { verdicts: read(filtered.body), scores: read(scored.body), tally: filtered.tally };
};
const fast = (body: Buffer) => answered(fastWay.filter(body, view), fastWay.prioritize(body, view, NOW));
const slow = (body: Buffer) => answered(plain.filter(body, view), plain.prioritize(body, view, NOW));

/** Names that are known, unknown, odd. */
const names = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.nat(60).map((i) => `node-${i}`) },
    fc.constantFrom('', 'a"b', 'a\\b', 'ü', '__proto__', 'toString', '"NodeNames":[', ']}', '\u2028', '1', '10'),
    fc.string({ maxLength: 6 }),
  ),
  { maxLength: 50 },
);
const pods = fc.constantFrom<object>(
  aPod({ gpus: '1' }),
  aPod(),
  aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': 'x', note: '"NodeNames":["node-1"]}' } }),
  { ...aPod({ gpus: '1' }), NodeNames: ['nested'] },
);
const unknownFields = fc.dictionary(
  fc.constantFrom('Extra', 'extra', 'a"NodeNames', 'x'),
  fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constant({ NodeNames: ['node-2'] })),
  { maxKeys: 2 },
);

describe('the fast way for calls by names', () => {
  it('a scheduler’s own bytes take it', () => {
    const body = `{"Pod":${JSON.stringify(aPod({ gpus: '1' }))},"Nodes":null,"NodeNames":["node-1","node-3","nowhere"]}\n`;
    expect(fast(Buffer.from(body))?.verdicts).toEqual({
      Nodes: null,
      NodeNames: ['node-1'],
      FailedNodes: {},
      FailedAndUnresolvableNodes: { 'node-3': 'node rebooted since validation', nowhere: 'GPU state not known yet' },
      Error: '',
    });
  });

  it('where it is taken, it says what the plain way says, whatever came', () => {
    let taken = 0;
    fc.assert(
      fc.property(
        pods,
        names,
        unknownFields,
        fc.boolean(),
        fc.constantFrom(undefined, 1, '\t'),
        (pod, list, more, last, space) => {
          const args = last
            ? { Pod: pod, Nodes: null, ...more, NodeNames: list }
            : { Pod: pod, NodeNames: list, ...more };
          const body = Buffer.from(JSON.stringify(args, undefined, space));
          const quick = fast(body);
          if (quick === undefined) return;
          taken += 1;
          expect(quick).toEqual(slow(body));
        },
      ),
      { numRuns: 2000 },
    );
    expect(taken).toBeGreaterThan(100);
  });

  it.each([
    ['a name given twice', '{"Pod":{},"NodeNames":["node-1","node-1"]}'],
    ['an unknown name given twice', '{"Pod":{},"NodeNames":["x","x"]}'],
    ['an escaped name', String.raw`{"Pod":{},"NodeNames":["node\u002d1"]}`],
    ['spaces in the list', '{"Pod":{},"NodeNames":["a", "b"]}'],
    ['a list that is not last', '{"Pod":{},"NodeNames":["a"],"X":1}'],
    ['a nested list', '{"Pod":{"NodeNames":["a"]}}'],
    ['a key that only ends so', String.raw`{"NodeNames":["a"],"Pod":{},"x\"NodeNames":["b"]}`],
    ['null', '{"Pod":{},"NodeNames":null}'],
    ['a pod that is none', '{"Pod":[],"NodeNames":[]}'],
    ['no end', '{"Pod":{},"NodeNames":["a'],
    ['no end of the list', '{"Pod":{},"NodeNames":["a"'],
    ['something after the end', '{"Pod":{},"NodeNames":["a"]}{}'],
    ['a number among the names', '{"Pod":{},"NodeNames":[1]}'],
    ['nothing', ''],
  ])('%s is left to the plain way', (_, body) => expect(fast(Buffer.from(body))).toBeUndefined());
});

describe('the fast way at 15,000 nodes', () => {
  const names = Array.from({ length: 15_000 }, (_, i) => `ip-10-0-${i}.eu-central-1.compute.internal`);
  const body = Buffer.from(JSON.stringify({ Pod: aPod({ gpus: '1' }), Nodes: null, NodeNames: names }));
  it('says of each what the plain way says', () => expect(fast(body)).toEqual(slow(body)));
});

it('a node that is gone is unknown to both ways', () => {
  table.set('passing', nodeFacts(aNode({ name: 'passing' })));
  table.set('passing', undefined);
  const body = Buffer.from(JSON.stringify({ Pod: aPod({ gpus: '1' }), NodeNames: ['passing', 'node-1'] }));
  expect(fast(body)?.verdicts).toMatchObject({ FailedAndUnresolvableNodes: { passing: 'GPU state not known yet' } });
  expect(fast(body)).toEqual(slow(body));
});

describe('the table of nodes', () => {
  it('holds what a map would hold, through additions, changes and removals', () => {
    const facts = [...table.facts()][0] as NodeFacts;
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(300), fc.boolean()), { maxLength: 800 }), (steps) => {
        const ours = new NodeTable();
        const reference = new Map<string, NodeFacts>();
        for (const [i, [node, present]] of steps.entries()) {
          const one = { ...facts, steadySince: i, driver: `550.${i % 7}` };
          ours.set(`node-${node}`, present ? one : undefined);
          if (present) reference.set(`node-${node}`, one);
          else reference.delete(`node-${node}`);
        }
        let call = 0;
        for (let node = 0; node <= 300; node += 1) {
          const bytes = Buffer.from(`"node-${node}"`);
          call += 1;
          const expected = reference.get(`node-${node}`);
          expect(ours.get(`node-${node}`)).toBe(expected);
          const index = ours.find(bytes, 1, bytes.length - 1, call);
          if (expected === undefined) expect(index).toBe(ABSENT);
          else {
            expect(ours.factsAt(index)).toBe(expected);
            expect(ours.ofKind(ours.kindAt(index))?.driver).toBe(expected.driver);
            expect(ours.find(bytes, 1, bytes.length - 1, call)).toBe(TWICE);
          }
        }
        expect([...ours.facts()]).toHaveLength(reference.size);
      }),
      { numRuns: 30 },
    );
  });

  it('empties quickly, because a new list may remove every node one by one', () => {
    const ours = new NodeTable();
    const [facts] = [...table.facts()];
    const names = Array.from({ length: 10_000 }, (_, i) => `node-${i}`);
    for (const name of names) ours.set(name, facts);
    // A copy of the table puts each of its names in again, and turns the name into bytes for that.
    const copied = vi.spyOn(Buffer, 'from');
    for (const name of names) ours.set(name, undefined);
    expect([...ours.facts()]).toEqual([]);
    // Half of the names, a quarter of them, and so on. With a copy for each removal it is 50
    // million.
    expect(copied.mock.calls.length).toBeGreaterThan(0);
    expect(copied.mock.calls.length).toBeLessThan(names.length);
  });
});
