// Out of our hands: a node that is opted out, or that no policy selects.
import type { DrainSpec } from '../../core/gpu-policy.ts';
import { MANAGED, NODE_POLICY, PROOF, STATE } from '../../core/keys.ts';
import { COMPONENTS, GATING, POD_COMPONENT, type Component } from '../../core/components.ts';
import { parseProof, type Proof } from '../../gate/node-proof.ts';
import type { Said } from '../../core/said.ts';
import type { Action } from '../actions.ts';
import { BREAKER, type Keep } from '../limits/breaker.ts';
import type { Walk } from '../walk.ts';
import { HELD, releaseCommand } from './desired.ts';
import { drainOf, evictionsOf } from './drain.ts';
import { misspeltOf, nodeEvent } from './events.ts';
import { isDriverAsProven } from './judge.ts';
import { isOutOfSight, noteLosses } from './losses.ts';
import { differences, type Desired } from './marks.ts';
import { deployedOn, type NodeObject } from '../model.ts';
import { componentPods, gpuUsers, iso, isOfNode, remembered, type NodeInput } from './observed.ts';
import { QUIET_MS } from './roll-out.ts';
import { NOTHING, type NodePlan } from './node-plan.ts';
import type { Target } from '../stack.ts';

/**
 * How long a policy that vanished is not believed to be gone, ms: its CRD may be changing, or a
 * label of the node flaps.
 */
const UNSELECTED_MS = 300_000;

const NO_POLICY = "no GPUPolicy selects this node: see 'kubectl get gpupolicies' and their spec.nodeSelector";

const NONE: Desired = {
  state: undefined,
  deploy: {},
  proof: undefined,
  closed: undefined,
  walk: undefined,
  policy: undefined,
  condition: undefined,
  taint: false,
};

/** Has the driver ended that the proof on the node is of? */
function isDriverLost(input: NodeInput, proof: Proof | undefined): boolean {
  const { node } = input;
  return (
    proof !== undefined &&
    proof.boot === node.status?.nodeInfo?.bootID &&
    !isDriverAsProven(input, remembered(node, input.now).target['driver'], proof)
  );
}

/** What the condition adds where the circuit breaker keeps a proof that was about to go. */
const saidOfKeep = (
  { node }: NodeInput,
  keep: Keep | undefined,
): { readonly text: string; readonly command?: string } => {
  const policy = node.metadata.annotations?.[NODE_POLICY];
  return keep !== BREAKER || policy === undefined ? { text: '' } : { text: HELD, command: releaseCommand(policy) };
};

/** What was proven and is still to run: a label that was taken away by hand comes back. */
const labelsOf = ({ components }: Proof, target: Target): Readonly<Partial<Record<Component, string>>> =>
  Object.fromEntries(
    GATING.flatMap((component) => {
      const choice = target[component];
      const isOurs =
        choice !== undefined && 'revision' in choice && components[component]?.revision === choice.revision;
      return isOurs ? [[component, choice.revision]] : [];
    }),
  );

/** No policy selects the node: it is closed, and torn down only when that has lasted. */
export function planUnselected(input: NodeInput): NodePlan {
  const { node, now } = input;
  const written = parseProof(node.metadata.annotations?.[PROOF]);
  if (written === undefined && Object.keys(deployedOn(node)).length === 0) return planRemoval(input, false);
  // Its pods leave for no roll-out any more, and its place has gone to another node.
  const { rollOut, ...rest } = remembered(node, now);
  const walk = rollOut?.phase === 'replace' ? { ...rest, rollOut } : rest;
  const since = walk.unselected ?? iso(now);
  const until = Date.parse(since) + UNSELECTED_MS;
  const isLost = isDriverLost(input, written);
  const hold = (closed: string, keep?: Keep): readonly Action[] => {
    const proof = isLost && keep === undefined ? undefined : written;
    const { text, ...command } = saidOfKeep(input, keep);
    const desired: Desired = {
      state: node.metadata.labels?.[STATE] ?? 'preflight',
      deploy: proof === undefined ? deployedOn(node) : { ...deployedOn(node), ...labelsOf(proof, walk.target) },
      proof,
      closed,
      walk: { ...walk, unselected: since },
      policy: node.metadata.annotations?.[NODE_POLICY],
      condition: {
        status: proof === undefined ? 'False' : 'True',
        reason: 'NoPolicy',
        said: {
          text: `${NO_POLICY}; what it runs is removed ${UNSELECTED_MS / 60_000} min after that${text}`,
          at: since,
          ...command,
        },
      },
      taint: false,
    };
    return differences(node, desired);
  };
  const unless = (keep: Keep): readonly Action[] => hold(keep, keep);
  if (now < until)
    return {
      ...NOTHING,
      actions: hold('no GPUPolicy selects this node'),
      wakeAt: until,
      ...(isLost ? { unless, withdraws: true } : {}),
    };
  const plan = planRemoval(input, false);
  const isWithdrawn = plan.actions.some((action) => action.kind === 'patch-node' && action.annotations[PROOF] === null);
  return isWithdrawn ? { ...plan, unless, withdraws: true } : plan;
}

