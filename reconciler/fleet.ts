// What is asked of all nodes together, kept by before and after and never by a scan: every node has
// marks, and every mark has its nodes. Pure but for its memory.
import { selecting, type GpuPolicy, type Selector } from '../core/gpu-policy.ts';
import { PROOF, WALK } from '../core/keys.ts';
import { GATING, POD_COMPONENT, type Component } from '../core/components.ts';
import { amountOf } from '../core/quantity.ts';
import { isGpuResource } from '../gate/devices.ts';
import { isManaged, isOurs, open, parseProof, policyOf, serving, stateOf } from '../gate/node-proof.ts';
import { selectorId } from './evidence.ts';
import { deployedOn, type NodeObject } from './model.ts';
import { allocationOf, modesOf, stackIdOf } from './stack.ts';
import { DONE, parseWalk, type Walk } from './walk.ts';

/** A property that nodes share; the parts that follow narrow it down. */
export type Mark =
  /** Takes new GPU pods. */
  | readonly [kind: 'open']
  /** Of the policy by its annotation, in the state, until its release has ended. */
  | readonly [kind: 'state', policy: string, state: string]
  /** Of the policy by its annotation, until its release has ended. */
  | readonly [kind: 'of', policy: string]
  /** Opted in, and of the policy by its annotation. */
  | readonly [kind: 'managed', policy: string]
  /** Of the policy, with a proof. */
  | readonly [kind: 'proven', policy: string]
  /** Opted in, of the policy, and without word of its kubelet. */
  | readonly [kind: 'silent', policy: string]
  /** Opted in, of the policy, in some state, and not open. */
  | readonly [kind: 'on its way', policy: string]
  /** Opted in, and the policy is the first that selects it. */
  | readonly [kind: 'led', policy: string]
  /** Opted in, and selected by the policy among others. */
  | readonly [kind: 'selected', policy: string]
  /** Opted in, and selected by both policies. */
  | readonly [kind: 'conflict', policy: string, other: string]
  /** Keeps the policy from enforcing. */
  | readonly [kind: 'awaited', policy: string]
  /** Opted in, of the policy, and validated once. */
  | readonly [kind: 'settled', policy: string]
  /** The same, with components that these installers bring. */
  | readonly [kind: 'installed', policy: string, modes: string]
  /** Opted in, of the policy, validated once, with that stack and none other on its way. */
  | readonly [kind: 'stack', policy: string, stackId: string]
  /** The same, and validated on it now. */
  | readonly [kind: 'validated on', policy: string, stackId: string]
  /** Opted in, of the policy, and in its turn of a roll-out. */
  | readonly [kind: 'rolling', policy: string]
  /** The same, and failed on the new stack. */
  | readonly [kind: 'stopping', policy: string]
  /** Opted in, of the policy, and left out of a roll-out because its pods did not end in time. */
  | readonly [kind: 'left out', policy: string]
  /** Opted in, of the policy, and its GPUs reach pods by claims, or are to. */
  | readonly [kind: 'by claim', policy: string]
  /** Has devices that are left out, or that others have tainted. */
  | readonly [kind: 'devices']
  /** Runs, or is to run, that DaemonSet. */
  | readonly [kind: 'runs', daemonSet: string]
  /** The same, and the walk has not come to its end. */
  | readonly [kind: 'walks', daemonSet: string]
  /** Was validated with, or walks with, the pods of another installer that the selector means. */
  | readonly [kind: 'remembers', selectorId: string];

/** Is the kubelet's word of the node missing, as the node-lifecycle controller says it? */
export const isSilent = (node: NodeObject): boolean =>
  node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'Unknown') === true;

const offersGpus = (policy: GpuPolicy, node: NodeObject): boolean =>
  Object.entries(node.status?.allocatable ?? {}).some(
    ([name, amount]) => isGpuResource(name, policy.spec.resources) && amountOf(amount) > 0,
  );

/** Once is enough: a node whose proof was withdrawn since is not a new GPU node. */
const wasValidated = (node: NodeObject): boolean =>
  parseProof(node.metadata.annotations?.[PROOF]) !== undefined || walkOf(node)?.proven !== undefined;

