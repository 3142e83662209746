// The definition of the three verbs: what is known → the answer. by-name/answer.ts gives the same
// answers to most calls by names, from bytes.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { wantsOf, type RawPod } from '../gate/gpu-request.ts';
import type { Devices } from '../gate/devices.ts';
import type { Reason } from '../gate/reasons.ts';
import { askOf, nodeFacts, verdict, wouldRefuse, type Ask, type NodeFacts } from '../gate/verdict.ts';
import type { ExtenderArgs, FilterResult, PreemptionArgs } from './wire.ts';

/** What a replica knows, from its watches. */
export interface View {
  readonly nodes: { get(name: string): NodeFacts | undefined };
  readonly policies: { get(name: string): GpuPolicy | undefined };
  readonly devices: Devices;
  readonly operandNamespace: string;
}

/** What the pod of a call asks. */
export const askIn = (view: Omit<View, 'nodes'>, pod: RawPod): Ask =>
  askOf(wantsOf(pod, view.operandNamespace), view.policies, view.devices);

const factsOf = (args: ExtenderArgs, view: View, name: string): NodeFacts | undefined => {
  const sent = args.nodes?.get(name);
  return sent === undefined ? view.nodes.get(name) : nodeFacts(sent);
};

/** Every node given comes back exactly once: passed, or refused with a reason. */
export function filter(args: ExtenderArgs, view: View): { readonly ask: Ask; readonly result: FilterResult } {
  const ask = askIn(view, args.pod);
  const passed: string[] = [];
  const refused = new Map<string, Reason>();
  let would = 0;
  for (const name of unique(args.names)) {
    const facts = factsOf(args, view, name);
    const because = verdict(ask, facts);
    if (because === undefined) passed.push(name);
    else refused.set(name, because);
    if (wouldRefuse(ask, facts)) would += 1;
  }
  return { ask, result: { passed, refused, wouldRefuse: would } };
}

const unique = (names: readonly string[]): readonly string[] => {
  const set = new Set(names);
  return set.size === names.length ? names : [...set];
};

/** The score of every node for a pod that is not gated: it gains nothing from a GPU node. */
export const NO_SCORE = 0;

/** 0 to 10 by how long nothing of the node's stack has changed; a day or more is 10. */
export function scoreOf(node: NodeFacts | undefined, now: number): number {
  if (node === undefined || node.steadySince === 0) return 0;
  const hours = Math.max(0, now - node.steadySince) / 3_600_000;
  return Math.min(10, 1 + Math.round((hours / 24) * 9));
}

/** HostPriorityList, each node once. */
export function prioritize(args: ExtenderArgs, view: View, now: number): { Host: string; Score: number }[] {
  const gated = askIn(view, args.pod).kind === 'gate';
  return unique(args.names).map((Host) => ({
    Host,
    Score: gated ? scoreOf(factsOf(args, view, Host), now) : NO_SCORE,
  }));
}

/**
 * Victims stay only on nodes that would then take the pod: elsewhere they would die for nothing.
 */
export function preempt(args: PreemptionArgs, view: View): PreemptionArgs['victims'] {
  const ask = askIn(view, args.pod);
  return new Map([...args.victims].filter(([name]) => verdict(ask, view.nodes.get(name)) === undefined));
}
