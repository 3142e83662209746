// Builds certificates, the only file that imports node-forge. node-forge writes their ASN.1 and
// nothing else: its parsing has a history of holes, it knows no EC keys, and a signature of its own
// takes 66 ms of the event loop. Keys, signatures and every check (cert.ts) are by node:crypto.
import { createPublicKey, generateKeyPair, randomBytes, sign, X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import forge from 'node-forge';
import { BACKDATED, type KeyPair } from './cert.ts';

const generate = promisify(generateKeyPair);
const signed = promisify(sign);

const newCaKey = () =>
  generate('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });

/** P-256, because the key signs in every handshake (docs/adr/0012-p256-serving-keys.md). */
const newLeafKey = () =>
  generate('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });

/** Positive and random, as RFC 5280 requires: 16 bytes with the top bit clear. */
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

/**
 * What node-forge writes into a certificate until the real key takes its place, because it writes
 * RSA keys only.
 */
const PLACEHOLDER = forge.pki.setRsaPublicKey(new forge.jsbn.BigInteger('3'), new forge.jsbn.BigInteger('3'));
/**
 * Where the key stands in a TBSCertificate (RFC 5280): after version, serial, signature, issuer,
 * validity, subject.
 */
const SUBJECT_PUBLIC_KEY_INFO = 6;

const build = async (draft: Draft, signer: string): Promise<string> => {
  const certificate = forge.pki.createCertificate();
  const key = createPublicKey(draft.publicKey);
  const isRsa = key.asymmetricKeyType === 'rsa';
  // node-forge derives the identifier of a CA's key from it.
  certificate.publicKey = isRsa ? forge.pki.publicKeyFromPem(draft.publicKey) : PLACEHOLDER;
  certificate.serialNumber = serial();
  certificate.validity.notBefore = new Date(draft.from - BACKDATED);
  certificate.validity.notAfter = new Date(draft.to);
  certificate.setSubject([{ name: 'commonName', value: draft.name }]);
  certificate.setIssuer(draft.issuer);
  certificate.setExtensions(draft.extensions);
  // The API server refuses SHA-1, node-forge's default.
  certificate.signatureOid = forge.pki.oids['sha256WithRSAEncryption'] ?? '';
  certificate.siginfo.algorithmOid = certificate.signatureOid;
  certificate.signature = '';
  const whole = forge.pki.certificateToAsn1(certificate);
  const [tbs, , signature] = whole.value as forge.asn1.Asn1[];
  if (tbs === undefined || signature === undefined) throw new Error('node-forge wrote no certificate');
  const spki = key.export({ type: 'spki', format: 'der' }).toString('latin1');
  (tbs.value as forge.asn1.Asn1[])[SUBJECT_PUBLIC_KEY_INFO] = forge.asn1.fromDer(spki);
  // The first byte of a bit string says how many bits of its last one are unused.
  signature.value = `\0${(await signed('sha256', derOf(tbs), signer)).toString('latin1')}`;
  return new X509Certificate(derOf(whole)).toString();
};

const derOf = (value: forge.asn1.Asn1): Buffer => Buffer.from(forge.asn1.toDer(value).getBytes(), 'latin1');

/** A self-signed CA that lives for `life` milliseconds from `now`. */
export async function issueCa(name: string, life: number, now: number): Promise<KeyPair> {
  const { privateKey: key, publicKey } = await newCaKey();
  // A unique name, because two CAs of one name in a bundle confuse chain building.
  const unique = `${name} ${new Date(now).toISOString()} ${randomBytes(3).toString('hex')}`;
  const cert = await build(
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
  /** Milliseconds. Shortened if the CA ends earlier. */
  readonly life: number;
}

/** A serving or client certificate of the CA. */
export async function issueLeaf(ca: KeyPair, request: LeafRequest, now: number): Promise<KeyPair> {
  const { privateKey: key, publicKey } = await newLeafKey();
  const parent = new X509Certificate(ca.cert);
  const signer = forge.pki.certificateFromPem(ca.cert);
  const issuer = signer.subject.attributes;
  // In hexadecimal digits. A CA of another maker may have none.
  const keyId = (signer.getExtension('subjectKeyIdentifier') as { subjectKeyIdentifier?: string } | null)
    ?.subjectKeyIdentifier;
  const altNames = request.sans.map((san) => (/^[\d.]+$|:/.test(san) ? { type: 7, ip: san } : { type: 2, value: san }));
  const cert = await build(
    {
      publicKey,
      name: request.name,
      issuer,
      from: now,
      to: Math.min(now + request.life, Date.parse(parent.validTo)),
      extensions: [
        { name: 'basicConstraints', cA: false, critical: true },
        { name: 'keyUsage', digitalSignature: true, critical: true },
        { name: 'extKeyUsage', ...(request.usage === 'server' ? { serverAuth: true } : { clientAuth: true }) },
        ...(keyId === undefined
          ? []
          : [{ name: 'authorityKeyIdentifier', keyIdentifier: forge.util.hexToBytes(keyId) }]),
        ...(altNames.length === 0 ? [] : [{ name: 'subjectAltName', altNames }]),
      ],
    },
    ca.key,
  );
  return { cert, key };
}
