// `kubectl gpu-gate`: reads the API with the caller's own rights, prints what fleet.ts and
// render.ts make of it, and writes the few annotations that operators set.
import { readFile } from 'node:fs/promises';
import { X509Certificate } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { podOf } from './manifest.ts';
import type { RawPod } from '../gate/gpu-request.ts';
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { POLICIES_PATH, WEBHOOK_CONFIGURATION_PATH } from '../core/keys.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { certificatesIn } from '../core/pem.ts';
import { printable, printableJson } from '../core/printable.ts';
import { list, object, text } from '../core/raw.ts';
import { isOurs, parseProof } from '../gate/node-proof.ts';
import { PROOF } from '../core/keys.ts';
import type { Unread } from '../core/unread.ts';
import { attempt } from '../platform/attempt.ts';
import { itemsOf } from '../platform/items.ts';
import { isNotFound, MERGE_PATCH, openKube, type Kube } from '../platform/kube.ts';
import { sentenceOf as plainSentenceOf } from '../platform/sentence.ts';
import type { Command, Globals } from './args.ts';
import { completion } from './completion.ts';
import {
  fleetReport,
  isGpuPod,
  managedNames,
  markOf,
  nodeReport,
  usageByNode,
  type EventView,
  type Fleet,
  type RawNode,
  type RawPodView,
} from './fleet.ts';
import { serveUi } from './routes.ts';
import type { NodeStory } from './story.ts';
import { exitCode, news, progressOf, type Progress } from './progress.ts';
import { nodesText, nodeText, progressText, statusText, type Terminal } from './render.ts';
import { stagesOf, timelineOf, usualTimes } from './usual.ts';

export interface Edge {
  readonly print: (text: string) => void;
  readonly complain: (text: string) => void;
  /** Columns of the terminal; `undefined` in a pipe. */
  readonly width: number | undefined;
  readonly now: () => number;
  readonly signal: AbortSignal;
  /** Where the status page was built. */
  readonly pageFolder: string;
  /** `explain` is another part: the caller wires it. Returns the exit code. */
  readonly explain: (command: Extract<Command, { kind: 'explain' }>, manifest: RawPod | undefined) => Promise<number>;
  readonly support: (command: Extract<Command, { kind: 'support' }>) => Promise<number>;
}

const EVERY_MS = 2000;
/** More nodes than this are written only with `--yes`. */
const MANY = 10;

interface Lists {
  readonly nodes: readonly RawNode[];
  readonly policies: readonly GpuPolicy[];
  readonly pods: readonly RawPodView[];
  readonly deployments: readonly unknown[];
  readonly certificatesUntil?: string;
  readonly unread: readonly Unread[];
}

/** Runs one command; returns the exit code. Errors become one sentence. */
export async function runCommand(command: Command, edge: Edge): Promise<number> {
  try {
    return await run(command, edge);
  } catch (error) {
    edge.complain(`${sentenceOf(error)}\n`);
    return 1;
  }
}

const sentenceOf = (error: unknown): string => printable(plainSentenceOf(error));

const open = (command: Globals): Promise<Kube> =>
  openKube({
    kubeconfig: command.kubeconfigs,
    ...(command.context === undefined ? {} : { context: command.context }),
    userAgent: 'kubectl-gpu_gate',
  });

async function run(command: Command, edge: Edge): Promise<number> {
  switch (command.kind) {
    case 'completion':
      edge.print(completion(command.shell));
      return 0;
    case 'explain':
      return edge.explain(
        command,
        command.file === undefined
          ? undefined
          : podOf(await readFile(command.file === '-' ? '/dev/stdin' : command.file, 'utf8'), command.file),
      );
    case 'support':
      return edge.support(command);
    case 'status':
    case 'nodes':
      return follow(await open(command), command, edge);
    case 'node':
      return node(await open(command), command, edge);
    case 'wait':
      return wait(await open(command), command, edge);
    case 'ui':
      return ui(await open(command), command, edge);
    case 'mark':
      return mark(await open(command), command, edge);
  }
}

const terminalOf = (command: Globals, edge: Edge): Terminal => ({
  width: command.output === 'wide' ? undefined : edge.width,
  colour: command.colour === 'always' || (command.colour === 'auto' && edge.width !== undefined),
  now: edge.now(),
});

