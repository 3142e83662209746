// What is in the Secrets, what the webhook configuration carries, what each replica serves, the time → the one thing to do
// next, and why. Pure: any leader can go on from any step, because the step is read off the objects and not remembered.
//
// A change of CA: make it → publish both → every API server confirmed → certificate of the new one → every replica serves it
// (retire) → the old one dropped after a grace time → publish the new one alone.
import { missingName } from './names.ts';
import type { CertFacts } from './read.ts';
import { renewalOf, validAt as usable } from './validity.ts';

export interface CaState {
  /** The newest CA, its key with it. */
  readonly current: CertFacts | undefined;
  /** CAs before it of which something may still be served. */
  readonly previous: readonly CertFacts[];
  /** The key of the first of `previous` is still there: certificates can go on while the newest CA is not confirmed. */
  readonly previousSigns: boolean;
  /** Fingerprint of the newest CA that every API server was seen to hold. */
  readonly confirmed: string | undefined;
  /** When every replica was seen to serve a certificate of `current`; ms since the epoch. */
  readonly retiredAt: number | undefined;
}

/** What the webhook configuration carries: fingerprints. */
export type Configuration =
  | { readonly kind: 'absent' }
  | { readonly kind: 'unknown'; readonly because: string }
  | {
      readonly kind: 'present';
      readonly trusted: readonly string[];
      /** undefined: the entry of the canary is not there. */
      readonly canary: readonly string[] | undefined;
    };

/** What a handshake with each replica showed; no `leaf`: there was none. */
export interface Served {
  readonly address: string;
  readonly leaf: CertFacts | undefined;
}
export type Replicas =
  | { readonly kind: 'unknown'; readonly because: string }
  | { readonly kind: 'known'; readonly served: readonly Served[] };

/** The unbroken series of canaries that came back through every API server, and by which CA. */
export interface CanarySeries {
  readonly ca: string;
  /** ms since the epoch of its first; undefined: the last one failed. */
  readonly since: number | undefined;
  /** ms since the epoch of its last. */
  readonly last: number;
  readonly problem: string | undefined;
}

/** A longer gap than this between two canaries, ms, and whatever happened in it was not seen: the series begins anew. */
export const CANARY_GAP = 15_000;

export interface RenewalInput {
  readonly ca: CaState;
  /** The serving certificate with a matching key; undefined: missing, corrupted, or its key is another's. */
  readonly leaf: CertFacts | undefined;
  readonly sans: readonly string[];
  readonly canaryLeaf: CertFacts | undefined;
  readonly configuration: Configuration;
  readonly replicas: Replicas;
  /** CAs that the configuration trusts: a lost one is taken from there, and none from elsewhere. */
  readonly known: readonly CertFacts[];
  readonly canary: CanarySeries | undefined;
  /** When this leader last wrote the configuration, ms since the epoch; undefined: it has not. */
  readonly published: number | undefined;
  /** ms: for how long the canary must come back without a miss; one address may hide several API servers. */
  readonly window: number;
  /** ms: how long a CA stays trusted after nothing of it is served any more. */
  readonly grace: number;
  readonly now: number;
}

export type Step =
  | { readonly kind: 'make-ca'; readonly previous: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'adopt'; readonly previous: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'publish'; readonly bundle: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'issue-canary'; readonly because: string }
  | { readonly kind: 'confirm'; readonly because: string }
  | { readonly kind: 'issue-leaf'; readonly by: 'current' | 'previous'; readonly because: string }
  | { readonly kind: 'retire'; readonly because: string }
  | { readonly kind: 'drop-old'; readonly because: string }
  | { readonly kind: 'wait'; readonly on: WaitsOn; readonly because: string };

export type WaitsOn = 'nothing' | 'configuration' | 'confirmation' | 'replicas' | 'grace';

/** The CAs that clients must trust now, the newest first. */
export const bundleOf = (ca: CaState, now: number): readonly CertFacts[] =>
  [ca.current, ...ca.previous].filter((cert) => usable(cert, now));

const sameSet = (certs: readonly CertFacts[], prints: readonly string[]): boolean =>
  certs.length === prints.length && certs.every((cert) => prints.includes(cert.fingerprint));

const servedLeaves = ({ replicas }: RenewalInput): readonly CertFacts[] =>
  replicas.kind === 'known' ? replicas.served.flatMap(({ leaf }) => leaf ?? []) : [];

const unique = (certs: readonly CertFacts[]): readonly CertFacts[] =>
  certs.filter((cert, i) => certs.findIndex(({ fingerprint }) => fingerprint === cert.fingerprint) === i);

