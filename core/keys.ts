// Every label, annotation, taint, condition, resource and name that gpu-gate reads or writes. No
// other file writes a "gpu-gate.dev/…" literal. The group is fixed; what is here is API.

/** Labels and annotations below this prefix are gpu-gate's or its operators'. */
export const OUR_PREFIX = 'gpu-gate.dev/';

/**
 * Node label, written by the operator: `true` opts the node in; removing it tears the node's stack
 * down again.
 */
export const MANAGED = 'gpu-gate.dev/managed';
/** Node annotation, operator: any value keeps new GPU pods away, nothing else changes. */
export const HOLD = 'gpu-gate.dev/hold';
/** Node annotation, operator: a new value tries a failed node again now. */
export const RETRY = 'gpu-gate.dev/retry';
/**
 * Node annotation, operator: a new value runs validations of the node again: those of the level
 * that the value begins with (core/levels.ts), else both.
 */
export const PROVE = 'gpu-gate.dev/prove';
/** Node label, reconciler: the walk's position, for `kubectl get nodes -L gpu-gate.dev/state`. */
export const STATE = 'gpu-gate.dev/state';
/**
 * Node label prefix, reconciler: `<prefix><component>=<revision>` lets that revision's DaemonSet
 * onto the node.
 */
export const DEPLOY_PREFIX = 'gpu-gate.dev/deploy.';
/** Node annotation, reconciler: JSON, see gate/node-proof.ts. */
export const PROOF = 'gpu-gate.dev/proof';
/** Node annotation, reconciler: why a serving node takes no new GPU pods. */
export const CLOSED = 'gpu-gate.dev/closed';
/** Node annotation, reconciler: rewritten to make the scheduler try waiting pods again. */
export const WAKE = 'gpu-gate.dev/wake';
/**
 * Node annotation, reconciler: JSON, the walk's memory between observations (see
 * reconciler/walk.ts).
 */
export const WALK = 'gpu-gate.dev/walk';
/**
 * Node annotation, reconciler: name of the GPUPolicy that has the node, so that the request path
 * need not match selectors.
 */
export const NODE_POLICY = 'gpu-gate.dev/node-policy';
/**
 * Node condition, reconciler: reason = stage or failure, message = what is awaited, since when,
 * what to do.
 */
export const GPU_VALIDATED = 'GPUValidated';
/**
 * Node taint (NoSchedule) of the bring-up: the prefix makes cluster-autoscaler treat the node as
 * still starting.
 */
export const STARTUP_TAINT = 'startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate';

/**
 * Taint of a node's DRA devices (NoSchedule) by a DeviceTaintRule, reconciler: the node is not
 * open.
 */
export const DEVICE_TAINT = 'gpu-gate.dev/not-open';
/** The same of one device that fails alone; no claim tolerates it, gpu-gate's neither. */
export const DEVICE_FAILED_TAINT = 'gpu-gate.dev/device-failed';
/** Names of gpu-gate's DeviceTaintRules begin with it. */
export const DEVICE_TAINT_RULE_PREFIX = 'gpu-gate.';

/** Pod label, webhook: `true` on every injected pod; what the reconciler watches. */
export const INJECTED = 'gpu-gate.dev/injected';
/** Pod annotation, webhook: JSON, what was injected and what was skipped and why. */
export const INJECTION = 'gpu-gate.dev/injection';
/** Pod or Namespace label, author or operator: `false` opts out. */
export const INJECT = 'gpu-gate.dev/inject';
/** Pod annotation, author: which GPUPolicy. */
export const POLICY = 'gpu-gate.dev/policy';
/** Pod annotation, author: the minimum driver version, such as `580` or `595.71.05`. */
export const MIN_DRIVER = 'gpu-gate.dev/min-driver';
/** Pod readiness gate and condition: True while the pod's node is serving. */
export const NODE_VALIDATED = 'gpu-gate.dev/node-validated';

/**
 * Kubernetes' annotation on the API's copy of a static pod: no scheduler and no webhook is asked
 * about it.
 */
export const MIRROR = 'kubernetes.io/config.mirror';

/**
 * Annotation on a GPUPolicy, operator: the stack whose canary is approved, as `RollingOut` names
 * it.
 */
export const APPROVE = 'gpu-gate.dev/approve-roll-out';
/** Annotation on a GPUPolicy, operator: a new value lets a tripped circuit breaker go on. */
export const BREAKER_RELEASE = 'gpu-gate.dev/breaker-release';
/**
 * Annotation on a GPUPolicy, operator: `force` lets an uninstall take operands from under running
 * GPU pods.
 */
export const RELEASE = 'gpu-gate.dev/release';
/** Finalizer on a GPUPolicy: its nodes are opted out before it goes. */
export const POLICY_FINALIZER = 'gpu-gate.dev/opt-out-nodes';
/** Annotation on operands and validation pods: digest of what was rendered. */
export const RENDERED = 'gpu-gate.dev/rendered';
/** Label on the pods of operands and validations: the revision or round they belong to. */
export const REVISION = 'gpu-gate.dev/revision';
/** Label on validation pods: the node they prove. */
export const VALIDATES = 'gpu-gate.dev/validates';

/** Labels of the operands, Kubernetes' recommended set. */
export const PART_OF = 'app.kubernetes.io/part-of';
export const COMPONENT = 'app.kubernetes.io/component';
export const MANAGED_BY = 'app.kubernetes.io/managed-by';
export const PRODUCT = 'gpu-gate';

/** Field manager of every server-side apply of ours. */
export const FIELD_MANAGER = 'gpu-gate-reconciler';

/**
 * Labels that NFD gives a node with an NVIDIA device: its PCI source joins the fields that it is
 * configured with, the vendor first or right after the class. A class other than display (03…) or
 * accelerator (12…) is another kind of device of that vendor.
 */
export const NFD_PCI_LABEL =
  /^feature\.node\.kubernetes\.io\/pci-(?:(?:03|12)[\da-f]{2}_)?10de(?:_[\da-f]{4})*\.present$/;
/** Any label below this prefix shows that NFD has been on the node. */
export const NFD_PREFIX = 'feature.node.kubernetes.io/';
/** NFD's copy of the host's /etc/os-release, by field. */
export const NFD_OS_RELEASE = 'feature.node.kubernetes.io/system-os_release.';
/** NVIDIA's own installer marks nodes with labels below this prefix. */
export const GPU_OPERATOR_DEPLOY_PREFIX = 'nvidia.com/gpu.deploy.';
/** It says here whether a node's GPUs are for containers or for virtual machines. */
export const GPU_OPERATOR_WORKLOAD = 'nvidia.com/gpu.workload.config';

export const POLICIES_PATH = '/apis/gpu-gate.dev/v1alpha1/gpupolicies';
/** The policy that pods without a `gpu-gate.dev/policy` annotation use. */
export const DEFAULT_POLICY = 'default';

/**
 * Name of the MutatingWebhookConfiguration. API servers call webhooks in the order of these names.
 * This one sorts last, so that gpu-gate sees what other webhooks made of the pod, such as the name
 * of another scheduler or a request for a GPU.
 */
export const WEBHOOK_CONFIGURATION = 'zz-gpu-gate';
export const WEBHOOK_CONFIGURATION_PATH = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${WEBHOOK_CONFIGURATION}`;
/** Its entry that shows whether an API server holds the newest CA. */
export const CANARY_ENTRY = 'canary.gpu-gate.dev';
/** Label of the dry-run ConfigMap that the canary's entry selects. */
export const CANARY = 'gpu-gate.dev/canary';
