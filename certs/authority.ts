// A CA and the CAs before it, as they stand in the data of a Secret. Reads them and writes the data
// of the next state; every function returns a value. Which change is due is decided in rules.ts.
// Pure.
import { X509Certificate } from 'node:crypto';
import {
  keyMatches,
  pairOf,
  pemOf,
  readCas,
  readPair,
  validAt,
  type CertFacts,
  type KeyPair,
  type Reading,
} from './cert.ts';

type Data = Readonly<Record<string, string>>;

export interface Authority {
  /** The newest CA, with its key. */
  readonly current: CertFacts | undefined;
  /** Why there is no newest CA. `undefined` if there is one. */
  readonly problem: string | undefined;
  /** Previous CAs of which a certificate may still be in use, the newest first. */
  readonly previous: readonly CertFacts[];
  /** True if the key of the first of `previous` is still there, so that it can go on signing. */
  readonly previousSigns: boolean;
  /** Fingerprint of the newest CA that every caller is known to hold. */
  readonly confirmed: string | undefined;
  /**
   * When `current` took the place of a previous CA. Milliseconds since the epoch, like `retiredAt`.
   */
  readonly changedAt: number | undefined;
  /** When every replica was seen to serve a certificate of `current`. */
  readonly retiredAt: number | undefined;
}

/** The keys of a Secret's data under which a CA and its state stand. */
export interface Slots {
  readonly current: string;
  readonly previous: string;
  readonly confirmed: string;
  readonly changed: string;
  readonly retired: string;
}
export const WEBHOOK_CA: Slots = {
  current: 'tls',
  previous: 'previous',
  confirmed: 'confirmed',
  changed: 'changed',
  retired: 'retired',
};
export const EXTENDER_CA: Slots = {
  current: 'extender-ca',
  previous: 'extender-ca-previous',
  confirmed: 'extender-ca-confirmed',
  changed: 'extender-ca-changed',
  retired: 'extender-ca-retired',
};

const numberOf = (text: string | undefined): number | undefined =>
  text === undefined || text === '' || !Number.isFinite(Number(text)) ? undefined : Number(text);

export const without = (data: Data, ...keys: readonly string[]): Record<string, string> =>
  Object.fromEntries(Object.entries(data).filter(([key]) => !keys.includes(key)));

/** node-forge signs for RSA keys alone, so a CA of another key type cannot be used. */
const isRsa = ({ pem }: CertFacts): boolean => new X509Certificate(pem).publicKey.asymmetricKeyType === 'rsa';

function readCa(data: Data, prefix: string): Reading {
  const read = readPair(data, prefix);
  if (read.cert === undefined) return read;
  if (!read.cert.isCa) return { problem: `${prefix}.crt is not a CA` };
  return isRsa(read.cert) ? read : { problem: `${prefix}.key is not an RSA key` };
}

export function readAuthority(data: Data, slots: Slots): Authority {
  const { cert: current, problem } = readCa(data, slots.current);
  const previous = readCas(data[`${slots.previous}.crt`]);
  const [first] = previous;
  return {
    current,
    problem,
    previous,
    previousSigns:
      first !== undefined && isRsa(first) && keyMatches({ cert: first.pem, key: data[`${slots.previous}.key`] }),
    confirmed: data[slots.confirmed],
    changedAt: numberOf(data[slots.changed]),
    retiredAt: numberOf(data[slots.retired]),
  };
}

/** The CAs that callers must trust now, the newest first. */
export const bundleOf = (
  { current, previous }: Pick<Authority, 'current' | 'previous'>,
  now: number,
): readonly CertFacts[] => [current, ...previous].filter((cert) => validAt(cert, now));

/** What is forgotten with the previous CAs. */
const ofPrevious = ({ previous, changed, retired }: Slots): readonly string[] => [
  `${previous}.crt`,
  `${previous}.key`,
  changed,
  retired,
];

/** A new CA. The key of the first previous CA is kept with it where it is there. */
export function renewed(
  data: Data,
  slots: Slots,
  fresh: KeyPair,
  previous: readonly CertFacts[],
  now: number,
): Record<string, string> {
  const [signer] = previous;
  const key = [data[`${slots.current}.key`], data[`${slots.previous}.key`]].find(
    (candidate) => signer !== undefined && keyMatches({ cert: signer.pem, key: candidate }),
  );
  return {
    ...without(data, slots.confirmed, ...ofPrevious(slots)),
    [`${slots.current}.crt`]: fresh.cert,
    [`${slots.current}.key`]: fresh.key,
    ...(signer === undefined ? {} : { [`${slots.previous}.crt`]: pemOf(previous), [slots.changed]: String(now) }),
    ...(key === undefined ? {} : { [`${slots.previous}.key`]: key }),
  };
}

/** Keeps CAs beside the newest that another writer of the Secret did not know. */
export const adopted = (
  data: Data,
  slots: Slots,
  previous: readonly CertFacts[],
  now: number,
): Record<string, string> => ({
  ...without(data, slots.confirmed, slots.retired),
  [`${slots.previous}.crt`]: pemOf(previous),
  [slots.changed]: String(numberOf(data[slots.changed]) ?? now),
});

export const confirmedAs = (data: Data, slots: Slots, ca: CertFacts): Record<string, string> => ({
  ...data,
  [slots.confirmed]: ca.fingerprint,
});

/** Nothing of the previous CAs is served any more, so that their key is not needed. */
export const retired = (data: Data, slots: Slots, now: number): Record<string, string> => ({
  ...without(data, `${slots.previous}.key`),
  [slots.retired]: String(now),
});

export const dropped = (data: Data, slots: Slots): Record<string, string> => without(data, ...ofPrevious(slots));

/** The pair that signs for the newest CA, or for the first previous one. */
export const signerOf = (
  data: Data,
  slots: Slots,
  { previous }: Pick<Authority, 'previous'>,
  by: 'current' | 'previous',
): KeyPair =>
  by === 'current'
    ? pairOf(data, slots.current)
    : { cert: previous[0]?.pem ?? '', key: data[`${slots.previous}.key`] ?? '' };
