// The two ways in which the extender answers a call by names, in one process and by turns: from
// bytes, and plainly.
import { NO_DEVICES } from '../../gate/devices.ts';
import { NodeTable } from '../../extender/by-name/table.ts';
import { byNameWay } from '../../extender/by-name/way.ts';
import { plain } from '../../extender/plain.ts';
import type { Answered } from '../../extender/way.ts';
import { nodeFacts } from '../../gate/verdict.ts';
import { aNode, aPolicy } from '../../test/builders/objects.ts';
import { quantile } from '../rows.ts';

/** Medians in ms of `calls` calls each with this body; every `every`-th of the nodes is refused. */
export function inProcess(
  body: Buffer,
  { size, every, calls }: Readonly<Record<'size' | 'every' | 'calls', number>>,
): { readonly bytes: number; readonly plain: number } {
  const nodes = new NodeTable();
  for (let i = 0; i < size; i += 1)
    nodes.set(`node-${i}`, nodeFacts(aNode({ name: `node-${i}`, ...(i % every === 0 ? { boot: 'other' } : {}) })));
  const view = {
    nodes,
    policies: new Map([['default', aPolicy()]]),
    devices: NO_DEVICES,
    operandNamespace: 'gpu-gate-operands',
  };
  const bytes = byNameWay();
  const ways = { bytes: () => bytes.filter(body, view), plain: () => plain.filter(body, view) };
  const bodyOf = (answer: Answered | undefined): Buffer => {
    if (answer?.ok !== true) throw new Error('the call was not answered');
    return Buffer.from(answer.body);
  };
  const times = { bytes: [] as number[], plain: [] as number[] };
  for (let call = -calls; call < calls; call += 1)
    for (const way of call % 2 === 0 ? (['bytes', 'plain'] as const) : (['plain', 'bytes'] as const)) {
      const began = performance.now();
      bodyOf(ways[way]());
      // The first half of the calls only lets both be compiled.
      if (call >= 0) times[way].push(performance.now() - began);
    }
  return { bytes: quantile(times.bytes, 0.5), plain: quantile(times.plain, 0.5) };
}
