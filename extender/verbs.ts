// The three verbs as functions of what is known: no I/O, no allocation beyond the answer. Pure. What a call by names needs most
// of the time is answered faster by answer.ts, to the same effect.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { askOf, nodeFacts, refusal, type Ask, type NodeFacts } from '../gate/verdict.ts';
import type { ExtenderArgs, FilterResult, PreemptionArgs } from './wire.ts';

/** What a replica knows, from its watches. */
export interface View {
  readonly nodes: { get(name: string): NodeFacts | undefined };
  readonly policies: { get(name: string): GpuPolicy | undefined };
  readonly operandNamespace: string;
}

const factsOf = (args: ExtenderArgs, view: View, name: string): NodeFacts | undefined => {
  const sent = args.nodes?.get(name);
  return sent === undefined ? view.nodes.get(name) : nodeFacts(sent);
};

/** Every node given comes back exactly once: passed, or refused with a reason. */
export function filter(args: ExtenderArgs, view: View): { readonly ask: Ask; readonly result: FilterResult } {
  const ask = askOf(args.pod, view.policies, view.operandNamespace);
  const names = unique(args.names);
  const passed: string[] = [];
  const refused = new Map<string, string>();
  let wouldRefuse = 0;
  for (const name of names) {
    const because =
      ask.kind === 'gate' ? refusal(ask, factsOf(args, view, name)) : ask.kind === 'refuse' ? ask.because : undefined;
    if (because === undefined) passed.push(name);
    else refused.set(name, because);
    if (ask.kind === 'pass' && ask.would !== undefined && refusal(ask.would, factsOf(args, view, name)) !== undefined)
      wouldRefuse += 1;
  }
  return { ask, result: { passed, refused, wouldRefuse } };
}

const unique = (names: readonly string[]): readonly string[] => {
  const set = new Set(names);
  return set.size === names.length ? names : [...set];
};

/** The score of every node for a pod that is not gated: GPU nodes are no better for it than others. */
export const NO_SCORE = 0;

/** 0..10 by how long nothing of the node's stack has changed: what has held for a day is steadier than what was proven a minute ago. */
export function scoreOf(node: NodeFacts | undefined, now: number): number {
  if (node === undefined || node.steadySince === 0) return 0;
  const hours = Math.max(0, now - node.steadySince) / 3_600_000;
  return Math.min(10, 1 + Math.round((hours / 24) * 9));
}

/** HostPriorityList, each node once. */
export function prioritize(args: ExtenderArgs, view: View, now: number): { Host: string; Score: number }[] {
  const gated = askOf(args.pod, view.policies, view.operandNamespace).kind === 'gate';
  return unique(args.names).map((Host) => ({
    Host,
    Score: gated ? scoreOf(factsOf(args, view, Host), now) : NO_SCORE,
  }));
}

/** Victims stay only on nodes that would then take the pod: elsewhere they would die for nothing. */
export function preempt(args: PreemptionArgs, view: View): PreemptionArgs['victims'] {
  const ask = askOf(args.pod, view.policies, view.operandNamespace);
  if (ask.kind === 'pass') return args.victims;
  if (ask.kind === 'refuse') return new Map();
  return new Map([...args.victims].filter(([name]) => refusal(ask, view.nodes.get(name)) === undefined));
}
