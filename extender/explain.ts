// Why does this pod wait, or where did it go: every node and the verdict for one pod, by the same functions that the
// scheduler's calls use. Pure: objects in, rows and text out.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { isEnforcing } from '../core/gpu-policy.ts';
import type { RawPod } from '../core/gpu-request.ts';
import { GPU_VALIDATED, HOLD, INJECTION, MANAGED, POLICY } from '../core/keys.ts';
import { isOurs, NODE_CORDONED, NODE_HELD, policyOf, stateOf, type NodeView } from '../core/node-proof.ts';
import { askOf, nodeFacts, REASONS, refusal } from './verdict.ts';

export interface Row {
  readonly node: string;
  readonly state: string;
  readonly verdict: 'open' | 'refused';
  readonly reason: string;
  /** RFC 3339, or empty. */
  readonly since: string;
  readonly next: string;
}

export interface Explanation {
  readonly pod: string;
  /** What the gate does with this pod as a whole. */
  readonly summary: string;
  readonly webhook: string;
  readonly rows: readonly Row[];
}

export interface ExplainInput {
  readonly pod: RawPod;
  readonly nodes: readonly NodeView[];
  readonly policies: ReadonlyMap<string, GpuPolicy>;
  readonly operandNamespace: string;
  /** What the webhook would do with this pod, were it created now: one sentence. */
  readonly webhookWould: string;
}

const SUMMARY = {
  'validation-pod': 'a validation pod of gpu-gate: every node passes',
  'no-gpu': 'asks for no GPU of its policy: gpu-gate has no say',
  'no-policy': 'no GPUPolicy for it: every node passes',
  suspended: 'its GPUPolicy is suspended: every node passes',
  auditing: 'its GPUPolicy does not enforce yet: every node passes, the verdicts below are what would be',
} as const;

/** The whole explanation. */
export function explainPod(input: ExplainInput): Explanation {
  const { pod, nodes, policies } = input;
  const name = `${pod.metadata?.namespace ?? ''}/${pod.metadata?.name ?? ''}`;
  const ask = askOf(pod, policies, input.operandNamespace);
  // An auditing policy is asked as if it enforced, so that one sees what is to come.
  const gate = ask.kind === 'gate' ? ask : ask.kind === 'pass' ? ask.would : undefined;
  const rows = nodes.map((node): Row => {
    const condition = node.status?.conditions?.find((c) => c.type === GPU_VALIDATED);
    const because =
      ask.kind === 'refuse' ? ask.because : gate === undefined ? undefined : refusal(gate, nodeFacts(node));
    return {
      node: node.metadata.name,
      state: stateOf(node) ?? (isOurs(node) ? 'preflight' : '-'),
      verdict: because === undefined ? 'open' : 'refused',
      reason: because ?? '',
      since: because === undefined ? '' : (condition?.lastTransitionTime ?? ''),
      next: because === undefined ? '' : nextFor(node, because, condition?.message ?? ''),
    };
  });
  const open = rows.filter((row) => row.verdict === 'open').length;
  const summary =
    ask.kind === 'refuse'
      ? ask.because
      : ask.kind === 'pass'
        ? SUMMARY[ask.because]
        : `GPUPolicy ${ask.policy.name} ${isEnforcing(ask.policy) ? 'enforces' : 'audits'}: ${open} of ${rows.length} nodes open to it`;
  return { pod: name, summary, webhook: webhookDid(pod, input.webhookWould), rows };
}

/** What somebody can do, or is awaited. The node's condition says it best where the stack is the matter. */
function nextFor(node: NodeView, because: string, message: string): string {
  const { name } = node.metadata;
  switch (because) {
    case REASONS.unmanaged:
      return `kubectl label node ${name} ${MANAGED}=true`;
    case REASONS.otherPolicy:
      return `annotate the pod's template ${POLICY}: ${policyOf(node) ?? ''}, if it may run there`;
    case NODE_HELD:
      return `kubectl annotate node ${name} ${HOLD}-`;
    case NODE_CORDONED:
      return `kubectl uncordon ${name}`;
    case REASONS.driverOld:
    case REASONS.driverUnknown:
    case REASONS.cuda: {
      const { driver, cuda } = nodeFacts(node);
      return `the node has driver ${driver ?? 'of unknown version'}, CUDA ${cuda ?? 'of unknown version'}`;
    }
    default:
      return message;
  }
}

function webhookDid(pod: RawPod, would: string): string {
  const text = pod.metadata?.annotations?.[INJECTION];
  if (text === undefined) return `the webhook did not inject this pod; created now, ${would}`;
  try {
    const record = JSON.parse(text) as {
      policy?: string;
      injected?: string[];
      skipped?: { what: string; because: string }[];
    };
    const skipped = (record.skipped ?? []).map(({ what, because }) => `${what} (${because})`);
    return `the webhook injected ${(record.injected ?? []).join(', ') || 'nothing'} by policy ${record.policy ?? '?'}${skipped.length === 0 ? '' : `; left out: ${skipped.join(', ')}`}`;
  } catch {
    return 'the annotation gpu-gate.dev/injection was changed by somebody and cannot be read';
  }
}

/** Above this many nodes, those with the same verdict share a line. */
const GROUP_ABOVE = 20;

/** The explanation as a table. */
export function explanationText(explanation: Explanation): string {
  const grouped = explanation.rows.length > GROUP_ABOVE ? group(explanation.rows) : explanation.rows;
  const header = {
    node: 'NODE',
    state: 'STATE',
    verdict: 'VERDICT',
    reason: 'REASON',
    since: 'SINCE',
    next: 'WHAT NEXT',
  };
  const columns = ['node', 'state', 'verdict', 'reason', 'since', 'next'] as const;
  const lines = [header, ...grouped];
  const widths = columns.map((column) => Math.max(...lines.map((line) => line[column].length)));
  const table = lines.map((line) =>
    columns
      .map((column, i) => (column === 'next' ? line[column] : line[column].padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  return [`pod ${explanation.pod}: ${explanation.summary}`, explanation.webhook, '', ...table, ''].join('\n');
}

const group = (rows: readonly Row[]): Row[] => {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const key = [row.verdict, row.state, row.reason].join('\n');
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return [...groups.values()].map((members) => {
    const [first] = members;
    if (first === undefined || members.length === 1)
      return first ?? { node: '', state: '', verdict: 'open', reason: '', since: '', next: '' };
    return {
      ...first,
      node: `${members.length} nodes, such as ${first.node}`,
      since: members.map((row) => row.since).toSorted()[0] ?? '',
    };
  });
};