/** Something may be served that nobody here has seen: the Secret is lost, and not every replica showed what it has. */
const servedUnseen = ({ leaf, replicas }: RenewalInput): boolean =>
  leaf === undefined &&
  (replicas.kind === 'unknown' ||
    replicas.served.length === 0 ||
    replicas.served.some((replica) => replica.leaf === undefined));

/** Which of these CAs signed something that is served or about to be, so that they must stay trusted. */
const signersAmong = (cas: readonly CertFacts[], input: RenewalInput): readonly CertFacts[] => {
  const leaves = [...(input.leaf === undefined ? [] : [input.leaf]), ...servedLeaves(input)];
  const unseen = servedUnseen(input);
  return unique(
    cas.filter(
      (cert) =>
        usable(cert, input.now) && (unseen || leaves.some((leaf) => usable(leaf, input.now) && leaf.signedBy(cert))),
    ),
  );
};

/** A configuration that is not there confirms nothing: it may come back with the CAs of before. */
const confirmed = ({ ca, configuration }: RenewalInput): boolean =>
  configuration.kind !== 'absent' && ca.current !== undefined && ca.confirmed === ca.current.fingerprint;

/** A certificate of the newest CA does no harm: it was confirmed, or one of it is served already. */
const currentMaySign = (input: RenewalInput): boolean => {
  const { current } = input.ca;
  if (current === undefined) return false;
  const ofCurrent = (leaf: CertFacts): boolean => usable(leaf, input.now) && leaf.signedBy(current);
  return confirmed(input) || (input.leaf !== undefined && ofCurrent(input.leaf)) || servedLeaves(input).some(ofCurrent);
};

type Rule = (input: RenewalInput) => Step | undefined;

const caMissing: Rule = (input) => {
  const { ca, now, known } = input;
  const because =
    ca.current === undefined
      ? 'there is no usable CA'
      : ca.current.from > now
        ? 'the CA is not valid yet: a clock went back'
        : now >= ca.current.to
          ? 'the CA has expired'
          : undefined;
  if (because === undefined) return undefined;
  return { kind: 'make-ca', previous: signersAmong([...ca.previous, ...known], input), because };
};

/** The CA's Secret was replaced, but what is served is of a CA that the configuration still trusts: that one stays. */
const signerUnknown: Rule = (input) => {
  const { ca, known } = input;
  const trust = [ca.current, ...ca.previous].flatMap((cert) => cert?.fingerprint ?? []);
  const missing = signersAmong(
    known.filter(({ fingerprint }) => !trust.includes(fingerprint)),
    input,
  );
  return missing.length === 0
    ? undefined
    : {
        kind: 'adopt',
        previous: [...ca.previous, ...missing],
        because: 'a certificate of another trusted CA is still served',
      };
};

const bundleNotTrusted: Rule = ({ ca, configuration, now }) => {
  if (configuration.kind !== 'present') return undefined;
  const bundle = bundleOf(ca, now);
  const { trusted, canary } = configuration;
  const canaryTrusts = canary === undefined || sameSet(bundle.slice(0, 1), canary);
  if (sameSet(bundle, trusted) && canaryTrusts) return undefined;
  const because =
    trusted.length === 0 ? 'trusts no CA' : sameSet(bundle, trusted) ? 'has an old canary' : 'trusts other CAs';
  return { kind: 'publish', bundle, because: `the webhook configuration ${because}` };
};

const canaryLeafDue: Rule = ({ ca, configuration, canaryLeaf, sans, now }) => {
  if (configuration.kind !== 'present' || configuration.canary === undefined || ca.current === undefined)
    return undefined;
  const fits =
    usable(canaryLeaf, now) &&
    now < renewalOf(canaryLeaf) &&
    canaryLeaf.signedBy(ca.current) &&
    missingName(canaryLeaf, sans) === undefined;
  return fits ? undefined : { kind: 'issue-canary', because: 'the canary has no certificate of the newest CA' };
};

const seenEverywhere: Rule = ({ ca, configuration, canary, published, window, now }) => {
  if (configuration.kind !== 'present' || ca.current === undefined || ca.confirmed === ca.current.fingerprint)
    return undefined;
  if (canary?.ca !== ca.current.fingerprint || canary.since === undefined) return undefined;
  // A series that went on before the last write, or that was broken off, says nothing of what API servers hold now.
  const fresh = now - canary.last < CANARY_GAP && canary.since >= (published ?? Number.NEGATIVE_INFINITY);
  return fresh && canary.last - canary.since >= window
    ? { kind: 'confirm', because: 'the canary came back through every API server' }
    : undefined;
};

