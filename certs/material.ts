// Secrets' data → certificates that can be used: a certificate without its own key is none. Pure.
import { keyMatches, readCert, type CertFacts, type KeyPair } from './read.ts';

type Data = Readonly<Record<string, string>>;

/** Certificate and key below `PREFIX.crt` and `PREFIX.key`. */
export const pairOf = (data: Data, prefix: string): KeyPair => ({
  cert: data[`${prefix}.crt`] ?? '',
  key: data[`${prefix}.key`] ?? '',
});

/** A serving or client certificate of which certificate and key are there and match. */
export const leafOf = (data: Data): CertFacts | undefined => {
  const cert = readCert(data['tls.crt']);
  return cert !== undefined && keyMatches(pairOf(data, 'tls')) ? cert : undefined;
};

/** A CA of which certificate and key are there and match. */
export const caOf = (data: Data, prefix: string): CertFacts | undefined => {
  const cert = readCert(data[`${prefix}.crt`]);
  return cert !== undefined && cert.isCa && keyMatches(pairOf(data, prefix)) ? cert : undefined;
};

export const pemOf = (certs: readonly CertFacts[]): string => certs.map(({ pem }) => pem).join('');

export const without = (data: Data, ...keys: readonly string[]): Record<string, string> =>
  Object.fromEntries(Object.entries(data).filter(([key]) => !keys.includes(key)));

export const numberOf = (text: string | undefined): number | undefined =>
  text === undefined || text === '' || !Number.isFinite(Number(text)) ? undefined : Number(text);
