// Opted-in nodes: observe from the caches, plan, ask the limits across nodes, write, and count what
// was written.
import { selecting, type GpuPolicy } from '../../core/gpu-policy.ts';
import { PROOF } from '../../core/keys.ts';
import { isOurs, policyOf, stateOf } from '../../gate/node-proof.ts';
import { POD_COMPONENT, type Component } from '../../core/components.ts';
import { selectorsOf } from '../evidence.ts';
import { isSilent, rememberedBy } from '../fleet.ts';
import type { Log } from '../../platform/log.ts';
import { taintsDevices } from '../devices/rules.ts';
import type { Action, EvictPod } from '../actions.ts';
import type { Applier } from '../apply.ts';
import type { Caches } from '../caches.ts';
import type { Handlers, Turns } from '../key.ts';
import { SETTLE_MS, type Breaker } from '../limits/breaker.ts';
import type { Silence } from '../limits/silence.ts';
import type { Rejections } from '../limits/rejections.ts';
import { ROLL_OUT, shareOf, type Places } from '../limits/places.ts';
import type { ReconcilerMetrics } from '../metrics.ts';
import { deployedOn, keyOf, type DaemonSetView, type NodeObject } from '../model.ts';
import { changesAt, mostInTurn, windowAt, type WindowState } from '../roll-out-gate.ts';
import { stackIdOf, wantedTarget } from '../stack.ts';
import { DONE } from '../walk.ts';
import { EVICT_AGAIN_MS, type Eviction } from './drain.ts';
import type { NodePlan } from './node-plan.ts';
import type { NodeInput } from './observed.ts';
import { NO_PLACE } from './roll-out.ts';
import { planNode } from './plan.ts';
import { carryOut } from './writes.ts';

/** How long a node whose write met a later version waits for the watch to bring it, ms. */
const CATCH_UP_MS = 1000;
/**
 * How long the watch may take to bring what we wrote, ms: longer than a watch may be silent. A
 * cached version that is older for longer is of an etcd that was restored, and counts.
 */
const BEHIND_MS = 120_000;
/** How long a node whose evidence is being listed waits, ms. */
const LISTING_MS = 200;
/**
 * How long a report about a pod is believed, ms: kubelets and controllers repeat it while it holds.
 */
const TROUBLE_MS = 600_000;
const NO_EVICTIONS: ReadonlyMap<string, Eviction> = new Map();
/** When a refused pod is tried again, ms. */
const REFUSED_MS = 10_000;

export interface NodeControllerDeps {
  readonly caches: Pick<
    Caches,
    | 'nodes'
    | 'policies'
    | 'namespaces'
    | 'daemonSets'
    | 'podsOn'
    | 'validationsOf'
    | 'fleet'
    | 'troubleOf'
    | 'isWatched'
    | 'poolsOn'
    | 'isAllocated'
    | 'otherRules'
    | 'rules'
    | 'devices'
  >;
  readonly apply: Applier;
  readonly turns: Turns;
  /** For first walks. */
  readonly places: Places;
  /** For roll-outs. */
  readonly rollOuts: Places;
  readonly breaker: Breaker;
  readonly silence: Silence;
  readonly rejections: Rejections;
  readonly metrics: ReconcilerMetrics;
  readonly log: Log;
  readonly now: () => number;
  /** Newest revision of each component that the policy deploys. */
  readonly revisionsOf: (policy: GpuPolicy | undefined) => Readonly<Partial<Record<Component, string>>>;
  /** Name of the claim template for validation pods, once it is there. */
  readonly claimTemplateOf: (policy: GpuPolicy | undefined) => string | undefined;
  readonly operandNamespace: string;
  /** Namespaces whose pods the webhook never touches; nor are they evicted. */
  readonly excludedNamespaces: ReadonlySet<string>;
  /** ms */
  readonly notReadyGrace: number;
  /** Since when this leader looks at the cluster, by the clock of `now`. */
  readonly watchedSince: () => number;
}

