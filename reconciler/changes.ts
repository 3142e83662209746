// Which keys a change in the caches concerns, and which are due on take-over.
import { MANAGED, PROOF } from '../core/keys.ts';
import { isOurs, open, policyOf, stateOf, strayOf } from '../gate/node-proof.ts';
import { sameRules, type Caches, type Listener } from './caches.ts';
import type { Key, Turns } from './key.ts';
import { keyOf, type NodeObject } from './model.ts';

/**
 * How long counts of nodes are gathered before a policy's status is written, ms: longer by a little
 * for each node on its way, so that a wave of nodes does not write it once a second.
 */
const COUNTS_MS = 1000;
const COUNTS_EACH_MS = 20;
const COUNTS_MOST_MS = 10_000;

export interface ChangesDeps {
  readonly caches: Caches;
  readonly turns: Turns;
  readonly operandNamespace: string;
  /** How long after a node opened, or a policy changed, the scheduler is asked to try again, ms. */
  readonly wakeAfter: readonly number[];
  /** What the controllers remember of single objects. */
  readonly nodes: { gone(name: string): void; awaits(node: NodeObject): boolean };
  readonly pods: { forget(uid: string): void };
  readonly waking: { update: Listener['pod']; readonly size: number };
}

export interface Changes {
  readonly listener: Listener;
  /** Everything is due; `bound` are pods whose binding nobody saw, `namespace/name`. */
  takeOver(bound: Iterable<string>): void;
}

