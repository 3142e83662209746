// Work for one node must not grow with the cluster: all controllers bring nodes up on a cluster in
// memory, with a clock of its own, and the CPU time of the process is counted. API server, watches
// and JSON are left out; `join` has them.
import { writeFileSync } from 'node:fs';
import { STATE } from '../core/keys.ts';
import { Cluster } from '../test/builders/cluster.ts';
import { aNode, aPolicy } from '../test/builders/objects.ts';
import { lineChart } from './reports/plot.ts';
import { textArg, type BenchContext, type Row } from './rows.ts';

const SIZES = [100, 300, 1000, 5000];
const PLACES = ['100%', '10%'];
/** So many nodes are brought up for each figure at least, a hundred at a time if need be. */
const NODES_A_FIGURE = 1000;
const MOST_GROWTH = 1.3;
/** By the cluster's own clock. */
const WITHIN_MS = 3_600_000;
const STEP_MS = 10_000;

export const about = 'CPU of a join inside the process, from 100 to 5,000 nodes';
export const options = { '--plot FILE': 'writes a chart there' };

/** A node with NFD's label that was never walked. */
function fresh(name: string) {
  const { metadata, status, ...rest } = aNode({ name, gpus: '0' });
  const { [STATE]: _, ...labels } = metadata.labels ?? {};
  const conditions = (status?.conditions ?? []).filter(({ type }) => type === 'Ready');
  return { ...rest, metadata: { ...metadata, labels, annotations: {} }, status: { ...status, conditions } };
}

/** CPU time in ms for bringing so many nodes up at once. */
async function cpuOf(size: number, maxConcurrent: string): Promise<number> {
  const began = process.cpuUsage();
  const cluster = new Cluster({ ...aPolicy({ bringUp: { maxConcurrent } }), generation: 2 });
  cluster.operandsWork = () => true;
  cluster.passValidations();
  for (let i = 0; i < size; i += 1) cluster.setNode(fresh(`n${i}`));
  const isDone = (): boolean =>
    [...cluster.nodes.all.values()].every(({ metadata }) => metadata.labels?.[STATE] === 'validated');
  for (let ms = 0; !isDone(); ms += STEP_MS) {
    if (ms > WITHIN_MS) throw new Error(`not all of ${size} nodes were validated`);
    await cluster.settle(STEP_MS);
  }
  const { user, system } = process.cpuUsage(began);
  return (user + system) / 1000;
}

export async function run({ args, say }: BenchContext): Promise<readonly Row[]> {
  const rows: Row[] = [];
  const series: Record<string, [number, number][]> = {};
  for (const places of PLACES) {
    const points: [number, number][] = (series[places] = []);
    // What the compiler does belongs to no size.
    for (let i = 0; i < 10; i += 1) await cpuOf(100, places);
    let first: number | undefined;
    for (const size of SIZES) {
      say(`${size} nodes, maxConcurrent ${places}`);
      const times = Math.ceil(NODES_A_FIGURE / size);
      let all = 0;
      for (let i = 0; i < times; i += 1) all += await cpuOf(size, places);
      const each = all / times / size;
      first ??= each;
      points.push([size, all / times / 1000]);
      rows.push({
        name: `${size} nodes, maxConcurrent ${places}: CPU a node`,
        value: each,
        unit: 'ms',
        reference: { name: `${SIZES[0]} nodes`, value: first },
        bar: `at most ${MOST_GROWTH} times that of ${SIZES[0]} nodes: work for one node does not grow with the cluster`,
        held: each <= MOST_GROWTH * first,
      });
    }
  }
  const plot = textArg(args, 'plot', '');
  if (plot !== '')
    writeFileSync(
      plot,
      lineChart('CPU of all controllers for a join, API server and watches left out', 'nodes', 's', [
        { name: 'all at once', color: '#1565c0', points: series['100%'] ?? [] },
        { name: '10 % at a time', color: '#2e7d32', points: series['10%'] ?? [] },
      ]),
    );
  return rows;
}
