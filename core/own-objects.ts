// Names of the objects that gpu-gate itself lives by, in its own namespace.

/** Secrets and the ConfigMap of the certificates that gpu-gate makes. */
export const CA_SECRET = 'gpu-gate-ca';
export const WEBHOOK_SECRET = 'gpu-gate-webhook-tls';
export const CANARY_SECRET = 'gpu-gate-canary-tls';
export const EXTENDER_SECRET = 'gpu-gate-extender-tls';
export const SCHEDULER_SECRET = 'gpu-gate-scheduler-client';
export const EXTENDER_CA_CONFIG_MAP = 'gpu-gate-extender-ca';
/** Lease of the reconciler and the certificates. */
export const LEASE = 'gpu-gate-reconciler';
/** The chart's second scheduler, as pods name it. */
export const SECOND_SCHEDULER = 'gpu-gate-scheduler';
