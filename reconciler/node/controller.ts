// Opted-in nodes: observe from the caches, plan, ask the limits across nodes, write, and count what was written.
import { selecting, type GpuPolicy } from '../../core/gpu-policy.ts';
import { PROOF, WALK } from '../../core/keys.ts';
import { isOurs, stateOf } from '../../gate/node-proof.ts';
import type { Component } from '../../core/stages.ts';
import type { Log } from '../../platform/log.ts';
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import type { Handlers, Turns } from '../key.ts';
import { SETTLE_MS, type Breaker } from '../limits/breaker.ts';
import type { Places } from '../limits/places.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import type { NodeObject } from '../model.ts';
import { parseWalk } from '../walk.ts';
import type { NodeInput, NodePlan } from './pass.ts';
import { planNode } from './plan.ts';
import { carryOut } from './writes.ts';

/** How long a node whose write met a later version waits for the watch to bring it, ms. */
const CATCH_UP_MS = 1000;

export interface NodeControllerDeps {
  readonly caches: Pick<Caches, 'nodes' | 'policies' | 'podsOn' | 'validationsOf' | 'fleet'>;
  readonly apply: Applier;
  readonly turns: Turns;
  readonly places: Places;
  readonly breaker: Breaker;
  readonly metrics: ReconcilerMetrics;
  readonly log: Log;
  readonly now: () => number;
  /** Newest revision of each component that the policy deploys. */
  readonly revisionsOf: (policy: GpuPolicy | undefined) => Readonly<Partial<Record<Component, string>>>;
  readonly operandNamespace: string;
  /** ms */
  readonly notReadyGrace: number;
}

export interface NodeController {
  readonly handlers: Pick<Handlers, 'node'>;
  /** Only the Node's version has changed. Is it one that a write waits for? */
  awaits(node: NodeObject): boolean;
  /** The Node is gone. */
  gone(name: string): void;
}

