// Builds and signs certificates. node-forge does that alone (its parsing has a history of holes, and it knows no EC keys); keys are
// node:crypto's, and so is every check (read.ts). The only file that imports node-forge.
import { generateKeyPair, randomBytes, X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import forge from 'node-forge';
import type { KeyPair } from './read.ts';
import { BACKDATED } from './validity.ts';

const generate = promisify(generateKeyPair);

const newKey = async (): Promise<{ key: string; publicKey: string }> => {
  const pair = await generate('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  return { key: pair.privateKey, publicKey: pair.publicKey };
};

/** Positive and random, as RFC 5280 wants it: 16 bytes with the top bit clear. */
const serial = (): string => {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
};

interface Draft {
  readonly publicKey: string;
  readonly name: string;
  readonly issuer: forge.pki.CertificateField[];
  readonly from: number;
  readonly to: number;
  readonly extensions: object[];
}

const build = (draft: Draft, signer: string): string => {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.publicKeyFromPem(draft.publicKey);
  certificate.serialNumber = serial();
  certificate.validity.notBefore = new Date(draft.from - BACKDATED);
  certificate.validity.notAfter = new Date(draft.to);
  certificate.setSubject([{ name: 'commonName', value: draft.name }]);
  certificate.setIssuer(draft.issuer);
  certificate.setExtensions(draft.extensions);
  // Without a digest forge signs with SHA-1, which the API server refuses.
  certificate.sign(forge.pki.privateKeyFromPem(signer), forge.md.sha256.create());
  return forge.pki.certificateToPem(certificate).replaceAll('\r\n', '\n');
};

/** A self-signed CA. `life` in ms from `now`. */
export async function issueCa(name: string, life: number, now: number): Promise<KeyPair> {
  const { key, publicKey } = await newKey();
  // The name is of this CA alone: two CAs of one name in a bundle confuse chain building.
  const unique = `${name} ${new Date(now).toISOString()} ${randomBytes(3).toString('hex')}`;
  const cert = build(
    {
      publicKey,
      name: unique,
      issuer: [{ name: 'commonName', value: unique }],
      from: now,
      to: now + life,
      extensions: [
        { name: 'basicConstraints', cA: true, critical: true },
        { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
        { name: 'subjectKeyIdentifier' },
      ],
    },
    key,
  );
  return { cert, key };
}

export interface LeafRequest {
  readonly name: string;
  /** DNS names and IP addresses. */
  readonly sans: readonly string[];
  readonly usage: 'server' | 'client';
  /** ms; cut where the CA ends earlier. */
  readonly life: number;
}

/** A serving or client certificate of the CA. */
export async function issueLeaf(ca: KeyPair, request: LeafRequest, now: number): Promise<KeyPair> {
  const { key, publicKey } = await newKey();
  const parent = new X509Certificate(ca.cert);
  const issuer = forge.pki.certificateFromPem(ca.cert).subject.attributes;
  const altNames = request.sans.map((san) => (/^[\d.]+$|:/.test(san) ? { type: 7, ip: san } : { type: 2, value: san }));
  const cert = build(
    {
      publicKey,
      name: request.name,
      issuer,
      from: now,
      to: Math.min(now + request.life, Date.parse(parent.validTo)),
      extensions: [
        { name: 'basicConstraints', cA: false, critical: true },
        { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
        { name: 'extKeyUsage', ...(request.usage === 'server' ? { serverAuth: true } : { clientAuth: true }) },
        ...(altNames.length === 0 ? [] : [{ name: 'subjectAltName', altNames }]),
      ],
    },
    ca.key,
  );
  return { cert, key };
}