async function lists(kube: Kube, command: Globals): Promise<Lists> {
  const unread: Unread[] = [];
  // Without GPUPolicies there is no gpu-gate: that is an answer of its own.
  const policies = await attempt(
    'GPUPolicies',
    unread,
    () =>
      itemsOf<unknown>(kube, POLICIES_PATH).catch((error: unknown) => {
        if (isNotFound(error))
          throw new Error(
            'gpu-gate is not installed in this cluster: it has no GPUPolicy resource; see the quick start',
          );
        throw error;
      }),
    [],
  );
  const own = command.ownNamespace;
  const [nodes, pods, deployments, configuration] = await Promise.all([
    attempt('nodes', unread, () => itemsOf<RawNode>(kube, '/api/v1/nodes'), []),
    attempt('pods', unread, () => itemsOf<RawPodView>(kube, '/api/v1/pods'), []),
    attempt(
      'Deployments of gpu-gate',
      unread,
      () => itemsOf<unknown>(kube, `/apis/apps/v1/namespaces/${encodeURIComponent(own)}/deployments`),
      [],
    ),
    attempt<unknown>('webhook configuration', unread, () => kube.request('GET', WEBHOOK_CONFIGURATION_PATH), undefined),
  ]);
  const until = certificatesUntil(configuration);
  return {
    nodes,
    policies: policies.map(parsePolicy),
    pods: pods.filter(isGpuPod),
    deployments,
    ...(until === undefined ? {} : { certificatesUntil: until }),
    unread,
  };
}

/**
 * When the last CA in the configuration ends, RFC 3339; `undefined` if it holds none that can be
 * read.
 */
function certificatesUntil(configuration: unknown): string | undefined {
  const bundles = list<unknown>(object(configuration)['webhooks']).map((webhook) =>
    Buffer.from(text(object(object(webhook)['clientConfig'])['caBundle'], ''), 'base64').toString(),
  );
  const ends = bundles.flatMap((bundle) =>
    certificatesIn(bundle).flatMap((pem) => {
      try {
        return [new X509Certificate(pem).validToDate.getTime()];
      } catch {
        return [];
      }
    }),
  );
  return ends.length === 0 ? undefined : new Date(Math.max(...ends)).toISOString();
}

const printed = (
  output: Command['output'],
  value: unknown,
  asText: () => string,
  names: () => readonly string[],
): string => {
  switch (output) {
    case 'json':
      return `${printableJson(value)}\n`;
    case 'yaml':
      return stringify(JSON.parse(printableJson(value)));
    case 'name':
      return names()
        .map((name) => `node/${printable(name)}\n`)
        .join('');
    case 'text':
    case 'wide':
      return asText();
  }
};

async function follow(
  kube: Kube,
  command: Extract<Command, { kind: 'status' | 'nodes' }>,
  edge: Edge,
): Promise<number> {
  for (;;) {
    const read = await lists(kube, command);
    const fleet: Fleet = fleetReport({ ...read, now: edge.now() });
    const terminal = terminalOf(command, edge);
    const asText = (): string =>
      command.kind === 'status'
        ? statusText(fleet, terminal)
        : (fleet.unread.some(({ what }) => what === 'nodes')
            ? ''
            : nodesText(fleet.nodes, terminal, command.output === 'wide')) +
          fleet.unread.map(({ what, because }) => `not shown: ${what} (${because})\n`).join('');
    const value = command.kind === 'status' ? fleet : { nodes: fleet.nodes, unread: fleet.unread };
    const screen = printed(command.output, value, asText, () => fleet.nodes.map(({ name }) => name));
    // A live view starts each time at the top of the screen.
    edge.print(command.watch && edge.width !== undefined ? `\u001B[H\u001B[2J${screen}` : screen);
    if (!command.watch) return command.kind === 'nodes' || fleet.problems.length === 0 ? 0 : 1;
    await sleep(EVERY_MS, undefined, { signal: edge.signal }).catch(() => undefined);
    if (edge.signal.aborted) return 0;
  }
}

interface RawEvent {
  readonly type?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly count?: number;
  readonly lastTimestamp?: string | null;
  readonly eventTime?: string | null;
  readonly firstTimestamp?: string | null;
}

/** One node's story; its Events oldest first. */
async function storyOf(kube: Kube, name: string): Promise<{ readonly found: RawNode; readonly story: NodeStory }> {
  const unread: Unread[] = [];
  const found = await kube
    .request<RawNode>('GET', `/api/v1/nodes/${encodeURIComponent(name)}`)
    .catch((error: unknown) => {
      if (isNotFound(error)) throw new Error(`there is no node ${name}: kubectl gpu-gate nodes lists them`);
      throw error;
    });
  const [peers, pods, events] = await Promise.all([
    // What other nodes took says what is usual.
    attempt('nodes', unread, () => itemsOf<RawNode>(kube, '/api/v1/nodes'), [found]),
    attempt(
      'pods',
      unread,
      () =>
        kube
          .request<{ items: RawPodView[] }>('GET', '/api/v1/pods', {
            query: { fieldSelector: `spec.nodeName=${name}` },
          })
          .then((l) => l.items),
      [],
    ),
    attempt(
      'Events',
      unread,
      () =>
        kube
          .request<{ items: RawEvent[] }>('GET', '/api/v1/events', {
            query: { fieldSelector: `involvedObject.kind=Node,involvedObject.name=${name}` },
          })
          .then((l) => l.items),
      [],
    ),
  ]);
  const policies = await attempt('GPUPolicies', unread, () => itemsOf<unknown>(kube, POLICIES_PATH), []);
  const resources = [
    ...new Set(['nvidia.com/gpu', ...policies.map(parsePolicy).flatMap(({ spec }) => spec.resources)]),
  ];
  const usual = usualTimes(peers);
  const report = nodeReport(found, resources, usageByNode(pods).get(name) ?? {}, usual);
  const story: EventView[] = events
    .map((event) => ({
      at: event.lastTimestamp ?? event.eventTime ?? event.firstTimestamp ?? '',
      type: event.type ?? '',
      reason: event.reason ?? '',
      message: event.message ?? '',
      count: event.count ?? 1,
    }))
    .toSorted((a, b) => a.at.localeCompare(b.at));
  const components = parseProof(found.metadata.annotations?.[PROOF])?.components ?? {};
  const timeline = isOurs(found)
    ? timelineOf(stagesOf(found), report.stage, report.state === 'failed', report.tookMs, usual[report.policy] ?? {})
    : [];
  return { found, story: { ...report, timeline, components, events: story, unread } };
}

