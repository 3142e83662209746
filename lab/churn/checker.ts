// The judge of the churn: reads the API server's audit log and reports which pods were bound to
// nodes that were not open, and which claims were given devices of such a node. It shares no code
// with gpu-gate on purpose, so it has its own definition of "open". A node may close while a
// scheduler is at work on a pod: that is not a violation until the extender was seen to know it
// before the scheduler began, however long that takes. A claim must get no device either that a
// DeviceTaintRule kept off. Prints a JSON report by namespace; the exit code is 1 if there are
// violations.
//
//   node lab/churn/checker.ts AUDIT_LOG PROBES SCHEDULER_LOG...
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';

interface AuditedNode {
  metadata?: {
    name?: string;
    uid?: string;
    resourceVersion?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  spec?: { unschedulable?: boolean };
  status?: { nodeInfo?: { bootID?: string }; conditions?: { type: string; status: string }[] };
}

/** A ResourceClaim, as far as it says whose devices it has. */
interface AuditedClaim {
  metadata?: { uid?: string };
  status?: {
    allocation?: { devices?: { results?: { pool?: string; device?: string }[] } };
    reservedFor?: { resource?: string; name?: string }[];
  };
}

/** A DeviceTaintRule, as far as it says which devices it is for. */
interface AuditedRule {
  metadata?: { name?: string; uid?: string };
  spec?: { deviceSelector?: { pool?: string; device?: string } };
}

interface AuditEvent {
  stage: string;
  verb: string;
  requestReceivedTimestamp: string;
  stageTimestamp: string;
  objectRef?: { resource?: string; subresource?: string; namespace?: string; name?: string };
  responseStatus?: { code?: number };
  requestObject?: { target?: { name?: string } };
  responseObject?: AuditedNode & AuditedClaim & AuditedRule;
}

/**
 * "serving": ours, proof of this node object and this boot, condition True, Ready. "open": and not
 * closed, held or cordoned.
 */
function whyNotOpen(node: AuditedNode): string | undefined {
  const labels = node.metadata?.labels ?? {};
  const notes = node.metadata?.annotations ?? {};
  const status = (type: string): string => node.status?.conditions?.find((c) => c.type === type)?.status ?? 'absent';
  if (labels['gpu-gate.dev/managed'] !== 'true' && !('gpu-gate.dev/state' in labels)) return 'not opted in';
  let proof: { node?: string; boot?: string } | null = null;
  try {
    proof = JSON.parse(notes['gpu-gate.dev/proof'] ?? 'null') as { node?: string; boot?: string } | null;
  } catch {
    return 'proof unreadable';
  }
  if (proof === null) return 'no proof';
  if (proof.node === undefined || proof.node !== node.metadata?.uid) return 'proof of another node';
  const boot = node.status?.nodeInfo?.bootID ?? '';
  if (boot === '' || proof.boot !== boot) return 'proof of another boot';
  if (status('GPUValidated') !== 'True') return `GPUValidated ${status('GPUValidated')}`;
  if (status('Ready') !== 'True') return `Ready ${status('Ready')}`;
  if ('gpu-gate.dev/closed' in notes) return 'closed';
  if ('gpu-gate.dev/hold' in notes) return 'held';
  if (node.spec?.unschedulable === true) return 'cordoned';
  return undefined;
}

/** A write of a node: it took effect somewhere between `from` and `to` (ms since the epoch). */
interface Change {
  readonly version: bigint;
  readonly from: number;
  readonly to: number;
  readonly because: string | undefined;
}

/** A time in which a DeviceTaintRule of gpu-gate was there, at its narrowest. */
interface Rule {
  readonly pool: string;
  /** Empty if it is for all devices of the pool. */
  readonly device: string;
  readonly from: number;
  readonly to: number;
}

/** A pod was bound to a node, or a claim of it was given devices there. */
interface Binding {
  readonly kind: 'pod' | 'claim';
  /** Of a claim. */
  readonly devices: readonly string[];
  readonly namespace: string;
  readonly pod: string;
  readonly node: string;
  readonly from: number;
  readonly to: number;
}

async function read(
  file: string,
): Promise<{ changes: Map<string, Change[]>; bindings: Binding[]; rules: ReadonlyMap<string, Rule> }> {
  const changes = new Map<string, Change[]>();
  const bindings: Binding[] = [];
  /** By name; a name comes again with another rule, and those before are kept under their UID. */
  const rules = new Map<string, Rule>();
  /** Claims that have their devices: later writes of their status give them none. */
  const allocated = new Set<string>();
  for await (const line of createInterface({ input: createReadStream(file) })) {
    let event: AuditEvent;
    try {
      event = JSON.parse(line) as AuditEvent;
    } catch {
      // The last line may still be being written.
      continue;
    }
    const code = event.responseStatus?.code ?? 0;
    if (event.stage !== 'ResponseComplete' || code < 200 || code > 299) continue;
    const span = { from: Date.parse(event.requestReceivedTimestamp), to: Date.parse(event.stageTimestamp) };
    const { resource, subresource, namespace = '', name = '' } = event.objectRef ?? {};
    if (resource === 'pods' && subresource === 'binding') {
      const node = event.requestObject?.target?.name ?? '';
      bindings.push({ kind: 'pod', devices: [], namespace, pod: name, node, ...span });
    } else if (resource === 'devicetaintrules' && name.startsWith('gpu-gate.')) {
      endRule(rules, name, span.from);
      const { pool = '', device = '' } = event.responseObject?.spec?.deviceSelector ?? {};
      if (event.verb !== 'delete') rules.set(name, { pool, device, from: span.to, to: Number.POSITIVE_INFINITY });
    } else if (resource === 'resourceclaims' && subresource === 'status') {
      const { metadata, status } = event.responseObject ?? {};
      const uid = metadata?.uid ?? '';
      // A pool is named after its node.
      const results = status?.allocation?.devices?.results ?? [];
      const node = results[0]?.pool;
      if (node === undefined) allocated.delete(uid);
      else if (!allocated.has(uid)) {
        allocated.add(uid);
        const pod = status?.reservedFor?.find((one) => one.resource === 'pods')?.name ?? '';
        const devices = results.map(({ device = '' }) => device);
        bindings.push({ kind: 'claim', devices, namespace, pod, node, ...span });
      }
    } else if (resource === 'nodes') {
      const node = event.responseObject;
      const which = node?.metadata?.name ?? name;
      const deleted = event.verb === 'delete';
      if (!deleted && node?.metadata?.resourceVersion === undefined) continue;
      const list = changes.get(which) ?? [];
      changes.set(which, list);
      list.push({
        version: BigInt(deleted ? Number.MAX_SAFE_INTEGER : (node?.metadata?.resourceVersion ?? '0')),
        because: deleted || node === undefined ? 'deleted' : whyNotOpen(node),
        ...span,
      });
    }
  }
  for (const list of changes.values())
    list.sort((a, b) => (a.version < b.version ? -1 : a.version > b.version ? 1 : 0));
  return { changes, bindings, rules };
}

/** The rule of that name is written again, or goes: it was there until then. */
function endRule(rules: Map<string, Rule>, name: string, at: number): void {
  const rule = rules.get(name);
  if (rule === undefined) return;
  rules.delete(name);
  rules.set(`${name} until ${at}`, { ...rule, to: Math.min(rule.to, at) });
}

/**
 * How long before a scheduler began a rule must have been there, ms. Nothing shows when a scheduler
 * has seen a rule.
 */
const RULE_SEEN_MS = 2000;

/** Was a rule there that keeps off one of the devices, from well before the attempt to the end? */
const ruleAgainst = ({ node, devices, from }: Binding, began: number): Rule | undefined =>
  [...rules.values()].find(
    (rule) =>
      rule.pool === node &&
      (rule.device === '' || devices.includes(rule.device)) &&
      rule.from + RULE_SEEN_MS < began &&
      rule.to > from,
  );

/** A time in which a node was open, at its widest. */
interface Opening {
  readonly from: number;
  readonly to: number;
  /** What ended it. */
  readonly because: string;
}

function openingsOf(list: readonly Change[]): Opening[] {
  const openings: Opening[] = [];
  let from: number | undefined;
  for (const change of list) {
    if (change.because === undefined) from ??= change.from;
    else if (from !== undefined) {
      openings.push({ from, to: change.to, because: change.because });
      from = undefined;
    }
  }
  if (from !== undefined) openings.push({ from, to: Number.POSITIVE_INFINITY, because: '' });
  return openings;
}

/** One call to the extender about every node, and what it refused. Times in ms since the epoch. */
interface Probe {
  readonly from: number;
  readonly to: number;
  readonly refused: ReadonlySet<string>;
}

const linesOf = (path: string): AsyncIterable<string> => createInterface({ input: createReadStream(path) });

async function readProbes(path: string): Promise<Probe[]> {
  const probes: Probe[] = [];
  for await (const line of linesOf(path)) {
    const { from, to, refused } = JSON.parse(line) as { from: number; to: number; refused?: string[] };
    probes.push({
      from,
      to,
      refused: refused === undefined ? (probes.at(-1)?.refused ?? new Set()) : new Set(refused),
    });
  }
  return probes;
}

/**
 * By pod, as namespace/name: when a scheduler began to look for a node for it, oldest first. The
 * schedulers log in JSON, at level 3.
 */
async function readAttempts(paths: readonly string[]): Promise<Map<string, number[]>> {
  const attempts = new Map<string, number[]>();
  for (const path of paths)
    for await (const line of linesOf(path)) {
      if (!line.includes('"Attempting to schedule pod"')) continue;
      const { ts, pod } = JSON.parse(line) as { ts: number; pod: { namespace: string; name: string } };
      const key = `${pod.namespace}/${pod.name}`;
      attempts.set(key, [...(attempts.get(key) ?? []), ts]);
    }
  return attempts;
}

/**
 * Whether the extender knew before the attempt began that the node had closed: it was asked after
 * the closing, had refused the node by then, and was not seen to let it through again.
 */
function wasKnown(node: string, closed: number, began: number, bound: number): boolean {
  const known = probes.findIndex(({ from, to, refused }) => from > closed && to < began && refused.has(node));
  return known >= 0 && probes.slice(known).every(({ from, refused }) => from > bound || refused.has(node));
}

const [auditLog, probeFile, ...schedulerLogs] = process.argv.slice(2);
if (auditLog === undefined || probeFile === undefined || schedulerLogs.length === 0) {
  console.error('write: checker.ts AUDIT_LOG PROBES SCHEDULER_LOG...');
  process.exit(2);
}
const { changes, bindings, rules } = await read(auditLog);
const probes = await readProbes(probeFile);
const attempts = await readAttempts(schedulerLogs);
const openings = new Map([...changes].map(([node, list]) => [node, openingsOf(list)]));
interface Report {
  bindings: number;
  /** Claims that were given devices. */
  allocations: number;
  /** DeviceTaintRules for one device that were there. */
  deviceRules: number;
  toOpen: number;
  /** The node closed, and the extender was not seen to know it before the scheduler began. */
  underWay: number;
  longestUnderWayMs: number;
  /** No given log has an attempt of the pod: another scheduler bound it. */
  byOthers: number;
  violations: { kind: Binding['kind'] | 'device'; pod: string; node: string; because: string; closedForMs: number }[];
}
const reports: Record<string, Report> = {};
for (const binding of bindings) {
  const report = (reports[binding.namespace] ??= {
    bindings: 0,
    allocations: 0,
    deviceRules: [...rules.values()].filter(({ device }) => device !== '').length,
    toOpen: 0,
    underWay: 0,
    longestUnderWayMs: 0,
    byOthers: 0,
    violations: [],
  });
  if (binding.kind === 'pod') report.bindings += 1;
  else report.allocations += 1;
  const began = attempts.get(`${binding.namespace}/${binding.pod}`)?.findLast((at) => at <= binding.to);
  if (began === undefined) {
    report.byOthers += 1;
    continue;
  }
  const rule = binding.kind === 'claim' ? ruleAgainst(binding, began) : undefined;
  if (rule !== undefined)
    report.violations.push({
      kind: 'device',
      pod: binding.pod,
      node: binding.node,
      because: `a rule kept ${rule.device === '' ? 'all devices' : rule.device} off`,
      closedForMs: Math.round(binding.from - rule.from),
    });
  const last = openings.get(binding.node)?.findLast(({ from }) => from <= binding.to);
  const closed = last?.to ?? Number.NEGATIVE_INFINITY;
  const closedForMs = Math.round(binding.from - closed);
  if (closedForMs <= 0) report.toOpen += 1;
  else if (wasKnown(binding.node, closed, began, binding.to))
    report.violations.push({
      kind: binding.kind,
      pod: binding.pod,
      node: binding.node,
      because: last?.because ?? 'not open before',
      closedForMs: last === undefined ? -1 : closedForMs,
    });
  else {
    report.underWay += 1;
    report.longestUnderWayMs = Math.max(report.longestUnderWayMs, closedForMs);
  }
}
// Of the times in which a node was closed: how many the extender was seen to know.
const closings = [...openings].flatMap(([node, list]) =>
  list.flatMap(({ to }, i) =>
    Number.isFinite(to) ? { node, from: to, to: list[i + 1]?.from ?? Number.POSITIVE_INFINITY } : [],
  ),
);
const known = closings.filter((closing) =>
  probes.some(({ from, to, refused }) => from > closing.from && to < closing.to && refused.has(closing.node)),
);
console.log(JSON.stringify({ closings: closings.length, known: known.length, namespaces: reports }));
process.exitCode = Object.values(reports).some(({ violations }) => violations.length > 0) ? 1 : 0;