/**
 * A node whose GPUs come from its walk offers them before its proof; it was not a GPU node, so it
 * holds nothing up.
 */
const isOnItsWay = (node: NodeObject): boolean =>
  isOurs(node) && ['device-plugin-validation', 'dra-validation'].includes(stateOf(node) ?? '');

/** Does the node keep a policy that selects it from enforcing? */
const holdsUp = (policy: GpuPolicy, node: NodeObject, hasSlices: boolean): boolean =>
  (hasSlices || offersGpus(policy, node)) && !wasValidated(node) && !isOnItsWay(node);

/** Selectors of other installers' pods that the node itself names, independent of the policies. */
export const rememberedBy = (node: NodeObject): readonly Selector[] => selectorsIn(walkOf(node));

const walkOf = ({ metadata }: NodeObject): Walk | undefined => parseWalk(metadata.annotations?.[WALK], metadata.uid);

function selectorsIn(walk: Walk | undefined): readonly Selector[] {
  const target = walk?.target ?? {};
  return GATING.flatMap((component) => {
    const choice = target[component];
    return choice === undefined || !('external' in choice) || choice.external === 'unwatched' ? [] : [choice.external];
  });
}

/** How the node stands to the stack of its policy. */
function inRollOut(policy: string, node: NodeObject, walk: Walk | undefined): readonly Mark[] {
  if (walk?.proven === undefined) return [];
  const { rollOut, skipped, target, stage } = walk;
  const stackId = stackIdOf(target);
  const isValidated = stage === DONE && rollOut === undefined && serving(node).yes;
  return [
    ['settled', policy],
    ['installed', policy, modesOf(target)],
    ...(rollOut?.phase === 'replace' ? [] : [['stack', policy, stackId] as const]),
    ...(isValidated ? [['validated on', policy, stackId] as const] : []),
    ...(rollOut === undefined ? [] : [['rolling', policy] as const]),
    ...(rollOut?.failed === undefined ? [] : [['stopping', policy] as const]),
    ...(skipped === undefined ? [] : [['left out', policy] as const]),
  ];
}

/** `hasSlices`: the node has GPUs by Dynamic Resource Allocation. */
export function marksOf(node: NodeObject, policies: readonly GpuPolicy[], hasSlices = false): readonly Mark[] {
  const labels = node.metadata.labels ?? {};
  const managed = isManaged(node);
  const ours = isOurs(node);
  const policy = policyOf(node) ?? '';
  const isOpen = open(node).yes;
  const selectedBy = selecting(labels, policies);
  const awaitedBy = selectedBy.filter((one) => holdsUp(one, node, hasSlices));
  const marks: Mark[] = awaitedBy.map(({ name }) => ['awaited', name]);
  const walk = walkOf(node);
  for (const selector of selectorsIn(walk)) marks.push(['remembers', selectorId(selector)]);
  if (isOpen) marks.push(['open']);
  if (walk?.leftOut !== undefined || walk?.tainted !== undefined) marks.push(['devices']);
  if (ours) {
    marks.push(['of', policy], ['state', policy, stateOf(node) ?? 'preflight']);
    if (node.metadata.annotations?.[PROOF] !== undefined) marks.push(['proven', policy]);
    for (const [component, revision] of Object.entries(deployedOn(node))) {
      const daemonSet = `${POD_COMPONENT[component as Component]}-${revision}`;
      marks.push(['runs', daemonSet]);
      if (!isOpen) marks.push(['walks', daemonSet]);
    }
  }
  if (!managed) return marks;
  marks.push(['managed', policy], ...inRollOut(policy, node, walk));
  if (walk !== undefined && allocationOf(walk.target) === 'DRA') marks.push(['by claim', policy]);
  if (isSilent(node)) marks.push(['silent', policy]);
  if (stateOf(node) !== undefined && !isOpen) marks.push(['on its way', policy]);
  for (const [i, { name }] of selectedBy.entries()) {
    marks.push(['selected', name]);
    if (i === 0) marks.push(['led', name]);
    for (const other of selectedBy) if (other.name !== name) marks.push(['conflict', name, other.name]);
  }
  return marks;
}

