// Real keys and certificates in the data of a Secret: what is read of it, in which sentence it is
// broken, and what is written.
import { generateKeyPairSync } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  adopted,
  bundleOf,
  confirmedAs,
  dropped,
  EXTENDER_CA,
  readAuthority,
  renewed,
  retired,
  signerOf,
  WEBHOOK_CA,
} from '../../certs/authority.ts';
import { pemOf, readCert, readPair, type CertFacts, type KeyPair } from '../../certs/cert.ts';
import { issueCa, issueLeaf } from '../../certs/issue.ts';

const DAY = 86_400_000;
const NOW = Date.parse('2026-11-24T10:00:00Z');
let one: KeyPair;
let two: KeyPair;
let leaf: KeyPair;
beforeAll(async () => {
  [one, two] = [await issueCa('one', 9 * DAY, NOW), await issueCa('two', 9 * DAY, NOW)];
  leaf = await issueLeaf(one, { name: 'w', sans: ['w'], usage: 'server', life: DAY }, NOW);
});
const facts = ({ cert }: KeyPair): CertFacts => {
  const read = readCert(cert);
  if (read === undefined) throw new Error('no certificate');
  return read;
};
const tls = ({ cert, key }: KeyPair): Record<string, string> => ({ 'tls.crt': cert, 'tls.key': key });

describe('a broken Secret is reported in one sentence', () => {
  const EC_KEY = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  }).privateKey;
  it.each<[string, () => Record<string, string>, string]>([
    ['empty', () => ({}), 'tls.crt and tls.key are missing'],
    ['without a certificate', () => ({ 'tls.key': one.key }), 'tls.crt is missing'],
    ['without a key', () => ({ 'tls.crt': one.cert }), 'tls.key is missing'],
    ['with junk', () => ({ ...tls(one), 'tls.crt': 'junk' }), 'tls.crt is not a PEM certificate'],
    ['truncated', () => ({ ...tls(one), 'tls.crt': one.cert.slice(0, 400) }), 'tls.crt is not a PEM certificate'],
    ['with a junk key', () => ({ ...tls(one), 'tls.key': 'AAAA' }), 'tls.key is not a PEM private key'],
    ['with the key of another', () => ({ ...tls(one), 'tls.key': two.key }), 'tls.key is not the key of tls.crt'],
    ['with a key of another type', () => ({ ...tls(one), 'tls.key': EC_KEY }), 'tls.key is not the key of tls.crt'],
    ['with a certificate that is not a CA', () => tls(leaf), 'tls.crt is not a CA'],
  ])('%s', (_, data, problem) =>
    expect(readAuthority(data(), WEBHOOK_CA)).toMatchObject({ current: undefined, problem }),
  );

  it('a serving certificate need not be a CA', () => expect(readPair(tls(leaf), 'tls').cert?.sans).toEqual(['w']));
});

describe('a CA and those before it', () => {
  it('are written and read again, the key of the previous one kept', () => {
    const data = renewed({ ...tls(one), confirmed: 'x', other: 'stays' }, WEBHOOK_CA, two, [facts(one)], NOW);
    const ca = readAuthority(data, WEBHOOK_CA);
    expect(ca).toMatchObject({ problem: undefined, previousSigns: true, confirmed: undefined, changedAt: NOW });
    expect(data['other']).toBe('stays');
    expect(bundleOf(ca, NOW).map(({ fingerprint }) => fingerprint)).toEqual(
      [facts(two), facts(one)].map((c) => c.fingerprint),
    );
    expect(bundleOf(ca, NOW + 10 * DAY)).toEqual([]);
    expect(signerOf(data, WEBHOOK_CA, ca, 'current')).toEqual(two);
    expect(signerOf(data, WEBHOOK_CA, ca, 'previous').key).toBe(one.key);
  });

  it('lose the key of a previous CA that is not there', () => {
    const data = renewed(tls(two), WEBHOOK_CA, two, [facts(one)], NOW);
    expect(readAuthority(data, WEBHOOK_CA).previousSigns).toBe(false);
    expect(data).not.toHaveProperty(['previous.key']);
  });

  it('begin with no previous one where nothing is known', () => {
    const data = renewed({}, EXTENDER_CA, one, [], NOW);
    expect(Object.keys(data)).toEqual(['extender-ca.crt', 'extender-ca.key']);
    const ca = readAuthority(data, EXTENDER_CA);
    expect([ca.previous, ca.changedAt]).toEqual([[], undefined]);
    expect(signerOf(data, EXTENDER_CA, ca, 'previous')).toEqual({ cert: '', key: '' });
  });

  it('stand beside each other in one Secret, each with its own state', () => {
    const both = renewed(renewed({}, WEBHOOK_CA, one, [], NOW), EXTENDER_CA, two, [facts(one)], NOW);
    const noted = retired(confirmedAs(both, WEBHOOK_CA, facts(one)), EXTENDER_CA, NOW + 5);
    expect(readAuthority(noted, WEBHOOK_CA)).toMatchObject({ confirmed: facts(one).fingerprint, retiredAt: undefined });
    expect(readAuthority(noted, EXTENDER_CA)).toMatchObject({ confirmed: undefined, retiredAt: NOW + 5 });
    const ended = dropped(noted, EXTENDER_CA);
    expect(readAuthority(ended, EXTENDER_CA)).toMatchObject({
      previous: [],
      changedAt: undefined,
      retiredAt: undefined,
    });
    expect(readAuthority(ended, WEBHOOK_CA).confirmed).toBe(facts(one).fingerprint);
  });

  it('adopt others, the day of an earlier change kept', () => {
    const first = adopted(tls(one), WEBHOOK_CA, [facts(two)], NOW);
    const second = adopted(retired(first, WEBHOOK_CA, NOW + 1), WEBHOOK_CA, [facts(two), facts(one)], NOW + 9);
    const ca = readAuthority(second, WEBHOOK_CA);
    expect([ca.changedAt, ca.retiredAt, pemOf(ca.previous)]).toEqual([NOW, undefined, two.cert + one.cert]);
    expect(readAuthority({ ...second, changed: 'soon' }, WEBHOOK_CA).changedAt).toBeUndefined();
  });
});
