// The walk's memory on the Node itself, so that a restart or another leader continues where the
// previous leader stopped. Any client that can write Nodes can write anything here, so each field
// is parsed separately.
import type { Selector } from '../core/gpu-policy.ts';
import { list, object, type Raw } from '../core/raw.ts';
import type { ComponentEvidence } from '../gate/node-proof.ts';

export interface Failure {
  readonly stage: string;
  /** CamelCase, such as `CrashLoop`. */
  readonly reason: string;
  readonly message: string;
  /** RFC 3339. */
  readonly at: string;
  readonly retryAt: string;
  /** Digest of the stage's inputs; where it differs now, the failure is of the past. */
  readonly inputs: string;
}

/** Evidence as it was accepted: on which boot, and whether a validation has passed on it. */
export interface Accepted extends ComponentEvidence {
  readonly boot: string;
  readonly proven?: true;
}

/** What one component of a node is to be: a revision of ours, or another installer's. */
export type Choice = { readonly revision: string } | { readonly external: Selector | 'unwatched' };

/** A roll-out that has reached the node. */
export interface RollOut {
  /** Pods leave, or the stack is being replaced. */
  readonly phase: 'drain' | 'replace';
  /** RFC 3339, since when the node is closed for it. */
  readonly since: string;
  /** It had failed before: it takes no place, and its failure stops nothing. */
  readonly spare?: true;
  /** Its failure on the new stack, which stops the roll-out of its policy. */
  readonly failed?: { readonly stage: string; readonly reason: string; readonly message: string };
}

/** A move that the node was not drained for in time. */
export interface Skipped {
  /** Digest of the stack that it was to take and of how pods were to leave. */
  readonly move: string;
  /** RFC 3339 */
  readonly at: string;
  /** Which pods were waited for. */
  readonly text: string;
}

/** A device that failed alone. */
export interface LeftOut {
  /** RFC 3339 */
  readonly at: string;
  readonly because: string;
  /** By a validation of gpu-gate, which another device has to pass. */
  readonly tried?: true;
}

export interface Walk {
  /** UID of the Node object: memory of another node of that name is void. */
  readonly node: string;
  readonly boot: string;
  readonly stage: string;
  /** RFC 3339, when the stage began. */
  readonly since: string;
  /** Numbers the tries of this boot, so that every validation pod has a name of its own. */
  readonly attempt: number;
  /** Failures of this stage in a row; the exponent of the backoff. */
  readonly streak: number;
  readonly failed?: Failure;
  /** Value of the retry annotation that was obeyed last. */
  readonly retry?: string;
  /** Value of the prove annotation that was obeyed last. */
  readonly prove?: string;
  /** How long each stage took when it was last passed, ms. */
  readonly tookMs?: Readonly<Record<string, number>>;
  /** Rounds of validation that passed, by stage. */
  readonly passed: Readonly<Record<string, string>>;
  /** Evidence accepted last, by component, also that of earlier boots. */
  readonly evidence: Readonly<Record<string, Accepted>>;
  /** What the node runs or is to run, by component. It changes only by a decision. */
  readonly target: Readonly<Record<string, Choice>>;
  /** Boot ID on which the node was proven last; `undefined` if it never was. */
  readonly proven?: string;
  readonly rollOut?: RollOut;
  readonly skipped?: Skipped;
  /** RFC 3339, since when the node is being opted out. */
  readonly leaving?: string;
  /** Version of the driver that the node's revision installs: the policy may name a newer one. */
  readonly driver?: string;
  /** Set when a validated node moves to what the policy says, at a person's word. */
  readonly renew?: true;
  /**
   * Components that were restarted, each once, since the node was validated or a person asked for a
   * retry.
   */
  readonly restarted?: readonly string[];
  /** The stage runs no clock at present; when that ends, its time begins again. */
  readonly untimed?: true;
  /** Raised when the node was lost from sight, or the validation's interval ran out. */
  readonly epoch: number;
  /** Raised when all GPUs vanished. */
  readonly gpuEpoch: number;
  /** RFC 3339, when this boot was first seen with the node Ready. */
  readonly booted?: string;
  /** RFC 3339, since when NFD's label is gone, the node is not Ready, or no policy selects it. */
  readonly labelGone?: string;
  readonly notReady?: string;
  readonly unselected?: string;
  /** Out of sight for so long that nothing counts that ran before: `epoch` was raised for it. */
  readonly hidden?: true;
  /** GPU pods that the kubelet rejected, for which the node was closed last. */
  readonly rejected?: { readonly at: string; readonly count: number; readonly words: string };
  /** Devices that failed alone, by driver, pool and name: since when and why they are left out. */
  readonly leftOut?: Readonly<Record<string, LeftOut>>;
  /** What others' taints say of devices, in the same way. */
  readonly tainted?: Readonly<Record<string, string>>;
  /** The validation by claim that is under way, and the device that it has. */
  readonly trial?: { readonly pod: string; readonly device: string };
  /** GPUs that the kubelet knows of and does not offer, by resource, as last reported. */
  readonly lost?: Readonly<Record<string, number>>;
  /** Labels of a second installer, as last reported. */
  readonly installer?: string;
}

