// What is in the Secrets, what the webhook configuration trusts, the time → the one thing to do next, and why. Pure: any
// leader can go on from any step, because the step is read off the objects and not remembered.
import type { CertFacts } from './issue.ts';

/** A certificate with a key that matches it; one without is never taken up here. */
export interface CaState {
  readonly current: CertFacts | undefined;
  readonly next: CertFacts | undefined;
  readonly old: CertFacts | undefined;
  /** When `next` was published, when `current` replaced `old`; ms since the epoch. */
  readonly publishedAt: number | undefined;
  readonly switchedAt: number | undefined;
}

export interface RenewalInput {
  readonly ca: CaState;
  /** The serving certificate with a matching key; undefined: missing, corrupted, or its key is another's. */
  readonly leaf: CertFacts | undefined;
  readonly sans: readonly string[];
  /** Fingerprints of what the webhook configuration trusts; undefined: somebody else writes it, or it is not there. */
  readonly trusted: readonly string[] | undefined;
  /** ms: how long a bundle with a new CA has been out before a leaf of that CA is served. */
  readonly overlap: number;
  /** ms: how long an old CA stays trusted after the switch. */
  readonly grace: number;
  readonly now: number;
}

export type Step =
  | { readonly kind: 'make-ca'; readonly because: string }
  | { readonly kind: 'make-next-ca'; readonly because: string }
  | { readonly kind: 'publish'; readonly bundle: readonly CertFacts[]; readonly because: string }
  | { readonly kind: 'issue-leaf'; readonly by: 'current' | 'next'; readonly because: string }
  | { readonly kind: 'promote-next'; readonly because: string }
  | { readonly kind: 'drop-old'; readonly because: string }
  | { readonly kind: 'wait'; readonly until: number };

/** Two thirds of a certificate's life. */
export const renewalOf = (cert: CertFacts): number => cert.from + ((cert.to - cert.from) * 2) / 3;

const usable = (cert: CertFacts | undefined, now: number): cert is CertFacts =>
  cert !== undefined && cert.from <= now && now < cert.to;

/** The CAs that clients must trust now: whoever may have signed what is served. */
export const bundleOf = (ca: CaState, now: number): readonly CertFacts[] =>
  [ca.current, ca.next, ca.old].filter((cert) => usable(cert, now));

type Rule = (input: RenewalInput) => Step | undefined;

const caMissing: Rule = ({ ca, now }) => {
  const { current } = ca;
  if (current === undefined) return { kind: 'make-ca', because: 'there is no usable CA' };
  if (current.from > now) return { kind: 'make-ca', because: 'the CA is not valid yet: a clock went back' };
  return now >= current.to ? { kind: 'make-ca', because: 'the CA has expired' } : undefined;
};

const bundleNotTrusted: Rule = ({ ca, trusted, now }) => {
  if (trusted === undefined) return undefined;
  const bundle = bundleOf(ca, now);
  const same = bundle.length === trusted.length && bundle.every((cert) => trusted.includes(cert.fingerprint));
  return same
    ? undefined
    : {
        kind: 'publish',
        bundle,
        because:
          trusted.length === 0
            ? 'the webhook configuration trusts no CA'
            : 'the webhook configuration trusts other CAs',
      };
};

const leafUnusable: Rule = ({ ca, leaf, sans, now }) => {
  const by = 'current';
  if (leaf === undefined) return { kind: 'issue-leaf', by, because: 'there is no usable certificate' };
  if (now >= leaf.to) return { kind: 'issue-leaf', by, because: 'the certificate has expired' };
  if (leaf.from > now) return { kind: 'issue-leaf', by, because: 'the certificate is not valid yet' };
  if (!sans.every((san) => leaf.sans.includes(san)))
    return { kind: 'issue-leaf', by, because: 'the certificate lacks a name' };
  const signer = bundleOf(ca, now).find((cert) => leaf.signedBy(cert));
  return signer === undefined ? { kind: 'issue-leaf', by, because: 'the certificate is of a foreign CA' } : undefined;
};

const nextOverlaps: Rule = ({ ca, leaf, overlap, now }) => {
  if (!usable(ca.next, now) || leaf === undefined) return undefined;
  const ready = (ca.publishedAt ?? now) + overlap;
  if (now < ready) return { kind: 'wait', until: ready };
  if (!leaf.signedBy(ca.next)) return { kind: 'issue-leaf', by: 'next', because: 'the new CA is trusted everywhere' };
  return { kind: 'promote-next', because: 'the certificate of the new CA is served' };
};

const oldOutlived: Rule = ({ ca, grace, now }) => {
  if (ca.old === undefined) return undefined;
  const end = (ca.switchedAt ?? 0) + grace;
  return now >= end ? { kind: 'drop-old', because: 'nothing of the old CA is served any more' } : undefined;
};

const caAged: Rule = ({ ca, now }) =>
  ca.current !== undefined && ca.next === undefined && ca.old === undefined && now >= renewalOf(ca.current)
    ? { kind: 'make-next-ca', because: 'two thirds of the life of the CA are over' }
    : undefined;

const leafAged: Rule = ({ leaf, now }) =>
  leaf !== undefined && now >= renewalOf(leaf)
    ? { kind: 'issue-leaf', by: 'current', because: 'two thirds of its life are over' }
    : undefined;

const RULES: readonly Rule[] = [caMissing, bundleNotTrusted, leafUnusable, nextOverlaps, oldOutlived, caAged, leafAged];

/** The next step; `wait` says until when nothing is due. */
export function nextStep(input: RenewalInput): Step {
  for (const rule of RULES) {
    const step = rule(input);
    if (step !== undefined) return step;
  }
  const { ca, leaf, grace } = input;
  const dates = [
    ca.current === undefined ? undefined : renewalOf(ca.current),
    leaf === undefined ? undefined : renewalOf(leaf),
    ca.old === undefined ? undefined : (ca.switchedAt ?? 0) + grace,
  ];
  return { kind: 'wait', until: Math.min(...dates.filter((date) => date !== undefined)) };
}
