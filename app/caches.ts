// What the request path knows of the cluster: policies, claims for devices, nodes, namespaces and
// runtime classes, each watched only if a role of this process needs it. Webhook and extender share
// them and write nothing.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { POLICIES_PATH } from '../core/keys.ts';
import { CLAIMS_NOT_SERVED, DEVICE_WATCHES, type ClaimFacts, type ClassFacts } from '../gate/devices.ts';
import { NodeTable } from '../extender/by-name/table.ts';
import type { NodeView } from '../gate/node-proof.ts';
import { nodeFacts, type NodeFacts } from '../gate/verdict.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';
import type { RuntimeClassFacts } from '../webhook/inject.ts';
import { agesOf, staleWatches, type Part, type Shared, type Watches } from './part.ts';

/** How often it is looked whether the API server serves claims now. */
const ABSENT_MS = 30_000;

export interface Caches extends Part {
  readonly policies: Reflector<GpuPolicy>;
  readonly nodes: Reflector<NodeFacts>;
  readonly namespaces: Reflector<Readonly<Record<string, string>>>;
  readonly runtimeClasses: Reflector<RuntimeClassFacts>;
  readonly devices: {
    readonly classes: Reflector<ClassFacts>;
    readonly claims: Reflector<ClaimFacts>;
    readonly templates: Reflector<ClaimFacts>;
  };
  /** The nodes by the bytes of their names. */
  readonly table: NodeTable;
}

/** Starts the watches that the roles of this process need. */
export function startCaches({ options, kube, log, now }: Shared): Caches {
  const table = new NodeTable();
  const policies = reflector<GpuPolicy>({
    kube,
    log,
    path: POLICIES_PATH,
    optional: true,
    trim: (raw) => parsePolicy(raw),
  });
  const nodes = reflector<NodeFacts>({
    kube,
    log,
    path: '/api/v1/nodes',
    trim: (raw: NodeView) => nodeFacts(raw),
    onChange: (name, _, after) => table.set(name, after),
  });
  const namespaces = reflector<Readonly<Record<string, string>>>({
    kube,
    log,
    path: '/api/v1/namespaces',
    trim: (raw: { metadata: { labels?: Record<string, string> } }) => raw.metadata.labels ?? {},
  });
  const runtimeClasses = reflector<RuntimeClassFacts>({
    kube,
    log,
    path: '/apis/node.k8s.io/v1/runtimeclasses',
    trim: (raw: { handler?: string; scheduling?: { nodeSelector?: Record<string, string> } }) => ({
      handler: raw.handler ?? '',
      nodeSelector: raw.scheduling?.nodeSelector ?? {},
    }),
  });
  const optional = { kube, log, optional: true, absentMs: ABSENT_MS };
  const devices = {
    classes: reflector<ClassFacts>({
      ...optional,
      ...DEVICE_WATCHES.classes,
      onAbsent: () => log.info(CLAIMS_NOT_SERVED),
    }),
    claims: reflector<ClaimFacts>({ ...optional, ...DEVICE_WATCHES.claims }),
    templates: reflector<ClaimFacts>({ ...optional, ...DEVICE_WATCHES.templates }),
  };
  const watches: Watches = {
    gpupolicies: policies,
    deviceclasses: devices.classes,
    resourceclaims: devices.claims,
    resourceclaimtemplates: devices.templates,
    ...(options.roles.includes('webhook') ? { namespaces, runtimeclasses: runtimeClasses } : {}),
    ...(options.roles.includes('extender') ? { nodes } : {}),
  };
  const work = new AbortController();
  for (const watch of Object.values(watches)) watch.start(work.signal);
  return {
    name: 'caches',
    policies,
    nodes,
    namespaces,
    runtimeClasses,
    devices,
    table,
    notReady: () => staleWatches(watches, options.watchLimit, now()),
    watchAges: () => agesOf(watches, now()),
    async stop() {
      work.abort();
    },
    ended: new Promise((resolve) => work.signal.addEventListener('abort', () => resolve(), { once: true })),
  };
}
