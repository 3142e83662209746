// Why does this pod wait, or where did it go: every node and its verdict for one pod, by the
// function that answers the scheduler. table.ts makes a table of it.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { isEnforcing } from '../core/gpu-policy.ts';
import type { Devices, FoundClaim } from '../gate/devices.ts';
import { claimsOf, occupied, wantsOf, type RawPod } from '../gate/gpu-request.ts';
import { INJECTION } from '../core/keys.ts';
import { isOurs, sinceOf, stateOf, walkOf, type NodeView } from '../gate/node-proof.ts';
import type { ReasonKind } from '../gate/reasons.ts';
import { obstacleTo, placementOf } from '../gate/placement.ts';
import { askOf, nodeFacts, policyNameOf, verdict, type Ungated } from '../gate/verdict.ts';
import { adviceFor } from './hints.ts';

export interface Row {
  readonly node: string;
  readonly state: string;
  /**
   * The gate's own verdict; `kept off` where the gate lets the pod in and something else does not.
   */
  readonly verdict: 'open' | 'kept off' | 'refused';
  /** What users read; empty on an open node. */
  readonly reason: string;
  /** What of the pod's selector, affinity and tolerations keeps it off; empty if nothing does. */
  readonly keptOff: string;
  /** The reason as a word for programs; empty on an open node. */
  readonly kind: ReasonKind | '';
  /** Since when the verdict is what it is, RFC 3339; empty if the node does not say. */
  readonly since: string;
  readonly next: string;
  /** `next` without the node's name and without times. */
  readonly alike: string;
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
  readonly devices: Devices;
  /** What could not be read, and so is not explained: one sentence each. */
  readonly unread: readonly string[];
  readonly operandNamespace: string;
  /** What the webhook would do with this pod if it were created now, one sentence. */
  readonly webhookWould: string;
}

const SUMMARY = {
  'validation-pod': 'a validation pod of gpu-gate may go to every node',
  'no-gpu': 'requests no GPU of its policy, so gpu-gate does not judge it',
  'no-policy': 'no GPUPolicy applies to it, so it may go to every node',
  suspended: 'its GPUPolicy is suspended, so it may go to every node',
  auditing:
    'its GPUPolicy does not enforce yet, so it may go to every node; the verdicts below are those of an enforcing policy',
} as const satisfies Record<Ungated, string>;

/** The whole explanation. */
export function explainPod(input: ExplainInput): Explanation {
  const { pod, nodes, policies } = input;
  const name = `${pod.metadata?.namespace ?? ''}/${pod.metadata?.name ?? ''}`;
  const wants = wantsOf(pod, input.operandNamespace);
  const ask = askOf(wants, policies, input.devices);
  // An auditing policy is judged as if it enforced, which shows what is to come.
  const judge = ask.kind === 'pass' && ask.would !== undefined ? ask.would : ask;
  const placement = placementOf(pod.spec, occupied(wants));
  const rows = nodes.map((node): Row => {
    const { name: named } = node.metadata;
    const about = { node: named, state: stateOf(node) ?? (isOurs(node) ? 'preflight' : '-') };
    const because = verdict(judge, nodeFacts(node));
    // Where the pod is nothing has kept it off, and of a pod that is not judged nothing is said.
    const isAsked = judge.kind !== 'pass' && pod.spec?.nodeName !== named;
    const obstacle = isAsked ? obstacleTo(placement, node) : undefined;
    const keptOff = obstacle?.text ?? '';
    if (because === undefined) {
      const since = judge.kind === 'gate' ? sinceOf(node, undefined) : '';
      const advice = obstacle?.advice ?? '';
      const verdictOf = obstacle === undefined ? 'open' : 'kept off';
      return { ...about, verdict: verdictOf, reason: keptOff, keptOff, kind: '', since, next: advice, alike: advice };
    }
    return {
      ...about,
      verdict: 'refused',
      reason: because.sentence,
      keptOff,
      kind: because.kind,
      since: sinceOf(node, because),
      ...(judge.kind === 'refuse' || judge.kind === 'unknown'
        ? { next: judge.detail, alike: judge.detail }
        : adviceFor(node, because)),
    };
  });
  const open = rows.filter((row) => row.verdict === 'open').length;
  const summary =
    ask.kind === 'refuse'
      ? `${ask.because.sentence}, so that no node takes it; ${ask.detail}`
      : ask.kind === 'unknown'
        ? `${ask.because.sentence}: ${ask.detail}`
        : ask.kind === 'pass'
          ? SUMMARY[ask.because]
          : `GPUPolicy ${ask.policy.name} ${isEnforcing(ask.policy) ? 'enforces' : 'audits'}: ${open} of ${rows.length} nodes open to it`;
  const notes = [
    ...input.unread,
    ...claimsOf(wants, policies.get(policyNameOf(wants)), input.devices).map(claimNote),
    ...(judge.kind === 'gate' ? deviceNotes(nodes) : []),
    ...(judge.kind === 'pass' ? [] : schedulerNote(pod, policies)),
    ...(judge.kind === 'gate' ? judge.unjudged : []).map(({ name, because }) => `${name}: ${because}`),
  ];
  return { pod: name, summary, webhook: webhookDid(pod, input.webhookWould), notes, rows };
}

/** Devices that no pod gets, or that others have tainted; so many as a person reads. */
function deviceNotes(nodes: readonly NodeView[]): readonly string[] {
  const all = nodes.flatMap((node) =>
    Object.entries(walkOf(node)?.devices ?? {}).map(
      ([id, text]) => `device ${id.split('/').at(-1) ?? id} of node ${node.metadata.name} ${text}`,
    ),
  );
  return all.length > MOST_DEVICES
    ? [...all.slice(0, MOST_DEVICES), `${all.length - MOST_DEVICES} more devices are left out or tainted`]
    : all;
}
const MOST_DEVICES = 20;

/** What a claim of the pod is for, and what it got. */
function claimNote({ wanted, facts, gpu }: FoundClaim): string {
  const name = wanted.claim === undefined ? `a claim of template ${wanted.template ?? '?'}` : `claim ${wanted.claim}`;
  if (facts === undefined) return `${name}: not known`;
  const of = facts.classes.length === 0 ? 'no class' : `class ${facts.classes.join(', ')}`;
  const is = gpu === true ? '' : '; not a GPU of the policy';
  if (facts.devices.length === 0) return `${name} (${of}): not allocated yet${is}`;
  const devices = facts.devices.map(({ driver, pool, device }) => `${driver}/${pool}/${device}`).join(', ');
  const where = facts.node === undefined ? '' : ` on node ${facts.node}, so only that node counts for this pod`;
  return `${name} (${of}): allocated ${devices}${where}${is}`;
}

/**
 * Verdicts hold only if the pod's scheduler asks for them. Objects in the API show that of the
 * chart's own scheduler alone.
 */
function schedulerNote(pod: RawPod, policies: ReadonlyMap<string, GpuPolicy>): string[] {
  const scheduler = pod.spec?.schedulerName ?? 'default-scheduler';
  const asking = [...policies.values()].some(({ spec }) => spec.injection.schedulerName === scheduler);
  return asking
    ? []
    : [
        `its scheduler, ${scheduler}, asks gpu-gate only if the extender is in its own configuration; otherwise only the startup taint keeps this pod off a node`,
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
    return 'the annotation gpu-gate.dev/injection was edited and cannot be read';
  }
}
