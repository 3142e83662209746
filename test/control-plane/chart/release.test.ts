// `npm run release -- --dry-run` makes a whole release; what it says of itself holds.
import { spawnSync } from 'node:child_process';
import { createHash, createPublicKey, generateKeyPairSync, verify, type KeyObject } from 'node:crypto';
import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parse } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { whyNoImage } from '../../../lab/image.ts';
import { preAuthentication } from '../../../scripts/release/papers.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const reason = whyNoImage();
if (reason !== undefined) console.log(`the release: skipped, ${reason}`);

const run = (command: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } =>
  spawnSync(command, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 64 << 20 });

describe.skipIf(reason !== undefined)('a release', () => {
  let dir: string;
  let out: string;
  let key: KeyObject;
  const read = (name: string): Buffer => readFileSync(join(out, name));
  const json = <T>(name: string): T => JSON.parse(read(name).toString()) as T;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'gpu-gate-release-'));
    out = join(dir, 'out');
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    key = createPublicKey(privateKey);
    writeFileSync(join(dir, 'key.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const made = run(process.execPath, 'scripts/release.ts', '--dry-run', '--out', out, '--key', join(dir, 'key.pem'));
    expect(made.stderr).toBe('');
    expect(made.status).toBe(0);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('has every file that a release has', () =>
    expect(readdirSync(out).toSorted()).toEqual([
      'LICENCES.txt',
      'SHA256SUMS',
      'SHA256SUMS.sig',
      expect.stringMatching(/^gpu-gate-0\.1\.0-linux-\w+\.oci\.tar$/),
      'gpu-gate-0.1.0.cyclonedx.json',
      'gpu-gate-0.1.0.spdx.json',
      'gpu-gate-0.1.0.tgz',
      'gpu-gate.pub',
      'install.yaml',
      'krew-gpu-gate.yaml',
      'kubectl-gpu-gate-0.1.0.tgz',
      'provenance.intoto.jsonl',
    ]));

  it('is signed: checksums by the key, and every file by its checksum', () => {
    const signed = Buffer.from(read('SHA256SUMS.sig').toString(), 'base64');
    expect(verify('sha256', read('SHA256SUMS'), key, signed)).toBe(true);
    expect(read('gpu-gate.pub').toString()).toBe(key.export({ type: 'spki', format: 'pem' }));
    const sums = read('SHA256SUMS').toString().trim().split('\n');
    for (const line of sums) {
      const [sum, name = ''] = line.split('  ');
      expect(createHash('sha256').update(read(name)).digest('hex'), name).toBe(sum);
    }
    const unsigned = ['SHA256SUMS', 'SHA256SUMS.sig', 'gpu-gate.pub', 'provenance.intoto.jsonl'];
    expect(sums).toHaveLength(readdirSync(out).length - unsigned.length);
  });

  it('says in a signed statement which commit it was made of', () => {
    const { payload, payloadType, signatures } = json<{
      payload: string;
      payloadType: string;
      signatures: { sig: string }[];
    }>('provenance.intoto.jsonl');
    const body = Buffer.from(payload, 'base64');
    const sig = Buffer.from(signatures[0]?.sig ?? '', 'base64');
    expect(verify('sha256', preAuthentication(payloadType, body), key, sig)).toBe(true);
    const statement = JSON.parse(body.toString()) as {
      subject: { name: string; digest: { sha256: string } }[];
      predicate: { buildDefinition: { resolvedDependencies: { digest: object }[] } };
    };
    expect(statement.predicate.buildDefinition.resolvedDependencies[0]?.digest).toEqual({
      gitCommit: run('git', 'rev-parse', 'HEAD').stdout.trim(),
    });
    expect(statement.subject.map(({ name, digest }) => `${digest.sha256}  ${name}`)).toEqual(
      read('SHA256SUMS').toString().trim().split('\n'),
    );
  });

  it('holds the chart: what it renders is what the folder renders', async () => {
    const helm = (await binariesFromEnvironment(console.log))('helm');
    const [packed, folder] = [join(out, 'gpu-gate-0.1.0.tgz'), 'deploy/chart'].map((chart) =>
      run(helm, 'template', 'gpu-gate', chart, '--namespace', 'gpu-gate', '--include-crds'),
    );
    expect(packed?.stderr).toBe('');
    expect(packed?.stdout).toContain('kind: MutatingWebhookConfiguration');
    expect(packed?.stdout).toBe(folder?.stdout);
  });

  it('holds the kubectl plugin, which runs from its package', () => {
    expect(run('tar', '-xzf', join(out, 'kubectl-gpu-gate-0.1.0.tgz'), '-C', dir).status).toBe(0);
    const help = run(process.execPath, join(dir, 'package/dist/kubectl-gpu_gate.mjs'), '--help');
    expect(help.stdout).toContain('explain');
  });

  it('holds a Krew manifest: its checksum is that of the package, and what it unpacks runs', () => {
    const { spec } = parse(read('krew-gpu-gate.yaml').toString()) as {
      spec: {
        version: string;
        platforms: { uri: string; sha256: string; bin: string; files: { from: string; to: string }[] }[];
      };
    };
    expect(spec).toMatchObject({ version: 'v0.1.0', platforms: [{}] });
    for (const { uri, sha256, bin, files } of spec.platforms) {
      const name = basename(new URL(uri).pathname);
      expect(createHash('sha256').update(read(name)).digest('hex')).toBe(sha256);
      // As Krew does: unpack, copy what is named, link the program to its name.
      const [unpacked, installed] = ['krew-unpacked', 'krew-installed'].map((folder) => join(dir, folder));
      if (unpacked === undefined || installed === undefined) return expect.unreachable();
      for (const folder of [unpacked, installed]) mkdirSync(folder, { recursive: true });
      expect(run('tar', '-xzf', join(out, name), '-C', unpacked).status).toBe(0);
      for (const { from, to } of files) {
        const found = globSync(from, { cwd: unpacked });
        expect(found, from).not.toEqual([]);
        for (const file of found)
          cpSync(join(unpacked, file), join(installed, to, basename(file)), { recursive: true });
      }
      const link = join(dir, 'kubectl-gpu_gate');
      symlinkSync(join(installed, bin), link);
      expect(run(link, 'completion', 'bash')).toMatchObject({ status: 0, stderr: '' });
      expect(readdirSync(join(installed, 'page'))).toContain('page.js');
    }
  });

  it('lists in its bills of materials every package of the image, and licences of each', () => {
    const listed = read('LICENCES.txt')
      .toString()
      .split(`\n\n${'-'.repeat(80)}\n\n`)
      .map((entry) => /^(\S+) (\S+): \S/.exec(entry)?.slice(1, 3).join('@'));
    const { packages } = json<{ packages: { name: string; versionInfo: string }[] }>('gpu-gate-0.1.0.spdx.json');
    const spdx = packages.map(({ name, versionInfo }) => `${name}@${versionInfo}`);
    const { components } = json<{ components: { group?: string; name: string; version: string }[] }>(
      'gpu-gate-0.1.0.cyclonedx.json',
    );
    const cyclone = components.map(({ group, name, version }) => `${group ? `${group}/` : ''}${name}@${version}`);
    expect(listed.length).toBeGreaterThan(100);
    expect(listed).toContain('express@5.3.0');
    expect(listed.filter((one) => !spdx.includes(one ?? ''))).toEqual([]);
    expect(listed.filter((one) => !cyclone.includes(one ?? ''))).toEqual([]);
    expect(spdx.filter((one) => /^(vitest|typescript|oxlint|knip)@/.test(one))).toEqual([]);
  });

  it('holds the image, which names its version and commit', () => {
    const [archive = ''] = readdirSync(out).filter((name) => name.endsWith('.oci.tar'));
    const blob = <T>(path: string): T => JSON.parse(run('tar', '-xOf', join(out, archive), path).stdout) as T;
    const at = (digest: string): string => `blobs/${digest.replace(':', '/')}`;
    const { manifests } = blob<{ manifests: { digest: string }[] }>('index.json');
    const { config } = blob<{ config: { digest: string } }>(at(manifests[0]?.digest ?? ''));
    const image = blob<{ config: { Labels: Record<string, string>; User: string } }>(at(config.digest));
    expect(image.config).toMatchObject({
      User: '65532:65532',
      Labels: {
        'org.opencontainers.image.version': '0.1.0',
        'org.opencontainers.image.revision': run('git', 'rev-parse', 'HEAD').stdout.trim(),
      },
    });
  });
});

it('publishes nothing: without --dry-run it says so, and makes nothing', () => {
  const refused = run(process.execPath, 'scripts/release.ts');
  expect(refused.status).toBe(2);
  expect(refused.stderr).toContain('this version publishes nothing: write --dry-run');
});
