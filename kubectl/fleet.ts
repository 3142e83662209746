// What `kubectl gpu-gate` shows: objects of the API → a report, which is also the JSON that it
// prints. Decides by the same functions as the extender; reads nothing and knows no terminal.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { CLOSED, GPU_VALIDATED, HOLD, INJECTED, MANAGED, PROVE, RETRY } from '../core/keys.ts';
import { amountOf } from '../core/quantity.ts';
import { isObject, list, object, text } from '../core/raw.ts';
import { proveValue, type Level } from '../core/levels.ts';
import { STAGES, STATES, type Stage, type State } from '../core/stages.ts';
import type { Unread } from '../core/unread.ts';
import {
  isManaged,
  isOurs,
  open,
  parseProof,
  policyOf,
  stateOf,
  walkingSince,
  walkOf,
  type NodeView,
  type Proof,
} from '../gate/node-proof.ts';
import { isGpuResource } from '../gate/devices.ts';
import { occupied, wantsOf, type RawPod } from '../gate/gpu-request.ts';
import { PROOF } from '../core/keys.ts';
import { tookOf, usualTimes, type StageTimes, type UsualTimes } from './usual.ts';

/** A Node as the API gives it, as far as this tool looks at it. */
export interface RawNode extends NodeView {
  readonly status?: NonNullable<NodeView['status']> & {
    readonly allocatable?: Readonly<Record<string, string>>;
    readonly capacity?: Readonly<Record<string, string>>;
  };
}

/** A Pod as the API gives it, as far as this tool looks at it. */
export interface RawPodView {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: {
    readonly nodeName?: string;
    readonly containers?: readonly unknown[];
    readonly initContainers?: readonly unknown[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason?: string;
      readonly message?: string;
      readonly lastTransitionTime?: string;
    }[];
  };
}

export interface EventView {
  readonly at: string;
  readonly type: string;
  readonly reason: string;
  readonly message: string;
  readonly count: number;
}

export interface PolicyReport {
  readonly name: string;
  readonly enforcing: boolean;
  /** Why it does or does not enforce: reason and sentence of its condition. */
  readonly reason: string;
  readonly message: string;
  readonly nodes: number;
  readonly validated: number;
  readonly failed: number;
  /** Validated nodes that run what the policy says. */
  readonly upToDate: number;
  /** How far its roll-out is; empty if every validated node runs what it says. */
  readonly rollOut: string;
  /** Sentences of conditions that need a person: Conflict, Degraded, a roll-out that stopped. */
  readonly warnings: readonly string[];
}

export interface GpuCount {
  readonly resource: string;
  readonly offered: number;
  readonly used: number;
}

export interface ProofReport {
  readonly level: Level;
  /** RFC 3339, when that level was proven. */
  readonly at: string;
  /** RFC 3339, when the driver validation passed again; absent if not since `at`. */
  readonly driverAt?: string;
  readonly driver: string;
  readonly cuda: string;
}

export interface NodeReport {
  readonly name: string;
  readonly policy: string;
  readonly state: State | 'unmanaged';
  /** May new GPU pods come? */
  readonly open: boolean;
  /** Why not; empty if open. The extender gives pods the same reason. */
  readonly reason: string;
  /** What the node's condition says: what is awaited or what failed, and what to do. */
  readonly message: string;
  /** RFC 3339: since when the node is where it is; empty if nothing says. */
  readonly since: string;
  /** The stage where its walk stands; absent if it has passed all, or never began. */
  readonly stage?: Stage;
  /** How long that stage usually takes, ms; absent if no node of its policy has passed it yet. */
  readonly usualMs?: number;
  /** How long each stage took when the node passed it last, ms. */
  readonly tookMs: StageTimes;
  /** Absent if the node has no proof. */
  readonly proof?: ProofReport;
  readonly gpus: readonly GpuCount[];
  /** The command that a person can run next; empty if none helps. */
  readonly next: string;
}