export interface NodeController {
  readonly handlers: Pick<Handlers, 'node'>;
  /** Only the Node's version has changed. Is it one that a write waits for? */
  awaits(node: NodeObject): boolean;
  /** The Node is gone. */
  gone(name: string): void;
}

export function nodeController(deps: NodeControllerDeps): NodeController {
  const { caches, apply, turns, places, rollOuts, breaker, silence, metrics, log, now } = deps;
  const { nodes, policies, fleet } = caches;
  /**
   * resourceVersion of our last write, and until when an older cached Node has yet to catch up, ms
   * since the epoch.
   */
  const written = new Map<string, { readonly version: bigint; readonly until: number }>();
  /**
   * resourceVersion that a write was refused at: the cache has yet to bring a later one, and is
   * given until then, ms since the epoch.
   */
  const refused = new Map<string, { readonly at: string; readonly until: number }>();

  /**
   * Node → the validation pod that was made last, and until when the watch may take to bring it.
   */
  const created = new Map<string, { readonly pod: string; readonly until: number }>();
  /** Node → UID of a pod there → what became of the last try to evict it. */
  const evictions = new Map<string, Map<string, Eviction>>();
  /** Node → the pod that the API server refused last. */
  const refusedPods = new Map<string, { readonly pod: string; readonly because: string }>();

  const isBehind = ({ metadata: { name, resourceVersion } }: NodeObject): boolean => {
    const last = written.get(name);
    if (last !== undefined && BigInt(resourceVersion) < last.version && now() < last.until) {
      turns.addAfter({ kind: 'node', name }, last.until - now());
      return true;
    }
    const refusal = refused.get(name);
    return refusal?.at === resourceVersion && now() < refusal.until;
  };

  const invite = (policy: GpuPolicy | undefined): void => {
    if (policy === undefined) return;
    const isHalted =
      policy.spec.upgrade.paused || isStopped(policy) || !isRendered(policy) || windowOf(policy).kind !== 'open';
    for (const name of [
      ...places.invite(policy.name, mostOnTheirWay(policy)),
      // A node that is invited and may not begin would ask again at once.
      ...(isHalted ? [] : rollOuts.invite(policy.name, mostRollingOut(policy))),
    ])
      turns.add({ kind: 'node', name });
  };

  const mostOnTheirWay = ({ name, spec }: GpuPolicy): number =>
    shareOf(spec.bringUp.maxConcurrent, fleet.count('led', name));
  function mostRollingOut(policy: GpuPolicy): number {
    const { maxUnavailable, canary } = policy.spec.upgrade;
    const share = shareOf(maxUnavailable, fleet.count('managed', policy.name));
    if (canary.first === 0) return share;
    const stackId = stackIdOf(wantedTarget(policy, deps.revisionsOf(policy)));
    return mostInTurn(policy, stackId, fleet.count('stack', policy.name, stackId), share);
  }

  /** By policy: its window, from when until when, so that cron is not asked for every node. */
  const windows = new Map<string, { spec: unknown; from: number; until: number; state: WindowState }>();
  function windowOf({ name, spec: { upgrade } }: GpuPolicy): WindowState {
    const at = now();
    const known = windows.get(name);
    if (known !== undefined && known.spec === upgrade.window && known.from <= at && at < known.until)
      return known.state;
    const state = windowAt(upgrade.window, at);
    windows.set(name, { spec: upgrade.window, from: at, until: changesAt(state) ?? Infinity, state });
    return state;
  }

  const isRendered = (policy: GpuPolicy): boolean =>
    Object.entries(deps.revisionsOf(policy)).every(
      ([component, revision]) =>
        caches.daemonSets.get(`${deps.operandNamespace}/${POD_COMPONENT[component as Component]}-${revision}`)?.ours ===
        true,
    );
  const isStopped = (policy: GpuPolicy): boolean => fleet.count('stopping', policy.name) > 0;

  async function handle(name: string): Promise<void> {
    const node = nodes.get(name);
    if (node === undefined || isBehind(node)) return;
    const [policy, ...others] = selecting(node.metadata.labels ?? {}, [...policies.values()]);
    // Pods that are not listed yet must not be taken for pods that are gone.
    const selectors = [...rememberedBy(node), ...(policy === undefined ? [] : selectorsOf(policy))];
    if (!selectors.every((selector) => caches.isWatched(selector)))
      return turns.addAfter({ kind: 'node', name }, LISTING_MS);
    const slotFree = policy !== undefined && places.free(name, policy.name, mostOnTheirWay(policy));
    const plan = judged(policy, {
      node,
      pods: [...caches.podsOn(name)],
      validationPods: caches.validationsOf(node),
      policy,
      conflicts: others.map((other) => other.name),
      revisions: deps.revisionsOf(policy),
      daemonSets: new Map(ourDaemonSets(caches.daemonSets.values())),
      slotFree,
      operandNamespace: deps.operandNamespace,
      notReadyGrace: deps.notReadyGrace,
      now: now(),
      watchedSince: deps.watchedSince(),
      isOverloaded: isExcused(node, policy),
      pools: caches.poolsOn(name),
      isAllocated: caches.isAllocated,
      claimOf: (key) => caches.devices.claims.get(key),
      otherRules: caches.otherRules,
      ruledOut: taintsDevices(policy, caches.rules.served)
        ? new Set([...caches.rules.of(name)].map(({ device }) => device))
        : undefined,
      claimTemplate: deps.claimTemplateOf(policy),
      rejection: deps.rejections.reached(name),
      troubles: troublesOf(node),
      rollOut:
        policy === undefined
          ? NO_PLACE
          : {
              isFree: rollOuts.free(name, policy.name, mostRollingOut(policy)),
              isStopped: isStopped(policy),
              isRendered: isRendered(policy),
              isShut: windowOf(policy).kind !== 'open',
              changesAt: changesAt(windowOf(policy)),
            },
      optedOut: optedOutOn(name),
      evictions: evictionsOn(name),
    });
    if (plan.holdsSlot && policy !== undefined) places.hold(name, policy.name);
    if (plan.rollOut === 'holds' && policy !== undefined) rollOuts.hold(name, policy.name);
    await write(node, plan);
    // Only now that it is written: otherwise the next one could be seen on its way before this one
    // has ended.
    const freed = [
      plan.holdsSlot ? undefined : places.release(name),
      plan.rollOut === undefined && !hasJustMoved(plan) ? rollOuts.release(name) : undefined,
    ];
    if (policy !== undefined && !slotFree && wantsPlace(node)) places.wait(name, policy.name);
    if (policy !== undefined && plan.rollOut === 'waits') rollOuts.wait(name, policy.name);
    invite(policy);
    for (const other of freed) if (other !== undefined && other !== policy?.name) invite(policies.get(other));
    if (plan.wakeAt !== undefined) turns.addAfter({ kind: 'node', name }, Math.max(20, plan.wakeAt - now()));
  }

  /** Is the node silent among so many that its silence says nothing about it? */
  const isExcused = (node: NodeObject, policy: GpuPolicy | undefined): boolean => {
    if (policy === undefined) return false;
    const [silent, managed] = [fleet.count('silent', policy.name), fleet.count('managed', policy.name)];
    silence.note(policy, silent, managed, now());
    return isSilent(node) && silence.excuses(policy.name, deps.notReadyGrace, now());
  };

  /** What was reported lately of its pods and of the DaemonSets that it runs. */
  function troublesOf(node: NodeObject): ReadonlyMap<string, string> {
    const { name } = node.metadata;
    const daemonSets = Object.entries(deployedOn(node)).flatMap(([component, revision]) => {
      const named = `${deps.operandNamespace}/${POD_COMPONENT[component as Component]}-${revision}`;
      return caches.daemonSets.get(named)?.uid ?? [];
    });
    const pods = [...caches.podsOn(name), ...caches.validationsOf(node).values()].map(({ uid }) => uid);
    const recent = [...daemonSets, ...pods].flatMap((uid): [string, string][] => {
      const trouble = caches.troubleOf(uid);
      return trouble === undefined || now() - trouble.at > TROUBLE_MS ? [] : [[uid, trouble.message]];
    });
    const refusal = refusedPods.get(name);
    return new Map(
      refusal === undefined ? recent : [...recent, [refusal.pod, `refused by the API server: ${refusal.because}`]],
    );
  }

  /** Namespaces of pods on the node that are left alone. */
  function optedOutOn(name: string): ReadonlySet<string> {
    const { namespaces } = caches;
    const all = new Set<string>();
    for (const { namespace } of caches.podsOn(name))
      if (deps.excludedNamespaces.has(namespace) || namespaces.get(namespace)?.optedOut === true) all.add(namespace);
    return all;
  }

  /** What became of evictions of pods that are still there. */
  function evictionsOn(name: string): ReadonlyMap<string, Eviction> {
    const known = evictions.get(name);
    if (known === undefined) return NO_EVICTIONS;
    const present = new Set([...caches.podsOn(name)].map(({ uid }) => uid));
    for (const uid of known.keys()) if (!present.has(uid)) known.delete(uid);
    if (known.size === 0) evictions.delete(name);
    return new Map(known);
  }

  /** Remembered, so that no pod is evicted twice while its node is looked at again. */
  function noteEviction(name: string, { uid }: { readonly uid: string }, refusal?: string): void {
    const known = evictions.get(name) ?? new Map<string, Eviction>();
    const isNew = known.get(uid)?.refused !== refusal;
    const tried = { at: now(), ...(refusal === undefined ? {} : { refused: refusal }) };
    evictions.set(name, known.set(uid, tried));
    metrics.evictions.inc({ result: refusal === undefined ? 'done' : 'refused' });
    if (isNew && refusal !== undefined) turns.add({ kind: 'node', name });
    turns.addAfter({ kind: 'node', name }, EVICT_AGAIN_MS);
  }

  async function evicted(name: string, pod: EvictPod): Promise<void> {
    noteEviction(name, pod);
    log.info('evicted a GPU pod', { node: name, pod: keyOf(pod), because: pod.because });
    const { namespace, uid } = pod;
    await apply.apply({
      kind: 'event',
      about: { kind: 'Pod', namespace, name: pod.name, uid },
      type: 'Normal',
      reason: 'GPUPodEvicted',
      message: `evicted by gpu-gate: ${pod.because}`,
    });
  }

  /** The API server refused a pod: the node says so, and it is tried again later. */
  function podRefused(name: string, pod: string, because: string): void {
    const isNew = refusedPods.get(name)?.because !== because;
    refusedPods.set(name, { pod, because });
    if (isNew) turns.add({ kind: 'node', name });
    else turns.addAfter({ kind: 'node', name }, REFUSED_MS);
  }

  /** The plan, or the milder one where the breaker does not let a proof go. */
  function judged(policy: GpuPolicy | undefined, input: NodeInput): NodePlan {
    const { name, annotations } = input.node.metadata;
    const plan = planNode(input);
    // A node that no policy selects any more is judged by the one that had it.
    const judging = policy ?? policies.get(policyOf(input.node) ?? '');
    if (!plan.withdraws || judging === undefined) {
      if (breaker.calm(name, annotations?.[PROOF] !== undefined)) reportBreaker('over', judging?.name);
      return plan;
    }
    const proofs = fleet.count('proven', judging.name);
    const { keep, became } = breaker.judge(judging, name, proofs, input.now);
    if (became !== undefined) reportBreaker(became, judging.name);
    if (keep === undefined) metrics.withdrawals.inc();
    if (keep === 'loss being judged') turns.addAfter({ kind: 'node', name }, SETTLE_MS);
    return keep === undefined ? plan : { ...plan, actions: plan.unless?.(keep) ?? plan.actions };
  }

  const reportBreaker = (what: 'tripped' | 'released' | 'over', policy?: string): void => {
    if (what === 'tripped') log.error('circuit breaker tripped: proofs are kept, nodes closed', { policy });
    else log.info(`circuit breaker ${what}`, { policy });
    turns.add({ kind: 'policies', name: '' });
  };

  async function write(node: NodeObject, { actions, walked }: NodePlan): Promise<void> {
    const { name, resourceVersion } = node.metadata;
    const last = created.get(name);
    const isOnItsWay = (action: Action): boolean =>
      action.kind === 'create-pod' && action.manifest.metadata.name === last?.pod && now() < last.until;
    if (last !== undefined && actions.some(isOnItsWay))
      turns.addAfter({ kind: 'node', name }, Math.max(20, last.until - now()));
    const due = actions.filter((action) => !isOnItsWay(action));
    const end = await carryOut(node, due, {
      apply,
      created({ manifest }) {
        created.set(name, { pod: manifest.metadata.name, until: now() + CATCH_UP_MS });
      },
      wrote(action, version) {
        written.set(name, { version: BigInt(version), until: now() + BEHIND_MS });
        if (action.kind === 'patch-node' && walked !== undefined) count(name, walked);
      },
      refused(action, because) {
        if (action.kind === 'create-pod') podRefused(name, action.manifest.metadata.name, because);
        if (action.kind === 'evict-pod') noteEviction(name, action, because);
      },
      evicted: (pod) => evicted(name, pod),
    });
    refused.delete(name);
    if (end === 'done') return;
    // Nothing of ours came through: what is cached is older than the Node.
    const isOld = (written.get(name)?.version ?? 0n) <= BigInt(resourceVersion);
    if (isOld) refused.set(name, { at: resourceVersion, until: now() + CATCH_UP_MS });
    turns.addAfter({ kind: 'node', name }, isOld ? CATCH_UP_MS : 50);
  }

  /** Figures of the walk, once it is written. */
  const count = (node: string, { before, after }: NonNullable<NodePlan['walked']>): void => {
    if (before.stage !== DONE && before.stage !== after.stage && before.boot === after.boot)
      metrics.stageSeconds.observe({ stage: before.stage }, (now() - Date.parse(before.since)) / 1000);
    const { failed } = after;
    if (failed !== undefined && failed.at !== before.failed?.at) {
      const { stage, reason, message } = failed;
      metrics.failures.inc({ stage, reason });
      log.info('stage failed', { node, stage, reason, message });
    }
    if (after.stage === DONE && before.stage !== DONE) {
      metrics.lastValidation.set(Math.round(now() / 1000));
      log.info('node validated', { node });
    }
  };

  return {
    handlers: { node: handle },
    awaits: ({ metadata: { name, resourceVersion } }) =>
      refused.has(name) || BigInt(resourceVersion) === written.get(name)?.version,
    gone(name) {
      written.delete(name);
      refusedPods.delete(name);
      deps.rejections.forget(name);
      refused.delete(name);
      evictions.delete(name);
      created.delete(name);
      if (breaker.forget(name)) reportBreaker('over');
      for (const freed of [places.release(name), rollOuts.release(name)])
        if (freed !== undefined) invite(policies.get(freed));
    },
  };
}

/** Is it a node whose first walk has not begun, or has failed? */
const wantsPlace = (node: NodeObject): boolean =>
  isOurs(node) && ['preflight', 'failed', undefined].includes(stateOf(node));

/**
 * Its turn ends with this write. It keeps its place until the watch has brought the write, so that
 * the place and the node on the new stack are not both missing from a count.
 */
const hasJustMoved = ({ walked }: NodePlan): boolean => walked !== undefined && ROLL_OUT.holds(walked.before);

function* ourDaemonSets(all: Iterable<DaemonSetView>): Iterable<readonly [name: string, uid: string]> {
  for (const { ours, name, uid } of all) if (ours) yield [name, uid];
}