export function changes({ caches, turns, operandNamespace, wakeAfter, nodes, pods, waking }: ChangesDeps): Changes {
  const add = (kind: Key['kind'], name = ''): void => turns.add({ kind, name });
  const after = (ms: number, kind: Key['kind'], name = ''): void => turns.addAfter({ kind, name }, ms);
  const waiting = (): void => after(waking.size > 100 ? 10_000 : 500, 'waiting');
  const wakeLater = (kind: 'wake' | 'wake-any', name = ''): void => {
    for (const ms of wakeAfter) turns.addAfter({ kind, name, turn: ms }, ms);
  };
  const hasPools = (name: string): boolean => (caches.poolsOn(name) ?? []).length > 0;
  /** Every node that has DeviceTaintRules or may need them. */
  const taints = (): void => {
    for (const node of caches.nodes.values())
      if (isOurs(node) || hasPools(node.metadata.name)) add('device-taint', node.metadata.name);
    for (const name of caches.rules.nodes()) add('device-taint', name);
  };
  const countsAfter = (): number => {
    let onTheirWay = 0;
    for (const { name } of caches.policies.values()) onTheirWay += caches.fleet.count('on its way', name);
    return Math.min(COUNTS_MOST_MS, COUNTS_MS + onTheirWay * COUNTS_EACH_MS);
  };
  const readinessOn = (node: string): void => {
    for (const pod of caches.podsOn(node)) if (pod.gated) add('pod', keyOf(pod));
  };

  const listener: Listener = {
    node(name, before, now, marks) {
      if (now === undefined) nodes.gone(name);
      const ours = [before, now].some((node) => node !== undefined && isOurs(node));
      const stray = now === undefined ? undefined : strayOf(now);
      const isNewlyStray =
        stray !== undefined &&
        (before === undefined ||
          strayOf(before) !== stray ||
          now?.metadata.labels?.[MANAGED] !== before.metadata.labels?.[MANAGED]);
      if (ours || isNewlyStray) add('node', name);
      if (ours || hasPools(name)) add('device-taint', name);
      readinessOn(name);
      if (now !== undefined && open(now).yes && (before === undefined || !open(before).yes)) wakeLater('wake', name);
      // Nodes that drain open again where another one has failed.
      const node = now ?? before;
      const policy = node === undefined ? undefined : policyOf(node);
      if (marks.has('stopping') && policy !== undefined)
        for (const other of caches.fleet.names('rolling', policy)) add('node', other);
      if ((['led', 'runs', 'by claim'] as const).some((mark) => marks.has(mark))) after(50, 'operands');
      if (marks.size > 0) after(countsAfter(), 'policies');
      if (ours) waiting();
    },
    nodeVersion(node) {
      if (nodes.awaits(node)) add('node', node.metadata.name);
    },
    pod(before, now) {
      waking.update(before, now);
      // What the first lists bring is looked at on take-over.
      if (!caches.synced) return;
      const pod = now ?? before;
      if (pod === undefined) return;
      if (now === undefined) pods.forget(pod.uid);
      const node = pod.nodeName ?? (pod.validates === undefined ? undefined : caches.nodeNameOf(pod.validates));
      if (node !== undefined) add('node', node);
      if (now === undefined || pod.namespace === operandNamespace) return;
      add('pod', keyOf(pod));
      // Bound now, or made with `spec.nodeName`.
      if (now.nodeName !== undefined && before?.nodeName === undefined) add('bound', keyOf(pod));
      if (now.nodeName === undefined) waiting();
    },
    policy(before, now) {
      add('policies');
      // A canary is over: one node invites those that wait.
      if (now !== undefined && JSON.stringify(before?.status.rollOut) !== JSON.stringify(now.status.rollOut))
        for (const node of caches.fleet.names('settled', now.name)) {
          add('node', node);
          break;
        }
      if (sameRules(before, now)) return;
      add('operands');
      for (const node of caches.nodes.values()) if (isOurs(node)) add('node', node.metadata.name);
      taints();
      for (const pod of caches.pods.values()) if (pod.gated) add('pod', keyOf(pod));
      after(500, 'waiting');
      // The scheduler looks at no policy, and yet a pod that waits may fit now: suspended, allowed,
      // or the policy is gone.
      if (before?.generation !== now?.generation || before?.uid !== now?.uid) wakeLater('wake-any');
    },
    namespace(name) {
      for (const pod of caches.pods.values()) if (pod.namespace === name) add('pod', keyOf(pod));
    },
    daemonSet(before, now) {
      after(50, 'operands');
      // Pods are evidence by the UID of their DaemonSet, and may have been seen before it.
      const name = (now ?? before)?.name;
      if (before?.uid !== now?.uid && name !== undefined)
        for (const node of caches.fleet.names('runs', name)) add('node', node);
      // A roll-out waits for its DaemonSets: one node of each policy invites those that wait.
      if (before === undefined)
        for (const policy of caches.policies.values())
          for (const node of caches.fleet.names('settled', policy.name)) {
            add('node', node);
            break;
          }
    },
    otherRule(pool) {
      const named = caches.nodes.get(pool);
      // A pool may have another name than its node.
      for (const node of named === undefined ? caches.nodes.values() : [named])
        if (isOurs(node) && hasPools(node.metadata.name)) add('node', node.metadata.name);
    },
    slices(name) {
      add('device-taint', name);
      const node = caches.nodes.get(name);
      if (node !== undefined && isOurs(node)) add('node', name);
    },
    deviceClasses(isFirstOrLast) {
      after(50, 'operands');
      if (isFirstOrLast) taints();
    },
    claimTemplate(key) {
      if (!key.startsWith(`${operandNamespace}/`)) return;
      after(50, 'operands');
      for (const node of caches.nodes.values()) if (stateOf(node) === 'dra-validation') add('node', node.metadata.name);
    },
    rule(name) {
      add('device-taint', name);
      const node = caches.nodes.get(name);
      // Its validation may wait for the rule.
      if (node !== undefined && stateOf(node) === 'dra-validation') add('node', name);
    },
    rules() {
      taints();
      add('policies');
    },
    trouble({ kind, name }) {
      if (!caches.synced) return;
      if (kind === 'DaemonSet') for (const node of caches.fleet.names('walks', name)) add('node', node);
      const pod = kind === 'Pod' ? caches.pods.get(`${operandNamespace}/${name}`) : undefined;
      const node = pod?.nodeName ?? caches.nodeNameOf(pod?.validates ?? '');
      if (node !== undefined) add('node', node);
    },
  };

  return {
    listener,
    takeOver(bound) {
      for (const name of bound) add('bound', name);
      const ours = [...caches.nodes.values()].filter(isOurs);
      const unproven = (node: NodeObject): number => (node.metadata.annotations?.[PROOF] === undefined ? 1 : 0);
      // Proofs are checked before anything else.
      for (const node of ours.toSorted((a, b) => unproven(a) - unproven(b))) add('node', node.metadata.name);
      for (const node of caches.nodes.values()) if (strayOf(node) !== undefined) add('node', node.metadata.name);
      taints();
      add('operands');
      add('policies');
      for (const pod of caches.pods.values()) add('pod', keyOf(pod));
      add('wake-any');
      after(500, 'waiting');
    },
  };
}
