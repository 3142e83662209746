// Random churn: nodes are opted in and out, reboot, fail and recover; GPU pods come and go. A seed
// makes a run repeatable. gpu-gate itself walks the nodes, or, in short tests, a stand-in that
// writes what the reconciler would have written. The extender and the scheduler are real in both,
// and only these two are judged.
import { setTimeout as sleep } from 'node:timers/promises';
import { isConflict, isNotFound, MERGE_PATCH, STRATEGIC_PATCH, type Kube } from '../../platform/kube.ts';
import type { ControlPlane } from '../cluster/control-plane.ts';
import { runCommand } from '../cluster/control-plane.ts';
import { join } from 'node:path';

const SIM = 'sim.gpu-gate.dev/';
const GATE = 'gpu-gate.dev/';

/** Uniform numbers in [0, 1) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

interface RawNode {
  readonly metadata: { readonly uid: string };
  readonly status?: { readonly nodeInfo?: { readonly bootID?: string } };
}

interface Step {
  readonly kind: string;
  do(node: string): Promise<unknown>;
  undo(node: string): Promise<unknown>;
}

const patch = (kube: Kube, node: string, body: object): Promise<unknown> =>
  kube.request('PATCH', `/api/v1/nodes/${node}`, { contentType: MERGE_PATCH, body });
const annotate = (kube: Kube, node: string, annotations: Readonly<Record<string, string | null>>): Promise<unknown> =>
  patch(kube, node, { metadata: { annotations } });

/** What gpu-gate would have written after a walk, at once. */
export async function openNode(kube: Kube, node: string): Promise<void> {
  const { metadata, status } = await kube.request<RawNode>('GET', `/api/v1/nodes/${node}`);
  await kube.request('PATCH', `/api/v1/nodes/${node}/status`, {
    contentType: STRATEGIC_PATCH,
    body: {
      status: {
        capacity: { 'nvidia.com/gpu': '8' },
        allocatable: { 'nvidia.com/gpu': '8' },
        conditions: [{ type: 'GPUValidated', status: 'True', reason: 'Validated', message: 'by a stand-in' }],
      },
    },
  });
  const proof = {
    node: metadata.uid,
    boot: status?.nodeInfo?.bootID,
    at: new Date().toISOString(),
    driver: '595.91.07',
    cuda: '13.1',
    components: {},
  };
  await patch(kube, node, {
    metadata: {
      labels: { [`${GATE}managed`]: 'true', [`${GATE}state`]: 'validated' },
      annotations: {
        [`${GATE}proof`]: JSON.stringify(proof),
        [`${GATE}node-policy`]: 'default',
        [`${GATE}closed`]: null,
        [`${GATE}wake`]: String(Date.now()),
      },
    },
  });
}

const failNode = async (kube: Kube, node: string): Promise<void> => {
  await patch(kube, node, {
    metadata: { labels: { [`${GATE}state`]: 'failed' }, annotations: { [`${GATE}proof`]: null } },
  });
  await kube.request('PATCH', `/api/v1/nodes/${node}/status`, {
    contentType: STRATEGIC_PATCH,
    body: { status: { conditions: [{ type: 'GPUValidated', status: 'False', reason: 'DriverFailed' }] } },
  });
};

/** What happens to nodes, with the reconciler and with the stand-in. */
const happenings = (kube: Kube, nonce: () => string, mended: (node: string) => Promise<unknown>): Step[] => [
  { kind: 'reboot', do: (node) => annotate(kube, node, { [`${SIM}reboot`]: nonce() }), undo: mended },
  {
    kind: 'not Ready',
    do: (node) => annotate(kube, node, { [`${SIM}not-ready`]: 'true' }),
    undo: (node) => annotate(kube, node, { [`${SIM}not-ready`]: null }),
  },
  {
    kind: 'held',
    do: (node) => annotate(kube, node, { [`${GATE}hold`]: 'churn' }),
    undo: (node) => annotate(kube, node, { [`${GATE}hold`]: null }),
  },
  {
    kind: 'cordoned',
    do: (node) => patch(kube, node, { spec: { unschedulable: true } }),
    undo: (node) => patch(kube, node, { spec: { unschedulable: null } }),
  },
];

