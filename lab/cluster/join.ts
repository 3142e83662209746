// A minimal client that brings nodes up: it sets the next label when the pod of the last one is
// Ready, and decides nothing else. The floor that gpu-gate's own join is measured against, on the
// same simulated hardware.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { POD_COMPONENT } from '../../core/components.ts';
import { COMPONENT, DEPLOY_PREFIX, PROOF, STATE } from '../../core/keys.ts';
import { MERGE_PATCH, STRATEGIC_PATCH } from '../../platform/kube.ts';
import { jsonLog } from '../../platform/log.ts';
import { reflector } from '../../platform/reflector.ts';
import { renderOperand } from '../../reconciler/manifests/render.ts';
import { validationPod } from '../../reconciler/manifests/validation-pod.ts';
import type { Cluster } from './cluster.ts';
import { until } from './gate.ts';

const OPERANDS = 'gpu-gate-operands';

interface RawPod {
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> };
  readonly spec: { readonly nodeName?: string };
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}
interface RawNode {
  readonly metadata: { readonly uid: string };
  readonly status?: { readonly allocatable?: Readonly<Record<string, string>> };
}

/**
 * What of the operand namespace is ready on each node, `node component`, and which nodes offer
 * GPUs.
 */
function observe(cluster: Cluster, stop: AbortSignal, changed: (node: string) => void) {
  const log = jsonLog('error', () => undefined);
  const ready = new Set<string>();
  const nodes = reflector<{ readonly uid: string; readonly gpus: boolean }>({
    kube: cluster.admin,
    log,
    path: '/api/v1/nodes',
    trim: (raw: RawNode) => ({
      uid: raw.metadata.uid,
      gpus: Number(raw.status?.allocatable?.['nvidia.com/gpu'] ?? 0) > 0,
    }),
    onChange: changed,
  });
  const pods = reflector<{ readonly key: string; readonly node: string; readonly ready: boolean }>({
    kube: cluster.admin,
    log,
    path: `/api/v1/namespaces/${OPERANDS}/pods`,
    trim: ({ metadata, spec, status }: RawPod) => ({
      key: `${spec.nodeName ?? ''} ${metadata.labels?.[COMPONENT] ?? ''}`,
      node: spec.nodeName ?? '',
      ready:
        status?.phase === 'Succeeded' ||
        status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true,
    }),
    onChange: (_, __, after) => {
      if (after?.ready !== true || ready.has(after.key)) return;
      ready.add(after.key);
      changed(after.node);
    },
  });
  nodes.start(stop);
  pods.start(stop);
  return { nodes, pods, isReady: (node: string, component: string) => ready.has(`${node} ${component}`) };
}

/**
 * Brings the nodes up with so many writes each; resolves when the last one is done. DaemonSets of
 * the policy must be there.
 */
export async function bareJoin(
  cluster: Cluster,
  names: readonly string[],
  policy: GpuPolicy,
  writesEach: number,
): Promise<void> {
  const stop = new AbortController();
  const at = new Map<string, number>();
  const running = new Set<string>();
  let done = 0;
  const { nodes, pods, isReady } = observe(cluster, stop.signal, (node) => void advance(node));
  const revisionOf = (component: 'toolkit' | 'driver' | 'device-plugin'): string =>
    renderOperand(component, policy, { namespace: OPERANDS }).revision;
  const label = (component: 'toolkit' | 'driver' | 'device-plugin') => (node: string) =>
    patch(node, { labels: { [STATE]: component, [DEPLOY_PREFIX + component]: revisionOf(component) } });
  const patch = (node: string, metadata: object): Promise<unknown> =>
    cluster.admin.request('PATCH', `/api/v1/nodes/${node}`, { contentType: MERGE_PATCH, body: { metadata } });
  const validate =
    (kind: 'driver-validation' | 'device-plugin-validation') =>
    async (name: string): Promise<void> => {
      const node = { name, uid: nodes.get(name)?.uid ?? '' };
      const resource = kind === 'device-plugin-validation' ? { resource: 'nvidia.com/gpu' } : {};
      const body = validationPod({ kind, policy, namespace: OPERANDS, node, round: 'bare', attempt: 1, ...resource });
      await cluster.admin.request('POST', `/api/v1/namespaces/${OPERANDS}/pods`, { body });
    };
  const is = (component: keyof typeof POD_COMPONENT) => (node: string) => isReady(node, POD_COMPONENT[component]);
  /** What is done, and when the next one may be. */
  const steps: readonly (readonly [step: (node: string) => Promise<unknown>, isDone: (node: string) => boolean])[] = [
    [label('toolkit'), is('toolkit')],
    [label('driver'), is('driver')],
    [validate('driver-validation'), is('driver-validation')],
    [label('device-plugin'), (node) => is('device-plugin')(node) && nodes.get(node)?.gpus === true],
    [validate('device-plugin-validation'), is('device-plugin-validation')],
    [(node) => patch(node, { labels: { [STATE]: 'validated' }, annotations: { [PROOF]: 'bare' } }), () => false],
  ];
  /** The writes that are left over, spread over the steps, as conditions. */
  const extra = Array.from(
    { length: steps.length },
    (_, i) =>
      Math.floor(((writesEach - steps.length) * (i + 1)) / steps.length) -
      Math.floor(((writesEach - steps.length) * i) / steps.length),
  );
  const condition = (node: string, message: string): Promise<unknown> =>
    cluster.admin.request('PATCH', `/api/v1/nodes/${node}/status`, {
      contentType: STRATEGIC_PATCH,
      body: { status: { conditions: [{ type: 'example.com/Bare', status: 'False', reason: 'Bare', message }] } },
    });

  async function advance(node: string): Promise<void> {
    if (running.has(node)) return;
    running.add(node);
    try {
      for (let step = at.get(node); step !== undefined; step = at.get(node)) {
        if (step > 0 && steps[step - 1]?.[1](node) !== true) return;
        const next = steps[step];
        if (next === undefined) return;
        await next[0](node);
        for (let i = 0; i < (extra[step] ?? 0); i += 1) await condition(node, `${step} ${i}`);
        at.set(node, step + 1);
        if (step + 1 === steps.length) {
          done += 1;
          at.delete(node);
        }
      }
    } finally {
      running.delete(node);
    }
  }
  await Promise.all([nodes.whenSynced(), pods.whenSynced()]);
  for (const name of names) at.set(name, 0);
  await Promise.all(names.map((name) => advance(name)));
  try {
    await until(`${names.length} nodes to be brought up`, () => done === names.length, 600_000);
  } finally {
    stop.abort();
  }
}
