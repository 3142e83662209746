// What one pass over a node works with: what it was given, what it has found out, what it has decided so far.
import { isDeployed, specOf } from '../../core/components.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { ComponentEvidence, Proof } from '../../gate/node-proof.ts';
import type { Component, Stage } from '../../core/stages.ts';
import type { Action } from '../actions.ts';
import type { Keep } from '../limits/breaker.ts';
import { EXTERNAL, type Finding } from './findings.ts';
import type { Walk } from '../walk.ts';
import type { NodeObject, PodObject } from '../model.ts';

export interface NodeInput {
  readonly node: NodeObject;
  /** Every kept pod on the node. */
  readonly pods: readonly PodObject[];
  /** Validation pods of the operand namespace by name, unbound ones too. */
  readonly validationPods: ReadonlyMap<string, PodObject>;
  readonly policy: GpuPolicy | undefined;
  /** Names of the other policies that select the node too. */
  readonly conflicts: readonly string[];
  /** Newest revision of each component that the policy deploys. */
  readonly revisions: Readonly<Partial<Record<Component, string>>>;
  /** May this node begin its first walk? */
  readonly slotFree: boolean;
  /** Why a proof about to be withdrawn is kept, and the node closed; undefined: it is not. */
  readonly keep: Keep | undefined;
  readonly operandNamespace: string;
  /** How long a node may be not Ready before its proof goes, ms. */
  readonly notReadyGrace: number;
  readonly now: number;
}

export interface NodePlan {
  readonly actions: readonly Action[];
  /** When to look again though nothing changes, ms since the epoch. */
  readonly wakeAt: number | undefined;
  /** Holds one of `bringUp.maxConcurrent`. */
  readonly holdsSlot: boolean;
  /** A proof is about to be withdrawn with no reboot behind it: what the circuit breaker counts. */
  readonly withdraws: boolean;
}

export const NOTHING: NodePlan = { actions: [], wakeAt: undefined, holdsSlot: false, withdraws: false };

export { isDeployed, specOf } from '../../core/components.ts';

export const iso = (now: number): string => new Date(now).toISOString();
export const camel = (stage: Stage): string =>
  stage.replace(/(^|-)([a-z])/g, (_, __, letter: string) => letter.toUpperCase());

/** Everything that one pass of a walk finds out, kept while it goes through the stages. */
export interface Pass {
  readonly input: NodeInput & { readonly policy: GpuPolicy };
  readonly boot: string;
  readonly proof: Proof | undefined;
  /** Validated before: keeps what it runs, revisions and who installs them, until its turn in a roll-out, or until a failure's inputs change. */
  readonly settled: boolean;
  walk: Walk;
  deploy: Partial<Record<Component, string>>;
  evidence: Record<string, ComponentEvidence>;
  actions: Action[];
}

export type WithPolicy = NodeInput & { readonly policy: GpuPolicy };

export interface Stop {
  readonly stage: Stage;
  readonly finding: Exclude<Finding, { readonly kind: 'done' }>;
}

/** Validation pods are owned by their Node, so that they go with it; unbound ones are found by that owner's pinning. */
export const isOfNode = (pod: PodObject, node: NodeObject): boolean =>
  pod.nodeName === node.metadata.name || pod.validates === node.metadata.uid;

/** Is this a pod of users' that holds GPUs on the node now? */
const usesGpu = (pod: PodObject, operandNamespace: string): boolean =>
  pod.namespace !== operandNamespace &&
  Object.keys(pod.gpus).length > 0 &&
  pod.phase !== 'Succeeded' &&
  pod.phase !== 'Failed';

/** Users' pods that hold GPUs on the node now. */
export const gpuUsers = (input: Pick<NodeInput, 'pods' | 'operandNamespace'>): readonly PodObject[] =>
  input.pods.filter((pod) => usesGpu(pod, input.operandNamespace));

/** Is the component ours on this node? As the policy says, but a settled node stays with what it was validated with. */
export function isOursHere(pass: Pass, component: Component): boolean {
  const wanted = isDeployed(specOf(pass.input.policy, component));
  if (!pass.settled) return wanted;
  if (pass.deploy[component] !== undefined) return true;
  const known = pass.proof?.components[component] ?? pass.walk.evidence[component] ?? pass.walk.stale[component];
  return wanted && known?.revision !== EXTERNAL;
}
