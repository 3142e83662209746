// The one shape of a state of the walk.
import type { Allocation, GpuPolicy } from '../../../core/gpu-policy.ts';
import type { Component } from '../../../core/components.ts';
import type { ComponentEvidence } from '../../../gate/node-proof.ts';
import type { Action } from '../../actions.ts';
import type { Finding } from '../findings.ts';
import type { Observed } from '../observed.ts';

export type PodAction = Extract<Action, { readonly kind: 'create-pod' | 'delete-pod' | 'evict-pod' }>;

/** What the states below have left: which revisions the node is given, and what was accepted. */
export interface Ground {
  readonly deploy: Readonly<Partial<Record<Component, string>>>;
  readonly evidence: Readonly<Record<string, ComponentEvidence>>;
}

/** What one state sees and wants. What it leaves out stays as it is. */
export interface Look {
  readonly finding: Finding;
  readonly deploy?: Ground['deploy'];
  readonly evidence?: ComponentEvidence | undefined;
  /** The round of validation that has passed. */
  readonly passed?: string;
  readonly pods?: readonly PodAction[];
}

export interface WalkState {
  /** As `gpu-gate.dev/state` shows it. */
  readonly name: string;
  /** The way by which GPUs reach pods that it belongs to; absent if to both. */
  readonly allocation?: Allocation;
  /** How long it may take, ms; `undefined` if it runs no clock. */
  readonly limit: (policy: GpuPolicy) => number | undefined;
  readonly look: (seen: Observed, ground: Ground) => Look;
  /** Running pods depend on this state: its failure ends a proof, and its success restores one. */
  readonly upholds?: true;
  /** The component that this state waits for; its pod is what another try starts afresh. */
  readonly operand?: Component;
  /**
   * What may help where pods are Ready and the state fails all the same: each in its turn, the
   * nearest first.
   */
  readonly restarts: readonly Component[];
}
