// Is a node's GPU stack proven, and may new GPU pods come? Decided from the Node object alone, here
// and nowhere else; verdict.ts adds what the pod asks.
import { CLOSED, GPU_VALIDATED, HOLD, MANAGED, NODE_POLICY, PROOF, STARTUP_TAINT, STATE, WALK } from '../core/keys.ts';
import { isLevel, type Level } from '../core/levels.ts';
import { isObject, object } from '../core/raw.ts';
import { readSaid, type Said } from '../core/said.ts';
import { isState, STAGES, type Stage, type State } from '../core/stages.ts';
import { nodeClosed, notValidated, REASONS, stackFailed, type Reason } from './reasons.ts';

/** What of a Node the gate looks at; Kubernetes' own JSON shape, so that raw objects fit. */
export interface NodeView {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: {
    readonly unschedulable?: boolean;
    readonly taints?: readonly { readonly key: string; readonly value?: string; readonly effect: string }[];
  };
  readonly status?: {
    readonly nodeInfo?: { readonly bootID?: string };
    readonly capacity?: Readonly<Record<string, string>>;
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason?: string;
      readonly message?: string;
      readonly lastTransitionTime?: string;
    }[];
  };
}

/** Evidence of one component at the time of the proof. */
export interface ComponentEvidence {
  readonly revision: string;
  /** UID of the operand's pod. */
  readonly pod: string;
  /** RFC 3339 start of its newest container: a UID survives a restart, this does not. */
  readonly started: string;
}

/**
 * The annotation `gpu-gate.dev/proof`: which stack was proven, on which boot of which node object.
 */
export interface Proof {
  readonly node: string;
  readonly boot: string;
  /** RFC 3339, when the level was proven. */
  readonly at: string;
  readonly level: Level;
  /** RFC 3339, when the driver validation passed again, if that was later than `at`. */
  readonly driverAt?: string;
  readonly driver?: string;
  readonly cuda?: string;
  readonly components: Readonly<Record<string, ComponentEvidence>>;
}

const isEvidence = (value: unknown): value is ComponentEvidence =>
  isObject(value) && ['revision', 'pod', 'started'].every((key) => typeof value[key] === 'string');

type Written = Omit<Proof, 'components' | 'level'> & Partial<Proof>;
const isProof = (value: unknown): value is Written =>
  isObject(value) &&
  ['node', 'boot', 'at'].every((key) => typeof value[key] === 'string') &&
  (value['level'] === undefined || isLevel(value['level'])) &&
  ['driver', 'cuda', 'driverAt'].every((key) => value[key] === undefined || typeof value[key] === 'string') &&
  (value['components'] === undefined ||
    (isObject(value['components']) && Object.values(value['components']).every(isEvidence)));

/**
 * Parses the proof annotation; `undefined` if there is none, or if any part of it is malformed.
 * Every writer of Nodes can write anything here, and the request path must survive it.
 */
export function parseProof(text: string | undefined): Proof | undefined {
  if (text === undefined || text === '') return undefined;
  try {
    const value: unknown = JSON.parse(text);
    // An older version wrote a proof after both validations, or closed the node until then.
    return isProof(value) ? { ...value, level: value.level ?? 'full', components: value.components ?? {} } : undefined;
  } catch {
    return undefined;
  }
}

/** When the newest of their proofs was written, ms since the epoch; 0 if none has one. */
export const newestProof = (nodes: Iterable<NodeView>): number =>
  Math.max(0, ...[...nodes].map((node) => Date.parse(parseProof(annotation(node, PROOF))?.at ?? '') || 0));

const label = (node: NodeView, key: string): string | undefined => node.metadata.labels?.[key];
const annotation = (node: NodeView, key: string): string | undefined => node.metadata.annotations?.[key];
const condition = (node: NodeView, type: string) => node.status?.conditions?.find((c) => c.type === type);

/** Opted in by an operator's label. */
export const isManaged = (node: NodeView): boolean => label(node, MANAGED) === 'true';

/** Is it meant to be opted in, in a spelling that does not count? */
export const isMisspelt = (node: NodeView): boolean =>
  !isManaged(node) && /^(true|yes|y|t|on|1|enabled?)$/i.test(label(node, MANAGED) ?? '');

/** A node is ours while it is opted in, and until its tear-down has ended. */
export const isOurs = (node: NodeView): boolean => isManaged(node) || label(node, STATE) !== undefined;

/**
 * What shows that a node that is not ours is meant to be opted in: a label in a spelling that does
 * not count, or the startup taint of its template, which nothing takes away from such a node.
 */
export const strayOf = (node: NodeView): 'label' | 'taint' | undefined =>
  isOurs(node)
    ? undefined
    : isMisspelt(node)
      ? 'label'
      : node.spec?.taints?.some(({ key }) => key === STARTUP_TAINT) === true
        ? 'taint'
        : undefined;

