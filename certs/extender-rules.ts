// The extender's callers are schedulers, which read the CA once, at their start. So in a change
// both CAs are handed out, and the previous one goes on signing what is served until a stated day
// by which schedulers must have been restarted. Called by rules.ts. Pure.
import { bundleOf } from './authority.ts';
import { BACKDATED, renewalOf, validAt, type CertFacts } from './cert.ts';
import {
  madeAt,
  previousCanSign,
  servedLeaves,
  wait,
  type CallerRules,
  type ChainInput,
  type ReadingOnce,
  type Rule,
  type Signer,
  type Step,
} from './chain.ts';

type Input = ChainInput<ReadingOnce>;

const DAY = 86_400_000;
/**
 * How long (ms) before its end a certificate that cannot be renewed is given up: a tenth of its
 * life, a day at most.
 */
const reserve = ({ from, to }: CertFacts): number => Math.min(DAY, (to - from - BACKDATED) / 10);
const givenUpAt = (cert: CertFacts): number => cert.to - reserve(cert);

/** The day that is stated when a change begins, while the key of the previous CA is there. */
const planned = ({ ca, callers: { overlapMs } }: Input, previous: CertFacts): number =>
  Math.min((ca.changedAt ?? 0) + overlapMs, givenUpAt(previous));

/**
 * Until when schedulers that know only previous CAs can verify what is served, in milliseconds
 * since the epoch. In the past if they cannot any more. `undefined` if no change is under way.
 */
export function restartBy(input: Input): number | undefined {
  const { ca, leaf, now } = input;
  const { current, previous } = ca;
  const [first] = previous;
  if (first === undefined || current === undefined) return undefined;
  const day = planned(input, first);
  // Replaced before the stated day, because nothing else could be served.
  if (leaf?.signedBy(current) === true) return Math.min(day, madeAt(leaf));
  if (ca.previousSigns && (leaf === undefined || leaf.signedBy(first))) return day;
  // The key is lost. What is served cannot be renewed, and stays for as long as it holds.
  const ends = [...(leaf === undefined ? [] : [leaf]), ...servedLeaves(input)]
    .filter((cert) => validAt(cert, now) && previous.some((known) => cert.signedBy(known)))
    .map(givenUpAt);
  return ends.length === 0 ? day : Math.max(...ends);
}

const same = (certs: readonly CertFacts[], prints: readonly string[]): boolean =>
  certs.length === prints.length && certs.every(({ fingerprint }, i) => fingerprint === prints[i]);

const notHandedOut: Rule<ReadingOnce> = ({ ca, leaf, callers, now }) => {
  const { client, handedOut } = callers;
  const bundle = bundleOf(ca, now);
  if (!same(bundle, handedOut.configMap)) return { kind: 'publish', bundle, because: 'the ConfigMap has other CAs' };
  // In a change replicas must learn of the new CA also while there is no certificate to write it
  // beside.
  const behind =
    ((leaf !== undefined || ca.previous.length > 0) && !same(bundle, handedOut.serving)) ||
    (client !== undefined && !same(bundle, handedOut.client));
  return behind ? { kind: 'hand-out', bundle, because: 'a Secret has other CAs beside its certificate' } : undefined;
};

/**
 * Whose client certificate every replica accepts. `undefined` if there is no CA that can sign such
 * a certificate yet.
 */
const clientSigner = (input: Input): Signer | undefined => {
  const { ca, graceMs, now, callers } = input;
  if (ca.previous.length === 0) return 'current';
  // Not at once, because replicas must know the new CA before a caller shows a certificate of it.
  const known = callers.handedOutSince !== undefined && now >= callers.handedOutSince + graceMs;
  if (known && now >= (ca.changedAt ?? 0) + graceMs) return 'current';
  return previousCanSign(input) ? 'previous' : undefined;
};

const clientDue: Rule<ReadingOnce> = (input) => {
  const { ca, now, callers } = input;
  const { client } = callers;
  const by = clientSigner(input);
  const issue = (signer: Signer | undefined, because: string): Step | undefined =>
    signer === undefined ? undefined : { kind: 'issue-client', by: signer, because };
  // A scheduler may go on with the lost one for as long as it holds, so that a certificate that is
  // refused would harm it.
  if (client === undefined) return issue(by, 'there is no usable client certificate');
  if (!validAt(client, now)) return issue(by ?? 'current', 'the client certificate is not valid now');
  if (!bundleOf(ca, now).some((known) => client.signedBy(known)))
    return issue(by ?? 'current', 'the client certificate is of a foreign CA');
  const [first] = ca.previous;
  if (now >= renewalOf(client) && (by === 'current' || (first !== undefined && client.to < first.to)))
    return issue(by, "two thirds of the client certificate's life are over");
  return by === 'current' && ca.current !== undefined && !client.signedBy(ca.current)
    ? issue('current', 'every replica knows the new CA')
    : undefined;
};

const dayOf = (time: number): string => new Date(time).toISOString();

export const readingOnce: CallerRules<ReadingOnce> = {
  accepted(input) {
    if (input.ca.previous.length === 0) return true;
    const day = restartBy(input);
    return day !== undefined && input.now >= day;
  },
  acceptedBecause: 'the time that schedulers had to be restarted in is over',
  awaited(input) {
    const day = restartBy(input) ?? input.now;
    const lost = input.leaf === undefined ? ' A replica that starts before has no certificate.' : '';
    return wait('schedulers', `every scheduler must be restarted before ${dayOf(day)}.${lost}`);
  },
  patient: () => true,
  trustUnknown: () => false,
  replicasVerify: false,
  trustHidden: () => false,
  before: [notHandedOut],
  after: [clientDue],
  holdsPrevious(input) {
    const { ca, now, callers } = input;
    const { client } = callers;
    const [first] = ca.previous;
    if (client === undefined || ca.current === undefined || !client.signedBy(ca.current))
      return wait('schedulers', 'the client certificate is not of the newest CA');
    const day = first === undefined ? now : planned(input, first);
    return now < day
      ? wait('schedulers', `schedulers that were not restarted cannot reach the extender; stated day: ${dayOf(day)}`)
      : undefined;
  },
  holdsRenewal: () => undefined,
};
