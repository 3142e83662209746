// `support`: reads what those who help ask first, with the caller's own rights, and packs it into a
// file. It reads no Secret and no log.
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { createTar } from 'nanotar';
import { POLICIES_PATH, WEBHOOK_CONFIGURATION_PATH } from '../core/keys.ts';
import { printable } from '../core/printable.ts';
import { list, object, text, type Raw } from '../core/raw.ts';
import type { Unread } from '../core/unread.ts';
import { attempt } from '../platform/attempt.ts';
import { pagesOf } from '../platform/items.ts';
import { isForbidden, openKube, type Kube, type Query } from '../platform/kube.ts';
import { explainError } from '../platform/log.ts';
import { sentenceOf } from '../platform/sentence.ts';
import type { SupportArgs } from './args.ts';
import { filesOf, type Collected } from './bundle.ts';
import {
  eventOf,
  isOurNode,
  nodeOf,
  ownPodOf,
  policyOf,
  sliceOf,
  taintRuleOf,
  userPodOf,
  webhookOf,
  workloadOf,
} from './pick.ts';

/** Raw objects of the API, for the report that opens the bundle. */
export interface Read {
  readonly policies: readonly unknown[];
  readonly nodes: readonly unknown[];
  /** GPU pods of any namespace. */
  readonly pods: readonly unknown[];
  readonly deployments: readonly unknown[];
  readonly unread: readonly Unread[];
  readonly now: number;
}

export interface SupportDeps {
  readonly print: (text: string) => void;
  readonly complain: (text: string) => void;
  readonly now: () => number;
  /** The report of `kubectl gpu-gate status`. */
  readonly report: (read: Read) => Pick<Collected, 'status' | 'failed'> & { readonly fleet: unknown };
  readonly version: string;
}

/** So many objects of a kind are kept. */
const MOST_OBJECTS = 5000;
const MOST_PODS_SCRAPED = 8;
const MOST_LINES = 20_000;

/** Writes the bundle; returns the exit code. */
export async function support(args: SupportArgs, deps: SupportDeps): Promise<number> {
  try {
    const kube = await openKube({
      kubeconfig: args.kubeconfigs,
      ...(args.context === undefined ? {} : { context: args.context }),
      userAgent: 'gpu-gate-support',
    });
    const at = new Date(deps.now()).toISOString();
    const collected = await collect(kube, args, deps, at);
    const folder = `gpu-gate-support-${at.replaceAll(/[:.]/g, '-')}`;
    const file = args.file === '' ? `${folder}.tgz` : args.file;
    const tar = createTar(
      filesOf(collected).map(({ name, text }) => ({ name: `${folder}/${name}`, data: text })),
      { attrs: { mode: '600', uid: 0, gid: 0, mtime: deps.now() } },
    );
    const packed = await promisify(gzip)(tar);
    await writeFile(file, packed, { mode: 0o600 });
    deps.print(`${file}: ${Math.ceil(packed.length / 1024)} KiB; look through it before you send it on\n`);
    for (const { what, because } of collected.unread) deps.print(`not read: ${what} (${printable(because)})\n`);
    return 0;
  } catch (error) {
    deps.complain(`${printable(sentenceOf(error))}\n`);
    return 1;
  }
}

const DEVICES = '/apis/resource.k8s.io/v1';