/** The state label, where it holds a state. */
export const stateOf = (node: NodeView): State | undefined => {
  const value = label(node, STATE);
  return isState(value) ? value : undefined;
};

/** The GPUPolicy that has this node, as the reconciler wrote it. */
export const policyOf = (node: NodeView): string | undefined => annotation(node, NODE_POLICY);

/** A yes, or the first reason against it. */
export type Answer = { readonly yes: true; readonly proof: Proof } | { readonly yes: false; readonly because: Reason };

const no = (because: Reason): Answer => ({ yes: false, because });

const walking = (node: NodeView): Reason => {
  const state = stateOf(node);
  return state === 'failed' ? stackFailed(walkOf(node)?.failed) : notValidated(state);
};

/** Are pods that already run there fine? */
export function serving(node: NodeView): Answer {
  if (!isOurs(node)) return no(REASONS.notOptedIn);
  const proof = parseProof(annotation(node, PROOF));
  if (proof === undefined) return no(walking(node));
  const boot = node.status?.nodeInfo?.bootID ?? '';
  if (proof.node !== node.metadata.uid) return no(REASONS.replaced);
  if (boot === '' || proof.boot !== boot) return no(REASONS.rebooted);
  if (condition(node, GPU_VALIDATED)?.status !== 'True') return no(walking(node));
  if (condition(node, 'Ready')?.status !== 'True') return no(REASONS.notReady);
  return { yes: true, proof };
}

/** May new GPU pods come? */
export function open(node: NodeView): Answer {
  const answer = serving(node);
  if (!answer.yes) return answer;
  const closed = annotation(node, CLOSED);
  if (closed !== undefined) return no(nodeClosed(closed));
  if (annotation(node, HOLD) !== undefined) return no(REASONS.held);
  if (node.spec?.unschedulable === true) return no(REASONS.cordoned);
  return answer;
}

/** What the gate reads of the walk's memory, the annotation `gpu-gate.dev/walk`. */
export interface WalkView {
  readonly stage: Stage | 'done';
  /** RFC 3339, since when the walk is at that stage. */
  readonly since: string | undefined;
  /** The stage that failed; `undefined` if none has. */
  readonly failed: Stage | undefined;
  /**
   * What the node's condition says, its times apart; `undefined` if the reconciler did not write
   * it.
   */
  readonly said: Said | undefined;
  /** What is said of single devices, by driver, pool and name. */
  readonly devices: Readonly<Record<string, string>>;
}

/** The walk of this Node object; `undefined` if it has none, or the annotation cannot be read. */
export function walkOf(node: NodeView): WalkView | undefined {
  try {
    const walk: unknown = JSON.parse(annotation(node, WALK) ?? '');
    if (!isObject(walk) || walk['node'] !== node.metadata.uid) return undefined;
    const stage = walk['stage'] === 'done' ? 'done' : stageIn(walk['stage']);
    if (stage === undefined) return undefined;
    return {
      stage,
      since: typeof walk['since'] === 'string' ? walk['since'] : undefined,
      failed: stageIn(object(walk['failed'])['stage']),
      said: readSaid(walk['said']),
      devices: devicesIn(walk['leftOut'], walk['tainted']),
    };
  } catch {
    return undefined;
  }
}

const devicesIn = (leftOut: unknown, tainted: unknown): Readonly<Record<string, string>> => ({
  ...Object.fromEntries(
    Object.entries(object(tainted)).flatMap(([id, taints]) =>
      typeof taints === 'string' ? [[id, `has the taint ${taints}`]] : [],
    ),
  ),
  ...Object.fromEntries(
    Object.entries(object(leftOut)).flatMap(([id, one]) => {
      const { because } = object(one);
      return typeof because === 'string' ? [[id, `is left out: ${because}`]] : [];
    }),
  ),
});

const stageIn = (value: unknown): Stage | undefined => STAGES.find((stage) => stage === value);

/** Since when the walk has been at its stage, RFC 3339; `undefined` if none is under way. */
export function walkingSince(node: NodeView): string | undefined {
  const walk = walkOf(node);
  return walk?.stage === 'done' ? undefined : walk?.since;
}

/**
 * Since when the node has been refused for this reason, or open (`undefined`), RFC 3339; empty if
 * it does not say.
 */
export function sinceOf(node: NodeView, reason: Reason | undefined): string {
  switch (reason?.since ?? 'proof') {
    case 'proof':
      return parseProof(annotation(node, PROOF))?.at ?? '';
    case 'ready':
      return condition(node, 'Ready')?.lastTransitionTime ?? '';
    case 'walk':
      return walkingSince(node) ?? '';
    case 'none':
      return '';
  }
}
