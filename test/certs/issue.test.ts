import { X509Certificate } from 'node:crypto';
import forge from 'node-forge';
import { describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../certs/issue.ts';
import { keyMatches, missingName, readBundle, readCert } from '../../certs/cert.ts';

const DAY = 86_400_000;
const NOW = Date.parse('2026-11-24T10:00:00Z');

describe('certificates', () => {
  it('are what the API server accepts', async () => {
    const ca = await issueCa('test CA', 100 * DAY, NOW);
    const leaf = await issueLeaf(
      ca,
      { name: 'w', sans: ['gpu-gate-webhook.gpu-gate.svc', '127.0.0.1'], usage: 'server', life: 10 * DAY },
      NOW,
    );
    const [root, cert] = [new X509Certificate(ca.cert), new X509Certificate(leaf.cert)];
    expect(cert.verify(root.publicKey)).toBe(true);
    expect(cert.checkHost('gpu-gate-webhook.gpu-gate.svc')).toBeDefined();
    expect(cert.checkIP('127.0.0.1')).toBeDefined();
    expect(cert.toLegacyObject().ext_key_usage).toEqual(['1.3.6.1.5.5.7.3.1']);
    expect((cert as unknown as { signatureAlgorithm: string }).signatureAlgorithm).toMatch(/sha256/i);
    expect(Date.parse(cert.validFrom)).toBe(NOW - 3_600_000);
    expect(BigInt(`0x${cert.serialNumber}`)).toBeGreaterThan(2n ** 64n);
    expect(Number.parseInt(cert.serialNumber.slice(0, 2), 16)).toBeLessThan(0x80);
    expect([root.publicKey.asymmetricKeyType, cert.publicKey.asymmetricKeyType]).toEqual(['rsa', 'ec']);
    expect(cert.publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
    expect(keyMatches(leaf)).toBe(true);
    expect(keyMatches({ cert: leaf.cert, key: ca.key })).toBe(false);
    expect(keyMatches({ cert: leaf.cert, key: 'junk' })).toBe(false);
    expect(keyMatches({ cert: 'junk', key: leaf.key })).toBe(false);
  });
  it('name the key that signed them, as RFC 5280 requires', async () => {
    const [first, second] = [await issueCa('one', DAY, NOW), await issueCa('two', DAY, NOW)];
    const idOf = (pem: string, extension: string): unknown => forge.pki.certificateFromPem(pem).getExtension(extension);
    const request = { name: 'w', sans: ['w'], usage: 'server', life: DAY } as const;
    for (const ca of [first, second]) {
      const leaf = new X509Certificate((await issueLeaf(ca, request, NOW)).cert);
      const { subjectKeyIdentifier } = idOf(ca.cert, 'subjectKeyIdentifier') as { subjectKeyIdentifier: string };
      expect(subjectKeyIdentifier).toMatch(/^[0-9a-f]{40}$/);
      // OID 2.5.29.35 in a sequence with the octet string of the identifier behind the tag of
      // keyIdentifier, 20 bytes.
      expect(leaf.raw.toString('hex')).toContain(`0603551d23041830168014${subjectKeyIdentifier}`);
      expect(leaf.checkIssued(new X509Certificate(ca.cert))).toBe(true);
    }
  });
  it('have their names found again, however an address is written', async () => {
    const ca = await issueCa('test CA', 100 * DAY, NOW);
    const names = ['W.svc', '127.0.0.1', '::1', 'fd00:0:0::00AB', '2001:DB8::1'];
    const { cert } = await issueLeaf(ca, { name: 'w', sans: names, usage: 'server', life: DAY }, NOW);
    const leaf = readCert(cert);
    expect(leaf?.sans).toEqual(['w.svc', '127.0.0.1', '::1', 'fd00::ab', '2001:db8::1']);
    expect(missingName(leaf ?? { sans: [] }, [...names, '0:0:0:0:0:0:0:1'])).toBeUndefined();
    expect(missingName(leaf ?? { sans: [] }, ['::2', '127.0.0.1'])).toBe('::2');
    expect(new X509Certificate(cert).checkIP('::1')).toBeDefined();
  });
  it('do not outlive their CA', async () => {
    const ca = await issueCa('test CA', DAY, NOW);
    const leaf = await issueLeaf(ca, { name: 'w', sans: ['x'], usage: 'server', life: 10 * DAY }, NOW);
    expect(readCert(leaf.cert)?.to).toBe(readCert(ca.cert)?.to);
  });
  it('that cannot be read are none', () => {
    expect(readCert('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----')).toBeUndefined();
    expect(readCert('')).toBeUndefined();
    expect(readBundle('junk')).toEqual([]);
  });
});
