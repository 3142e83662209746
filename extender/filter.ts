// The three verbs as functions of what is known: no I/O, no allocation beyond the answer. Pure.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { askOf, nodeFacts, refusal, type Ask, type NodeFacts } from './verdict.ts';
import type { ExtenderArgs, FilterResult, PreemptionArgs } from './wire.ts';

/** What a replica knows, from its watches. */
export interface View {
  node(name: string): NodeFacts | undefined;
  readonly policies: { get(name: string): GpuPolicy | undefined };
  readonly operandNamespace: string;
}

const factsOf = (args: ExtenderArgs, view: View, name: string): NodeFacts | undefined => {
  const sent = args.nodes?.get(name);
  return sent === undefined ? view.node(name) : nodeFacts(sent);
};

/** Every node given comes back exactly once: passed, or refused with a reason. */
export function filter(args: ExtenderArgs, view: View): { readonly ask: Ask; readonly result: FilterResult } {
  const ask = askOf(args.pod, view.policies, view.operandNamespace);
  const names = args.names.length === new Set(args.names).size ? args.names : [...new Set(args.names)];
  switch (ask.kind) {
    case 'pass':
      return { ask, result: { passed: names, refused: new Map() } };
    case 'refuse':
      return { ask, result: { passed: [], refused: new Map(names.map((name) => [name, ask.because])) } };
    case 'gate': {
      const passed: string[] = [];
      const refused = new Map<string, string>();
      for (const name of names) {
        const because = refusal(ask, factsOf(args, view, name));
        if (because === undefined) passed.push(name);
        else refused.set(name, because);
      }
      return { ask, result: { passed, refused } };
    }
  }
}

/** 0..10 by age of the proof: what has held for a day is steadier than what was proven a minute ago. */
export function prioritize(args: ExtenderArgs, view: View, now: number): { Host: string; Score: number }[] {
  return args.names.map((Host) => {
    const provenAt = factsOf(args, view, Host)?.provenAt ?? 0;
    const hours = provenAt === 0 ? 0 : Math.max(0, now - provenAt) / 3_600_000;
    return { Host, Score: provenAt === 0 ? 0 : Math.min(10, 1 + Math.round((hours / 24) * 9)) };
  });
}

/** Victims stay only on nodes that would then take the pod: elsewhere they would die for nothing. */
export function preempt(args: PreemptionArgs, view: View): PreemptionArgs['victims'] {
  const ask = askOf(args.pod, view.policies, view.operandNamespace);
  if (ask.kind === 'pass') return args.victims;
  if (ask.kind === 'refuse') return new Map();
  return new Map([...args.victims].filter(([name]) => refusal(ask, view.node(name)) === undefined));
}
