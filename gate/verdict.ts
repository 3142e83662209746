// May this pod go to this node, or the reason why not: the one function that decides it. The
// extender, `explain`, the reports of pods past the gate and wake-ups all ask here. What depends on
// the node alone is worked out when the node changes, not per call.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { isEnforcing } from '../core/gpu-policy.ts';
import { DEFAULT_POLICY, POLICY } from '../core/keys.ts';
import type { Devices, FoundClaim, WantedClaim } from './devices.ts';
import { askedOf, gpuKindsOf, type GpuContainer, type PodWants } from './gpu-request.ts';
import { namingRefused } from './namespaces.ts';
import { isOurs, open, policyOf, stateOf, type NodeView, type Proof } from './node-proof.ts';
import { onAllocated, REASONS, type Reason } from './reasons.ts';
import {
  meets,
  requirementsOf,
  type CudaRequirement,
  type RequireVariable,
  type Unjudged,
  type Versions,
} from './require-cuda.ts';
import { compareVersions, cudaOfDriver, isVersion } from './versions.ts';

/** What a verdict looks at of a node. Many nodes have it in common. */
export interface Judged extends Versions {
  readonly ours: boolean;
  readonly policy: string | undefined;
  /** Why no new GPU pods may come; `undefined` if the node is open. */
  readonly closed: Reason | undefined;
  /** Driver and CUDA as one key: nodes that have it in common get one judgement per call. */
  readonly stack: string;
}

export interface NodeFacts extends Judged {
  /** Since when nothing of the stack has changed, ms since the epoch; 0 if it is not proven. */
  readonly steadySince: number;
  /** State label; `preflight` before the first, `unmanaged` on an unmanaged node. */
  readonly state: string;
}

export function nodeFacts(node: NodeView): NodeFacts {
  const answer = open(node);
  const { driver, cuda } = answer.yes ? versionsOf(answer.proof) : UNKNOWN_VERSIONS;
  return {
    ours: isOurs(node),
    policy: policyOf(node),
    closed: answer.yes ? undefined : answer.because,
    driver,
    cuda,
    stack: `${driver ?? ''} ${cuda ?? ''}`,
    // A component that restarted after the proof was written has been steady since then only.
    steadySince: answer.yes
      ? Math.max(
          ...[answer.proof.at, ...Object.values(answer.proof.components).map(({ started }) => started)].map(
            (at) => Date.parse(at) || 0,
          ),
        )
      : 0,
    state: stateOf(node) ?? (isOurs(node) ? 'preflight' : 'unmanaged'),
  };
}

const UNKNOWN_VERSIONS: Versions = { driver: undefined, cuda: undefined };

/**
 * A version that cannot be compared is not known. The proof names the CUDA only where feature
 * discovery runs; elsewhere it is the driver's own.
 */
function versionsOf({ driver, cuda }: Proof): Versions {
  const known = driver !== undefined && isVersion(driver) ? driver : undefined;
  return {
    driver: known,
    cuda: cuda !== undefined && isVersion(cuda) ? cuda : known === undefined ? undefined : cudaOfDriver(known),
  };
}

/** A pod that a policy gates. */
export interface Gate {
  readonly kind: 'gate';
  readonly policy: GpuPolicy;
  readonly minDriver: string | undefined;
  /** Its claims for GPUs. */
  readonly claims: readonly FoundClaim[];
  /**
   * Is one of them allocated? Then no node but that of its devices can take the pod, and a
   * scheduler asks about no other.
   */
  readonly allocated: boolean;
  /** All must hold. */
  readonly requirements: readonly CudaRequirement[];
  /** Parts of NVIDIA_REQUIRE_CUDA and its like that are not judged. */
  readonly unjudged: readonly Unjudged[];
  /**
   * Judgements so far by `NodeFacts.stack`. An author's text is compared once per driver and CUDA
   * in a call and not once per node, because its size is the author's to choose.
   */
  readonly judged: Map<string, Reason | 'meets'>;
}

/** Why a pod is not gated. */
export type Ungated = 'validation-pod' | 'no-gpu' | 'no-policy' | 'suspended' | 'auditing';

/** What a pod asks of nodes. */
export type Ask =
  | {
      readonly kind: 'pass';
      readonly because: Ungated;
      /** What it would ask if its policy enforced. */
      readonly would?: Gate;
    }
  | Gate
  /** Nothing can be decided until the watch brings the claim. `detail` is for people. */
  | { readonly kind: 'unknown'; readonly because: Reason; readonly detail: string }
  /** No node may take it. `detail` is for people, and may quote the pod. */
  | { readonly kind: 'refuse'; readonly because: Reason; readonly detail: string };

export interface Policies {
  get(name: string): GpuPolicy | undefined;
}

/** Name of the policy that judges the pod. */
export const policyNameOf = ({ read }: PodWants): string => read.wishes.policy ?? DEFAULT_POLICY;

