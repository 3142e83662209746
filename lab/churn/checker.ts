// The judge of the churn: reads the API server's audit log and reports which pods were bound to
// nodes that were not open. It shares no code with gpu-gate on purpose, so it has its own
// definition of "open". Prints a JSON report by namespace; the exit code is 1 if there are
// violations.
//
//   node lab/churn/checker.ts AUDIT_LOG [--slack-ms 1000]
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

interface AuditEvent {
  stage: string;
  verb: string;
  requestReceivedTimestamp: string;
  stageTimestamp: string;
  objectRef?: { resource?: string; subresource?: string; namespace?: string; name?: string };
  responseStatus?: { code?: number };
  requestObject?: { target?: { name?: string } };
  responseObject?: AuditedNode;
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

interface Binding {
  readonly namespace: string;
  readonly pod: string;
  readonly node: string;
  readonly from: number;
  readonly to: number;
}

async function read(file: string): Promise<{ changes: Map<string, Change[]>; bindings: Binding[] }> {
  const changes = new Map<string, Change[]>();
  const bindings: Binding[] = [];
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
      bindings.push({ namespace, pod: name, node: event.requestObject?.target?.name ?? '', ...span });
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
  return { changes, bindings };
}

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

const [file, , slackText] = process.argv.slice(2);
const slack = Number(slackText ?? 1000);
if (file === undefined || !Number.isFinite(slack)) {
  console.error('write: checker.ts AUDIT_LOG [--slack-ms 1000]');
  process.exit(2);
}
const { changes, bindings } = await read(file);
const openings = new Map([...changes].map(([node, list]) => [node, openingsOf(list)]));
interface Report {
  bindings: number;
  toOpen: number;
  /** The node had closed less than `slack` before: on their way when it did. */
  underWay: number;
  longestUnderWayMs: number;
  violations: { pod: string; node: string; because: string; closedForMs: number }[];
}
const reports: Record<string, Report> = {};
for (const binding of bindings) {
  const report = (reports[binding.namespace] ??= {
    bindings: 0,
    toOpen: 0,
    underWay: 0,
    longestUnderWayMs: 0,
    violations: [],
  });
  report.bindings += 1;
  const last = openings.get(binding.node)?.findLast(({ from }) => from <= binding.to);
  const because = last?.because ?? 'not open before';
  const closedForMs = binding.from - (last?.to ?? Number.NEGATIVE_INFINITY);
  if (closedForMs <= 0) report.toOpen += 1;
  else if (closedForMs <= slack) {
    report.underWay += 1;
    report.longestUnderWayMs = Math.max(report.longestUnderWayMs, Math.round(closedForMs));
  } else
    report.violations.push({
      pod: binding.pod,
      node: binding.node,
      because,
      closedForMs: Number.isFinite(closedForMs) ? Math.round(closedForMs) : -1,
    });
}
console.log(JSON.stringify({ nodes: changes.size, namespaces: reports }));
process.exitCode = Object.entries(reports).some(
  ([name, report]) => name !== 'gpu-gate-operands' && report.violations.length > 0,
)
  ? 1
  : 0;
