// What the reconciler can do, as values: every action is idempotent and carries what its write must be guarded by.
import type { PolicyStatus } from '../core/gpu-policy.ts';
import type { Taint } from './model.ts';

export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
}

export interface ObjectRef {
  readonly kind: 'Node' | 'Pod' | 'GPUPolicy';
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
}

export type Action =
  | {
      readonly kind: 'patch-node';
      readonly node: string;
      readonly uid: string;
      /** null removes the key. */
      readonly labels: Readonly<Record<string, string | null>>;
      readonly annotations: Readonly<Record<string, string | null>>;
    }
  /** Taints are one list: written whole, guarded by the resourceVersion that the list was read at. */
  | {
      readonly kind: 'set-taints';
      readonly node: string;
      readonly uid: string;
      readonly resourceVersion: string;
      readonly taints: readonly Taint[];
    }
  /** undefined removes the condition. */
  | {
      readonly kind: 'set-node-condition';
      readonly node: string;
      readonly uid: string;
      readonly type: string;
      readonly condition: Condition | undefined;
    }
  | {
      readonly kind: 'set-pod-condition';
      readonly namespace: string;
      readonly name: string;
      readonly uid: string;
      readonly condition: Condition;
    }
  | { readonly kind: 'create-pod'; readonly manifest: Manifest }
  | {
      readonly kind: 'delete-pod';
      readonly namespace: string;
      readonly name: string;
      readonly uid: string;
      readonly because: string;
    }
  | {
      readonly kind: 'apply-daemonset';
      readonly manifest: Manifest;
      /** resourceVersion at which others' fields were seen: the spec is written whole, so that they go. */
      readonly wholeAt?: string;
    }
  | { readonly kind: 'delete-daemonset'; readonly namespace: string; readonly name: string }
  | {
      readonly kind: 'policy-status';
      readonly name: string;
      readonly uid: string;
      readonly status: PolicyStatus;
      /** What it says now: counts that are no more must be taken out by name. */
      readonly was: PolicyStatus;
    }
  | {
      readonly kind: 'policy-finalizers';
      readonly name: string;
      readonly uid: string;
      readonly finalizers: readonly string[];
    }
  | {
      readonly kind: 'event';
      readonly about: ObjectRef;
      readonly type: 'Normal' | 'Warning';
      readonly reason: string;
      readonly message: string;
      /** Told once in the object's life, whatever the text: one that is there is not told again. */
      readonly once?: boolean;
    };

/** A Kubernetes object as it is sent. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string } & Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}
