// What is seen of a chain → the one thing to do next, and why. One set of rules for both chains;
// what depends on how callers learn of a CA is in webhook-rules.ts and extender-rules.ts. Any
// leader can go on from any step, because the step is read off the objects and not remembered.
// Pure.
//
// A change of CA: make it → hand out both → wait until every caller trusts it → certificate of the
// new one → every replica serves it (retire) → after a grace time the old one is dropped → hand out
// the new one alone.
import { missingName, renewalOf, validAt, type CertFacts } from './cert.ts';
import {
  madeAt,
  previousCanSign,
  servedLeaves,
  trustedBy,
  wait,
  type CallerRules,
  type ChainInput,
  type ReadingOnce,
  type Rule,
  type Signer,
  type Step,
  type Watching,
} from './chain.ts';
import { readingOnce } from './extender-rules.ts';
import { watching } from './webhook-rules.ts';

type Callers = Watching | ReadingOnce;

const unique = (certs: readonly CertFacts[]): readonly CertFacts[] =>
  certs.filter((cert, i) => certs.findIndex(({ fingerprint }) => fingerprint === cert.fingerprint) === i);

/**
 * True if the Secrets do not show which CAs callers rely on: a certificate is lost or has expired,
 * or it changed so recently that a replica or a scheduler may still hold the former one.
 */
const usedUnseen = ({ leaf, callers, graceMs, now }: ChainInput): boolean =>
  [leaf, ...(callers.kind === 'read-once' ? [callers.client] : [])].some(
    (cert) => !validAt(cert, now) || now < madeAt(cert) + graceMs,
  );

/**
 * Which of these CAs signed a certificate that is in use or about to be, so that they must stay
 * trusted.
 */
const signersAmong = (cas: readonly CertFacts[], input: ChainInput): readonly CertFacts[] => {
  const { leaf, callers, now } = input;
  const client = callers.kind === 'read-once' ? callers.client : undefined;
  const leaves = [leaf, client, ...servedLeaves(input)].filter((cert) => validAt(cert, now));
  const unseen = usedUnseen(input);
  return unique(cas.filter((ca) => validAt(ca, now) && (unseen || leaves.some((cert) => cert.signedBy(ca)))));
};

/**
 * A certificate of the newest CA does no harm: callers accept it, or one of it is served already.
 */
const currentMaySign = (input: ChainInput, accepted: boolean): boolean => {
  const { current } = input.ca;
  if (current === undefined) return false;
  const inUse = [...(input.leaf === undefined ? [] : [input.leaf]), ...servedLeaves(input)];
  return accepted || inUse.some((leaf) => validAt(leaf, input.now) && leaf.signedBy(current));
};

const caMissing: Rule = (input) => {
  const { ca, now, known } = input;
  const because =
    ca.current === undefined
      ? `there is no usable CA: ${ca.problem ?? 'it is missing'}`
      : ca.current.from > now
        ? 'the CA is not valid yet: a clock went back'
        : now >= ca.current.to
          ? 'the CA has expired'
          : undefined;
  if (because === undefined) return undefined;
  return { kind: 'make-ca', previous: signersAmong([...ca.previous, ...known], input), because };
};

/**
 * The CA's Secret was replaced, but what is in use is of a CA that callers still trust, so that CA
 * stays.
 */
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
        because: 'a certificate of another CA that callers trust is in use',
      };
};

/** Why the certificate in the Secret must be replaced. */
const leafProblem = <C extends Callers>(input: ChainInput<C>, of: CallerRules<C>): string | undefined => {
  const { leaf, sans, now } = input;
  if (leaf === undefined) return `there is no usable certificate: ${input.leafProblem ?? 'it is missing'}`;
  if (now >= leaf.to) return 'the certificate has expired';
  if (leaf.from > now) return 'the certificate is not valid yet';
  if (missingName(leaf, sans) !== undefined) return 'the certificate lacks a name';
  // Where nobody can say what is trusted, a certificate that is good by itself stays.
  return of.trustUnknown(input) || trustedBy(input, leaf) ? undefined : 'the certificate is of a foreign CA';
};

/**
 * A replica serves a certificate that callers trust, or may do so although no handshake showed it.
 * Unseen it can only matter in a change of CA: without a previous CA, a good certificate is of the
 * newest one, and another of it does no harm.
 */
const goodIsServed = <C extends Callers>(input: ChainInput<C>, of: CallerRules<C>): boolean => {
  const { ca, replicas, now } = input;
  const patient = ca.previous.some((previous) => validAt(previous, now)) && of.patient(input);
  if (replicas.kind === 'unknown') return patient;
  return replicas.served.some(({ leaf, idle }) =>
    leaf === undefined
      ? patient && idle !== true
      : validAt(leaf, now) && (of.trustHidden(input) || trustedBy(input, leaf)),
  );
};

