// The extender's certificates: what is in the Secrets and the ConfigMap, the time → the one thing to do next, and why. Pure.
//
// Schedulers read the CA once, at their start. So where it must be replaced, both are handed out and the one before goes on
// signing what is served, until a stated day by which schedulers have been restarted (`restartBy`): make it → hand both out →
// client certificate of the new one → on that day the serving certificate of the new one → the one before dropped.
import { missingName } from './names.ts';
import type { CertFacts } from './read.ts';
import { BACKDATED, renewalOf, validAt as usable } from './validity.ts';

export interface ExtenderCa {
  readonly current: CertFacts | undefined;
  /** CAs before it, the newest first. */
  readonly previous: readonly CertFacts[];
  /** The key of the first of `previous` is still there. */
  readonly previousSigns: boolean;
  /** When `current` took its place; ms since the epoch. */
  readonly changedAt: number | undefined;
}

export interface ExtenderInput {
  readonly ca: ExtenderCa;
  readonly serving: CertFacts | undefined;
  readonly client: CertFacts | undefined;
  readonly sans: readonly string[];
  /** CAs that schedulers were given: a lost one is taken from there, and none from elsewhere. */
  readonly known: readonly CertFacts[];
  /** Fingerprints of the CAs in the ConfigMap and beside the two certificates, in order. */
  readonly handedOut: { readonly configMap: Prints; readonly serving: Prints; readonly client: Prints };
  /** ms: for how long the CA before goes on signing. */
  readonly overlap: number;
  /** ms: how long whoever mounts a Secret may be behind. */
  readonly grace: number;
  readonly now: number;
}
type Prints = readonly string[];

export type ExtenderStep =
  | { readonly kind: 'make-extender-ca'; readonly previous: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'adopt-extender-ca'; readonly previous: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'publish-extender-ca'; readonly bundle: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'trust-extender-ca'; readonly bundle: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'issue-extender'; readonly by: 'current' | 'previous'; readonly because: string }
  | { readonly kind: 'issue-scheduler-client'; readonly because: string }
  | { readonly kind: 'drop-extender-ca'; readonly because: string };

/** The CAs to hand out now, the newest first. */
export const extenderBundle = (ca: ExtenderCa, now: number): readonly CertFacts[] =>
  [ca.current, ...ca.previous].filter((cert) => usable(cert, now));

const DAY = 86_400_000;
/** How long before its end a certificate that cannot be renewed is given up: a tenth of its life, a day at most. */
const reserve = ({ from, to }: CertFacts): number => Math.min(DAY, (to - from - BACKDATED) / 10);

/**
 * Until when what is served can be checked by the CA before, and so by schedulers that read it: ms since the epoch. undefined: no
 * change is under way, or it is over.
 */
export function restartBy({ ca, serving, overlap }: ExtenderInput): number | undefined {
  const [before] = ca.previous;
  if (before === undefined || ca.current === undefined) return undefined;
  if (serving?.signedBy(ca.current) === true) return undefined;
  if (ca.previousSigns && (serving === undefined || serving.signedBy(before)))
    return Math.min((ca.changedAt ?? 0) + overlap, before.to - reserve(before));
  // Its key is lost: what is served cannot be renewed, and is kept for as long as it holds.
  return serving === undefined ? undefined : serving.to - reserve(serving);
}

type Rule = (input: ExtenderInput) => ExtenderStep | undefined;

/** Which of these CAs signed a certificate that is still in use. */
const inUse = (cas: readonly CertFacts[], { serving, client, now }: ExtenderInput): readonly CertFacts[] => {
  const leaves = [serving, client].filter((leaf) => usable(leaf, now));
  return cas.filter(
    (ca, i) =>
      usable(ca, now) &&
      cas.findIndex(({ fingerprint }) => fingerprint === ca.fingerprint) === i &&
      leaves.some((leaf) => leaf.signedBy(ca)),
  );
};

const caDue: Rule = (input) => {
  const { ca, known, now } = input;
  const because = !usable(ca.current, now)
    ? 'there is no usable CA'
    : now >= renewalOf(ca.current)
      ? 'two thirds of the life of the CA are over'
      : undefined;
  if (because === undefined) return undefined;
  // One whose key is there is kept in any case: it can sign what schedulers check by it.
  const first = usable(ca.current, now) ? [ca.current] : [];
  const rest = inUse([...ca.previous, ...known], input).filter(
    ({ fingerprint }) => fingerprint !== ca.current?.fingerprint,
  );
  return { kind: 'make-extender-ca', previous: [...first, ...rest], because };
};