/** What a change of a node has changed in the fleet: marks that the node has now, or no longer. */
export type Changed = ReadonlySet<Mark[0]>;

export interface Fleet {
  /** A node has come, changed, or gone (`undefined`). */
  update(name: string, node: NodeObject | undefined): Changed;
  /**
   * A ResourceSlice has come, changed, or gone (`undefined`). Returns the nodes whose marks are to
   * be updated for it.
   */
  slice(name: string, node: string | undefined): readonly string[];
  /** Policies have changed: which of them select a node is looked at again for every node. */
  select(policies: readonly GpuPolicy[], nodes: Iterable<NodeObject>): void;
  count(...mark: Mark): number;
  /** Names of the nodes with the mark. */
  names(...mark: Mark): Iterable<string>;
  /** Selectors that nodes remember, each once. */
  remembered(): Iterable<Selector>;
  /** Every `state` mark that some node has, and how many have it. */
  states(): Iterable<{ readonly policy: string; readonly state: string; readonly count: number }>;
}

export function fleet(): Fleet {
  const nodesOf = new Map<string, { readonly mark: Mark; readonly names: Set<string> }>();
  const marks = new Map<string, ReadonlyMap<string, Mark>>();
  let policies: readonly GpuPolicy[] = [];
  /** ResourceSlice → its node, and the other way about. */
  const nodeOfSlice = new Map<string, string>();
  const slicesOf = new Map<string, Set<string>>();
  /** By their ID; those that a node still has a mark of. */
  const selectors = new Map<string, Selector>();
  // Names of policies and states have no space.
  const idOf = (mark: Mark): string => mark.join(' ');

  const update = (name: string, node: NodeObject | undefined): Changed => {
    const before = marks.get(name) ?? new Map<string, Mark>();
    const after = new Map(
      node === undefined ? [] : marksOf(node, policies, slicesOf.has(name)).map((mark) => [idOf(mark), mark] as const),
    );
    const changed = new Set<Mark[0]>();
    for (const [id, mark] of before) {
      if (after.has(id)) continue;
      changed.add(mark[0]);
      const { names } = nodesOf.get(id) ?? { names: new Set<string>() };
      names.delete(name);
      if (names.size > 0) continue;
      nodesOf.delete(id);
      if (mark[0] === 'remembers') selectors.delete(mark[1]);
    }
    for (const [id, mark] of after) {
      if (before.has(id)) continue;
      changed.add(mark[0]);
      const present = nodesOf.get(id);
      if (present === undefined) nodesOf.set(id, { mark, names: new Set([name]) });
      else present.names.add(name);
    }
    if (node !== undefined && changed.has('remembers'))
      for (const selector of rememberedBy(node)) selectors.set(selectorId(selector), selector);
    if (node === undefined) marks.delete(name);
    else marks.set(name, after);
    return changed;
  };

  const slice = (name: string, node: string | undefined): readonly string[] => {
    const before = nodeOfSlice.get(name);
    if (before === node) return [];
    if (before !== undefined) {
      const left = slicesOf.get(before);
      left?.delete(name);
      if (left?.size === 0) slicesOf.delete(before);
    }
    if (node === undefined) nodeOfSlice.delete(name);
    else {
      nodeOfSlice.set(name, node);
      slicesOf.set(node, (slicesOf.get(node) ?? new Set()).add(name));
    }
    return [before, node].filter((one) => one !== undefined);
  };

  return {
    update,
    slice,
    select(next, nodes) {
      policies = next;
      for (const node of nodes) update(node.metadata.name, node);
    },
    count: (...mark) => nodesOf.get(idOf(mark))?.names.size ?? 0,
    names: (...mark) => nodesOf.get(idOf(mark))?.names ?? [],
    remembered: () => selectors.values(),
    *states() {
      for (const { mark, names } of nodesOf.values())
        if (mark[0] === 'state') yield { policy: mark[1], state: mark[2], count: names.size };
    },
  };
}