async function collect(kube: Kube, args: SupportArgs, deps: SupportDeps, at: string): Promise<Collected> {
  const unread: Unread[] = [];
  /** Picks while it reads, so that no whole list of a large cluster is held. */
  const some = (what: string, path: string, is: (raw: unknown) => boolean, query: Query = {}): Promise<unknown[]> =>
    attempt(
      what,
      unread,
      async () => {
        const kept: unknown[] = [];
        let left = 0;
        for await (const page of pagesOf<unknown>(kube, path, query))
          for (const raw of page) {
            if (!is(raw)) continue;
            if (kept.length < MOST_OBJECTS) kept.push(raw);
            else left += 1;
          }
        if (left > 0) unread.push({ what: `${left} more of the ${what}`, because: `a bundle holds ${MOST_OBJECTS}` });
        return kept;
      },
      [],
    );
  const all = (what: string, path: string): Promise<unknown[]> => some(what, path, () => true);
  const inNamespace = (namespace: string): string => `namespaces/${encodeURIComponent(namespace)}`;
  const own = inNamespace(args.ownNamespace);
  const operands = inNamespace(args.operandNamespace);
  const isOurs = (raw: unknown): boolean =>
    [args.ownNamespace, args.operandNamespace].includes(text(object(object(raw)['metadata'])['namespace'], ''));

  const policies = await all('GPUPolicies', POLICIES_PATH);
  const nodes = await some('Nodes', '/api/v1/nodes', (raw) => isOurNode(raw) || offersGpus(raw));
  const userPods = await some(
    'GPU pods of all namespaces',
    '/api/v1/pods',
    (raw) => !isOurs(raw) && userPodOf(raw) !== undefined,
  );
  const ownPods = await all(`pods of ${args.ownNamespace}`, `/api/v1/${own}/pods`);
  const operandPods = await all(`pods of ${args.operandNamespace}`, `/api/v1/${operands}/pods`);
  const deployments = await all('Deployments of gpu-gate', `/apis/apps/v1/${own}/deployments`);
  const daemonSets = await all('DaemonSets of operands', `/apis/apps/v1/${operands}/daemonsets`);
  const ourNodes = nodes.filter(isOurNode);
  const nodeNames = new Set(ourNodes.map((raw) => text(object(object(raw)['metadata'])['name'], '')));
  const isOfOurNode = (raw: unknown): boolean => nodeNames.has(text(object(object(raw)['spec'])['nodeName'], ''));
  const slices = await some('ResourceSlices', `${DEVICES}/resourceslices`, isOfOurNode);
  const taintRules = await all('DeviceTaintRules', `${DEVICES}/devicetaintrules`);
  const events = [
    ...(await all(`Events of ${args.ownNamespace}`, `/api/v1/${own}/events`)),
    ...(await all(`Events of ${args.operandNamespace}`, `/api/v1/${operands}/events`)),
    ...(await some('Events of Nodes and GPUPolicies', '/api/v1/namespaces/default/events', (raw) => {
      const about = object(object(raw)['involvedObject']);
      return about['kind'] === 'GPUPolicy' || (about['kind'] === 'Node' && nodeNames.has(text(about['name'], '')));
    })),
    ...(await some(
      'Events of GPU pods',
      '/api/v1/events',
      (raw) => !isOurs(object(raw)['involvedObject'] === undefined ? raw : { metadata: object(raw)['involvedObject'] }),
      { fieldSelector: 'source=gpu-gate,involvedObject.kind=Pod' },
    )),
  ];
  const configuration = await attempt<unknown>(
    'webhook configuration',
    unread,
    () => kube.request('GET', WEBHOOK_CONFIGURATION_PATH),
    undefined,
  );
  const server = await attempt<Raw>('version of the API server', unread, () => kube.request('GET', '/version'), {});
  const metrics = await metricsOf(kube, ownPods, unread);
  const report = deps.report({
    policies,
    nodes,
    pods: userPods,
    deployments,
    // The summary says it at its end, with what the report does not ask for.
    unread: [],
    now: deps.now(),
  });
  return {
    at,
    status: report.status,
    failed: report.failed,
    versions: {
      'this program': deps.version,
      'API server': server['gitVersion'] ?? 'unknown',
      images: [...new Set([...deployments, ...daemonSets].flatMap(imagesOf))],
      kubelets: [...new Set(ourNodes.map((raw) => machineOf(raw)['kubeletVersion']))],
      kernels: [...new Set(ourNodes.map((raw) => machineOf(raw)['kernelVersion']))],
      runtimes: [...new Set(ourNodes.map((raw) => machineOf(raw)['containerRuntimeVersion']))],
    },
    lists: {
      'report.jsonl': [report.fleet],
      'policies.jsonl': policies.map(policyOf),
      'nodes.jsonl': ourNodes.map(nodeOf),
      'operand-pods.jsonl': operandPods.map(ownPodOf),
      'operands.jsonl': daemonSets.map(workloadOf),
      'slices.jsonl': slices.map(sliceOf),
      'taint-rules.jsonl': taintRules.map(taintRuleOf),
      'gpu-gate-pods.jsonl': ownPods.map(ownPodOf),
      'deployments.jsonl': deployments.map(workloadOf),
      'gpu-pods.jsonl': userPods.map(userPodOf),
      'events.jsonl': events.map(eventOf),
      'webhook.jsonl': configuration === undefined ? [] : [webhookOf(configuration)],
    },
    metrics,
    unread,
  };
}

const machineOf = (raw: unknown): Raw => object(object(object(raw)['status'])['nodeInfo']);
const offersGpus = (raw: unknown): boolean =>
  Object.keys(object(object(object(raw)['status'])['allocatable'])).some((name) => name.startsWith('nvidia.com/'));
const imagesOf = (raw: unknown): readonly string[] =>
  list<unknown>(object(object(object(object(raw)['spec'])['template'])['spec'])['containers']).map((one) =>
    text(object(one)['image'], ''),
  );

/** What each of our pods answers on its metrics port, through the API server. */
async function metricsOf(
  kube: Kube,
  pods: readonly unknown[],
  unread: Unread[],
): Promise<Readonly<Record<string, readonly string[]>>> {
  const found: Record<string, readonly string[]> = {};
  const ports = pods.flatMap((raw) => {
    const { metadata, spec } = object(raw);
    const port = list<unknown>(object(list<unknown>(object(spec)['containers'])[0])['ports']).find(
      (one) => object(one)['name'] === 'metrics',
    );
    const { namespace, name } = object(metadata);
    return port === undefined ? [] : [{ namespace, name: String(name), port: object(port)['containerPort'] }];
  });
  for (const { namespace, name, port } of ports.slice(0, MOST_PODS_SCRAPED))
    try {
      const lines: string[] = [];
      const path = `/api/v1/namespaces/${String(namespace)}/pods/${name}:${String(port)}/proxy/metrics`;
      for await (const line of await kube.stream(path, {}, AbortSignal.timeout(10_000)))
        if (lines.length < MOST_LINES) lines.push(line);
      found[name] = lines;
    } catch (error) {
      unread.push({
        what: `metrics of ${name}`,
        because: isForbidden(error) ? 'you have no right to pods/proxy' : explainError(error),
      });
    }
  return found;
}