export interface WaitingPod {
  readonly namespace: string;
  readonly name: string;
  readonly since: string;
  /** The scheduler's own words. */
  readonly reason: string;
  readonly next: string;
}

export interface DeploymentReport {
  readonly name: string;
  readonly image: string;
  /** Replicas. */
  readonly ready: number;
  readonly wanted: number;
}

export interface Fleet {
  readonly policies: readonly PolicyReport[];
  /** Managed nodes, and unmanaged ones that offer GPUs. */
  readonly nodes: readonly NodeReport[];
  readonly byState: Readonly<Partial<Record<State | 'unmanaged', number>>>;
  /** How long each stage usually takes, ms, by GPUPolicy. */
  readonly usual: UsualTimes;
  readonly waiting: readonly WaitingPod[];
  /** gpu-gate's own Deployments. */
  readonly deployments: readonly DeploymentReport[];
  /** Until when API servers can verify the webhook, RFC 3339; absent if unknown. */
  readonly certificatesUntil?: string;
  readonly unread: readonly Unread[];
  /** What a person should look at, worst first; empty if all is well. */
  readonly problems: readonly string[];
}

export interface FleetInput {
  readonly policies: readonly GpuPolicy[];
  readonly nodes: readonly RawNode[];
  /** GPU pods of any namespace. */
  readonly pods: readonly RawPodView[];
  readonly deployments: readonly unknown[];
  readonly certificatesUntil?: string;
  readonly unread: readonly Unread[];
  readonly now: number;
}

const condition = (node: RawNode, type: string) => node.status?.conditions?.find((c) => c.type === type);

/** Extended resources below `nvidia.com/` that a pod holds, by name. */
const gpusOfPod = (pod: RawPodView): Readonly<Record<string, number>> => occupied(wantsOf(pod as RawPod, ''));

/** Asks for GPUs by resource, or was injected because it asks for them by claim. */
export const isGpuPod = (pod: RawPodView): boolean =>
  pod.metadata.labels?.[INJECTED] === 'true' || Object.keys(gpusOfPod(pod)).length > 0;

const hasEnded = (pod: RawPodView): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';

/** GPUs in use, by node and resource. */
export function usageByNode(pods: readonly RawPodView[]): ReadonlyMap<string, Readonly<Record<string, number>>> {
  const used = new Map<string, Record<string, number>>();
  for (const pod of pods) {
    const node = pod.spec?.nodeName;
    if (node === undefined || hasEnded(pod)) continue;
    const there = used.get(node) ?? {};
    used.set(node, there);
    for (const [name, count] of Object.entries(gpusOfPod(pod))) there[name] = (there[name] ?? 0) + count;
  }
  return used;
}

/** The command that helps a node on; empty if none does. */
function nextOf(node: RawNode, isOpen: boolean): string {
  const { name, annotations = {} } = node.metadata;
  if (!isOurs(node)) return `kubectl label node ${name} ${MANAGED}=true`;
  if (annotations[HOLD] !== undefined) return `kubectl gpu-gate release ${name}`;
  if (node.spec?.unschedulable === true) return `kubectl uncordon ${name}`;
  if (isOpen) return '';
  // Its turn in a roll-out needs nobody.
  if (stateOf(node) === 'draining') return '';
  if (stateOf(node) === 'failed' || annotations[CLOSED] !== undefined) return `kubectl gpu-gate retry ${name}`;
  return '';
}

/** Where the walk of a node stands; `undefined` if it has passed all stages, or never began. */
function stageOf(node: RawNode): Stage | undefined {
  if (!isOurs(node)) return undefined;
  const stage = walkOf(node)?.stage ?? STAGES.find((one) => one === stateOf(node));
  return stage === 'done' ? undefined : stage;
}

