// The marks that a Node of ours carries, and the fewest writes that bring them there, in the safe
// order: what takes trust away is written first, what gives it last. Pure.
import {
  CLOSED,
  DEPLOY_PREFIX,
  GPU_VALIDATED,
  NODE_POLICY,
  PROOF,
  STARTUP_TAINT,
  STATE,
  WAKE,
  WALK,
} from '../../core/keys.ts';
import { canonical } from '../../core/digest.ts';
import type { Proof } from '../../gate/node-proof.ts';
import { COMPONENTS, type Component } from '../../core/components.ts';
import { withTimes, type Said } from '../../core/said.ts';
import type { Action, Condition } from '../actions.ts';
import { parseWalk, type Walk } from '../walk.ts';
import type { NodeObject, Taint } from '../model.ts';

/** The marks that a Node of ours should carry. */
export interface Desired {
  /** `undefined` if no mark of ours is to be left. */
  readonly state: string | undefined;
  readonly deploy: Readonly<Partial<Record<Component, string>>>;
  readonly proof: Proof | undefined;
  readonly closed: string | undefined;
  readonly walk: Walk | undefined;
  readonly policy: string | undefined;
  readonly condition: (Omit<Condition, 'type' | 'message'> & { readonly said: Said }) | undefined;
  readonly taint: boolean;
}

export const hasOurTaint = (node: NodeObject): boolean =>
  (node.spec?.taints ?? []).some((taint) => taint.key === STARTUP_TAINT);
export const withoutOurs = (node: NodeObject): readonly Taint[] =>
  (node.spec?.taints ?? []).filter((taint) => taint.key !== STARTUP_TAINT);
export const setTaints = (node: NodeObject, taints: readonly Taint[]): Action => ({
  kind: 'set-taints',
  node: node.metadata.name,
  uid: node.metadata.uid,
  resourceVersion: node.metadata.resourceVersion,
  taints,
});

/**
 * Desired marks → the fewest writes. Marks, taint on, condition, taint off: trust goes first and
 * comes last.
 */
export function differences(node: NodeObject, desired: Desired): Action[] {
  const actions: Action[] = [];
  const { name, uid } = node.metadata;
  const labels = changes(node.metadata.labels ?? {}, {
    [STATE]: desired.state,
    ...Object.fromEntries(COMPONENTS.map((component) => [DEPLOY_PREFIX + component, desired.deploy[component]])),
  });
  const annotations = changes(node.metadata.annotations ?? {}, {
    [PROOF]: desired.proof === undefined ? undefined : JSON.stringify(desired.proof),
    [CLOSED]: desired.closed,
    // The order of fields says nothing, and another order would be a write.
    [WALK]: desired.walk === undefined ? undefined : memoryOf(desired.walk, desired.condition?.said),
    [NODE_POLICY]: desired.policy,
    ...(desired.state === undefined ? { [WAKE]: undefined } : {}),
  });
  if (Object.keys(labels).length + Object.keys(annotations).length > 0)
    actions.push({ kind: 'patch-node', node: name, uid, labels, annotations });
  const tainted = hasOurTaint(node);
  if (desired.taint && !tainted)
    actions.push(setTaints(node, [...withoutOurs(node), { key: STARTUP_TAINT, effect: 'NoSchedule' }]));
  const present = node.status?.conditions?.find((c) => c.type === GPU_VALIDATED);
  const condition = conditionOf(desired);
  const isSame =
    condition === undefined
      ? present === undefined
      : present?.status === condition.status &&
        present.reason === condition.reason &&
        present.message === condition.message;
  if (!isSame) actions.push({ kind: 'set-node-condition', node: name, uid, type: GPU_VALIDATED, condition });
  if (!desired.taint && tainted) actions.push(setTaints(node, withoutOurs(node)));
  return actions;
}

/**
 * The walk, and what the condition says with its times apart, so that nobody parses that message.
 */
const memoryOf = (walk: Walk, said: Said | undefined): string => JSON.stringify(canonical({ ...walk, said }));

/**
 * Does the write leave the walk as it is, and change only what is said of it? Evidence that comes
 * first is seen again at every look, and is written with the next state at the latest.
 */
export function changesOnlySaid(node: NodeObject, mark: Action, walk: Walk | undefined): boolean {
  if (mark.kind !== 'patch-node' || walk === undefined || Object.keys(mark.labels).length > 0) return false;
  if (Object.keys(mark.annotations).some((key) => key !== WALK)) return false;
  const present = parseWalk(node.metadata.annotations?.[WALK], node.metadata.uid);
  if (present === undefined) return false;
  const known = Object.entries(walk.evidence).filter(([name]) => present.evidence[name] !== undefined);
  return memoryOf(present, undefined) === memoryOf({ ...walk, evidence: Object.fromEntries(known) }, undefined);
}

const conditionOf = ({ condition }: Desired): Condition | undefined =>
  condition === undefined
    ? undefined
    : {
        type: GPU_VALIDATED,
        status: condition.status,
        reason: condition.reason,
        message: withTimes(condition.said),
      };

/** Keys that differ; undefined in `wanted` means that the key must not be there. */
const changes = (
  present: Readonly<Record<string, string>>,
  wanted: Readonly<Record<string, string | undefined>>,
): Record<string, string | null> =>
  Object.fromEntries(
    Object.entries(wanted).flatMap(([key, value]) => (present[key] === value ? [] : [[key, value ?? null]])),
  );