/**
 * Opt-out: closed, its GPU pods leave as in a roll-out, torn down in reverse order, every mark of
 * ours gone. Where a policy went and not the operator's label (`isFinal` false) the node stays
 * ours, and says that no policy selects it.
 */
export function planRemoval(input: NodeInput, isFinal: boolean): NodePlan {
  const written = (keep?: Keep): Pick<Removal, 'actions' | 'wakeAt' | 'withdraws'> => {
    const { actions, ...rest } = removal(input, isFinal, keep);
    return { ...rest, actions: [...actions, ...reported(input, actions)] };
  };
  const { actions, wakeAt, withdraws } = written();
  const plan = { ...NOTHING, actions, wakeAt };
  return withdraws ? { ...plan, withdraws, unless: (keep) => written(keep).actions } : plan;
}

/** An Event for each change of state: begun, and gone. */
function reported({ node }: NodeInput, actions: readonly Action[]): Action[] {
  const before = node.metadata.labels?.[STATE];
  const after = actions.find((action) => action.kind === 'patch-node')?.labels[STATE];
  if (after === undefined || after === before) return [];
  const condition = actions.find((action) => action.kind === 'set-node-condition')?.condition;
  return [
    ...(after === null ? misspeltOf(node) : []),
    after === null
      ? nodeEvent(node, 'Normal', 'GPURemoved', 'opted out: nothing of gpu-gate is left on the node')
      : nodeEvent(node, 'Normal', condition?.reason ?? 'GPUStage', condition?.message ?? after),
  ];
}

/**
 * What happens to GPUs meanwhile is not looked at, so that no earlier round counts if the node
 * stays ours after all. Their pods may still be there, which is why later rounds get other names.
 */
const forgetful = (walk: Walk): Walk => ({
  ...walk,
  stage: 'preflight',
  passed: {},
  epoch: walk.epoch + (Object.keys(walk.passed).length > 0 ? 1 : 0),
});

const OPTING_OUT = 'opting out';

interface Removal {
  readonly actions: readonly Action[];
  readonly wakeAt: number | undefined;
  /** A proof goes though nobody took its driver down yet. */
  readonly withdraws: boolean;
}

