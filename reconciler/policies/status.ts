// A GPUPolicy's status: does it enforce yet, how do its nodes stand, what is wrong with it. Pure.
import { canonical } from '../../core/digest.ts';
import type { BreakerStatus, GpuPolicy, PolicyCondition, PolicyStatus } from '../../core/gpu-policy.ts';
import { BREAKER_RELEASE } from '../../core/keys.ts';
import { STATES } from '../../core/stages.ts';
import { isGpuResource, mappedResources, type Devices } from '../../gate/devices.ts';
import type { Fleet } from '../fleet.ts';
import { rollOutMemory } from '../roll-out-gate.ts';
import { rollOutFigures, rollOutGate, rollOutProgress, type RollOutFacts } from './roll-out.ts';

/** What a status asks of the nodes. */
type Nodes = Pick<Fleet, 'count' | 'names'>;

/** How many nodes a message names. */
const NAMED = 5;

interface Enforcement {
  readonly enforcing: boolean;
  readonly reason: string;
  readonly message: string;
}

/** From when on the policy injects and refuses. Once it does, it does for good. */
export function enforcement(policy: GpuPolicy, nodes: Nodes): Enforcement {
  if (policy.spec.suspend)
    return {
      enforcing: false,
      reason: 'Suspended',
      message: 'spec.suspend is true: nothing is injected, nothing refused',
    };
  if (policy.enforcingSince !== undefined)
    return { enforcing: true, reason: 'Enforcing', message: `since ${policy.enforcingSince}` };
  if (nodes.count('selected', policy.name) === 0) {
    return {
      enforcing: false,
      reason: 'NoNodeOptedIn',
      message: 'nothing changes until a node is opted in: kubectl label node NAME gpu-gate.dev/managed=true',
    };
  }
  if (policy.spec.unmanagedNodes !== 'Auto')
    return { enforcing: true, reason: 'Enforcing', message: 'the first node was opted in' };
  const awaited = nodes.count('awaited', policy.name);
  if (awaited === 0)
    return { enforcing: true, reason: 'Enforcing', message: 'every node that offers GPUs has been validated once' };
  const names = Iterator.from(nodes.names('awaited', policy.name)).take(NAMED).toArray();
  return {
    enforcing: false,
    reason: 'NodesNotValidated',
    message: `auditing until these nodes that offer GPUs are validated: ${names.join(', ')}${awaited > NAMED ? ` and ${awaited - NAMED} more` : ''}; opt them in: kubectl label node ${names[0] ?? 'NAME'} gpu-gate.dev/managed=true, or set unmanagedNodes to Deny or Allow`,
  };
}

/** What a status tells of beside the nodes. */
export interface Surroundings {
  /** Other policies that select a node of this one. */
  readonly conflicts: readonly string[];
  /** What the API server refuses of its operands, a sentence each; undefined: not known yet. */
  readonly refusals: readonly string[] | undefined;
  /** Resources that the webhook configuration calls us for. */
  readonly webhookResources: readonly string[];
  readonly devices: Devices;
  /** Does the API server serve DeviceTaintRules? */
  readonly taintsServed: boolean;
  /** The circuit breaker's memory of this policy. */
  readonly breaker?: BreakerStatus | undefined;
  /** Nodes of this policy that are about to lose their proof. */
  readonly kept?: number;
  /** How its nodes stand to its stack; `undefined` if that is not known yet. */
  readonly rollOut?: RollOutFacts;
  readonly now: number;
}

/** What keeps the policy from doing all that it says; undefined where that is not known yet. */
function degraded(policy: GpuPolicy, around: Surroundings): { reason: string; message: string } | undefined {
  const tripped = around.breaker?.trippedAt !== undefined;
  if (around.refusals === undefined && !tripped) return undefined;
  const untainted = policy.spec.deviceTaints === 'On' && !around.taintsServed;
  const { refusals = [] } = around;
  const called = [...around.webhookResources, 'nvidia.com/mig-*'];
  // Of resources outside NVIDIA's domain the webhook sees all, because a class may map any of them.
  const mapped = mappedResources(policy.spec, around.devices).filter((name) => name.startsWith('nvidia.com/'));
  const uncalled = [...new Set([...policy.spec.resources, ...mapped])].filter((name) => !isGpuResource(name, called));
  const parts = [
    ...(tripped
      ? [
          `circuit breaker since ${around.breaker?.trippedAt ?? ''}: ${around.kept ?? 0} nodes are closed and keep a proof that does not hold; look for their common cause, then let the proofs go: kubectl annotate gpupolicy ${policy.name} --overwrite ${BREAKER_RELEASE}=$(date +%s)`,
        ]
      : []),
    ...refusals.map((sentence) => `refused by the API server: ${sentence}`),
    ...(uncalled.length === 0
      ? []
      : [
          `${uncalled.join(', ')}: the chart's webhook looks only at ${called.join(', ')}; name them in the chart's policy.spec.resources too`,
        ]),
    ...(untainted
      ? [
          'deviceTaints is On, but the API server does not serve DeviceTaintRules at resource.k8s.io/v1: only the extender keeps pods with claims off nodes; set Auto or Off, or upgrade to Kubernetes 1.37',
        ]
      : []),
  ];
  return {
    reason: tripped
      ? 'CircuitBreaker'
      : refusals.length > 0
        ? 'OperandRefused'
        : uncalled.length > 0
          ? 'UnknownResources'
          : untainted
            ? 'DeviceTaintsNotServed'
            : 'None',
    message: parts.join('; ').slice(0, 4096),
  };
}