/** One node's row. `used`: GPUs in use there, by resource. */
export function nodeReport(
  node: RawNode,
  resources: readonly string[],
  used: Readonly<Record<string, number>>,
  usual: UsualTimes,
): NodeReport {
  const ours = isOurs(node);
  const answer = open(node);
  const validated = condition(node, GPU_VALIDATED);
  const proof = parseProof(node.metadata.annotations?.[PROOF]);
  const gpus = Object.entries(node.status?.allocatable ?? {})
    .filter(([name, offered]) => isGpuResource(name, resources) && amountOf(offered) > 0)
    .map(([resource, offered]) => ({ resource, offered: amountOf(offered), used: used[resource] ?? 0 }));
  const stage = stageOf(node);
  const usualMs = stage === undefined ? undefined : usual[policyOf(node) ?? '']?.[stage];
  return {
    name: node.metadata.name,
    policy: policyOf(node) ?? '',
    ...(stage === undefined ? {} : { stage }),
    ...(usualMs === undefined ? {} : { usualMs }),
    tookMs: tookOf(node),
    state: stateOf(node) ?? (ours ? 'preflight' : 'unmanaged'),
    open: answer.yes,
    reason: answer.yes ? '' : answer.because.sentence,
    message: ours ? (validated?.message ?? '') : '',
    since: (ours ? (walkingSince(node) ?? validated?.lastTransitionTime) : undefined) ?? '',
    ...(proof === undefined ? {} : { proof: proofReport(proof) }),
    gpus,
    next: nextOf(node, answer.yes),
  };
}

/** Reasons of `RollingOut` that nothing but a person ends. */
const FOR_A_PERSON: readonly string[] = ['Stopped', 'NodesLeftOut', 'WindowUnreadable', 'CanaryAwaitsApproval'];

const proofReport = ({ level, at, driverAt, driver, cuda }: Proof): ProofReport => ({
  level,
  at,
  ...(driverAt === undefined ? {} : { driverAt }),
  driver: driver ?? '',
  cuda: cuda ?? '',
});

function policyReport(policy: GpuPolicy): PolicyReport {
  const found = (type: string) => policy.status.conditions?.find((c) => c.type === type);
  const enforcing = found('Enforcing');
  const counts = policy.status.nodes ?? {};
  const rolling = found('RollingOut');
  const isStuck = FOR_A_PERSON.includes(rolling?.reason ?? '');
  return {
    name: policy.name,
    enforcing: enforcing?.status === 'True',
    reason: enforcing?.reason ?? 'NotSeen',
    message:
      enforcing?.message ??
      'the reconciler has not looked at this policy yet: check that gpu-gate-reconciler is running',
    nodes: counts['total'] ?? 0,
    validated: counts['validated'] ?? 0,
    failed: counts['failed'] ?? 0,
    upToDate: counts['upToDate'] ?? 0,
    rollOut: rolling?.status === 'True' ? `${rolling.reason}: ${rolling.message}` : '',
    warnings: [found('Conflict'), found('Degraded'), isStuck ? rolling : undefined].flatMap((c) =>
      c?.status === 'True' ? [`${c.type}: ${c.message}`] : [],
    ),
  };
}

/** A GPU pod that no node takes yet: the scheduler has tried. */
function waitingPod(pod: RawPodView): WaitingPod | undefined {
  const scheduled = pod.status?.conditions?.find((c) => c.type === 'PodScheduled' && c.status === 'False');
  if (pod.spec?.nodeName !== undefined || pod.metadata.deletionTimestamp !== undefined || scheduled === undefined)
    return undefined;
  const { namespace, name } = pod.metadata;
  return {
    namespace,
    name,
    since: scheduled.lastTransitionTime ?? pod.metadata.creationTimestamp ?? '',
    reason: scheduled.message ?? scheduled.reason ?? '',
    next: `kubectl gpu-gate explain ${name} -n ${namespace}`,
  };
}

function deploymentReport(raw: unknown): Fleet['deployments'] {
  if (!isObject(raw)) return [];
  const spec = object(raw['spec']);
  const [container] = list<unknown>(object(object(spec['template'])['spec'])['containers']);
  return [
    {
      name: text(object(raw['metadata'])['name'], ''),
      image: text(object(container)['image'], ''),
      ready: amountOf(object(raw['status'])['readyReplicas']),
      wanted: amountOf(spec['replicas']),
    },
  ];
}

