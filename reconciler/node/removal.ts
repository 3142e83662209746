// Out of our hands: a node that is opted out, or that no policy selects. Pure.
import { GPU_VALIDATED, PROOF, STATE, WALK } from '../../core/keys.ts';
import { parseProof } from '../../gate/node-proof.ts';
import { COMPONENTS, POD_COMPONENT, type Component } from '../../core/stages.ts';
import type { Action, Condition } from '../actions.ts';
import { componentPods } from './findings.ts';
import { newWalk, parseWalk } from '../walk.ts';
import { type Desired, differences } from './marks.ts';
import { type NodeInput, type NodePlan, NOTHING, gpuUsers, isOfNode } from './pass.ts';

const unassigned = (input: NodeInput): readonly Action[] =>
  differences(input.node, {
    state: 'preflight',
    deploy: {},
    proof: undefined,
    closed: undefined,
    walk: undefined,
    policy: undefined,
    condition: {
      type: GPU_VALIDATED,
      status: 'False',
      reason: 'NoPolicy',
      message: "no GPUPolicy selects this node: see 'kubectl get gpupolicies' and their spec.nodeSelector",
    },
    taint: false,
  });

/**
 * Opt-out: closed, the last GPU pod ends, torn down in reverse order, every mark of ours gone. Where a policy went and not the operator's
 * label (`final` false) the node stays ours, and says that no policy selects it.
 */
export function planRemoval(input: NodeInput, deployed: Partial<Record<Component, string>>, final: boolean): NodePlan {
  const plan = removal(input, deployed, final);
  return { ...plan, actions: [...plan.actions, ...told(input, plan.actions)] };
}

/** An Event for each change of state: begun, and gone. */
function told({ node }: NodeInput, actions: readonly Action[]): Action[] {
  const before = node.metadata.labels?.[STATE];
  const after = actions.find((action) => action.kind === 'patch-node')?.labels[STATE];
  if (after === undefined || after === before) return [];
  const about = { kind: 'Node' as const, name: node.metadata.name, uid: node.metadata.uid };
  const condition = actions.find((action) => action.kind === 'set-node-condition')?.condition;
  return [
    after === null
      ? {
          kind: 'event',
          about,
          type: 'Normal',
          reason: 'GPURemoved',
          message: 'opted out: nothing of gpu-gate is left on the node',
        }
      : {
          kind: 'event',
          about,
          type: 'Normal',
          reason: condition?.reason ?? 'GPUStage',
          message: condition?.message ?? after,
        },
  ];
}

function removal(input: NodeInput, deployed: Partial<Record<Component, string>>, final: boolean): NodePlan {
  const { node, now } = input;
  const walk = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid) ?? newWalk(node.metadata.uid, '', now);
  const proof = parseProof(node.metadata.annotations?.[PROOF]);
  const users = gpuUsers(input);
  const base = { policy: input.policy?.name, taint: false, state: 'removing' as const };
  const marks = (message: string, extra: Partial<Desired>): Desired => ({
    ...base,
    deploy: deployed,
    proof: undefined,
    closed: 'opting out',
    walk: { ...walk, stage: 'preflight', passed: {} },
    condition: { type: GPU_VALIDATED, status: 'False', reason: 'Removing', message },
    ...extra,
  });
  // Also where the proof is gone: what pods rest upon is not taken from under them.
  if (users.length > 0 && (proof !== undefined || Object.keys(deployed).length > 0)) {
    const names = users.slice(0, 3).map((pod) => `${pod.namespace}/${pod.name}`);
    const message = `opting out: waiting for ${users.length} GPU pod${users.length === 1 ? '' : 's'} to end (${names.join(', ')}${users.length > 3 ? ', …' : ''})`;
    const status = proof === undefined ? 'False' : 'True';
    const condition: Condition = { type: GPU_VALIDATED, status, reason: 'Removing', message };
    return { ...NOTHING, actions: differences(node, marks(message, { proof, condition })) };
  }
  for (const component of COMPONENTS.toReversed()) {
    if (deployed[component] !== undefined || componentPods(input.pods, component).length > 0) {
      const { [component]: _, ...rest } = deployed;
      return {
        ...NOTHING,
        actions: differences(
          node,
          marks(`removing: waiting for the ${POD_COMPONENT[component]} pod to go`, { deploy: rest }),
        ),
      };
    }
  }
  const validations = [...input.validationPods.values()].filter((pod) => isOfNode(pod, node));
  if (validations.length > 0) {
    const actions: Action[] = validations
      .filter((pod) => !pod.deleting)
      .map((pod) => ({
        kind: 'delete-pod',
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        because: 'the node was opted out',
      }));
    return {
      ...NOTHING,
      actions: [...differences(node, marks('removing: waiting for validation pods to go', { deploy: {} })), ...actions],
    };
  }
  const gone: Desired = {
    state: undefined,
    deploy: {},
    proof: undefined,
    closed: undefined,
    walk: undefined,
    policy: undefined,
    condition: undefined,
    taint: false,
  };
  // The condition goes before the state label: while that label is there, the node is still ours and this runs again.
  return {
    ...NOTHING,
    actions: final ? differences(node, gone).toSorted(conditionFirst) : unassigned(input),
  };
}

const RANK: Partial<Record<Action['kind'], number>> = { 'set-node-condition': 0, 'set-taints': 1, 'patch-node': 2 };
const conditionFirst = (a: Action, b: Action): number => (RANK[a.kind] ?? 3) - (RANK[b.kind] ?? 3);
