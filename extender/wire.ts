// The scheduler's extender protocol, which writes PascalCase keys and null for what is absent.
import { isObject } from '../core/raw.ts';
import type { RawPod } from '../gate/gpu-request.ts';
import type { Reason } from '../gate/reasons.ts';
import type { NodeView } from '../gate/node-proof.ts';

export interface ExtenderArgs {
  readonly pod: RawPod;
  /** Names of the nodes to judge, in the order given. */
  readonly names: readonly string[];
  /** Whole nodes by name where the scheduler sent them (nodeCacheCapable: false). */
  readonly nodes: ReadonlyMap<string, NodeView> | undefined;
}

export interface PreemptionArgs {
  readonly pod: RawPod;
  /** Victims by node: the UIDs that the answer echoes. */
  readonly victims: ReadonlyMap<string, { readonly uids: readonly string[]; readonly violations: number }>;
}

export type Decoded<T> = { readonly ok: true; readonly args: T } | { readonly ok: false; readonly because: string };

/** ExtenderArgs of /filter and /prioritize. */
export function decodeArgs(body: unknown): Decoded<ExtenderArgs> {
  if (!isObject(body))
    return { ok: false, because: 'the body is not an ExtenderArgs object: only a kube-scheduler should call this' };
  const pod = body['Pod'];
  if (!isObject(pod)) return { ok: false, because: 'ExtenderArgs has no Pod' };
  const names = body['NodeNames'];
  if (Array.isArray(names)) {
    if (!names.every((name) => typeof name === 'string'))
      return { ok: false, because: 'ExtenderArgs.NodeNames holds something that is not a string' };
    return { ok: true, args: { pod: pod, names: names, nodes: undefined } };
  }
  const list = isObject(body['Nodes']) ? body['Nodes']['items'] : undefined;
  if (!Array.isArray(list)) return { ok: false, because: 'ExtenderArgs has neither NodeNames nor Nodes' };
  const nodes = new Map<string, NodeView>();
  for (const node of list) {
    if (!isObject(node) || !isObject(node['metadata']) || typeof node['metadata']['name'] !== 'string')
      return { ok: false, because: 'ExtenderArgs.Nodes holds a node without metadata.name' };
    nodes.set(node['metadata']['name'], node as unknown as NodeView);
  }
  return { ok: true, args: { pod: pod, names: [...nodes.keys()], nodes } };
}

/** ExtenderPreemptionArgs; victims come as whole pods or as UIDs. */
export function decodePreemption(body: unknown): Decoded<PreemptionArgs> {
  if (!isObject(body) || !isObject(body['Pod']))
    return { ok: false, because: 'the body is not an ExtenderPreemptionArgs with a Pod' };
  const meta = body['NodeNameToMetaVictims'];
  const whole = body['NodeNameToVictims'];
  const source = isObject(meta) ? meta : isObject(whole) ? whole : {};
  const victims = new Map<string, { uids: string[]; violations: number }>();
  for (const [node, entry] of Object.entries(source)) {
    const pods = isObject(entry) && Array.isArray(entry['Pods']) ? entry['Pods'] : [];
    const uids = pods.flatMap((pod: unknown) => {
      if (!isObject(pod)) return [];
      const uid = pod['UID'] ?? (isObject(pod['metadata']) ? pod['metadata']['uid'] : undefined);
      return typeof uid === 'string' ? [uid] : [];
    });
    victims.set(node, {
      uids,
      violations: isObject(entry) && typeof entry['NumPDBViolations'] === 'number' ? entry['NumPDBViolations'] : 0,
    });
  }
  return { ok: true, args: { pod: body['Pod'], victims } };
}

export interface FilterResult {
  readonly passed: readonly string[];
  /** Reason by node; no pre-emption can help there. */
  readonly refused: ReadonlyMap<string, Reason>;
  /** How many nodes would have been refused if the policy enforced. */
  readonly wouldRefuse: number;
}

/** ExtenderFilterResult; whole nodes are sent back where whole nodes came. */
export function encodeFilter(
  result: Pick<FilterResult, 'passed' | 'refused'>,
  nodes: ReadonlyMap<string, NodeView> | undefined,
): string {
  return JSON.stringify({
    Nodes: nodes === undefined ? null : { metadata: {}, items: result.passed.map((name) => nodes.get(name)) },
    NodeNames: nodes === undefined ? result.passed : null,
    FailedNodes: {},
    FailedAndUnresolvableNodes: Object.fromEntries([...result.refused].map(([name, { sentence }]) => [name, sentence])),
    Error: '',
  });
}

/**
 * An error must come with status 200, because the scheduler discards the body of any other answer.
 */
export const encodeError = (sentence: string): string =>
  JSON.stringify({
    Nodes: null,
    NodeNames: [],
    FailedNodes: {},
    FailedAndUnresolvableNodes: {},
    Error: `gpu-gate: ${sentence}`,
  });

export const encodePreemption = (victims: PreemptionArgs['victims']): string =>
  JSON.stringify({
    NodeNameToMetaVictims: Object.fromEntries(
      [...victims].map(([node, { uids, violations }]) => [
        node,
        { Pods: uids.map((UID) => ({ UID })), NumPDBViolations: violations },
      ]),
    ),
  });
