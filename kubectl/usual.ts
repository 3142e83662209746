// How long each stage of a walk takes, and usually takes: the median of what the nodes of one
// GPUPolicy took when they passed it last. Pure.
import { WALK } from '../core/keys.ts';
import { object, type Raw } from '../core/raw.ts';
import { STAGES, type Stage } from '../core/stages.ts';
import { policyOf, type NodeView } from '../gate/node-proof.ts';

/** ms */
export type StageTimes = Readonly<Partial<Record<Stage, number>>>;

/** The memory of this Node object's walk; empty if it has none that can be read. */
function memoryOf(node: NodeView): Raw {
  try {
    const walk = object(JSON.parse(node.metadata.annotations?.[WALK] ?? ''));
    return walk['node'] === node.metadata.uid ? walk : {};
  } catch {
    return {};
  }
}

/** How long each stage took on this node when it was passed last. */
export function tookOf(node: NodeView): StageTimes {
  const took = object(memoryOf(node)['tookMs']);
  return Object.fromEntries(
    STAGES.flatMap((stage) => {
      const ms = took[stage];
      return typeof ms === 'number' && Number.isFinite(ms) && ms >= 0 ? [[stage, ms]] : [];
    }),
  );
}

const OF_PLUGIN: readonly Stage[] = ['device-plugin', 'device-plugin-validation'];
const OF_DRA: readonly Stage[] = ['dra-driver', 'dra-validation'];

/** The stages that this node goes through: GPUs reach pods in one way on a node. */
export function stagesOf(node: NodeView): readonly Stage[] {
  const others = object(memoryOf(node)['target'])['dra-driver'] === undefined ? OF_DRA : OF_PLUGIN;
  return STAGES.filter((stage) => !others.includes(stage));
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const low = sorted[Math.ceil(sorted.length / 2) - 1] ?? 0;
  const high = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return (low + high) / 2;
}

/** Usual times by GPUPolicy: the nodes of one run the same stack. */
export type UsualTimes = Readonly<Record<string, StageTimes>>;

export function usualTimes(nodes: readonly NodeView[]): UsualTimes {
  const all = new Map<string, Map<string, number[]>>();
  for (const node of nodes) {
    const policy = policyOf(node) ?? '';
    const stages = all.get(policy) ?? new Map<string, number[]>();
    all.set(policy, stages);
    for (const [stage, ms] of Object.entries(tookOf(node))) {
      const times = stages.get(stage);
      if (times === undefined) stages.set(stage, [ms]);
      else times.push(ms);
    }
  }
  return Object.fromEntries(
    [...all].map(([policy, stages]) => [
      policy,
      Object.fromEntries([...stages].map(([stage, times]) => [stage, median(times)])),
    ]),
  );
}

/** One stage of a node's walk. */
export interface Step {
  readonly stage: Stage;
  readonly how: 'passed' | 'now' | 'failed' | 'to come';
  /** ms; absent if it is not passed, or if no clock ran. */
  readonly tookMs?: number;
  /** ms; absent if no node of this policy has passed the stage with a clock running. */
  readonly usualMs?: number;
}

/**
 * A node's walk through these stages. `at`: where it stands; `undefined` if all are passed.
 */
export function timelineOf(
  stages: readonly Stage[],
  at: Stage | undefined,
  hasFailed: boolean,
  took: StageTimes,
  usual: StageTimes,
): readonly Step[] {
  const place = at === undefined ? stages.length : stages.indexOf(at);
  return stages.map((stage, index) => {
    const how = index < place ? 'passed' : index > place ? 'to come' : hasFailed ? 'failed' : 'now';
    return {
      stage,
      how,
      ...(how !== 'passed' || took[stage] === undefined ? {} : { tookMs: took[stage] }),
      ...(usual[stage] === undefined ? {} : { usualMs: usual[stage] }),
    };
  });
}
