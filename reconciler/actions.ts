// What the reconciler can do, as values, by subject. Every action is idempotent, and carries what
// guards its write.
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

interface OfNode {
  readonly node: string;
  readonly uid: string;
}

/** Writes to the Node object itself. */
export type NodeWrite =
  | (OfNode & {
      readonly kind: 'patch-node';
      /** null removes the key. */
      readonly labels: Readonly<Record<string, string | null>>;
      readonly annotations: Readonly<Record<string, string | null>>;
      /**
       * Written by the same request, so that no one sees the marks without it; absent if it stays
       * as it is.
       */
      readonly status?: { readonly type: string; readonly condition: Condition | undefined };
      /** Written by the same request, where nothing is written of the status. */
      readonly taints?: readonly Taint[];
    })
  /**
   * Taints are one list: written whole, guarded by the resourceVersion that the list was read at.
   */
  | (OfNode & { readonly kind: 'set-taints'; readonly resourceVersion: string; readonly taints: readonly Taint[] })
  | (OfNode & {
      readonly kind: 'set-node-condition';
      readonly type: string;
      /** undefined removes the condition. */
      readonly condition: Condition | undefined;
    });

interface OfPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

export interface CreatePod {
  readonly kind: 'create-pod';
  readonly manifest: Manifest;
}

export type DeletePod = OfPod & { readonly kind: 'delete-pod'; readonly because: string };

/** By the Eviction API, which honours disruption budgets. */
export type EvictPod = OfPod & { readonly kind: 'evict-pod'; readonly because: string };

/** What brings a node on: writes to the Node, and pods on it that come and go. */
export type NodeAction = NodeWrite | CreatePod | DeletePod | EvictPod;

export type PodAction = (OfPod & { readonly kind: 'set-pod-condition'; readonly condition: Condition }) | DeletePod;

export type OperandAction =
  | {
      readonly kind: 'apply-daemonset';
      readonly manifest: Manifest;
      /**
       * resourceVersion at which others' fields were seen: the spec is written whole, so that they
       * go.
       */
      readonly wholeAt?: string;
    }
  | { readonly kind: 'delete-daemonset'; readonly namespace: string; readonly name: string }
  /** Its name is of its content, so that what is there is what was to be written. */
  | { readonly kind: 'create-claim-template'; readonly manifest: Manifest }
  | { readonly kind: 'delete-claim-template'; readonly namespace: string; readonly name: string }
  /** Never changes or takes over a class of that name that is there already. */
  | { readonly kind: 'create-runtime-class'; readonly name: string; readonly handler: string };

export type PolicyAction =
  | {
      readonly kind: 'policy-status';
      readonly name: string;
      readonly uid: string;
      readonly status: PolicyStatus;
      /** The present status: counts that are gone must be removed by name. */
      readonly was: PolicyStatus;
    }
  | {
      readonly kind: 'policy-finalizers';
      readonly name: string;
      readonly uid: string;
      readonly finalizers: readonly string[];
    };

/** A DeviceTaintRule that keeps every scheduler off a node's devices of one driver. */
export type CreateDeviceTaint = OfNode & {
  readonly kind: 'create-device-taint';
  /** Of the rule. */
  readonly name: string;
  readonly driver: string;
  /** One device alone; absent: all of the node's. */
  readonly device?: string;
  readonly taint: { readonly key: string; readonly effect: 'NoSchedule' | 'NoExecute' };
};

export type DeviceAction =
  | CreateDeviceTaint
  | { readonly kind: 'delete-device-taint'; readonly name: string; readonly uid: string };

export interface EventAction {
  readonly kind: 'event';
  readonly about: ObjectRef;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly message: string;
  /** Reported once in the object's life, whatever the text is. */
  readonly once?: boolean;
}

export type Action = NodeAction | PodAction | OperandAction | PolicyAction | DeviceAction | EventAction;

/** A Kubernetes object as it is sent. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string } & Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}
