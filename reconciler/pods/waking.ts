// Pods that wait for a node: reports what they wait for, and has the scheduler try them again where
// one could fit. Keeps the pods that wait by what they ask, so that no turn looks at every pod for
// every node.
import { WAKE } from '../../core/keys.ts';
import { askedOf, gpuKindsOf } from '../../gate/gpu-request.ts';
import { isOurs, open } from '../../gate/node-proof.ts';
import { namedNodes } from '../../gate/placement.ts';
import { askOf, policyNameOf } from '../../gate/verdict.ts';
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import type { Handlers, Turns } from '../key.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import { keyOf, type NodeObject, type PodObject } from '../model.ts';
import { nodesOnTheirWay } from './reports.ts';
import { couldFit, isUnschedulable, kindOf, nodesToWake } from './waiting.ts';

/** A pod hears of another reason after so long at first, then after twice as long each time, ms. */
const PATIENCE_MS = 30_000;
const MOST_PATIENCE_MS = 600_000;
/** So many nodes are looked at for a report, however many there are. */
const LOOKED = 200;

export interface WakingDeps {
  readonly caches: Pick<Caches, 'nodes' | 'policies' | 'podsOn' | 'fleet' | 'devices'>;
  readonly apply: Applier;
  readonly turns: Turns;
  readonly metrics: ReconcilerMetrics;
  readonly operandNamespace: string;
  readonly now: () => number;
}

export interface Waking {
  readonly handlers: Pick<Handlers, 'wake' | 'wake-any' | 'waiting'>;
  /** How many pods wait that may ask for a GPU. */
  readonly size: number;
  /** How many of them do. */
  readonly gpuPods: number;
  update(before: PodObject | undefined, after: PodObject | undefined): void;
}

interface Report {
  readonly text: string;
  /** ms since the epoch */
  readonly at: number;
  readonly count: number;
}

export function waking(deps: WakingDeps): Waking {
  const { apply, turns, metrics, operandNamespace, now } = deps;
  const { nodes, policies, podsOn, fleet, devices } = deps.caches;
  /** What a pod asks for → the pods that ask for it. */
  const groups = new Map<string, Map<string, PodObject>>();
  /** UID → the last report of each pod that waits. */
  const reports = new Map<string, Report>();
  let size = 0;

  const waits = (pod: PodObject | undefined): pod is PodObject =>
    pod !== undefined && pod.namespace !== operandNamespace && isUnschedulable(pod);
  /** One pod for each kind: what fits one fits the others. */
  const examples = (): readonly PodObject[] =>
    [...groups.values()].flatMap((group) => [...group.values()].slice(0, 1)).filter(asksForGpu);
  /** Other claims and other vendors' resources are not gpu-gate's to wake. */
  const asksForGpu = (pod: PodObject): boolean =>
    askedOf(pod.wants, gpuKindsOf(policies.get(policyNameOf(pod.wants))), devices).kind === 'gpus';

  /** A change of the Node makes the scheduler try again the pods that it was refused for. */
  async function wake(node: NodeObject): Promise<void> {
    const { name, uid } = node.metadata;
    const write = (value: string | null) =>
      apply.apply({ kind: 'patch-node', node: name, uid, labels: {}, annotations: { [WAKE]: value } });
    metrics.wakes.inc();
    await write(new Date(now()).toISOString());
    // An unmanaged node keeps no mark of ours; its removal is a change too.
    if (!isOurs(node)) await write(null);
  }

  async function wakeNode(name: string): Promise<void> {
    const node = nodes.get(name);
    if (node === undefined || !open(node).yes) return;
    if (examples().some((pod) => couldFit(pod, node, [...podsOn(name)], policies, devices))) await wake(node);
  }

  async function wakeAny(): Promise<void> {
    const waiting = examples();
    if (waiting.length === 0) return;
    for (const node of nodesToWake(waiting, [...nodes.values()], (name) => [...podsOn(name)], policies, devices))
      await wake(node);
  }

  /** What the pod waits for, in one sentence; `undefined` if that is not a node's stack. */
  function textFor({ wants, placement }: PodObject): string | undefined {
    const ask = askOf(wants, policies, devices);
    if (ask.kind === 'refuse') return `no node takes this pod: ${ask.detail}`;
    if (ask.kind !== 'gate') return undefined;
    const { name } = ask.policy;
    const named = placement === undefined ? undefined : namedNodes(placement);
    return nodesOnTheirWay(ask, placement, {
      onTheirWay: nodesOf(named ?? fleet.names('on its way', name)),
      others: named === undefined ? nodesOf(fleet.names('managed', name)) : [],
      count: named === undefined ? fleet.count('on its way', name) : 0,
      elsewhere: named === undefined && fleet.count('managed', name) === 0 ? ofOthers(name) : 0,
    });
  }
  function* nodesOf(names: Iterable<string>): Iterable<NodeObject> {
    let left = LOOKED;
    for (const name of names) {
      const node = nodes.get(name);
      if (node !== undefined) yield node;
      left -= 1;
      if (left === 0) return;
    }
  }
  const ofOthers = (policy: string): number =>
    [...policies.values()].reduce((sum, { name }) => sum + (name === policy ? 0 : fleet.count('managed', name)), 0);

  async function reportAll(): Promise<void> {
    /** By what a pod asks for and where it may go. */
    const texts = new Map<string, string | undefined>();
    let again = Infinity;
    for (const [kind, group] of groups)
      for (const pod of group.values()) {
        const last = reports.get(pod.uid);
        const due = last === undefined ? 0 : dueAfter(last);
        if (due > now()) {
          again = Math.min(again, due);
          continue;
        }
        const key = `${kind} ${JSON.stringify(pod.placement)}`;
        if (!texts.has(key)) texts.set(key, textFor(pod));
        const text = texts.get(key);
        if (text !== undefined && last?.text !== text) await report(pod, text, last);
      }
    if (again < Infinity) turns.addAfter({ kind: 'waiting', name: '' }, again - now());
  }

  async function report(pod: PodObject, text: string, last: Report | undefined): Promise<void> {
    reports.set(pod.uid, { text, at: now(), count: (last?.count ?? 0) + 1 });
    const { namespace, name, uid } = pod;
    const about = { kind: 'Pod', namespace, name, uid } as const;
    await apply.apply({ kind: 'event', about, type: 'Normal', reason: 'WaitingForGPUNode', message: text });
  }

  return {
    handlers: { wake: wakeNode, 'wake-any': wakeAny, waiting: reportAll },
    get size() {
      return size;
    },
    get gpuPods() {
      let count = 0;
      for (const group of groups.values()) {
        const [pod] = group.values();
        if (pod !== undefined && asksForGpu(pod)) count += group.size;
      }
      return count;
    },
    update(before, after) {
      if (waits(before)) {
        const group = groups.get(kindOf(before));
        if (group?.delete(keyOf(before)) === true) size -= 1;
        if (group?.size === 0) groups.delete(kindOf(before));
        if (!waits(after)) reports.delete(before.uid);
      }
      if (!waits(after)) return;
      const group = groups.get(kindOf(after)) ?? new Map<string, PodObject>();
      groups.set(kindOf(after), group.set(keyOf(after), after));
      size += 1;
    },
  };
}

/**
 * When a pod may hear another reason, ms since the epoch: while many nodes walk, the reason changes
 * every second.
 */
const dueAfter = ({ at, count }: Report): number => at + Math.min(MOST_PATIENCE_MS, PATIENCE_MS * 2 ** (count - 1));
