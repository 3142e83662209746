// What the reconciler counts and shows.
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { STAGES } from '../core/stages.ts';
import { fromZero } from '../platform/counters.ts';
import type { Action } from './actions.ts';
import type { Kind } from './key.ts';

export type ReconcilerMetrics = ReturnType<typeof reconcilerMetrics>;

/** One that is missing here does not compile. */
const WRITES = {
  'patch-node': true,
  'set-taints': true,
  'set-node-condition': true,
  'create-pod': true,
  'delete-pod': true,
  'evict-pod': true,
  'set-pod-condition': true,
  'apply-daemonset': true,
  'delete-daemonset': true,
  'create-claim-template': true,
  'delete-claim-template': true,
  'create-runtime-class': true,
  'policy-status': true,
  'policy-finalizers': true,
  'create-device-taint': true,
  'delete-device-taint': true,
  event: true,
} as const satisfies Record<Action['kind'], true>;
const KINDS = {
  node: true,
  pod: true,
  bound: true,
  wake: true,
  'wake-any': true,
  waiting: true,
  policies: true,
  'device-taint': true,
  operands: true,
} as const satisfies Record<Kind, true>;

export function reconcilerMetrics(registry: Registry) {
  const registers = [registry];
  let depth = (): number => 0;
  let waiting = (): number => 0;
  const stageSeconds = new Histogram({
    name: 'gpu_gate_stage_seconds',
    help: 'Time that a stage of the walk took until it was done.',
    labelNames: ['stage'],
    buckets: [0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800],
    registers,
  });
  // There from the start: no increase is seen from nothing to the first walk.
  for (const stage of STAGES) stageSeconds.zero({ stage });
  return {
    /** Where the depth of the queue is read at each scrape. */
    readDepth(read: () => number): void {
      depth = read;
    },
    /** Where the number of pods that wait is read at each scrape. */
    readWaiting(read: () => number): void {
      waiting = read;
    },
    nodes: new Gauge({
      name: 'gpu_gate_nodes',
      help: 'Opted-in nodes by state of their walk and policy.',
      labelNames: ['state', 'policy'],
      registers,
    }),
    open: new Gauge({ name: 'gpu_gate_open_nodes', help: 'Nodes that take new GPU pods now.', registers }),
    stageSeconds,
    /** Not there before the first: reasons are many. */
    failures: new Counter({
      name: 'gpu_gate_stage_failures_total',
      help: 'Failures of a stage of the walk.',
      labelNames: ['stage', 'reason'],
      registers,
    }),
    withdrawals: new Counter({
      name: 'gpu_gate_proofs_withdrawn_total',
      help: 'Proofs withdrawn with no reboot behind it.',
      registers,
    }),
    queueDepth: new Gauge({
      name: 'gpu_gate_queue_depth',
      help: 'Keys that wait to be reconciled, or are being reconciled.',
      registers,
      collect() {
        this.set(depth());
      },
    }),
    waiting: new Gauge({
      name: 'gpu_gate_waiting_pods',
      help: 'GPU pods that the scheduler has found no node for.',
      registers,
      collect() {
        this.set(waiting());
      },
    }),
    breaker: new Gauge({
      name: 'gpu_gate_breaker_tripped',
      help: '1 while the circuit breaker keeps proofs from being withdrawn.',
      registers,
    }),
    lastValidation: new Gauge({
      name: 'gpu_gate_last_validation_timestamp_seconds',
      help: 'When a node was last validated.',
      registers,
    }),
    errors: fromZero(
      new Counter({
        name: 'gpu_gate_reconcile_errors_total',
        help: 'Reconciliations that failed and are tried again.',
        labelNames: ['kind'],
        registers,
      }),
      Object.keys(KINDS).map((kind) => ({ kind })),
    ),
    writes: fromZero(
      new Counter({
        name: 'gpu_gate_writes_total',
        help: 'Writes to the API server.',
        labelNames: ['kind', 'result'],
        registers,
      }),
      Object.keys(WRITES).map((kind) => ({ kind, result: 'error' })),
    ),
    leader: new Gauge({ name: 'gpu_gate_leader', help: '1 on the replica that reconciles.', registers }),
    rejected: fromZero(
      new Counter({
        name: 'gpu_gate_rejected_pods_total',
        help: 'GPU pods that a kubelet rejected after they were bound, as after a reboot.',
        labelNames: ['reason'],
        registers,
      }),
      ['UnexpectedAdmissionError', 'OutOfGPU'].map((reason) => ({ reason })),
    ),
    missed: new Counter({
      name: 'gpu_gate_missed_pods_total',
      help: 'GPU pods that were not injected though their policy enforces.',
      registers,
    }),
    pastGate: new Counter({
      name: 'gpu_gate_pods_past_gate_total',
      help: 'GPU pods bound to a node that was not open.',
      registers,
    }),
    pendingGates: new Gauge({
      name: 'gpu_gate_gates_pending',
      help: 'Running pods whose readiness gate is not True.',
      registers,
    }),
    rollOutNodes: new Gauge({
      name: 'gpu_gate_rollout_nodes',
      help: 'Validated nodes by how they stand to what their policy says: up-to-date, rolling, waiting, left-out.',
      labelNames: ['policy', 'phase'],
      registers,
    }),
    rollOutStopped: new Gauge({
      name: 'gpu_gate_rollout_stopped',
      help: '1 for each node that stops the roll-out of its policy, because it failed on the new stack.',
      labelNames: ['policy', 'node', 'reason'],
      registers,
    }),
    devices: new Gauge({
      name: 'gpu_gate_devices_kept_off',
      help: '1 for each device that new claims do not get: left out by gpu-gate because it failed alone, or tainted by others.',
      labelNames: ['node', 'device', 'by'],
      registers,
    }),
    evictions: fromZero(
      new Counter({
        name: 'gpu_gate_evictions_total',
        help: 'Evictions of GPU pods that a policy asked for.',
        labelNames: ['result'],
        registers,
      }),
      ['done', 'refused'].map((result) => ({ result })),
    ),
    wakes: new Counter({
      name: 'gpu_gate_wakes_total',
      help: 'Rewrites of the wake annotation for pods that still wait after a node opened.',
      registers,
    }),
  };
}

/**
 * What only a leader knows is not said any more: the next one says it, and sums over replicas must
 * not count it twice.
 */
export function forgetCluster(metrics: ReconcilerMetrics): void {
  const { nodes, open, breaker, pendingGates, rollOutNodes, rollOutStopped, devices } = metrics;
  for (const gauge of [nodes, open, breaker, pendingGates, rollOutNodes, rollOutStopped, devices]) gauge.reset();
}