/** The stage of a walk that has come to its end. */
export const DONE = 'done';

export const newWalk = (node: string, boot: string, now: number): Walk => ({
  node,
  boot,
  stage: 'preflight',
  since: new Date(now).toISOString(),
  attempt: 1,
  streak: 0,
  passed: {},
  evidence: {},
  target: {},
  epoch: 0,
  gpuEpoch: 0,
});

const textOf = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
const timeOf = (value: unknown): string | undefined =>
  typeof value === 'string' && Number.isFinite(Date.parse(value)) ? value : undefined;
const countOf = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
const entriesOf = <T>(value: unknown, read: (inner: unknown) => T | undefined): Record<string, T> =>
  Object.fromEntries(
    Object.entries(object(value)).flatMap(([key, inner]) => {
      const parsed = read(inner);
      return parsed === undefined ? [] : [[key, parsed] as const];
    }),
  );
function rejectedOf(value: unknown): Walk['rejected'] {
  const { at, count, words } = object(value);
  const time = timeOf(at);
  return time === undefined ? undefined : { at: time, count: countOf(count) ?? 0, words: textOf(words) ?? '' };
}
function leftOutOf(value: unknown): Walk['leftOut'] {
  const all = entriesOf(value, (one): LeftOut | undefined => {
    const { at, because, tried } = object(one);
    return typeof because === 'string'
      ? { at: timeOf(at) ?? EPOCH, because, ...(tried === true ? { tried } : {}) }
      : undefined;
  });
  return Object.keys(all).length === 0 ? undefined : all;
}

/** Devices of the Node that are left out, by the walk that is written on it. */
export const leftOutOn = (walk: string | undefined, node: string): readonly string[] =>
  Object.keys(parseWalk(walk, node)?.leftOut ?? {});

function trialOf(value: unknown): Walk['trial'] {
  const { pod, device } = object(value);
  return typeof pod === 'string' && typeof device === 'string' ? { pod, device } : undefined;
}
/** Only what is there: an absent field stays absent. */
const present = <T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };

function acceptedOf(value: unknown): Accepted | undefined {
  const { revision, pod, started, boot, proven } = object(value);
  if (![revision, pod, started, boot].every((field) => typeof field === 'string')) return undefined;
  return {
    revision: String(revision),
    pod: String(pod),
    started: String(started),
    boot: String(boot),
    ...(proven === true ? { proven } : {}),
  };
}

function choiceOf(value: unknown): Choice | undefined {
  const { revision, external } = object(value);
  if (typeof revision === 'string') return { revision };
  if (external === 'unwatched') return { external };
  const { namespace, matchLabels, ownerKind } = object(external);
  if (typeof namespace !== 'string') return undefined;
  const kind = textOf(ownerKind);
  return {
    external: {
      namespace,
      matchLabels: entriesOf(matchLabels, textOf),
      ...(kind === undefined ? {} : { ownerKind: kind }),
    },
  };
}

