// What was lost since the last look, apart from pods: the node out of sight, NFD's label gone, all
// GPUs gone, the interval over.
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import type { Proof } from '../../gate/node-proof.ts';
import type { Rejection } from '../limits/rejections.ts';
import type { NodeObject } from '../model.ts';
import { isPublished, type Pool } from '../slices.ts';
import { DONE, type Walk } from '../walk.ts';
import { allocatable, hasPciLabel } from './findings.ts';

/** What is looked at. */
interface Seen {
  readonly node: NodeObject;
  readonly policy: GpuPolicy;
  /** ms since the epoch */
  readonly now: number;
  /** ms */
  readonly notReadyGrace: number;
  /** The node is silent among so many that its silence says nothing about it. */
  readonly isOverloaded?: boolean;
  readonly rejection?: Rejection | undefined;
  readonly pools?: readonly Pool[] | undefined;
}

/** Out of sight for so long that nobody knows what became of its stack. */
export const isOutOfSight = (
  { notReady }: Pick<Walk, 'notReady'>,
  { isOverloaded, now, notReadyGrace }: Pick<Seen, 'isOverloaded' | 'now' | 'notReadyGrace'>,
): boolean => notReady !== undefined && isOverloaded !== true && now - Date.parse(notReady) >= notReadyGrace;

/**
 * Rounds that passed before a loss prove nothing after it, nor do those of which the walk does not
 * know yet: `epoch` is part of a round. A loss counts once, because it forgets what has passed, or
 * is remembered as `hidden`.
 */
export function noteLosses(walk: Walk, input: Seen, proof: Proof | undefined, isIdle: boolean): Walk {
  const { node, now, policy } = input;
  const at = new Date(now).toISOString();
  const { notReady, labelGone, unselected: _, booted, hidden, ...rest } = walk;
  const isReady = node.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true;
  const isLabelled = hasPciLabel(node) || (walk.stage === 'preflight' && walk.proven === undefined);
  const since = isReady ? undefined : (notReady ?? at);
  const seen = booted !== undefined && isReady && notReady !== undefined ? at : booted;
  const { interval } = policy.spec.validation;
  const isOld =
    interval > 0 && walk.stage === DONE && isIdle && proof !== undefined && now - Date.parse(proof.at) >= interval;
  const { 'device-plugin-validation': plugin, 'dra-validation': dra, ...others } = walk.passed;
  const areGpusGone =
    (plugin !== undefined && Object.keys(allocatable(node, policy.spec.resources)).length === 0) ||
    (dra !== undefined && !isPublished(input.pools, policy.spec.deviceDrivers));
  const rejected = proof === undefined ? undefined : newRejection(input.rejection, proof, walk);
  const isHidden = since !== undefined && (hidden === true || isOutOfSight({ notReady: since }, input));
  const isAllLost = (isHidden && hidden !== true) || (isOld && Object.keys(walk.passed).length > 0);
  return {
    ...rest,
    ...(since === undefined ? {} : { notReady: since }),
    ...(isHidden ? { hidden: true as const } : {}),
    ...(isLabelled ? {} : { labelGone: labelGone ?? at }),
    ...(seen === undefined ? {} : { booted: seen }),
    ...(rejected === undefined ? {} : { rejected }),
    gpuEpoch: walk.gpuEpoch + (areGpusGone || rejected !== undefined ? 1 : 0),
    epoch: walk.epoch + (isAllLost ? 1 : 0),
    passed: isAllLost ? {} : areGpusGone || rejected !== undefined ? others : walk.passed,
  };
}

/**
 * Rejections count once, and only after the proof: what the kubelet rejected earlier was bound
 * before it.
 */
function newRejection(
  rejection: Rejection | undefined,
  proof: Proof,
  { rejected }: Walk,
): NonNullable<Walk['rejected']> | undefined {
  if (rejection === undefined) return undefined;
  const { at, count, words } = rejection;
  const isNews = at > Date.parse(proof.at) && at > (rejected === undefined ? -Infinity : Date.parse(rejected.at));
  return isNews ? { at: new Date(at).toISOString(), count, words } : undefined;
}