/** The whole report. */
export function fleetReport(input: FleetInput): Fleet {
  const { policies, now } = input;
  const resources = [...new Set(['nvidia.com/gpu', ...policies.flatMap(({ spec }) => spec.resources)])];
  const used = usageByNode(input.pods);
  const usual = usualTimes(input.nodes);
  const nodes = input.nodes
    .map((node) => nodeReport(node, resources, used.get(node.metadata.name) ?? {}, usual))
    .filter((node) => node.state !== 'unmanaged' || node.gpus.length > 0)
    .toSorted((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  const byState: Partial<Record<State | 'unmanaged', number>> = {};
  for (const { state } of nodes) byState[state] = (byState[state] ?? 0) + 1;
  const waiting = input.pods
    .flatMap((pod) => waitingPod(pod) ?? [])
    .toSorted((a, b) => a.since.localeCompare(b.since) || a.name.localeCompare(b.name));
  const reports = policies.map(policyReport);
  const deployments = input.deployments.flatMap(deploymentReport);
  const until = input.certificatesUntil;
  const unknown = input.unread.map(({ what }) => what).filter((what) => ['GPUPolicies', 'nodes'].includes(what));
  const problems = [
    ...(unknown.length === 0
      ? []
      : [
          `whether all is well is not known without ${unknown.join(' and ')}: ask a cluster administrator to let you read them`,
        ]),
    ...deployments.flatMap(({ name, ready, wanted }) =>
      ready < wanted ? [`Deployment ${name}: ${ready} of ${wanted} replicas are ready`] : [],
    ),
    ...(until !== undefined && Date.parse(until) < now + 3 * 86_400_000
      ? [`the webhook's CA ends ${until}: check that gpu-gate-reconciler is running`]
      : []),
    ...reports.flatMap(({ name, warnings }) => warnings.map((warning) => `GPUPolicy ${name}: ${warning}`)),
    ...counted(
      nodes,
      ({ state }) => state === 'failed',
      (name) => `failed: kubectl gpu-gate node ${name} says why, kubectl gpu-gate retry ${name} tries again now`,
    ),
    ...counted(
      nodes,
      ({ state, open: isOpen, reason }) =>
        state === 'validated' && !isOpen && !reason.includes('held') && reason !== 'node cordoned',
      (name) => `validated and closed: kubectl gpu-gate node ${name} says why`,
    ),
  ];
  return {
    policies: reports,
    nodes,
    byState,
    usual,
    waiting,
    deployments,
    ...(until === undefined ? {} : { certificatesUntil: until }),
    unread: input.unread,
    problems,
  };
}

/** How many nodes are so, and what to do about the first. */
function counted(
  nodes: readonly NodeReport[],
  is: (node: NodeReport) => boolean,
  what: (first: string) => string,
): string[] {
  const found = nodes.filter(is);
  const [first] = found;
  return first === undefined ? [] : [`${found.length} ${found.length === 1 ? 'node' : 'nodes'} ${what(first.name)}`];
}

/** In the order of the walk, unmanaged last. */
export const stateOrder = (state: State | 'unmanaged'): number =>
  state === 'unmanaged' ? STATES.length : STATES.indexOf(state);

/** Names of managed nodes, for commands that take all of them. */
export const managedNames = (nodes: readonly RawNode[]): readonly string[] =>
  nodes.filter(isManaged).map((node) => node.metadata.name);

/**
 * What `hold`, `release`, `retry` and `prove` write: the annotations of a merge patch. `null`
 * removes.
 */
export function markOf(
  what: 'hold' | 'release' | 'retry' | 'prove',
  reason: string,
  level: Level,
  now: number,
): Readonly<Record<string, string | null>> {
  switch (what) {
    case 'hold':
      return { [HOLD]: reason };
    case 'release':
      return { [HOLD]: null };
    case 'retry':
      return { [RETRY]: String(Math.floor(now / 1000)) };
    case 'prove':
      return { [PROVE]: proveValue(level, now) };
  }
}
