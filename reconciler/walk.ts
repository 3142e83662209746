// The walk's memory on the Node itself, so that a restart or a new leader goes on where the last one stopped.
import type { ComponentEvidence } from '../gate/node-proof.ts';
import { STAGES, type Stage } from '../core/stages.ts';

export interface Failure {
  readonly stage: Stage;
  /** CamelCase, such as `CrashLoop`. */
  readonly reason: string;
  readonly message: string;
  /** RFC 3339. */
  readonly at: string;
  readonly retryAt: string;
  /** Digest of the stage's inputs; where it differs now, the failure is of the past. */
  readonly inputs: string;
}

export interface Walk {
  /** UID of the Node object: memory of a former node of that name is no memory. */
  readonly node: string;
  readonly boot: string;
  readonly stage: Stage | 'done';
  /** RFC 3339, when the stage began. */
  readonly since: string;
  /** Numbers the tries of this boot, so that every validation pod has a name of its own. */
  readonly attempt: number;
  /** Failures of this stage in a row; the exponent of the backoff. */
  readonly streak: number;
  readonly failed?: Failure;
  /** Value of the retry annotation that was obeyed last. */
  readonly retry?: string;
  /** Rounds of validation that passed, by kind. */
  readonly passed: Readonly<Partial<Record<'driver-validation' | 'device-plugin-validation', string>>>;
  /** Evidence accepted; after a reboot the same container start is stale. */
  readonly evidence: Readonly<Record<string, ComponentEvidence>>;
  readonly stale: Readonly<Record<string, ComponentEvidence>>;
  /** Boot ID on which the node was proven: a proof that was withdrawn since may be restored by driver-validation alone. */
  readonly proven?: string;
  /** The node has been validated at least once, on any boot. */
  readonly once: boolean;
  /** Version of the driver that the node's revision installs: the policy may name a newer one meanwhile. */
  readonly driver?: string;
  /** Takes the newest revisions though it was validated before: a failed stage's inputs changed, or the operator asked for a retry. */
  readonly renew?: true;
  /** The stage runs no clock at present; when that ends, its time begins anew. */
  readonly untimed?: true;
  /** Raised when the node was lost from sight, or the validation's interval ran out: asks for new rounds of both validations. */
  readonly epoch: number;
  /** Raised when all GPUs vanished: asks for a new round of device-plugin-validation. */
  readonly gpuEpoch: number;
  /** RFC 3339, since when NFD's label is gone, or the node not Ready. */
  readonly labelGone?: string;
  readonly notReady?: string;
}

export const newWalk = (node: string, boot: string, now: number): Walk => ({
  node,
  boot,
  stage: 'preflight',
  since: new Date(now).toISOString(),
  attempt: 1,
  streak: 0,
  passed: {},
  evidence: {},
  stale: {},
  once: false,
  epoch: 0,
  gpuEpoch: 0,
});

/** Parses the annotation; anything that is not a Walk of this node is no memory. */
export function parseWalk(text: string | undefined, node: string): Walk | undefined {
  if (text === undefined) return undefined;
  try {
    const value = JSON.parse(text) as Partial<Walk>;
    const stageKnown = value.stage === 'done' || STAGES.some((stage) => stage === value.stage);
    if (value.node !== node || typeof value.boot !== 'string' || !stageKnown || typeof value.since !== 'string')
      return undefined;
    return { ...newWalk(node, value.boot, 0), ...value };
  } catch {
    return undefined;
  }
}

/** The walk after a reboot: nothing accepted before it counts, and it is remembered as stale. */
export const rebooted = (walk: Walk, boot: string, now: number): Walk => ({
  ...newWalk(walk.node, boot, now),
  stale: { ...walk.stale, ...walk.evidence },
  once: walk.once,
  epoch: walk.epoch,
  gpuEpoch: walk.gpuEpoch,
  ...(walk.retry === undefined ? {} : { retry: walk.retry }),
  ...(walk.renew === undefined ? {} : { renew: walk.renew }),
  ...(walk.driver === undefined ? {} : { driver: walk.driver }),
});
