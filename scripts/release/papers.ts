// What a release says of itself: one version everywhere, checksums, a signed statement of where its
// files come from. Pure: bytes and facts in, texts out.
import { createHash, createPrivateKey, createPublicKey, sign, type KeyObject } from 'node:crypto';

/** A file of a release by its name. */
export type Files = ReadonlyMap<string, Buffer>;

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/**
 * What keeps these sources from being one release, a sentence each.
 * `versions` holds the version that each file states, by its path.
 */
export function whyNoRelease(versions: ReadonlyMap<string, string | undefined>, changelog: string): readonly string[] {
  const [first, ...others] = [...versions];
  if (first === undefined) return ['no file states a version'];
  const [file, version] = first;
  const differing = others
    .filter(([, other]) => other !== version)
    .map(([path, other]) => `${path} states version ${other ?? 'none'}, and ${file} ${version}: make them equal`);
  const told = changelog.split('\n').some((line) => line.startsWith(`## ${version} `) || line === `## ${version}`);
  return told ? differing : [...differing, `CHANGELOG.md has no section "## ${version}": write what changed`];
}

/** `SHA256SUMS`, as `sha256sum --check` reads it. */
export const checksums = (files: Files): string =>
  [...files]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, bytes]) => `${sha256(bytes)}  ${name}\n`)
    .join('');

/** The plugin's package as a release holds it. */
export interface PluginPackage {
  readonly version: string;
  readonly bytes: Buffer;
  /** Where it can be downloaded. */
  readonly uri: string;
  /** Of its package.json. */
  readonly bin: Readonly<Record<string, string>>;
}

/**
 * The manifest that `kubectl krew install --manifest` and Krew's index read. Krew unpacks what npm
 * packed. On Windows it cannot start a script, so npm is the way there.
 */
export function krewManifest({ version, bytes, uri, bin }: PluginPackage): object {
  const [program = ''] = Object.values(bin);
  return {
    apiVersion: 'krew.googlecontainertools.github.com/v1alpha2',
    kind: 'Plugin',
    metadata: { name: 'gpu-gate' },
    spec: {
      version: `v${version}`,
      homepage: 'https://gpu-gate.dev',
      shortDescription: 'Why a GPU pod waits, where each GPU node stands',
      description:
        'For clusters with gpu-gate: one screen of status, the walk of each GPU node, the verdict of every node for a pod, and a status page on loopback. It uses your own rights.\n',
      caveats: 'It needs Node.js 20 or newer in PATH.\n',
      platforms: [
        {
          selector: { matchExpressions: [{ key: 'os', operator: 'In', values: ['darwin', 'linux'] }] },
          uri,
          sha256: sha256(bytes),
          files: [
            { from: 'package/dist/*', to: '.' },
            { from: 'package/LICENSE', to: '.' },
          ],
          bin: program.replace(/^dist\//, ''),
        },
      ],
    },
  };
}

export interface Origin {
  readonly version: string;
  /** The commit, and whether files differ from it. */
  readonly revision: string;
  readonly uncommitted: boolean;
  /** Of package-lock.json: it names every package with its checksum. */
  readonly lock: Buffer;
  readonly builder: string;
  readonly startedOn: string;
  readonly finishedOn: string;
}

/** An in-toto statement with SLSA's provenance, version 1. */
export const provenance = (files: Files, origin: Origin): object => ({
  _type: 'https://in-toto.io/Statement/v1',
  subject: [...files].map(([name, bytes]) => ({ name, digest: { sha256: sha256(bytes) } })),
  predicateType: 'https://slsa.dev/provenance/v1',
  predicate: {
    buildDefinition: {
      buildType: 'https://gpu-gate.dev/release/v1',
      externalParameters: { version: origin.version },
      internalParameters: { uncommitted: origin.uncommitted },
      resolvedDependencies: [
        { name: 'source', digest: { gitCommit: origin.revision } },
        { name: 'package-lock.json', digest: { sha256: sha256(origin.lock) } },
      ],
    },
    runDetails: {
      builder: { id: origin.builder },
      metadata: { startedOn: origin.startedOn, finishedOn: origin.finishedOn },
    },
  },
});

/** A private key from PEM; throws a TypeError that says what is wanted. */
export function signingKey(pem: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw new TypeError('the key is not an unencrypted private key in PEM: make one with openssl ecparam -genkey');
  }
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new TypeError('the key is not of the curve P-256, which cosign reads');
  return key;
}

export const publicKeyOf = (key: KeyObject): string =>
  createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString();

/** A signature in base64, as `cosign verify-blob` and, decoded, `openssl dgst -verify` read it. */
export const signature = (bytes: Buffer, key: KeyObject): string => sign('sha256', bytes, key).toString('base64');

const IN_TOTO = 'application/vnd.in-toto+json';

/** What a DSSE envelope signs. */
export const preAuthentication = (type: string, body: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${body.length} `), body]);

/** A statement in a signed DSSE envelope, which attestation tools read. */
export function envelope(statement: object, key: KeyObject): string {
  const body = Buffer.from(JSON.stringify(statement));
  const signatures = [{ keyid: '', sig: signature(preAuthentication(IN_TOTO, body), key) }];
  return `${JSON.stringify({ payloadType: IN_TOTO, payload: body.toString('base64'), signatures })}\n`;
}

export interface Licence {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  /** Texts of its licence and notice files. */
  readonly texts: readonly string[];
}

/** The licences of every package that the image holds. */
export const licences = (packages: readonly Licence[]): string =>
  packages
    .toSorted((a, b) => (`${a.name}@${a.version}` < `${b.name}@${b.version}` ? -1 : 1))
    .map(({ name, version, licence, texts }) =>
      [`${name} ${version}: ${licence}`, ...texts.map((text) => text.trim())].join('\n\n'),
    )
    .join(`\n\n${'-'.repeat(80)}\n\n`)
    .concat('\n');
