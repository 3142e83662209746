// The webhook's callers are API servers, which watch the webhook configuration. A change of CA
// waits until every one of them was seen to hold the new CA: a canary goes through each of them for
// a whole window. Called by rules.ts. Pure.
import { bundleOf } from './authority.ts';
import { missingName, renewalOf, validAt, type CertFacts } from './cert.ts';
import { wait, type CallerRules, type ChainInput, type Rule, type Watching } from './chain.ts';

/**
 * A longer gap (ms) than this between two canaries breaks the series, because nobody saw what
 * happened in it.
 */
export const CANARY_GAP = 15_000;

const NOT_THERE = 'the webhook configuration is not there: install the chart again';
type Input = ChainInput<Watching>;

const sameSet = (certs: readonly CertFacts[], prints: readonly string[]): boolean =>
  certs.length === prints.length && certs.every((cert) => prints.includes(cert.fingerprint));

/** A missing configuration confirms nothing, because it may come back with the CAs that it had. */
const confirmed = ({ ca, callers }: Input): boolean =>
  callers.configuration.kind !== 'absent' && ca.current !== undefined && ca.confirmed === ca.current.fingerprint;

const bundleNotTrusted: Rule<Watching> = ({ ca, callers: { configuration }, now }) => {
  if (configuration.kind !== 'present') return undefined;
  const bundle = bundleOf(ca, now);
  const { trusted, canary } = configuration;
  const canaryTrusts = canary === undefined || sameSet(bundle.slice(0, 1), canary);
  const trusts = sameSet(bundle, trusted);
  if (trusts && canaryTrusts) return undefined;
  const because = trusted.length === 0 ? 'trusts no CA' : trusts ? 'has an old canary' : 'trusts other CAs';
  return { kind: 'publish', bundle, because: `the webhook configuration ${because}` };
};

const canaryLeafDue: Rule<Watching> = ({ ca, callers: { configuration, canaryLeaf }, sans, now }) => {
  if (configuration.kind !== 'present' || configuration.canary === undefined || ca.current === undefined)
    return undefined;
  const fits =
    validAt(canaryLeaf, now) &&
    now < renewalOf(canaryLeaf) &&
    canaryLeaf.signedBy(ca.current) &&
    missingName(canaryLeaf, sans) === undefined;
  return fits ? undefined : { kind: 'issue-canary', because: 'the canary has no certificate of the newest CA' };
};

const seenEverywhere: Rule<Watching> = ({ ca, callers, now }) => {
  const { configuration, canary, published, windowMs } = callers;
  if (configuration.kind !== 'present' || ca.current === undefined || ca.confirmed === ca.current.fingerprint)
    return undefined;
  if (canary?.ca !== ca.current.fingerprint || canary.since === undefined) return undefined;
  // A series that began before the last write, or that was broken off, does not show what API
  // servers hold now.
  const fresh = now - canary.last < CANARY_GAP && canary.since >= (published ?? Number.NEGATIVE_INFINITY);
  return fresh && canary.last - canary.since >= windowMs
    ? { kind: 'confirm', because: 'the canary came back through every API server' }
    : undefined;
};

export const watching: CallerRules<Watching> = {
  accepted: confirmed,
  acceptedBecause: 'the new CA is trusted everywhere',
  awaited({ callers: { configuration, canary } }) {
    if (configuration.kind === 'unknown') return wait('configuration', configuration.because);
    if (configuration.kind === 'absent') return wait('configuration', NOT_THERE);
    if (configuration.canary === undefined)
      return wait(
        'configuration',
        'the webhook configuration has no entry for the canary: give the chart webhook.canaryUrl',
      );
    return wait('confirmation', canary?.problem ?? 'not every API server was seen to hold the new CA yet');
  },
  // The canary does not depend on the replicas, so that the confirmation comes within its window.
  patient: ({ callers: { configuration } }) => configuration.kind === 'present' && configuration.canary !== undefined,
  trustUnknown: ({ callers: { configuration } }) => configuration.kind === 'unknown',
  replicasVerify: true,
  trustHidden: ({ callers: { configuration } }) => configuration.kind !== 'present',
  before: [bundleNotTrusted, canaryLeafDue, seenEverywhere],
  after: [],
  holdsPrevious: () => undefined,
  holdsRenewal({ callers: { configuration } }) {
    if (configuration.kind === 'present') return undefined;
    const why = configuration.kind === 'absent' ? NOT_THERE : configuration.because;
    return wait('configuration', `the CA is due, but ${why}`);
  },
};
