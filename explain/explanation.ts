// Why does this pod wait, or where did it go: every node and the verdict for one pod, by the same functions that the
// scheduler's calls use. Pure: objects in, rows out; explain-text.ts makes a table of them.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { isEnforcing } from '../core/gpu-policy.ts';
import type { RawPod } from '../gate/gpu-request.ts';
import { INJECTION } from '../core/keys.ts';
import { isOurs, stateOf, type NodeView } from '../gate/node-proof.ts';
import { nextFor, sinceOf } from './hints.ts';
import { askOf, nodeFacts, refusal } from '../gate/verdict.ts';

export interface Row {
  readonly node: string;
  readonly state: string;
  readonly verdict: 'open' | 'refused';
  readonly reason: string;
  /** Since when the verdict is what it is, RFC 3339; empty where nothing tells. */
  readonly since: string;
  readonly next: string;
}

export interface Explanation {
  readonly pod: string;
  /** What the gate does with this pod as a whole. */
  readonly summary: string;
  readonly webhook: string;
  /** What else bears on it: one sentence each. */
  readonly notes: readonly string[];
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
    const about = { node: node.metadata.name, state: stateOf(node) ?? (isOurs(node) ? 'preflight' : '-') };
    if (ask.kind === 'refuse')
      return { ...about, verdict: 'refused', reason: ask.because, since: '', next: ask.detail };
    if (gate === undefined) return { ...about, verdict: 'open', reason: '', since: '', next: '' };
    const because = refusal(gate, nodeFacts(node));
    return {
      ...about,
      verdict: because === undefined ? 'open' : 'refused',
      reason: because ?? '',
      since: sinceOf(node, because),
      next: because === undefined ? '' : nextFor(node, because),
    };
  });
  const open = rows.filter((row) => row.verdict === 'open').length;
  const summary =
    ask.kind === 'refuse'
      ? `${ask.because}: no node takes it; ${ask.detail}`
      : ask.kind === 'pass'
        ? SUMMARY[ask.because]
        : `GPUPolicy ${ask.policy.name} ${isEnforcing(ask.policy) ? 'enforces' : 'audits'}: ${open} of ${rows.length} nodes open to it`;
  const notes = [
    ...(ask.kind === 'refuse' || gate !== undefined ? schedulerNote(pod, policies) : []),
    ...(gate?.cudaUnread ?? []).map(
      (part) =>
        `NVIDIA_REQUIRE_CUDA: ${JSON.stringify(part)} cannot be read and is not judged; write one such as "cuda>=12.4"`,
    ),
  ];
  return { pod: name, summary, webhook: webhookDid(pod, input.webhookWould), notes, rows };
}

/** Verdicts hold only where the pod's scheduler asks for them, which no object in the API tells but for the chart's own scheduler. */
function schedulerNote(pod: RawPod, policies: ReadonlyMap<string, GpuPolicy>): string[] {
  const scheduler = pod.spec?.schedulerName ?? 'default-scheduler';
  const asking = [...policies.values()].some(({ spec }) => spec.injection.schedulerName === scheduler);
  return asking
    ? []
    : [
        `its scheduler, ${scheduler}, asks gpu-gate only if the extender is in its own configuration: if it is not, a verdict keeps this pod off no node, the startup taint alone does`,
      ];
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