export function nodeController(deps: NodeControllerDeps): NodeController {
  const { caches, apply, turns, places, breaker, metrics, log, now } = deps;
  const { nodes, policies, fleet } = caches;
  /** resourceVersion of our last write: an older cached Node has yet to catch up. */
  const written = new Map<string, bigint>();
  /** resourceVersion that a write was refused at: the cache has yet to bring a later one, and is given until then, ms since the epoch. */
  const refused = new Map<string, { readonly at: string; readonly until: number }>();

  const isBehind = ({ metadata: { name, resourceVersion } }: NodeObject): boolean => {
    if (BigInt(resourceVersion) < (written.get(name) ?? 0n)) return true;
    const refusal = refused.get(name);
    return refusal?.at === resourceVersion && now() < refusal.until;
  };

  const invite = (policy: GpuPolicy | undefined): void => {
    if (policy === undefined) return;
    for (const name of places.invite(policy, fleet.count('managed', policy.name))) turns.add({ kind: 'node', name });
  };

  async function handle(name: string): Promise<void> {
    const node = nodes.get(name);
    if (node === undefined || isBehind(node)) return;
    const [policy, ...others] = selecting(node.metadata.labels ?? {}, [...policies.values()]);
    const slotFree = policy !== undefined && places.free(name, policy, fleet.count('managed', policy.name));
    const plan = judged(policy, {
      node,
      pods: [...caches.podsOn(name)],
      validationPods: caches.validationsOf(node),
      policy,
      conflicts: others.map((other) => other.name),
      revisions: deps.revisionsOf(policy),
      slotFree,
      keep: undefined,
      operandNamespace: deps.operandNamespace,
      notReadyGrace: deps.notReadyGrace,
      now: now(),
    });
    if (plan.holdsSlot && policy !== undefined) places.hold(name, policy.name);
    await write(node, plan);
    // Only now that it is written: otherwise the next one could be seen on its way before this one has ended.
    const freed = plan.holdsSlot ? undefined : places.release(name);
    if (policy !== undefined && !slotFree && wantsPlace(node)) places.wait(name, policy.name);
    invite(policy);
    if (freed !== undefined && freed !== policy?.name) invite(policies.get(freed));
    if (plan.wakeAt !== undefined) turns.addAfter({ kind: 'node', name }, Math.max(20, plan.wakeAt - now()));
  }

  /** The plan, or the milder one where the breaker does not let a proof go. */
  function judged(policy: GpuPolicy | undefined, input: NodeInput): NodePlan {
    const { name, annotations } = input.node.metadata;
    const plan = planNode(input);
    if (!plan.withdraws || policy === undefined) {
      if (breaker.calm(name, annotations?.[PROOF] !== undefined)) reportBreaker('over', input.policy?.name);
      return plan;
    }
    const proofs = fleet.count('proven', policy.name);
    const { keep, became } = breaker.judge(policy, name, proofs, input.now);
    if (became !== undefined) reportBreaker(became, policy.name);
    if (keep === undefined) metrics.withdrawals.inc();
    if (keep === 'loss being judged') turns.addAfter({ kind: 'node', name }, SETTLE_MS);
    return keep === undefined ? plan : planNode({ ...input, keep });
  }

  const reportBreaker = (what: 'tripped' | 'released' | 'over', policy?: string): void => {
    if (what === 'tripped') log.error('circuit breaker tripped: proofs are kept, nodes closed', { policy });
    else log.info(`circuit breaker ${what}`, { policy });
    turns.add({ kind: 'policies', name: '' });
  };

  async function write(node: NodeObject, { actions }: NodePlan): Promise<void> {
    const { name, resourceVersion } = node.metadata;
    const end = await carryOut(node, actions, {
      apply,
      wrote(action, version) {
        written.set(name, BigInt(version));
        if (action.kind === 'patch-node') observeWalk(node, action.annotations[WALK]);
      },
    });
    refused.delete(name);
    if (end === 'done') return;
    // Nothing of ours came through: what is cached is older than the Node.
    const isOld = (written.get(name) ?? 0n) <= BigInt(resourceVersion);
    if (isOld) refused.set(name, { at: resourceVersion, until: now() + CATCH_UP_MS });
    turns.addAfter({ kind: 'node', name }, isOld ? CATCH_UP_MS : 50);
  }

  /** Figures of the walk, taken from the difference of its memory before and after a write. */
  const observeWalk = (node: NodeObject, after: string | null | undefined): void => {
    if (after === undefined || after === null) return;
    const before = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid);
    const walk = parseWalk(after, node.metadata.uid);
    if (walk === undefined) return;
    if (before !== undefined && before.stage !== 'done' && before.stage !== walk.stage && before.boot === walk.boot) {
      metrics.stageSeconds.observe({ stage: before.stage }, (now() - Date.parse(before.since)) / 1000);
    }
    if (walk.failed !== undefined && walk.failed.at !== before?.failed?.at) {
      metrics.failures.inc({ stage: walk.failed.stage, reason: walk.failed.reason });
      log.info('stage failed', {
        node: node.metadata.name,
        stage: walk.failed.stage,
        reason: walk.failed.reason,
        message: walk.failed.message,
      });
    }
    if (walk.stage === 'done' && before?.stage !== 'done') {
      metrics.lastValidation.set(Math.round(now() / 1000));
      log.info('node validated', { node: node.metadata.name });
    }
  };

  return {
    handlers: { node: handle },
    awaits: ({ metadata: { name, resourceVersion } }) =>
      refused.has(name) || BigInt(resourceVersion) === written.get(name),
    gone(name) {
      written.delete(name);
      refused.delete(name);
      if (breaker.forget(name)) reportBreaker('over');
      const freed = places.release(name);
      if (freed !== undefined) invite(policies.get(freed));
    },
  };
}

/** Is it a node whose first walk has not begun, or has failed? */
const wantsPlace = (node: NodeObject): boolean =>
  isOurs(node) && ['preflight', 'failed', undefined].includes(stateOf(node));
