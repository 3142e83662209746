// Certificates and chains as values. Nothing is hidden: what a test does not set stands here.
import { BACKDATED, type CertFacts } from '../../certs/cert.ts';
import type { Authority } from '../../certs/authority.ts';
import type { ChainInput, ReadingOnce, Replicas, Watching } from '../../certs/chain.ts';

/**
 * Made at `from` for a life in milliseconds, signed by the CA of that fingerprint; a CA if there is
 * none.
 */
export const aCert = (
  fingerprint: string,
  from: number,
  life: number,
  by: string | undefined,
  sans: readonly string[],
): CertFacts => ({
  pem: fingerprint,
  fingerprint,
  from: from - BACKDATED,
  to: from + life,
  sans,
  isCa: by === undefined,
  signedBy: (ca) => ca.fingerprint === by,
});

export const anAuthority = (current: CertFacts | undefined, more: Partial<Authority> = {}): Authority => ({
  current,
  problem: current === undefined ? 'tls.crt and tls.key are missing' : undefined,
  previous: [],
  previousSigns: false,
  confirmed: undefined,
  changedAt: undefined,
  retiredAt: undefined,
  ...more,
});

/** Replicas that serve these; `undefined` where one answers no handshake. */
export const serving = (...leaves: readonly (CertFacts | undefined)[]): Replicas => ({
  kind: 'known',
  served: leaves.map((leaf, i) => ({ address: `r${i}`, leaf })),
});

type Flat<C> = Omit<ChainInput, 'callers'> & Omit<C, 'kind'>;
export type WatchedInput = Flat<Watching>;
export type ReadOnceInput = Flat<ReadingOnce>;

/** A chain whose callers watch, from one flat object. */
export const watched = (flat: WatchedInput): ChainInput<Watching> => {
  const { configuration, canaryLeaf, canary, published, windowMs, ...rest } = flat;
  return { ...rest, callers: { kind: 'watch', configuration, canaryLeaf, canary, published, windowMs } };
};

/** A chain whose callers read the CA once, from one flat object. */
export const readOnce = (flat: ReadOnceInput): ChainInput<ReadingOnce> => {
  const { client, handedOut, handedOutSince, overlapMs, ...rest } = flat;
  return { ...rest, callers: { kind: 'read-once', client, handedOut, handedOutSince, overlapMs } };
};