const byStandIn = (kube: Kube): Step[] => [
  { kind: 'failure', do: (node) => failNode(kube, node), undo: (node) => openNode(kube, node) },
  {
    kind: 'closed',
    do: (node) => annotate(kube, node, { [`${GATE}closed`]: 'awaiting device-plugin-validation' }),
    undo: (node) => annotate(kube, node, { [`${GATE}closed`]: null }),
  },
  {
    kind: 'opt-out',
    do: (node) =>
      patch(kube, node, {
        metadata: {
          labels: { [`${GATE}managed`]: null, [`${GATE}state`]: null },
          annotations: { [`${GATE}proof`]: null },
        },
      }),
    undo: (node) => openNode(kube, node),
  },
];

const byGate = (kube: Kube, nonce: () => string): Step[] => [
  {
    kind: 'driver fails',
    do: (node) =>
      annotate(kube, node, { [`${SIM}driver-fails`]: 'out of memory', [`${SIM}restart`]: `driver:${nonce()}` }),
    undo: (node) => annotate(kube, node, { [`${SIM}driver-fails`]: null }),
  },
  {
    kind: 'plugin restarts',
    do: (node) => annotate(kube, node, { [`${SIM}restart`]: `device-plugin:${nonce()}` }),
    undo: async () => undefined,
  },
  {
    kind: 'opt-out',
    do: (node) => patch(kube, node, { metadata: { labels: { [`${GATE}managed`]: null } } }),
    undo: (node) => patch(kube, node, { metadata: { labels: { [`${GATE}managed`]: 'true' } } }),
  },
];

/** As byGate, where a DRA driver serves the GPUs. */
const byGateWithClaims = (kube: Kube, nonce: () => string): Step[] => {
  const [driver, , optOut] = byGate(kube, nonce);
  const startsAgain = (): Record<string, string> => ({ [`${SIM}restart`]: `dra-driver:${nonce()}` });
  return [
    ...[driver, optOut].filter((step) => step !== undefined),
    {
      kind: 'DRA driver restarts',
      do: (node) => annotate(kube, node, startsAgain()),
      undo: async () => undefined,
    },
    {
      kind: 'pool not complete',
      do: (node) => annotate(kube, node, { [`${SIM}missing-slices`]: '1' }),
      undo: (node) => annotate(kube, node, { [`${SIM}missing-slices`]: null }),
    },
    {
      // A validation finds it, once the DRA driver has started again. It is left out until the next
      // start.
      kind: 'device fails',
      do: (node) => annotate(kube, node, { [`${SIM}device-fails`]: 'gpu-0', ...startsAgain() }),
      undo: (node) => annotate(kube, node, { [`${SIM}device-fails`]: null }),
    },
  ];
};

export interface ChurnOptions {
  readonly kube: Kube;
  readonly nodes: readonly string[];
  readonly seed: number;
  readonly seconds: number;
  readonly walkedBy: 'gpu-gate' | 'stand-in';
  /** Steps on nodes, and pods, per second. */
  readonly stepsPerSecond: number;
  readonly podsPerSecond: number;
  /**
   * Namespace of the pods, by which the checker tells them apart; and their scheduler, where it is
   * not the webhook's.
   */
  readonly namespace: string;
  readonly schedulerName?: string;
  /** Pods ask by claims of this template, for one device each, in place of a resource. */
  readonly template?: string;
}

/**
 * Runs it to its end; returns how often each kind of step was done, and how many pods were made.
 */
