// What a release says of itself, from values.
import { generateKeyPairSync, verify } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  checksums,
  envelope,
  krewManifest,
  licences,
  preAuthentication,
  provenance,
  publicKeyOf,
  signature,
  signingKey,
  whyNoRelease,
} from '../../scripts/release/papers.ts';

const FILES = new Map([
  ['b.tgz', Buffer.from('b')],
  ['a.json', Buffer.from('a')],
]);
const OF_A = 'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb';
const pem = (namedCurve: string): string =>
  generateKeyPairSync('ec', { namedCurve }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
const KEY = signingKey(pem('prime256v1'));

it('names the plugin for Krew by place and checksum, and the program as it lies unpacked', () =>
  expect(
    krewManifest({
      version: '1.2.3',
      bytes: Buffer.from('a'),
      uri: 'https://example.org/p.tgz',
      bin: { 'kubectl-x': 'dist/x.mjs' },
    }),
  ).toMatchObject({
    metadata: { name: 'gpu-gate' },
    spec: {
      version: 'v1.2.3',
      platforms: [{ uri: 'https://example.org/p.tgz', sha256: OF_A, bin: 'x.mjs' }],
    },
  }));

describe('a version', () => {
  const changelog = '# Changelog\n\n## 1.2.3 (not released)\n';
  it('that all files state, with a section of the changelog: a release', () =>
    expect(
      whyNoRelease(
        new Map([
          ['package.json', '1.2.3'],
          ['Chart.yaml', '1.2.3'],
        ]),
        changelog,
      ),
    ).toEqual([]));
  it('that one file states otherwise is named', () =>
    expect(
      whyNoRelease(
        new Map([
          ['package.json', '1.2.3'],
          ['Chart.yaml', '1.2.2'],
          ['Dockerfile', undefined],
        ]),
        changelog,
      ),
    ).toEqual([
      'Chart.yaml states version 1.2.2, and package.json 1.2.3: make them equal',
      'Dockerfile states version none, and package.json 1.2.3: make them equal',
    ]));
  it('without a section of the changelog is none, nor with that of a longer version', () =>
    expect([
      whyNoRelease(new Map([['package.json', '1.2']]), changelog),
      whyNoRelease(new Map([['package.json', '1.2.30']]), changelog),
    ]).toEqual([
      ['CHANGELOG.md has no section "## 1.2": write what changed'],
      ['CHANGELOG.md has no section "## 1.2.30": write what changed'],
    ]));
});

it('checksums are those of sha256sum, by name', () => {
  const lines = checksums(FILES).split('\n');
  expect(lines[0]).toBe(`${OF_A}  a.json`);
  expect(lines.map((line) => line.slice(66))).toEqual(['a.json', 'b.tgz', '']);
});

describe('a signature', () => {
  it('is of the bytes, by that key', () => {
    const bytes = Buffer.from('sums');
    const made = Buffer.from(signature(bytes, KEY), 'base64');
    expect(verify('sha256', bytes, publicKeyOf(KEY), made)).toBe(true);
    expect(verify('sha256', Buffer.from('others'), publicKeyOf(KEY), made)).toBe(false);
  });
  it.each([
    ['of another curve', pem('secp384r1'), 'P-256'],
    ['that is not a key', 'x', 'unencrypted private key in PEM'],
  ])('a key %s is refused', (_, text, because) => expect(() => signingKey(text)).toThrow(because));
});

it('the provenance names every file, the commit, and whether files differ from it', () => {
  const statement = provenance(FILES, {
    version: '1.2.3',
    revision: 'c0ffee',
    uncommitted: true,
    lock: Buffer.from('a'),
    builder: 'https://builder',
    startedOn: '2026-01-01T00:00:00Z',
    finishedOn: '2026-01-01T00:01:00Z',
  });
  const line = envelope(statement, KEY);
  const { payloadType, payload, signatures } = JSON.parse(line) as {
    payloadType: string;
    payload: string;
    signatures: { sig: string }[];
  };
  const body = Buffer.from(payload, 'base64');
  expect(JSON.parse(body.toString())).toEqual(JSON.parse(JSON.stringify(statement)));
  expect(JSON.parse(body.toString())).toMatchObject({
    subject: [{ name: 'b.tgz' }, { name: 'a.json', digest: { sha256: OF_A } }],
    predicate: {
      buildDefinition: {
        internalParameters: { uncommitted: true },
        resolvedDependencies: [{ digest: { gitCommit: 'c0ffee' } }, { digest: { sha256: OF_A } }],
      },
    },
  });
  const sig = Buffer.from(signatures[0]?.sig ?? '', 'base64');
  expect(verify('sha256', preAuthentication(payloadType, body), publicKeyOf(KEY), sig)).toBe(true);
  expect(preAuthentication('t', Buffer.from('ab')).toString()).toBe('DSSEv1 1 t 2 ab');
});

it('licences: every package by name, with its texts', () =>
  expect(
    licences([
      { name: 'b', version: '1.0.0', licence: 'MIT', texts: ['text of b\n'] },
      { name: 'a', version: '2.0.0', licence: 'ISC', texts: [] },
    ]),
  ).toBe(`a 2.0.0: ISC\n\n${'-'.repeat(80)}\n\nb 1.0.0: MIT\n\ntext of b\n`));
