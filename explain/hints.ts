// What `explain` says of a node beside its verdict: what a person can do, or what is awaited.
import { GPU_VALIDATED, HOLD, MANAGED, POLICY } from '../core/keys.ts';
import { timeless, withTimes } from '../core/said.ts';
import { policyOf, walkOf, type NodeView } from '../gate/node-proof.ts';
import type { Reason, ReasonKind } from '../gate/reasons.ts';
import { nodeFacts } from '../gate/verdict.ts';

export interface Advice {
  readonly next: string;
  /** The same advice without the node's name and without times, by which nodes are grouped. */
  readonly alike: string;
}

const conditionOf = (node: NodeView, type: string) => node.status?.conditions?.find((c) => c.type === type);

const COMMANDS: Partial<Record<ReasonKind | '', (nodes: string) => string>> = {
  'not-opted-in': (nodes) => `kubectl label node ${nodes} ${MANAGED}=true`,
  held: (nodes) => `kubectl annotate node ${nodes} ${HOLD}-`,
  cordoned: (nodes) => `kubectl uncordon ${nodes}`,
};
/** The command that changes a verdict on nodes, given by name; `undefined` if no command does. */
export const commandFor = (kind: ReasonKind | ''): ((nodes: string) => string) | undefined => COMMANDS[kind];

const NODE = 'NODE';
const same = (text: string): Advice => ({ next: text, alike: text });
const naming = (of: (node: string) => string, name: string): Advice => ({ next: of(name), alike: of(NODE) });

const versions = (node: NodeView): Advice => {
  const { driver, cuda } = nodeFacts(node);
  return same(`the node has driver ${driver ?? 'of unknown version'}, CUDA ${cuda ?? 'of unknown version'}`);
};
/** The node's condition still speaks of the time before. */
const revalidation = (): Advice =>
  same('revalidation is automatic; if this persists, check that gpu-gate-reconciler is running');
const readiness = (node: NodeView): Advice => {
  const message = conditionOf(node, 'Ready')?.message ?? '';
  return naming(
    (name) => `${message === '' ? '' : `${message}: `}see kubectl describe node ${name}`,
    node.metadata.name,
  );
};
const ADVICE: Partial<Record<ReasonKind, (node: NodeView) => Advice>> = {
  'other-policy': (node) => same(`annotate the pod's template ${POLICY}: ${policyOf(node) ?? ''}, if it may run there`),
  'driver-old': versions,
  'driver-unknown': versions,
  cuda: versions,
  'not-ready': readiness,
  rebooted: revalidation,
  replaced: revalidation,
};

/** What a person can do, or what is awaited. */
export function adviceFor(node: NodeView, { kind }: Reason): Advice {
  const command = commandFor(kind);
  return command === undefined ? (ADVICE[kind] ?? awaited)(node) : naming(command, node.metadata.name);
}

/** Where the stack is the matter, the node's condition says it best. */
function awaited(node: NodeView): Advice {
  const said = walkOf(node)?.said;
  const message = conditionOf(node, GPU_VALIDATED)?.message ?? '';
  if (message === '')
    return same('the walk begins by itself; if this persists, check that gpu-gate-reconciler is running');
  return said === undefined ? same(message) : { next: withTimes(said), alike: timeless(said) };
}
