// What both chains of certificates are made of: what is seen of a chain, and the steps that change
// it. A chain is a CA, the serving certificate that it signs, and callers that verify it. The two
// chains differ in how their callers learn of a CA: API servers watch the webhook configuration,
// schedulers read a file once, at their start. Pure.
import { bundleOf, type Authority } from './authority.ts';
import { BACKDATED, validAt, type CertFacts } from './cert.ts';

/**
 * What a handshake with a replica showed. `leaf` is `undefined` if there was no handshake.
 */
export interface Served {
  readonly address: string;
  readonly leaf: CertFacts | undefined;
  /**
   * Present if the replica turned the handshake down and nothing says that it is ready: it serves
   * nothing.
   */
  readonly idle?: true;
}
export type Replicas =
  | { readonly kind: 'unknown'; readonly because: string }
  | { readonly kind: 'known'; readonly served: readonly Served[] };

/** What the webhook configuration carries, as fingerprints. */
export type Configuration =
  | { readonly kind: 'absent' }
  | { readonly kind: 'unknown'; readonly because: string }
  | {
      readonly kind: 'present';
      readonly trusted: readonly string[];
      /** `undefined` if there is no entry for the canary. */
      readonly canary: readonly string[] | undefined;
    };

/**
 * The unbroken series of canaries that came back through every API server, and the CA that they
 * prove.
 */
export interface CanarySeries {
  readonly ca: string;
  /**
   * When its first canary was sent, in milliseconds since the epoch. `undefined` if the last one
   * failed.
   */
  readonly since: number | undefined;
  /** When its last canary was sent. */
  readonly last: number;
  readonly problem: string | undefined;
}

/** Callers that watch the CAs: every one of them can be seen to know a new CA. */
export interface Watching {
  readonly kind: 'watch';
  readonly configuration: Configuration;
  readonly canaryLeaf: CertFacts | undefined;
  readonly canary: CanarySeries | undefined;
  /** When this leader last wrote the configuration. `undefined` if it has not. */
  readonly published: number | undefined;
  /**
   * For how long the canary must come back without a miss, because one address may hide several API
   * servers.
   */
  readonly windowMs: number;
}

/**
 * Callers that read the CAs once, at their start: they know a new CA on the day by which they had
 * to be restarted.
 */
export interface ReadingOnce {
  readonly kind: 'read-once';
  /** The certificate that callers show. */
  readonly client: CertFacts | undefined;
  /** Fingerprints of the CAs in the ConfigMap and beside the two certificates, in order. */
  readonly handedOut: {
    readonly configMap: readonly string[];
    readonly serving: readonly string[];
    readonly client: readonly string[];
  };
  /**
   * Since when this leader has seen the newest CA beside the serving certificate. `undefined` if it
   * does not see it.
   */
  readonly handedOutSince: number | undefined;
  /** For how long the previous CA goes on signing after a change. */
  readonly overlapMs: number;
}

export interface ChainInput<Callers extends Watching | ReadingOnce = Watching | ReadingOnce> {
  readonly ca: Authority;
  /** The certificate in the serving Secret. `undefined` if it or its key is missing or broken. */
  readonly leaf: CertFacts | undefined;
  /** Why there is none. */
  readonly leafProblem: string | undefined;
  readonly sans: readonly string[];
  readonly replicas: Replicas;
  /** CAs that callers were given. A lost CA is taken from these, and from nowhere else. */
  readonly known: readonly CertFacts[];
  /** For how long a CA stays trusted after nothing of it is in use any more. */
  readonly graceMs: number;
  /** Milliseconds since the epoch, like every time here. */
  readonly now: number;
  readonly callers: Callers;
}

export type WaitsOn = 'nothing' | 'configuration' | 'confirmation' | 'schedulers' | 'replicas' | 'grace';
export type Signer = 'current' | 'previous';
export interface Wait {
  readonly kind: 'wait';
  readonly on: WaitsOn;
  readonly because: string;
}
export type Step =
  | { readonly kind: 'make-ca'; readonly previous: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'adopt'; readonly previous: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'publish'; readonly bundle: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'hand-out'; readonly bundle: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'issue-canary'; readonly because: string }
  | { readonly kind: 'confirm'; readonly because: string }
  | { readonly kind: 'issue-leaf'; readonly by: Signer; readonly because: string }
  | { readonly kind: 'issue-client'; readonly by: Signer; readonly because: string }
  | { readonly kind: 'retire'; readonly because: string }
  | { readonly kind: 'drop-old'; readonly because: string }
  | Wait;
export type Change = Exclude<Step, Wait>;
export type Rule<Callers extends Watching | ReadingOnce = Watching | ReadingOnce> = (
  input: ChainInput<Callers>,
) => Step | undefined;

/** The part of the rules that depends on how callers learn of a CA. */
export interface CallerRules<Callers extends Watching | ReadingOnce> {
  /** True if every caller trusts the newest CA. */
  accepted(input: ChainInput<Callers>): boolean;
  /** Why the serving certificate may change its CA, once `accepted`. */
  readonly acceptedBecause: string;
  /** What is still to come until `accepted`. */
  awaited(input: ChainInput<Callers>): Wait;
  /** True if waiting for `accepted` is better than replacing what a replica may serve unseen. */
  patient(input: ChainInput<Callers>): boolean;
  /** True if nobody can say which CAs callers trust. */
  trustUnknown(input: ChainInput<Callers>): boolean;
  /**
   * True if a replica refuses a certificate that callers would not trust, and goes on with the one
   * that it serves.
   */
  readonly replicasVerify: boolean;
  /**
   * True if nothing shows which CAs callers trust, so that any valid certificate that is served may
   * be of one.
   */
  trustHidden(input: ChainInput<Callers>): boolean;
  /** What callers must be given before the serving certificate changes, in order. */
  readonly before: readonly Rule<Callers>[];
  /** What follows the serving certificate. */
  readonly after: readonly Rule<Callers>[];
  /** Why previous CAs are needed although no replica serves anything of them. */
  holdsPrevious(input: ChainInput<Callers>): Wait | undefined;
  /** Why no new CA can be made now, although one is due. */
  holdsRenewal(input: ChainInput<Callers>): Wait | undefined;
}

export const wait = (on: WaitsOn, because: string): Wait => ({ kind: 'wait', on, because });

export const servedLeaves = ({ replicas }: ChainInput): readonly CertFacts[] =>
  replicas.kind === 'known' ? replicas.served.flatMap(({ leaf }) => leaf ?? []) : [];

export const trustedBy = (input: ChainInput, leaf: CertFacts): boolean =>
  bundleOf(input.ca, input.now).some((ca) => leaf.signedBy(ca));

/** When a certificate was made. */
export const madeAt = ({ from }: CertFacts): number => from + BACKDATED;

/** True while the previous CA can go on signing. */
export const previousCanSign = ({ ca, now }: ChainInput): boolean => ca.previousSigns && validAt(ca.previous[0], now);
