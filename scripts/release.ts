// `npm run release -- --dry-run [--out FOLDER] [--key FILE]`: makes every file of a release into
// one folder. Nothing is published. The image stands on bases that are made of this machine's
// files.
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { parse, stringify } from 'yaml';
import { binariesFromEnvironment } from '../lab/cluster/cluster.ts';
import { imageBuilder, whyNoImage } from '../lab/image.ts';
import { readArguments, refuse } from './arguments.ts';
import {
  checksums,
  envelope,
  krewManifest,
  licences,
  provenance,
  publicKeyOf,
  signature,
  signingKey,
  whyNoRelease,
  type Licence,
} from './release/papers.ts';

const ROOT = join(import.meta.dirname, '..');
const USAGE = `npm run release -- --dry-run [--out FOLDER] [--url URL] [--key FILE]

  --dry-run      required: this version publishes nothing
  --out FOLDER   default: release
  --url URL      where its files will be, which the Krew manifest names; default: https://gpu-gate.dev/releases/VERSION
  --key FILE     an EC private key (P-256, PEM) that signs; default: a new one that is thrown away`;

const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const say = (line: string): void => console.log(`  ${line}`);

const run = (command: string, ...args: string[]): string => runIn(ROOT, command, ...args);

function runIn(cwd: string, command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 64 << 20 });
  if (status !== 0) throw new TypeError(`${command} ${args[0]} failed: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

function versions(): ReadonlyMap<string, string | undefined> {
  const { version, appVersion } = parse(text('deploy/chart/Chart.yaml')) as { version: string; appVersion: string };
  return new Map([
    ['package.json', (JSON.parse(text('package.json')) as { version: string }).version],
    ['kubectl/package.json', (JSON.parse(text('kubectl/package.json')) as { version: string }).version],
    ['deploy/chart/Chart.yaml (version)', version],
    ['deploy/chart/Chart.yaml (appVersion)', appVersion],
    ['Dockerfile (VERSION)', /^ARG VERSION=(.+)$/m.exec(text('Dockerfile'))?.[1]],
  ]);
}

/** Every package in a tree of node_modules, with its licence files. */
const packagesIn = (modules: string): readonly Licence[] =>
  globSync('**/package.json', { cwd: modules })
    .map((file) => join(modules, dirname(file)))
    .flatMap((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
        name?: string;
        version?: string;
        license?: string;
      };
      // Folders of a package have such files too, to choose a module format.
      if (name === undefined || version === undefined) return [];
      const files = readdirSync(folder, { withFileTypes: true }).filter(
        (entry) => entry.isFile() && /^(licen[cs]e|notice|copying)/i.test(entry.name),
      );
      const texts = files.map((entry) => readFileSync(join(folder, entry.name), 'utf8'));
      return [{ name, version, licence: license ?? 'see its text', texts }];
    });

/**
 * Bills of materials of what the image installs. npm reads them from an installed tree without
 * development packages: from the lock file alone it leaves out @opentelemetry/api, which a
 * development package names as an optional peer.
 */
function billsOfMaterials(): readonly { readonly format: string; readonly json: string }[] {
  const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-sbom-'));
  try {
    const {
      devDependencies: _,
      scripts: __,
      ...production
    } = JSON.parse(text('package.json')) as Record<string, unknown>;
    writeFileSync(join(dir, 'package.json'), JSON.stringify(production));
    for (const file of ['package-lock.json', '.npmrc']) cpSync(join(ROOT, file), join(dir, file));
    runIn(dir, 'npm', 'install', '--no-save', '--omit', 'dev', '--ignore-scripts', '--loglevel', 'error');
    return ['spdx', 'cyclonedx'].map((format) => ({
      format,
      json: runIn(dir, 'npm', 'sbom', '--omit', 'dev', '--sbom-format', format),
    }));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function release(out: string, keyFile: string | undefined, url: string | undefined): Promise<void> {
  const startedOn = new Date().toISOString();
  const stated = versions();
  const problems = [...whyNoRelease(stated, text('CHANGELOG.md'))];
  const noImage = whyNoImage();
  if (noImage !== undefined) problems.push(`the image cannot be built here: ${noImage}`);
  if (existsSync(out) && readdirSync(out).length > 0) problems.push(`${out} is not empty: name another folder`);
  if (problems.length > 0) throw new TypeError(problems.join('\n'));
  const key =
    keyFile === undefined
      ? generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey
      : signingKey(readFileSync(keyFile, 'utf8'));
  const version = stated.get('package.json') ?? '';
  const revision = run('git', 'rev-parse', 'HEAD').trim();
  const uncommitted = run('git', 'status', '--porcelain').trim() !== '';
  mkdirSync(out, { recursive: true });

  say('chart');
  const helm = (await binariesFromEnvironment(say))('helm');
  run(helm, 'package', 'deploy/chart', '--destination', out);
  cpSync(join(ROOT, 'deploy/install.yaml'), join(out, 'install.yaml'));

  say('kubectl gpu-gate');
  run('npm', 'pack', './kubectl', '--pack-destination', out);
  const plugin = `kubectl-gpu-gate-${version}.tgz`;
  const { bin } = JSON.parse(text('kubectl/package.json')) as { bin: Record<string, string> };
  const uri = `${url ?? `https://gpu-gate.dev/releases/${version}`}/${plugin}`;
  const manifest = krewManifest({ version, bytes: readFileSync(join(out, plugin)), uri, bin });
  writeFileSync(join(out, 'krew-gpu-gate.yaml'), stringify(manifest, { lineWidth: 0 }));

  say('bills of materials');
  for (const { format, json } of billsOfMaterials())
    writeFileSync(join(out, `gpu-gate-${version}.${format}.json`), json);

  say('image (about a minute)');
  const builder = imageBuilder();
  try {
    const image = builder.build({ VERSION: version, REVISION: revision });
    image.archive(join(out, `gpu-gate-${version}-linux-${process.arch === 'x64' ? 'amd64' : process.arch}.oci.tar`));
    writeFileSync(join(out, 'LICENCES.txt'), licences(packagesIn(join(image.files, 'app/node_modules'))));
  } finally {
    builder.close();
  }

  say('checksums, signatures, provenance');
  const files = new Map(
    readdirSync(out)
      .toSorted()
      .map((name) => [name, readFileSync(join(out, name))]),
  );
  const sums = Buffer.from(checksums(files));
  writeFileSync(join(out, 'SHA256SUMS'), sums);
  writeFileSync(join(out, 'SHA256SUMS.sig'), `${signature(sums, key)}\n`);
  writeFileSync(join(out, 'gpu-gate.pub'), publicKeyOf(key));
  const origin = {
    version,
    revision,
    uncommitted,
    lock: Buffer.from(text('package-lock.json')),
    builder: `https://gpu-gate.dev/release/dry-run/${hostname()}`,
    startedOn,
    finishedOn: new Date().toISOString(),
  };
  writeFileSync(join(out, 'provenance.intoto.jsonl'), envelope(provenance(files, origin), key));
  console.log(`\n${out} holds release ${version}${uncommitted ? ', with uncommitted changes' : ''}:`);
  for (const name of readdirSync(out).toSorted())
    say(`${(readFileSync(join(out, name)).length / 1e6).toFixed(2).padStart(8)} MB  ${basename(name)}`);
  console.log(`\nCheck it in that folder:
  base64 -d SHA256SUMS.sig > sig && openssl dgst -sha256 -verify gpu-gate.pub -signature sig SHA256SUMS
  sha256sum --check SHA256SUMS`);
}

const { values } = readArguments(USAGE, {
  options: {
    'dry-run': { type: 'boolean', default: false },
    out: { type: 'string', default: 'release' },
    url: { type: 'string' },
    key: { type: 'string' },
  },
});
if (!values['dry-run']) refuse('this version publishes nothing: write --dry-run', USAGE);
try {
  await release(resolve(values.out), values.key, values.url?.replace(/\/$/, ''));
} catch (error) {
  if (!(error instanceof TypeError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
