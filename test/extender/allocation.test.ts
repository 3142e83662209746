// A call by names allocates its answer, and nothing for each node: what many nodes leave behind,
// the next call waits for.
import { NO_DEVICES } from '../../gate/devices.ts';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { NameAnswers } from '../../extender/by-name/answer.ts';
import { NameScanner } from '../../extender/by-name/scan.ts';
import { NodeTable } from '../../extender/by-name/table.ts';
import { wantsOf } from '../../gate/gpu-request.ts';
import { askOf, nodeFacts } from '../../gate/verdict.ts';
import { aNode, aPod, aPolicy, NOW } from '../builders/objects.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const NODES = 2000;
const table = new NodeTable();
for (let i = 0; i < NODES; i += 1)
  table.set(`node-${i}`, nodeFacts(aNode({ name: `node-${i}`, ...(i % 10 === 0 ? { boot: 'other' } : {}) })));
const policies = new Map([['default', aPolicy()]]);
const scanner = new NameScanner();
const answers = new NameAnswers();

const bodyOf = (pod: object): Buffer =>
  Buffer.from(
    JSON.stringify({ Pod: pod, Nodes: null, NodeNames: Array.from({ length: NODES }, (_, i) => `node-${i}`) }),
  );
const pass = (body: Buffer): void => {
  const call = scanner.scan(body);
  if (call === undefined) throw new Error('the fast way does not take this call');
  const ask = askOf(wantsOf(call.pod, 'operands'), policies, NO_DEVICES);
  if (
    ask.kind !== 'gate' ||
    answers.filter(call, ask, table)?.refused.size !== 1 ||
    answers.prioritize(call, ask, table, NOW) === undefined
  )
    throw new Error('not answered as it should be');
};

/** Bytes of V8's heap that a call takes for each node; answers are outside of it. */
const perNode = (body: Buffer): number => {
  // What runs hot is compiled first: what the interpreter boxes is not the code's own.
  for (let i = 0; i < 400; i += 1) pass(body);
  const samples = Array.from({ length: 9 }, () => {
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 5; i += 1) pass(body);
    return (process.memoryUsage().heapUsed - before) / 5 / NODES;
  });
  return samples.toSorted((a, b) => a - b)[4] ?? NaN;
};

describe('a call over many nodes takes less than 16 bytes of heap for each', () => {
  it.each<[string, object]>([
    ['a plain pod', aPod({ gpus: '1' })],
    ['a pod with a minimum driver', aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': '450.80' } })],
    [
      'a pod that requires a CUDA',
      aPod({ gpus: '1', container: { env: [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=11.0,driver>=450.80.02' }] } }),
    ],
  ])('%s', (_, pod) => expect(perNode(bodyOf(pod))).toBeLessThan(16));
});