const leafProblem = ({ ca, leaf, sans, configuration, now }: RenewalInput): string | undefined => {
  if (leaf === undefined) return 'there is no usable certificate';
  if (now >= leaf.to) return 'the certificate has expired';
  if (leaf.from > now) return 'the certificate is not valid yet';
  if (missingName(leaf, sans) !== undefined) return 'the certificate lacks a name';
  // Where nobody can say what is trusted, a certificate that is good by itself stays.
  if (configuration.kind === 'unknown') return undefined;
  return bundleOf(ca, now).some((cert) => leaf.signedBy(cert)) ? undefined : 'the certificate is of a foreign CA';
};

const leafDue: Rule = (input) => {
  const { ca, leaf, now } = input;
  const previousSigns = ca.previousSigns && usable(ca.previous[0], now);
  const problem = leafProblem(input);
  const issue = (by: 'current' | 'previous', because: string): Step => ({ kind: 'issue-leaf', by, because });
  if (problem === undefined && leaf !== undefined) {
    if (confirmed(input) && ca.current !== undefined && !leaf.signedBy(ca.current))
      return issue('current', 'the new CA is trusted everywhere');
    if (now < renewalOf(leaf)) return undefined;
    const aged = 'two thirds of its life are over';
    return currentMaySign(input) ? issue('current', aged) : previousSigns ? issue('previous', aged) : undefined;
  }
  const because = problem ?? 'there is no usable certificate';
  if (currentMaySign(input)) return issue('current', because);
  if (previousSigns) return issue('previous', because);
  // Replicas that serve a good one go on with it; taking it from them before the new CA is known everywhere would drop calls.
  const served = servedLeaves(input).some(
    (held) => usable(held, now) && bundleOf(ca, now).some((cert) => held.signedBy(cert)),
  );
  return served ? undefined : issue('current', because);
};

const NOT_THERE = 'the webhook configuration is not there';

const confirmationAwaited: Rule = (input) => {
  const { ca, leaf, configuration, canary } = input;
  if (leaf !== undefined && leafProblem(input) === undefined && ca.current !== undefined && leaf.signedBy(ca.current))
    return undefined;
  const wait = (on: WaitsOn, because: string): Step => ({ kind: 'wait', on, because });
  if (configuration.kind === 'unknown') return wait('configuration', configuration.because);
  if (configuration.kind === 'absent') return wait('configuration', NOT_THERE);
  if (configuration.canary === undefined)
    return wait(
      'configuration',
      'the webhook configuration has no entry for the canary: give the chart webhook.canaryUrl',
    );
  return wait('confirmation', canary?.problem ?? 'not every API server was seen to hold the new CA yet');
};

/** Why the CAs before the newest cannot go yet; undefined: nothing of them is served. */
const stillServed = ({ ca, replicas }: RenewalInput): string | undefined => {
  if (replicas.kind === 'unknown') return replicas.because;
  for (const { address, leaf } of replicas.served) {
    if (leaf === undefined) return `replica ${address} answers no handshake`;
    if (ca.current !== undefined && !leaf.signedBy(ca.current))
      return `replica ${address} serves a certificate of another CA`;
  }
  return undefined;
};

const oldOutlived: Rule = (input) => {
  const { ca, grace, now } = input;
  if (ca.previous.length === 0) return undefined;
  const served = stillServed(input);
  if (served !== undefined) return { kind: 'wait', on: 'replicas', because: served };
  if (ca.retiredAt === undefined)
    return { kind: 'retire', because: 'every replica serves a certificate of the newest CA' };
  return now >= ca.retiredAt + grace
    ? { kind: 'drop-old', because: 'nothing of the old CA has been served for the grace time' }
    : { kind: 'wait', on: 'grace', because: `the old CA goes at ${new Date(ca.retiredAt + grace).toISOString()}` };
};

const caAged: Rule = ({ ca, configuration, now }) => {
  if (ca.current === undefined || now < renewalOf(ca.current)) return undefined;
  if (configuration.kind !== 'present') {
    const why = configuration.kind === 'absent' ? NOT_THERE : configuration.because;
    return { kind: 'wait', on: 'configuration', because: `the CA is due, but ${why}` };
  }
  return { kind: 'make-ca', previous: [ca.current], because: 'two thirds of the life of the CA are over' };
};

const RULES: readonly Rule[] = [
  caMissing,
  signerUnknown,
  bundleNotTrusted,
  canaryLeafDue,
  seenEverywhere,
  leafDue,
  confirmationAwaited,
  oldOutlived,
  caAged,
];

/** The next step; `wait` says on what. */
export function nextStep(input: RenewalInput): Step {
  for (const rule of RULES) {
    const step = rule(input);
    if (step !== undefined) return step;
  }
  return input.configuration.kind === 'unknown'
    ? { kind: 'wait', on: 'configuration', because: input.configuration.because }
    : { kind: 'wait', on: 'nothing', because: 'nothing is due' };
}