/** The CA's Secret was replaced, but schedulers were given another CA, and what is served is of that one. */
const signerUnknown: Rule = (input) => {
  const { ca, known } = input;
  const trusted = [ca.current, ...ca.previous].map((cert) => cert?.fingerprint);
  const missing = inUse(
    known.filter(({ fingerprint }) => !trusted.includes(fingerprint)),
    input,
  );
  return missing.length === 0
    ? undefined
    : {
        kind: 'adopt-extender-ca',
        previous: [...ca.previous, ...missing],
        because: 'a certificate of another CA that schedulers were given is in use',
      };
};

const same = (certs: readonly CertFacts[], prints: Prints): boolean =>
  certs.length === prints.length && certs.every(({ fingerprint }, i) => fingerprint === prints[i]);

const notHandedOut: Rule = ({ ca, handedOut, serving, client, now }) => {
  const bundle = extenderBundle(ca, now);
  if (!same(bundle, handedOut.configMap))
    return { kind: 'publish-extender-ca', bundle, because: 'the ConfigMap has other CAs' };
  const behind =
    (serving !== undefined && !same(bundle, handedOut.serving)) ||
    (client !== undefined && !same(bundle, handedOut.client));
  return behind ? { kind: 'trust-extender-ca', bundle, because: 'a certificate has other CAs beside it' } : undefined;
};

const signedByOneOf = (cas: readonly CertFacts[], leaf: CertFacts): boolean => cas.some((ca) => leaf.signedBy(ca));

const servingDue: Rule = (input) => {
  const { ca, serving, sans, now } = input;
  const [before] = ca.previous;
  const end = restartBy(input);
  const previousSigns = ca.previousSigns && usable(before, now) && end !== undefined && now < end;
  const issue = (by: 'current' | 'previous', because: string): ExtenderStep => ({
    kind: 'issue-extender',
    by,
    because,
  });
  const problem =
    serving === undefined
      ? 'there is no usable certificate'
      : !usable(serving, now)
        ? 'the certificate is not valid now'
        : missingName(serving, sans) !== undefined
          ? 'the certificate lacks a name'
          : signedByOneOf(extenderBundle(ca, now), serving)
            ? undefined
            : 'the certificate is of a foreign CA';
  if (serving === undefined || problem !== undefined)
    return issue(previousSigns ? 'previous' : 'current', problem ?? 'there is no usable certificate');
  if (end !== undefined && now >= end)
    return issue('current', 'the time that schedulers had to be restarted in is over');
  if (now < renewalOf(serving)) return undefined;
  const aged = 'two thirds of its life are over';
  if (end === undefined) return issue('current', aged);
  // One that ends with its CA gets no longer by being made again.
  return previousSigns && before !== undefined && serving.to < before.to ? issue('previous', aged) : undefined;
};

const clientDue: Rule = ({ ca, client, grace, now }) => {
  const issue = (because: string): ExtenderStep => ({ kind: 'issue-scheduler-client', because });
  if (!usable(client, now)) return issue('there is no usable certificate');
  if (!signedByOneOf(extenderBundle(ca, now), client)) return issue('the certificate is of a foreign CA');
  if (now >= renewalOf(client)) return issue('two thirds of its life are over');
  // Not at once: replicas must know the new CA before a caller shows a certificate of it.
  return ca.current !== undefined && !client.signedBy(ca.current) && now >= (ca.changedAt ?? 0) + grace
    ? issue('every replica knows the new CA')
    : undefined;
};

const previousOver: Rule = ({ ca, serving, client, grace, now }) => {
  const { current, previous } = ca;
  if (previous.length === 0 || current === undefined) return undefined;
  // Whoever mounts a Secret goes on with what was in it before for a while.
  const settled = (leaf: CertFacts | undefined): boolean =>
    leaf !== undefined && leaf.signedBy(current) && now >= leaf.from + BACKDATED + grace;
  return settled(serving) && settled(client)
    ? { kind: 'drop-extender-ca', because: 'nothing of the CA before is in use for the grace time' }
    : undefined;
};

const RULES: readonly Rule[] = [caDue, signerUnknown, notHandedOut, servingDue, clientDue, previousOver];

/** The next step; undefined: nothing is due. */
export function nextExtenderStep(input: ExtenderInput): ExtenderStep | undefined {
  for (const rule of RULES) {
    const step = rule(input);
    if (step !== undefined) return step;
  }
  return undefined;
}