function rollOutOf(value: unknown): RollOut | undefined {
  const { phase, since, spare, failed } = object(value);
  if (phase !== 'drain' && phase !== 'replace') return undefined;
  const { stage, reason, message } = object(failed);
  return {
    phase,
    since: timeOf(since) ?? EPOCH,
    ...(spare === true ? { spare } : {}),
    ...(typeof stage === 'string'
      ? { failed: { stage, reason: textOf(reason) ?? '', message: textOf(message) ?? '' } }
      : {}),
  };
}

function skippedOf(value: unknown): Skipped | undefined {
  const { move, at, text } = object(value);
  return typeof move === 'string' ? { move, at: timeOf(at) ?? EPOCH, text: textOf(text) ?? '' } : undefined;
}

function failureOf(value: unknown): Failure | undefined {
  const { stage, reason, message, at, retryAt, inputs } = object(value);
  if (typeof stage !== 'string' || typeof reason !== 'string') return undefined;
  return {
    stage,
    reason,
    message: textOf(message) ?? '',
    at: timeOf(at) ?? EPOCH,
    retryAt: timeOf(retryAt) ?? EPOCH,
    inputs: textOf(inputs) ?? '',
  };
}

const EPOCH = new Date(0).toISOString();

/**
 * Parses the annotation; `undefined` if it is not a walk of this node. A field that cannot be read
 * starts afresh.
 */
export function parseWalk(text: string | undefined, node: string): Walk | undefined {
  let value: Raw;
  try {
    value = object(JSON.parse(text ?? ''));
  } catch {
    return undefined;
  }
  const { boot, stage } = value;
  if (value['node'] !== node || typeof boot !== 'string' || typeof stage !== 'string') return undefined;
  const fresh = newWalk(node, boot, 0);
  return {
    node,
    boot,
    stage,
    // Long ago: what counts at most is the time since this leader began to look.
    since: timeOf(value['since']) ?? EPOCH,
    attempt: countOf(value['attempt']) ?? fresh.attempt,
    streak: Math.min(countOf(value['streak']) ?? 0, 30),
    passed: entriesOf(value['passed'], textOf),
    evidence: entriesOf(value['evidence'], acceptedOf),
    target: entriesOf(value['target'], choiceOf),
    epoch: countOf(value['epoch']) ?? 0,
    gpuEpoch: countOf(value['gpuEpoch']) ?? 0,
    ...present({
      failed: failureOf(value['failed']),
      retry: textOf(value['retry']),
      prove: textOf(value['prove']),
      tookMs: value['tookMs'] === undefined ? undefined : entriesOf(value['tookMs'], countOf),
      proven: textOf(value['proven']),
      driver: textOf(value['driver']),
      rollOut: rollOutOf(value['rollOut']),
      skipped: skippedOf(value['skipped']),
      leaving: timeOf(value['leaving']),
      renew: value['renew'] === true ? (true as const) : undefined,
      restarted: value['restarted'] === undefined ? undefined : list(value['restarted']).map(String).slice(0, 8),
      untimed: value['untimed'] === true ? (true as const) : undefined,
      booted: timeOf(value['booted']),
      labelGone: timeOf(value['labelGone']),
      notReady: timeOf(value['notReady']),
      unselected: timeOf(value['unselected']),
      hidden: value['hidden'] === true ? (true as const) : undefined,
      rejected: rejectedOf(value['rejected']),
      installer: textOf(value['installer']),
      leftOut: leftOutOf(value['leftOut']),
      tainted: value['tainted'] === undefined ? undefined : entriesOf(value['tainted'], textOf),
      trial: trialOf(value['trial']),
      lost: value['lost'] === undefined ? undefined : entriesOf(value['lost'], countOf),
    }),
  };
}

/** The walk after a reboot: no round of validation counts, and all evidence is of another boot. */
export const rebooted = (walk: Walk, boot: string, now: number): Walk => ({
  ...newWalk(walk.node, boot, now),
  evidence: walk.evidence,
  target: walk.target,
  epoch: walk.epoch,
  gpuEpoch: walk.gpuEpoch,
  booted: new Date(now).toISOString(),
  ...present({
    retry: walk.retry,
    prove: walk.prove,
    tookMs: walk.tookMs,
    rollOut: walk.rollOut,
    skipped: walk.skipped,
    renew: walk.renew,
    driver: walk.driver,
    proven: walk.proven,
    restarted: walk.restarted,
  }),
});