/** The whole status; conditions keep their transition time where their status stays. */
export function policyStatus(policy: GpuPolicy, nodes: Nodes, around: Surroundings): PolicyStatus {
  const { conflicts, now } = around;
  const at = new Date(now).toISOString();
  const total = nodes.count('of', policy.name);
  const counts: Record<string, number> = {};
  for (const state of STATES) {
    const count = nodes.count('state', policy.name, state);
    if (count > 0) counts[state] = count;
  }
  const enforces = enforcement(policy, nodes);
  const failed = counts['failed'] ?? 0;
  const validated = counts['validated'] ?? 0;
  const trouble = degraded(policy, around);
  const condition = (type: string, holds: boolean, reason: string, message: string): PolicyCondition => {
    const status = holds ? 'True' : 'False';
    const before = policy.status.conditions?.find((c) => c.type === type);
    return {
      type,
      status,
      reason,
      message,
      observedGeneration: policy.generation,
      lastTransitionTime: before?.status === status ? before.lastTransitionTime : at,
    };
  };
  return {
    observedGeneration: policy.generation,
    ...(policy.enforcingSince !== undefined
      ? { enforcingSince: policy.enforcingSince }
      : enforces.enforcing
        ? { enforcingSince: at }
        : {}),
    nodes: { ...counts, ...moved(policy, nodes, around.rollOut), total },
    ...(around.breaker === undefined ? {} : { breaker: around.breaker }),
    ...memory(policy, nodes, around.rollOut),
    conditions: [
      condition(
        'Ready',
        total === validated,
        total === validated ? 'AllValidated' : failed > 0 ? 'NodesFailed' : 'NodesOnTheirWay',
        `${validated} of ${total} nodes validated${failed > 0 ? `, ${failed} failed: kubectl get nodes -L gpu-gate.dev/state` : ''}`,
      ),
      condition('Enforcing', enforces.enforcing, enforces.reason, enforces.message),
      condition(
        'Conflict',
        conflicts.length > 0,
        conflicts.length > 0 ? 'SelectorsOverlap' : 'None',
        conflicts.length > 0
          ? `nodes are also selected by ${conflicts.join(', ')}: the older policy has them; make the nodeSelectors disjoint`
          : '',
      ),
      ...rolledOut(policy, nodes, around.rollOut).map(({ isRolling, reason, message }) =>
        condition('RollingOut', isRolling, reason, message),
      ),
      // What is not known yet stays as an earlier leader found it.
      ...(trouble === undefined
        ? (policy.status.conditions ?? []).filter((c) => c.type === 'Degraded')
        : [condition('Degraded', trouble.reason !== 'None', trouble.reason, trouble.message)]),
    ],
  };
}

const rolledOut = (policy: GpuPolicy, nodes: Nodes, facts: RollOutFacts | undefined) =>
  facts === undefined ? [] : [rollOutProgress(policy, nodes, facts)];

/** What is not known yet stays as an earlier leader found it. */
function memory(policy: GpuPolicy, nodes: Nodes, facts: RollOutFacts | undefined): Pick<PolicyStatus, 'rollOut'> {
  const rollOut =
    facts === undefined
      ? policy.status.rollOut
      : rollOutMemory(policy, facts.stackId, rollOutGate(policy, nodes, facts).canary, isDone(policy, nodes, facts));
  return rollOut === undefined ? {} : { rollOut };
}

function isDone({ name }: GpuPolicy, nodes: Nodes, facts: RollOutFacts): boolean {
  const { settled, upToDate, kept } = rollOutFigures(name, nodes, facts);
  return upToDate > 0 && upToDate + kept === settled;
}

/** Figures of the roll-out that printer columns show. */
function moved({ name }: GpuPolicy, nodes: Nodes, facts: RollOutFacts | undefined): Record<string, number> {
  if (facts === undefined) return {};
  const { settled, upToDate, rolling } = rollOutFigures(name, nodes, facts);
  return { ...(settled === 0 ? {} : { upToDate }), ...(rolling === 0 ? {} : { rollingOut: rolling }) };
}

/** Do they say the same? The order of keys says nothing. */
export const sameStatus = (a: PolicyStatus, b: PolicyStatus): boolean =>
  JSON.stringify(canonical(a)) === JSON.stringify(canonical(b));