export async function churn(options: ChurnOptions): Promise<Readonly<Record<string, number>>> {
  const { kube, nodes, namespace } = options;
  const random = seeded(options.seed);
  let made = 0;
  const nonce = (): string => `${options.seed}-${(made += 1)}`;
  const mended = options.walkedBy === 'stand-in' ? (node: string) => openNode(kube, node) : async () => undefined;
  const steps = [
    ...happenings(kube, nonce, mended),
    ...(options.walkedBy === 'stand-in'
      ? byStandIn(kube)
      : (options.template === undefined ? byGate : byGateWithClaims)(kube, nonce)),
  ];
  const counts: Record<string, number> = {};
  const busy = new Set<string>();
  const under: Promise<unknown>[] = [];
  const failures: unknown[] = [];
  const attempt = (action: () => Promise<unknown>): void => {
    under.push(action().catch((error: unknown) => isNotFound(error) || isConflict(error) || failures.push(error)));
  };
  const count = (kind: string): void => void (counts[kind] = (counts[kind] ?? 0) + 1);
  const end = performance.now() + options.seconds * 1000;
  const every = (perSecond: number, action: () => void): Promise<void> =>
    (async () => {
      while (performance.now() < end) {
        action();
        await sleep(1000 / perSecond);
      }
    })();
  const stepOnce = (): void => {
    const node = nodes[Math.floor(random() * nodes.length)] ?? '';
    const step = steps[Math.floor(random() * steps.length)];
    const lasts = 1500 + random() * 3000;
    if (step === undefined || busy.has(node)) return;
    busy.add(node);
    count(step.kind);
    attempt(async () => {
      await step.do(node);
      await sleep(lasts);
      await step.undo(node);
      busy.delete(node);
    });
  };
  const asking = (gpus: string): object => {
    const by = options.template;
    const resources = by === undefined ? { limits: { 'nvidia.com/gpu': gpus } } : { claims: [{ name: 'device' }] };
    return {
      containers: [{ name: 'c', image: 'example/train:1', resources }],
      ...(by === undefined ? {} : { resourceClaims: [{ name: 'device', resourceClaimTemplateName: by }] }),
    };
  };
  const podOnce = (): void => {
    const name = `churn-${nonce()}`;
    const lives = 500 + random() * 4000;
    const gpus = String(1 + Math.floor(random() * 4));
    count('pod');
    attempt(async () => {
      await kube.request('POST', `/api/v1/namespaces/${namespace}/pods`, {
        body: {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name },
          spec: {
            terminationGracePeriodSeconds: 0,
            ...(options.schedulerName === undefined ? {} : { schedulerName: options.schedulerName }),
            ...asking(gpus),
          },
        },
      });
      await sleep(lives);
      await kube.request('DELETE', `/api/v1/namespaces/${namespace}/pods/${name}`, {
        query: { gracePeriodSeconds: 0 },
      });
    });
  };
  await Promise.all([every(options.stepsPerSecond, stepOnce), every(options.podsPerSecond, podOnce)]);
  await Promise.all(under);
  if (failures.length > 0) throw new Error(`${failures.length} steps of the churn failed`, { cause: failures[0] });
  return counts;
}

export interface Judgement {
  readonly bindings: number;
  /** Claims that were given devices. */
  readonly allocations: number;
  /** DeviceTaintRules of gpu-gate for one device that were there. */
  readonly deviceRules: number;
  readonly byOthers: number;
  readonly toOpen: number;
  readonly underWay: number;
  readonly longestUnderWayMs: number;
  readonly violations: readonly {
    kind: 'pod' | 'claim' | 'device';
    pod: string;
    node: string;
    because: string;
    closedForMs: number;
  }[];
}

export interface Judgements {
  /** How often a node closed, and how many of these times the extender was seen to know of. */
  readonly closings: number;
  readonly known: number;
  readonly namespaces: Readonly<Record<string, Judgement>>;
}

/** What a scheduler needs as an option so that the checker can read its log. */
export const SCHEDULER_LOG = ['--logging-format', 'json', '--v', '3'];

/**
 * What the checker, a program of its own, says of each namespace's pods. It needs what the probes
 * wrote (probes.ts), and the names of the schedulers that it judges.
 */
export async function judge(cp: ControlPlane, probes: string, schedulers: readonly string[]): Promise<Judgements> {
  const { code, stdout, stderr } = await runCommand(
    process.execPath,
    [
      join(import.meta.dirname, 'checker.ts'),
      cp.auditLog,
      probes,
      ...schedulers.map((name) => join(cp.dir, `${name}.log`)),
    ],
    {},
  );
  if (code > 1 || stdout === '') throw new Error(`the checker ended with ${code}: ${stderr}`);
  return JSON.parse(stdout) as Judgements;
}