/** Why the pod may not name this policy; `undefined` if it may. */
export const namingRefusedTo = ({ read, namedIn = '' }: PodWants, policy: GpuPolicy): string | undefined =>
  namingRefused(read.wishes.policy, namedIn, policy);

/** What this pod asks, once per call. */
export function askOf(wants: PodWants, policies: Policies, devices: Devices): Ask {
  if (wants.validation) return { kind: 'pass', because: 'validation-pod' };
  const { read } = wants;
  const policy = policies.get(policyNameOf(wants));
  const asked = askedOf(wants, gpuKindsOf(policy), devices);
  if (asked.kind === 'nothing') return { kind: 'pass', because: 'no-gpu' };
  if (!read.ok && read.annotation === POLICY)
    return { kind: 'refuse', because: REASONS.badPolicy, detail: read.because };
  if (policy === undefined)
    return read.wishes.policy === undefined
      ? { kind: 'pass', because: 'no-policy' }
      : {
          kind: 'refuse',
          because: REASONS.noSuchPolicy,
          detail: `annotation ${POLICY}: there is no GPUPolicy ${read.wishes.policy}; write one that 'kubectl get gpupolicies' lists`,
        };
  const refused = namingRefusedTo(wants, policy);
  if (refused !== undefined) return { kind: 'refuse', because: REASONS.policyNotAllowed, detail: refused };
  if (policy.spec.suspend) return { kind: 'pass', because: 'suspended' };
  if (asked.kind === 'unknown')
    return isEnforcing(policy)
      ? { kind: 'unknown', because: REASONS.claimUnknown, detail: unknownClaim(wants.namespace, asked.claim) }
      : { kind: 'pass', because: 'auditing' };
  const gate: Gate = {
    kind: 'gate',
    policy,
    minDriver: read.wishes.minDriver,
    claims: asked.claims,
    allocated: asked.claims.some(({ facts }) => facts !== undefined && facts.devices.length > 0),
    ...requirementsOf(variablesOf(asked.containers)),
    judged: new Map(),
  };
  if (!isEnforcing(policy)) return { kind: 'pass', because: 'auditing', would: gate };
  return read.ok ? gate : { kind: 'refuse', because: REASONS.badMinDriver, detail: read.because };
}

/** What is awaited of a claim that is not known yet. */
const unknownClaim = (namespace: string, { claim, template }: WantedClaim): string =>
  claim === undefined
    ? `ResourceClaimTemplate ${namespace}/${template ?? ''} is not known yet; the pod is retried`
    : `ResourceClaim ${namespace}/${claim} is not known yet; the pod is retried`;

function* variablesOf(containers: readonly GpuContainer[]): Generator<RequireVariable> {
  for (const { requires } of containers) yield* requires;
}

/** Why the pod may not go to the node; `undefined` if it may. */
export function verdict(ask: Ask, node: Judged | undefined): Reason | undefined {
  switch (ask.kind) {
    case 'pass':
      return undefined;
    case 'refuse':
    case 'unknown':
      return ask.because;
    case 'gate':
      return refusal(ask, node);
  }
}

/** Would the node be refused if the pod's policy enforced? */
export const wouldRefuse = (ask: Ask, node: Judged | undefined): boolean =>
  ask.kind === 'pass' && ask.would !== undefined && refusal(ask.would, node) !== undefined;

/** Runs for every node of a call, so it allocates nothing per node. */
function refusal(ask: Gate, node: Judged | undefined): Reason | undefined {
  const because = refused(ask, node);
  return because !== undefined && ask.allocated ? onAllocated(because) : because;
}

function refused(ask: Gate, node: Judged | undefined): Reason | undefined {
  if (node === undefined) return REASONS.unknown;
  if (!node.ours) {
    if (ask.policy.spec.unmanagedNodes !== 'Allow') return REASONS.notOptedIn;
  } else if (node.policy !== undefined && node.policy !== ask.policy.name) return REASONS.otherPolicy;
  else if (node.closed !== undefined) return node.closed;
  if (ask.minDriver === undefined && ask.requirements.length === 0) return undefined;
  let known = ask.judged.get(node.stack);
  if (known === undefined) {
    known = judged(ask, node);
    ask.judged.set(node.stack, known);
  }
  return known === 'meets' ? undefined : known;
}

/**
 * Holds for unmanaged nodes too. Their driver is unknown, and a pod that requires a minimum must
 * not be scheduled on a guess.
 */
function judged(ask: Gate, node: Versions): Reason | 'meets' {
  if (ask.minDriver !== undefined) {
    if (node.driver === undefined) return REASONS.driverUnknown;
    if (compareVersions(node.driver, ask.minDriver) < 0) return REASONS.driverOld;
  }
  return meets(ask.requirements, node) ? 'meets' : REASONS.cuda;
}
