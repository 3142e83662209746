// Reads and checks certificates, by node:crypto alone: what the request path needs of them, with no library that could make one.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { certificatesIn } from '../core/pem.ts';
import { canonicalName } from './names.ts';

/** PEM texts. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** What is to be known of a certificate. */
export interface CertFacts {
  readonly pem: string;
  readonly from: number;
  readonly to: number;
  /** As names.ts spells them. */
  readonly sans: readonly string[];
  readonly isCa: boolean;
  readonly fingerprint: string;
  /** Was it signed by this CA's key? */
  signedBy(ca: CertFacts): boolean;
}

/** The first certificate of a PEM text; undefined where there is none that parses. Any key type. */
export function readCert(pem: string | undefined): CertFacts | undefined {
  if (pem === undefined || pem === '') return undefined;
  try {
    const parsed = new X509Certificate(pem);
    const sans = (parsed.subjectAltName ?? '')
      .split(', ')
      .map((entry) => entry.replace(/^(DNS|IP Address):/, ''))
      .filter((entry) => entry !== '')
      .map(canonicalName);
    const facts = {
      pem,
      from: Date.parse(parsed.validFrom),
      to: Date.parse(parsed.validTo),
      sans,
      isCa: parsed.ca,
      fingerprint: parsed.fingerprint256,
    };
    return {
      ...facts,
      signedBy: (ca) => {
        const parent = new X509Certificate(ca.pem);
        return parsed.checkIssued(parent) && parsed.verify(parent.publicKey);
      },
    };
  } catch {
    return undefined;
  }
}

/** Do key and certificate belong together? */
export function keyMatches(pair: { readonly cert: string; readonly key: string | undefined }): boolean {
  try {
    return new X509Certificate(pair.cert).checkPrivateKey(createPrivateKey(pair.key ?? ''));
  } catch {
    return false;
  }
}

/** The certificates of a bundle; what does not parse is left out. */
export const readBundle = (bundle: string | undefined): readonly CertFacts[] =>
  certificatesIn(bundle ?? '').flatMap((pem) => readCert(`${pem}\n`) ?? []);