async function node(kube: Kube, command: Extract<Command, { kind: 'node' }>, edge: Edge): Promise<number> {
  const { found, story } = await storyOf(kube, command.node);
  edge.print(
    printed(
      command.output,
      story,
      () => nodeText(story, terminalOf(command, edge)),
      () => [story.name],
    ),
  );
  return story.open || !isOurs(found) ? 0 : 1;
}

async function ui(kube: Kube, command: Extract<Command, { kind: 'ui' }>, edge: Edge): Promise<number> {
  await serveUi(
    {
      fleet: async () => fleetReport({ ...(await lists(kube, command)), now: edge.now() }),
      node: async (name) => (await storyOf(kube, name)).story,
      sentence: sentenceOf,
    },
    {
      port: command.port,
      folder: edge.pageFolder,
      now: edge.now,
      signal: edge.signal,
      say: (line) => edge.print(`${line}\n`),
    },
  );
  return 0;
}

async function wait(kube: Kube, command: Extract<Command, { kind: 'wait' }>, edge: Edge): Promise<number> {
  const end = performance.now() + command.timeoutMs;
  let before: readonly Progress[] = [];
  for (;;) {
    const nodes = await itemsOf<RawNode>(kube, '/api/v1/nodes');
    const names = command.all ? managedNames(nodes) : command.nodes;
    if (names.length === 0) throw new Error('no node is opted in: kubectl label node NAME gpu-gate.dev/managed=true');
    const usual = usualTimes(nodes);
    const byName = new Map(nodes.map((one) => [one.metadata.name, one]));
    const now = names.map((name) => progressOf(name, byName.get(name), usual));
    const code = exitCode(now);
    if (command.output === 'json' || command.output === 'yaml') {
      if (code !== undefined)
        edge.print(
          printed(
            command.output,
            now,
            () => '',
            () => [],
          ),
        );
    } else for (const progress of news(before, now)) edge.print(`${printable(progressText(progress))}\n`);
    before = now;
    if (code !== undefined) return code;
    if (edge.signal.aborted) return 130;
    if (performance.now() >= end) {
      const late = now.filter(({ outcome }) => outcome === 'waiting').map((one) => one.node);
      edge.complain(
        `the time is over (--timeout) and these nodes are not open yet: ${late.join(', ')}; kubectl gpu-gate node NAME says what is awaited\n`,
      );
      return 124;
    }
    await sleep(Math.min(EVERY_MS, Math.max(10, end - performance.now())), undefined, { signal: edge.signal }).catch(
      () => undefined,
    );
  }
}

async function mark(kube: Kube, command: Extract<Command, { kind: 'mark' }>, edge: Edge): Promise<number> {
  const names = command.all ? managedNames(await itemsOf<RawNode>(kube, '/api/v1/nodes')) : command.nodes;
  const annotations = markOf(command.what, command.reason, command.level, edge.now());
  const dry = command.dryRun ?? names.length > MANY;
  let failed = 0;
  for (const name of names) {
    try {
      await kube.request('PATCH', `/api/v1/nodes/${encodeURIComponent(name)}`, {
        body: { metadata: { annotations } },
        contentType: MERGE_PATCH,
        query: dry ? { dryRun: 'All' } : {},
      });
      edge.print(`node/${printable(name)} ${command.what}${dry ? ' (dry run, nothing was written)' : ''}\n`);
    } catch (error) {
      failed += 1;
      edge.complain(`node/${printable(name)}: ${sentenceOf(error)}\n`);
    }
  }
  if (dry && command.dryRun === undefined)
    edge.complain(`${names.length} nodes are more than ${MANY}: nothing was written; give --yes to write\n`);
  return failed > 0 ? 1 : 0;
}
