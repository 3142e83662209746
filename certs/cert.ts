// Reads a certificate: its names, its validity, and whether a key belongs to it. Uses node:crypto
// alone, so that the request path does not load a library that can make certificates. Pure.
import { certificatesIn } from '../core/pem.ts';
import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';

/** PEM texts. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

export interface CertFacts {
  readonly pem: string;
  /** Milliseconds since the epoch, like `to`. */
  readonly from: number;
  readonly to: number;
  /** In the spelling of `canonicalName`. */
  readonly sans: readonly string[];
  readonly isCa: boolean;
  readonly fingerprint: string;
  /** True if the key of this CA signed the certificate. */
  signedBy(ca: CertFacts): boolean;
}

/** A certificate with its own key, or one sentence that says why there is none. */
export type Reading =
  | { readonly cert: CertFacts; readonly problem?: undefined }
  | { readonly cert?: undefined; readonly problem: string };

type Data = Readonly<Record<string, string>>;

/** The first certificate of a PEM text, of any key type. `undefined` if none can be parsed. */
export function readCert(pem: string | undefined): CertFacts | undefined {
  if (pem === undefined || pem === '') return undefined;
  try {
    const parsed = new X509Certificate(pem);
    const sans = (parsed.subjectAltName ?? '')
      .split(', ')
      .map((entry) => entry.replace(/^(DNS|IP Address):/, ''))
      .filter((entry) => entry !== '')
      .map(canonicalName);
    return {
      pem,
      from: Date.parse(parsed.validFrom),
      to: Date.parse(parsed.validTo),
      sans,
      isCa: parsed.ca,
      fingerprint: parsed.fingerprint256,
      signedBy: (ca) => {
        const parent = new X509Certificate(ca.pem);
        return parsed.checkIssued(parent) && parsed.verify(parent.publicKey);
      },
    };
  } catch {
    return undefined;
  }
}

/** The certificates of a bundle. What cannot be parsed is left out. */
export const readBundle = (bundle: string | undefined): readonly CertFacts[] =>
  certificatesIn(bundle ?? '').flatMap((pem) => readCert(`${pem}\n`) ?? []);

/** The CAs of a bundle. */
export const readCas = (bundle: string | undefined): readonly CertFacts[] =>
  readBundle(bundle).filter(({ isCa }) => isCa);

export const pemOf = (certs: readonly CertFacts[]): string => certs.map(({ pem }) => pem).join('');

export const printsOf = (certs: readonly CertFacts[]): readonly string[] => certs.map(({ fingerprint }) => fingerprint);

const privateKey = (pem: string): KeyObject | undefined => {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
};

/** True if key and certificate belong together. */
export function keyMatches(pair: { readonly cert: string; readonly key: string | undefined }): boolean {
  const key = privateKey(pair.key ?? '');
  try {
    return key !== undefined && new X509Certificate(pair.cert).checkPrivateKey(key);
  } catch {
    return false;
  }
}

/** Certificate and key below `PREFIX.crt` and `PREFIX.key` of a Secret's data. */
export const pairOf = (data: Data, prefix: string): KeyPair => ({
  cert: data[`${prefix}.crt`] ?? '',
  key: data[`${prefix}.key`] ?? '',
});

/** Reads a pair of a Secret's data. A certificate without its own key counts as none. */
export function readPair(data: Data, prefix: string): Reading {
  const pair = pairOf(data, prefix);
  const [crt, key] = [`${prefix}.crt`, `${prefix}.key`];
  if (pair.cert === '') return { problem: pair.key === '' ? `${crt} and ${key} are missing` : `${crt} is missing` };
  const cert = readCert(pair.cert);
  if (cert === undefined) return { problem: `${crt} is not a PEM certificate` };
  if (pair.key === '') return { problem: `${key} is missing` };
  if (privateKey(pair.key) === undefined) return { problem: `${key} is not a PEM private key` };
  return keyMatches(pair) ? { cert } : { problem: `${key} is not the key of ${crt}` };
}

/**
 * How far back certificates begin (ms), because clocks of control planes and nodes are never quite
 * the same.
 */
export const BACKDATED = 3_600_000;

/**
 * When two thirds of a certificate's life are over, counted from when it was made. Milliseconds
 * since the epoch.
 */
export const renewalOf = (cert: { readonly from: number; readonly to: number }): number =>
  cert.to - Math.max(0, cert.to - cert.from - BACKDATED) / 3;

/** True if the certificate is valid at that time, in milliseconds since the epoch. */
export const validAt = <T extends { readonly from: number; readonly to: number }>(
  cert: T | undefined,
  now: number,
): cert is T => cert !== undefined && cert.from <= now && now < cert.to;

/**
 * A name or an address in the spelling by which certificates are compared. An IPv6 address can be
 * written several ways, and the form read back from a certificate rarely matches the one requested.
 */
const canonicalName = (name: string): string => {
  if (!name.includes(':')) return name.toLowerCase();
  const url = `http://[${name}]`;
  return URL.canParse(url) ? new URL(url).hostname.slice(1, -1) : name.toLowerCase();
};

/** The first of these names that a certificate lacks. `undefined` if it has them all. */
export const missingName = (
  { sans }: { readonly sans: readonly string[] },
  names: readonly string[],
): string | undefined => names.find((name) => !sans.includes(canonicalName(name)));