function removal(input: NodeInput, isFinal: boolean, keep: Keep | undefined): Removal {
  const { node, now } = input;
  const deployed = deployedOn(node);
  const before = remembered(node, now);
  const leaving = before.leaving ?? iso(now);
  const { rollOut: _, skipped: __, ...kept } = { ...before, leaving };
  const marks = (text: string, extra: Partial<Desired> = {}): readonly Action[] =>
    differences(node, {
      ...NONE,
      state: 'removing',
      // Where no policy selects it any more, the one that had it is whose breaker is asked.
      policy: input.policy?.name ?? node.metadata.annotations?.[NODE_POLICY],
      deploy: deployed,
      closed: OPTING_OUT,
      // Opted in again, the node takes what the policy says then.
      walk: { ...forgetful(kept), ...(kept.proven === undefined ? {} : { renew: true as const }) },
      condition: { status: 'False', reason: 'Removing', said: { text } },
      ...extra,
    });
  const drain = drainOf({
    users: gpuUsers(input),
    spec: input.policy?.spec.upgrade.drain ?? WAIT,
    since: Math.max(Date.parse(leaving), input.watchedSince),
    now,
    isDriverTouched: true,
    optedOut: input.optedOut ?? new Set(),
    evictions: input.evictions ?? new Map(),
  });
  // Applies without a proof too. Removal must not take away operands that running pods depend on.
  const written = parseProof(node.metadata.annotations?.[PROOF]);
  const isLost = isDriverLost(input, written);
  const proof = isLost && keep === undefined ? undefined : written;
  const isProven = proof !== undefined;
  const isDrained = drain.awaited.length === 0 || (written === undefined && Object.keys(deployed).length === 0);
  // Without a policy it has been closed for long.
  const isQuiet = before.unselected === undefined;
  const quietAt = Date.parse(leaving) + QUIET_MS;
  if (!isDrained || (isProven && isQuiet && now < quietAt)) {
    const lost = input.policy === undefined ? kept : noteLosses(kept, { ...input, policy: input.policy }, proof, false);
    // What a roll-out had begun to take down is not whole any more.
    const isHidden = isOutOfSight(lost, input);
    const stays = isHidden && keep === undefined ? undefined : proof;
    const { text: held, ...release } = saidOfKeep(input, keep);
    const command = isFinal && drain.isExpired ? { command: optInCommand(node), ...release } : release;
    const text = `${OPTING_OUT}${drain.text === '' ? '' : `: ${drain.text}`}${drain.isExpired ? lateText(isFinal) : ''}${held}`;
    const said: Said = { text, ...command };
    const status = stays === undefined ? 'False' : 'True';
    return {
      actions: [
        // The walk stays as it is, so that a label that is put back finds it done.
        ...marks(text, {
          proof: stays,
          closed: keep ?? OPTING_OUT,
          walk: lost,
          condition: { status, reason: 'Removing', said },
        }),
        ...evictionsOf(drain, `node ${node.metadata.name} is opted out`),
      ],
      wakeAt: isDrained ? quietAt : drain.wakeAt,
      withdraws: isLost || (isHidden && isProven),
    };
  }
  return { actions: tearDown(input, isFinal, marks), wakeAt: undefined, withdraws: false };
}

const optInCommand = ({ metadata: { name } }: NodeObject): string =>
  `kubectl label node ${name} --overwrite ${MANAGED}=true`;
const WAIT: DrainSpec = { mode: 'Wait', timeout: 0 };
const lateText = (isOptOut: boolean): string =>
  `; upgrade.drain.timeoutSeconds is over, and nothing is taken from under these pods: end them${isOptOut ? ', or opt the node in again' : ''}`;

/** No one uses the node: component by component goes, the last one first. */
function tearDown(
  input: NodeInput,
  isFinal: boolean,
  marks: (text: string, extra?: Partial<Desired>) => readonly Action[],
): readonly Action[] {
  const { node } = input;
  const deployed = deployedOn(node);
  const last = COMPONENTS.findLast(
    (component) => deployed[component] !== undefined || componentPods(input, component).length > 0,
  );
  if (last !== undefined) {
    const { [last]: _, ...deploy } = deployed;
    return marks(`removing: waiting for the ${POD_COMPONENT[last]} pod to go`, { deploy });
  }
  const validations = [...input.validationPods.values()].filter((pod) => isOfNode(pod, node));
  if (validations.length > 0)
    return [
      ...marks('removing: waiting for validation pods to go'),
      ...validations
        .filter((pod) => !pod.deleting)
        .map((pod) => ({
          kind: 'delete-pod' as const,
          namespace: pod.namespace,
          name: pod.name,
          uid: pod.uid,
          because: 'the node was opted out',
        })),
    ];
  // The condition goes before the state label: while that label is there, the node is still ours
  // and this runs again.
  return isFinal
    ? differences(node, NONE).toSorted(conditionFirst)
    : differences(node, {
        ...NONE,
        state: 'preflight',
        condition: { status: 'False', reason: 'NoPolicy', said: { text: NO_POLICY } },
      });
}

const RANK: Partial<Record<Action['kind'], number>> = { 'set-node-condition': 0, 'set-taints': 1, 'patch-node': 2 };
const conditionFirst = (a: Action, b: Action): number => (RANK[a.kind] ?? 3) - (RANK[b.kind] ?? 3);
