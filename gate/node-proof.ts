// Is a node's GPU stack proven, and may new GPU pods come? The one place that decides it: extender, readiness
// condition, `explain` and metrics all ask here, about the Node object alone, so that no two can disagree.
import { isObject } from '../core/raw.ts';
import { CLOSED, GPU_VALIDATED, HOLD, MANAGED, NODE_POLICY, PROOF, STATE, WALK } from '../core/keys.ts';
import { isState, type State } from '../core/stages.ts';

/** What of a Node the gate looks at; Kubernetes' own JSON shape, so that raw objects fit. */
export interface NodeView {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: { readonly unschedulable?: boolean };
  readonly status?: {
    readonly nodeInfo?: { readonly bootID?: string };
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

/** The annotation `gpu-gate.dev/proof`: which stack was proven, on which boot of which node object. */
export interface Proof {
  readonly node: string;
  readonly boot: string;
  readonly at: string;
  readonly driver?: string;
  readonly cuda?: string;
  readonly components: Readonly<Record<string, ComponentEvidence>>;
}

const isEvidence = (value: unknown): value is ComponentEvidence =>
  isObject(value) && ['revision', 'pod', 'started'].every((key) => typeof value[key] === 'string');

const isProof = (value: unknown): value is Omit<Proof, 'components'> & Partial<Proof> =>
  isObject(value) &&
  ['node', 'boot', 'at'].every((key) => typeof value[key] === 'string') &&
  ['driver', 'cuda'].every((key) => value[key] === undefined || typeof value[key] === 'string') &&
  (value['components'] === undefined ||
    (isObject(value['components']) && Object.values(value['components']).every(isEvidence)));

/**
 * Parses the proof annotation; undefined where there is none or it is not one in every part (which proves nothing): whoever can write Nodes
 * can write anything here, and the request path must not fall over it.
 */
export function parseProof(text: string | undefined): Proof | undefined {
  if (text === undefined || text === '') return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isProof(value) ? { ...value, components: value.components ?? {} } : undefined;
  } catch {
    return undefined;
  }
}

/** When the newest of their proofs was written, ms since the epoch; 0: none has one. */
export const newestProof = (nodes: Iterable<NodeView>): number =>
  Math.max(0, ...[...nodes].map((node) => Date.parse(parseProof(annotation(node, PROOF))?.at ?? '') || 0));

const label = (node: NodeView, key: string): string | undefined => node.metadata.labels?.[key];
const annotation = (node: NodeView, key: string): string | undefined => node.metadata.annotations?.[key];
const condition = (node: NodeView, type: string) => node.status?.conditions?.find((c) => c.type === type);

/** Opted in by an operator's label. */
export const isManaged = (node: NodeView): boolean => label(node, MANAGED) === 'true';

/** A node is ours while it is opted in, and until its tear-down has ended. */
export const isOurs = (node: NodeView): boolean => isManaged(node) || label(node, STATE) !== undefined;

/** The state label, where it holds a state. */
export const stateOf = (node: NodeView): State | undefined => {
  const value = label(node, STATE);
  return isState(value) ? value : undefined;
};

/** The GPUPolicy that has this node, as the reconciler wrote it. */
export const policyOf = (node: NodeView): string | undefined => annotation(node, NODE_POLICY);

/** A yes, or the first reason against it: short, the same text for every node in that situation (reasons are counted by text). */
export type Answer = { readonly yes: true; readonly proof: Proof } | { readonly yes: false; readonly because: string };

const no = (because: string): Answer => ({ yes: false, because });

const walking = (node: NodeView): string => {
  const state = stateOf(node);
  const reason = condition(node, GPU_VALIDATED)?.reason ?? '';
  if (state === 'failed') return `GPU stack failed: ${stageOfReason(reason)}`;
  return `GPU stack not validated: ${state === undefined || state === 'validated' ? 'walk not started' : state}`;
};

/** Failure reasons are written as `<Stage>Failed…` in CamelCase by the reconciler; the stage is what users know. */
export const stageOfReason = (reason: string): string => {
  const match = /^([A-Z][A-Za-z]*?)Failed/.exec(reason);
  return match?.[1] === undefined
    ? 'see node condition GPUValidated'
    : match[1].replace(/(?<!^)([A-Z])/g, '-$1').toLowerCase();
};

/** Reasons that several ask for by name: the same text for every node in that situation. */
export const NODE_NOT_READY = 'node not Ready';
export const NODE_REBOOTED = 'node rebooted since validation';
export const NODE_REPLACED = 'GPU proof is of another node object';
export const NODE_HELD = 'GPU node held by an operator';
export const NODE_CORDONED = 'node cordoned';

/** Are pods that already run there fine? Source: design section 3. */
export function serving(node: NodeView): Answer {
  if (!isOurs(node)) return no('node not opted in');
  const proof = parseProof(annotation(node, PROOF));
  if (proof === undefined) return no(walking(node));
  const boot = node.status?.nodeInfo?.bootID ?? '';
  if (proof.node !== node.metadata.uid) return no(NODE_REPLACED);
  if (boot === '' || proof.boot !== boot) return no(NODE_REBOOTED);
  if (condition(node, GPU_VALIDATED)?.status !== 'True') return no(walking(node));
  if (condition(node, 'Ready')?.status !== 'True') return no(NODE_NOT_READY);
  return { yes: true, proof };
}

/** Since when the walk has been at the stage where it is, RFC 3339, as the reconciler remembers it; undefined where none goes on. */
export function walkingSince(node: NodeView): string | undefined {
  try {
    const walk: unknown = JSON.parse(annotation(node, WALK) ?? '');
    const goesOn = isObject(walk) && walk['node'] === node.metadata.uid && walk['stage'] !== 'done';
    return goesOn && typeof walk['since'] === 'string' ? walk['since'] : undefined;
  } catch {
    return undefined;
  }
}

/** May new GPU pods come? */
export function open(node: NodeView): Answer {
  const answer = serving(node);
  if (!answer.yes) return answer;
  const closed = annotation(node, CLOSED);
  if (closed !== undefined) return no(`GPU node closed: ${closed}`);
  if (annotation(node, HOLD) !== undefined) return no(NODE_HELD);
  if (node.spec?.unschedulable === true) return no(NODE_CORDONED);
  return answer;
}
