// `npm run bench -- dra-wakeup [--tries 200]`: from the moment a node opens to the binding of a pod
// that waits for it with a claim. By DeviceTaintRules with Kubernetes' own scheduler alone, and by
// the extender with no rules. Measured from watches, so that no figure is that of polling.
import { HOLD } from '../core/keys.ts';
import { startCluster, type Cluster } from '../lab/cluster/cluster.ts';
import { createClaimPod, createTemplate, exactly } from '../lab/cluster/devices.ts';
import { startGate, until, untilEnforcing } from '../lab/cluster/gate.ts';
import { isNotFound } from '../platform/kube.ts';
import { jsonLog } from '../platform/log.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';
import { viewOf } from '../test/builders/view.ts';
import { numberArg, quantile, type BenchContext, type Row } from './rows.ts';

const NODES = ['gpu-0', 'gpu-1', 'gpu-2', 'gpu-3'];
/** A pod that waits longer was left behind, ms. */
const PATIENCE_MS = 20_000;

export const about = 'from open to bound for a pod with a claim, by the rules and by the extender';
export const options = {
  '--tries N': 'how often, each way (200)',
};

type Way = 'rules' | 'extender';
const SPEC: Readonly<Record<Way, object>> = {
  rules: { deviceTaints: 'On' },
  extender: { deviceTaints: 'Off' },
};

interface Seen {
  readonly held: boolean;
}
interface Placed {
  readonly node: string;
  /** A scheduler has looked at it and found no node. */
  readonly refused: boolean;
}
interface RawNode {
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
}
interface RawPod {
  readonly spec: { readonly nodeName?: string };
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly reason?: string }[] };
}

/** When what was awaited of a key came in, by the watch. */
interface Watched<T> extends Pick<Reflector<T>, 'get'> {
  readonly at: Map<string, number>;
}

async function watched<T, R>(
  cluster: Cluster,
  path: string,
  trim: (raw: R) => T,
  isIt: (before: T | undefined, after: T | undefined) => boolean,
  signal: AbortSignal,
): Promise<Watched<T>> {
  const at = new Map<string, number>();
  const watch = reflector<T>({
    kube: cluster.admin,
    log: jsonLog('error', () => undefined),
    path,
    trim,
    onChange: (key, before, after) => void (isIt(before, after) && at.set(key, performance.now())),
  });
  watch.start(signal);
  await watch.whenSynced();
  return { get: (key) => watch.get(key), at };
}

/** Times in ms, Infinity for a pod that was left behind. */
async function timesOf(cluster: Cluster, tries: number): Promise<readonly number[]> {
  const { annotate, kubectl } = viewOf(() => cluster);
  const end = new AbortController();
  const nodes = await watched<Seen, RawNode>(
    cluster,
    '/api/v1/nodes',
    ({ metadata: { annotations = {} } }) => ({ held: annotations[HOLD] !== undefined }),
    (before, after) => before?.held === true && after?.held === false,
    end.signal,
  );
  const pods = await watched<Placed, RawPod>(
    cluster,
    '/api/v1/namespaces/default/pods',
    ({ spec, status }) => ({
      node: spec.nodeName ?? '',
      refused: status?.conditions?.some(({ reason }) => reason === 'Unschedulable') === true,
    }),
    (before, after) => before?.node === '' && after !== undefined && after.node !== '',
    end.signal,
  );
  const onNode = async (node: string): Promise<readonly number[]> => {
    const times: number[] = [];
    for (let i = 0; i < Math.ceil(tries / NODES.length); i += 1) {
      const name = `wake-${node}-${i}`;
      const key = `default/${name}`;
      await annotate(node, `${HOLD}=bench`);
      const nodeSelector = { 'kubernetes.io/hostname': node };
      await createClaimPod(cluster.admin, name, { resourceClaimTemplateName: 'gpu' }, { nodeSelector });
      await until(`${name} to be refused`, () => pods.get(key)?.refused === true);
      await kubectl('annotate', 'node', node, `${HOLD}-`);
      const bound = await until(`${name} to be bound`, () => pods.at.get(key), PATIENCE_MS).catch(() => Infinity);
      times.push(bound - (nodes.at.get(node) ?? Number.NaN));
      const path = `/api/v1/namespaces/default/pods/${name}`;
      await cluster.admin.request('DELETE', path, { query: { gracePeriodSeconds: 0 } });
      await until(`${name} to be gone`, () => cluster.admin.request('GET', path).then(() => false, isNotFound));
    }
    return times;
  };
  try {
    return (await Promise.all(NODES.map((node) => onNode(node)))).flat();
  } finally {
    end.abort();
  }
}

async function measure(way: Way, tries: number, say: (line: string) => void): Promise<readonly number[]> {
  const cluster = await startCluster({ nodes: NODES.length, say });
  try {
    await createTemplate(cluster.admin, 'gpu', exactly('gpu.nvidia.com'));
    await startGate(cluster, {
      scheduler: way === 'extender',
      values: {
        ...(way === 'extender' ? {} : { scheduler: { create: false } }),
        policy: { spec: { allocation: 'DRA', startupTaint: 'Off', bringUp: { maxConcurrent: '4' }, ...SPEC[way] } },
      },
    });
    const view = viewOf(() => cluster);
    for (const node of NODES) await view.kubectl('label', 'node', node, 'gpu-gate.dev/managed=true');
    for (const node of NODES) await view.validated(node);
    await untilEnforcing(cluster);
    say(`${tries} tries by ${way === 'rules' ? 'rules, with Kubernetes’ own scheduler' : 'the extender'}`);
    return await timesOf(cluster, tries);
  } finally {
    await cluster.stop();
  }
}

export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const tries = numberArg(args, 'tries', 200);
  const byRules = await measure('rules', tries, say);
  const byExtender = await measure('extender', tries, say);
  const left = [...byRules, ...byExtender].filter((ms) => ms === Infinity).length;
  const beside = (at: number): Pick<Row, 'reference'> => ({
    reference: { name: 'by the extender', value: quantile(byExtender, at) },
  });
  return [
    { name: 'open to bound by rules, p50', value: quantile(byRules, 0.5), unit: 'ms', ...beside(0.5) },
    { name: 'open to bound by rules, p99', value: quantile(byRules, 0.99), unit: 'ms', ...beside(0.99) },
    {
      name: `left behind of ${byRules.length + byExtender.length}`,
      value: left,
      unit: 'pods',
      bar: 'none',
      held: left === 0,
    },
  ];
}