const leafDue =
  <C extends Callers>(of: CallerRules<C>): Rule<C> =>
  (input) => {
    const { ca, leaf, now } = input;
    const accepted = of.accepted(input);
    const [first] = ca.previous;
    const issue = (by: Signer, because: string): Step => ({ kind: 'issue-leaf', by, because });
    const problem = leafProblem(input, of);
    if (leaf !== undefined && problem === undefined) {
      if (accepted && ca.current !== undefined && !leaf.signedBy(ca.current))
        return issue('current', of.acceptedBecause);
      if (now < renewalOf(leaf)) return undefined;
      const aged = 'two thirds of its life are over';
      if (currentMaySign(input, accepted)) return issue('current', aged);
      // A certificate that ends with its CA lasts no longer when it is made again.
      return previousCanSign(input) && first !== undefined && leaf.to < first.to ? issue('previous', aged) : undefined;
    }
    const because = problem ?? 'there is no usable certificate';
    if (currentMaySign(input, accepted)) return issue('current', because);
    if (previousCanSign(input)) return issue('previous', because);
    // A certificate that replicas take unverified has already replaced the good one.
    const taken = !of.replicasVerify && validAt(leaf, now) && missingName(leaf, input.sans) === undefined;
    // Taking a good certificate from replicas before callers accept the new CA would fail calls.
    return !taken && goodIsServed(input, of) ? undefined : issue('current', because);
  };

const acceptanceAwaited =
  <C extends Callers>(of: CallerRules<C>): Rule<C> =>
  (input) => {
    const { ca, leaf } = input;
    const settled =
      leaf !== undefined &&
      leafProblem(input, of) === undefined &&
      ca.current !== undefined &&
      leaf.signedBy(ca.current);
    return settled ? undefined : of.awaited(input);
  };

/** Why previous CAs cannot go yet. `undefined` if nothing of them is served. */
const stillServed = ({ ca, replicas }: ChainInput): string | undefined => {
  if (replicas.kind === 'unknown') return replicas.because;
  for (const { address, leaf } of replicas.served) {
    if (leaf === undefined)
      return `replica ${address} answers no handshake: check that its pod runs and that the network lets the reconciler reach it`;
    if (ca.current !== undefined && !leaf.signedBy(ca.current))
      return `replica ${address} serves a certificate of another CA`;
  }
  return undefined;
};

const previousOutlived =
  <C extends Callers>(of: CallerRules<C>): Rule<C> =>
  (input) => {
    const { ca, graceMs, now } = input;
    if (ca.previous.length === 0) return undefined;
    const served = stillServed(input);
    if (served !== undefined) return wait('replicas', served);
    if (ca.retiredAt === undefined)
      return { kind: 'retire', because: 'every replica serves a certificate of the newest CA' };
    const end = ca.retiredAt + graceMs;
    if (now < end) return wait('grace', `the previous CA goes at ${new Date(end).toISOString()}`);
    // It would be adopted again at once.
    if (usedUnseen(input)) return wait('grace', 'a certificate changed within the grace time');
    return (
      of.holdsPrevious(input) ?? {
        kind: 'drop-old',
        because: 'nothing of the previous CA has been in use for the grace time',
      }
    );
  };

const caAged =
  <C extends Callers>(of: CallerRules<C>): Rule<C> =>
  (input) => {
    const { ca, now } = input;
    if (ca.current === undefined || now < renewalOf(ca.current)) return undefined;
    return (
      of.holdsRenewal(input) ?? {
        kind: 'make-ca',
        previous: [ca.current],
        because: 'two thirds of the life of the CA are over',
      }
    );
  };

const rulesFor = <C extends Callers>(of: CallerRules<C>): readonly Rule<C>[] => [
  caMissing,
  signerUnknown,
  ...of.before,
  leafDue(of),
  ...of.after,
  acceptanceAwaited(of),
  previousOutlived(of),
  caAged(of),
];
const WATCHING = rulesFor(watching);
const READING_ONCE = rulesFor(readingOnce);

const first = <C extends Callers>(rules: readonly Rule<C>[], input: ChainInput<C>): Step | undefined => {
  for (const rule of rules) {
    const step = rule(input);
    if (step !== undefined) return step;
  }
  return undefined;
};

const isWatched = (input: ChainInput): input is ChainInput<Watching> => input.callers.kind === 'watch';
const isReadOnce = (input: ChainInput): input is ChainInput<ReadingOnce> => input.callers.kind === 'read-once';

/** The next step of a chain. `wait` says what it waits for. */
export function nextStep(input: ChainInput): Step {
  const step = isWatched(input) ? first(WATCHING, input) : isReadOnce(input) ? first(READING_ONCE, input) : undefined;
  if (step !== undefined) return step;
  const { callers } = input;
  return callers.kind === 'watch' && callers.configuration.kind === 'unknown'
    ? wait('configuration', callers.configuration.because)
    : wait('nothing', 'nothing is due');
}
