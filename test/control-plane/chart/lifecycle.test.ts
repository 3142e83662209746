// The chart's life on a real API server, by the real helm and by kubectl: what a release, an
// upgrade, a rollback and an uninstall leave, and that nobody undoes what gpu-gate itself writes
// into the chart's objects.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import { certStore } from '../../../certs/store.ts';
import { WEBHOOK_CONFIGURATION } from '../../../core/keys.ts';
import { CONTROL_PLANE, ensureBinaries, fromEnvironment, type Binaries } from '../../../lab/cluster/binaries.ts';
import {
  runCommand,
  startControlPlane,
  type CommandResult,
  type ControlPlane,
} from '../../../lab/cluster/control-plane.ts';
import { installChart, until } from '../../../lab/cluster/gate.ts';
import { openKube } from '../../../platform/kube.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const CHART = join(ROOT, 'deploy/chart');
const VALUES = { deployments: { create: false } };
const PEM = '-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ1lSY2FsYWJsZQ==\n-----END CERTIFICATE-----\n';
const CONFIGURATION = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${WEBHOOK_CONFIGURATION}`;

let cp: ControlPlane;
let binaries: Binaries;
beforeAll(async () => {
  binaries = await ensureBinaries({ modules: [...CONTROL_PLANE, 'helm3'], ...fromEnvironment(), say: console.log });
  cp = await startControlPlane({
    binaries,
    // The controller-manager runs: it deletes what a namespace holds.
    scheduler: false,
  });
});
afterAll(async () => cp?.stop());

const ok = ({ code, stdout, stderr }: CommandResult): string => {
  expect(code, stderr).toBe(0);
  return stdout;
};
const kubectl = async (args: readonly string[], input?: string): Promise<string> => ok(await cp.kubectl(args, input));
/** Every object of the cluster that belongs to this product, and its namespaces. */
async function left(): Promise<readonly string[]> {
  const kinds = (await kubectl(['api-resources', '--verbs=list', '-o', 'name'])).trim().split('\n');
  const asked = kinds.filter((kind) => !kind.startsWith('events') && kind !== 'componentstatuses').join(',');
  const { stdout } = await cp.kubectl(['get', asked, '-A', '--ignore-not-found', '-o', 'name']);
  return stdout
    .split('\n')
    .filter((line) => /gpu-?gate|gpupolic|\/nvidia$/.test(line))
    .toSorted();
}

const bundles = async (): Promise<readonly string[]> =>
  (await cp.admin.request<{ webhooks: { clientConfig: { caBundle?: string } }[] }>('GET', CONFIGURATION)).webhooks.map(
    ({ clientConfig }) => Buffer.from(clientConfig.caBundle ?? '', 'base64').toString(),
  );

/** What the reconciler does first, by its own code and under its own account. */
async function writeBundles(): Promise<void> {
  const kubeconfig = await cp.serviceAccountKubeconfig('gpu-gate', 'gpu-gate-reconciler');
  const kube = await openKube({ kubeconfig, userAgent: 'gpu-gate/reconciler+certs' });
  const pem =
    (await kubectl(['get', 'configmap', '-n', 'kube-system', 'kube-root-ca.crt', '-o', 'jsonpath={.data.ca\\.crt}'])) ||
    PEM;
  await until('the bundle to be written', () => certStore(kube, 'gpu-gate', () => true).writeBundles(pem, pem));
}
/** What GitOps compares: a dry run of a manifest, applied as before, with what is there. */
async function drift(
  manifest: string,
  side: readonly string[] = ['--server-side', '--force-conflicts'],
): Promise<readonly unknown[]> {
  const { code, stdout, stderr } = await cp.kubectl(['diff', ...side, '-f', '-'], manifest);
  return [code, stdout, stderr];
}
async function remove(): Promise<void> {
  await cp.helm(['uninstall', 'gpu-gate', '--namespace', 'gpu-gate']);
  await cp.kubectl(['delete', 'gpupolicy', '--all']);
  await cp.kubectl(['delete', 'crd', 'gpupolicies.gpu-gate.dev']);
  await cp.kubectl(['delete', 'namespace', 'gpu-gate', 'gpu-gate-operands', '--ignore-not-found']);
}

afterEach(async () => {
  if ((await left()).length > 0) await remove();
});

describe.each([
  ['4', 'helm'],
  ['3', 'helm3'],
])('a release of Helm %s', (version, program) => {
  /** The cluster, with this helm. */
  let by: ControlPlane;
  beforeAll(() => {
    const env = { KUBECONFIG: cp.kubeconfig, HOME: cp.dir };
    by = { ...cp, helm: (args) => runCommand(binaries(program), args, env) };
  });
  const helm = async (...args: string[]): Promise<string> => ok(await by.helm([...args, '--namespace', 'gpu-gate']));
  it('is one of that version', async () =>
    expect(ok(await by.helm(['version', '--template', '{{.Version}}']))).toMatch(new RegExp(`^v${version}\\.`)));

  it('keeps the CA bundle that gpu-gate wrote, renders the same before and after, and is gone after an uninstall', async () => {
    await installChart(by, 'install', VALUES);
    await writeBundles();
    const written = await bundles();
    expect(written.every((bundle) => bundle.includes('BEGIN CERTIFICATE'))).toBe(true);
    await installChart(by, 'upgrade', { ...VALUES, webhook: { timeoutSeconds: 7 } });
    expect(await bundles()).toEqual(written);
    expect(await drift(await helm('get', 'manifest', 'gpu-gate'))).toEqual([0, '', '']);
    await helm('rollback', 'gpu-gate', '1');
    expect(await bundles()).toEqual(written);
    expect(await drift(await helm('get', 'manifest', 'gpu-gate'))).toEqual([0, '', '']);
    const { webhooks } = await cp.admin.request<{ webhooks: { timeoutSeconds: number }[] }>('GET', CONFIGURATION);
    expect(webhooks[0]?.timeoutSeconds).toBe(3);

    // GitOps sees no difference.
    const manifest = await helm('get', 'manifest', 'gpu-gate');
    const rendered = ok(
      await by.helm([
        'template',
        'gpu-gate',
        CHART,
        '--namespace',
        'gpu-gate',
        '--set',
        'deployments.create=false',
        '--skip-tests',
      ]),
    );
    const objects = (text: string): readonly string[] =>
      parseAllDocuments(text)
        .map((document) => document.toJS() as { kind: string; metadata: { name: string; namespace?: string } } | null)
        .filter((object) => object !== null)
        .map((object) => JSON.stringify(object))
        .toSorted();
    expect(objects(manifest)).toEqual(objects(rendered));

    // What running work stands on stays, until the notes' commands remove that too.
    await helm('uninstall', 'gpu-gate');
    expect((await left()).filter((name) => !/secret|configmap|serviceaccount/.test(name))).toEqual([
      'apiservice.apiregistration.k8s.io/v1alpha1.gpu-gate.dev',
      'customresourcedefinition.apiextensions.k8s.io/gpupolicies.gpu-gate.dev',
      'gpupolicy.gpu-gate.dev/default',
      'namespace/gpu-gate',
      'namespace/gpu-gate-operands',
    ]);
    await remove();
    expect(await left()).toEqual([]);
  });

  it('can be installed after a first try that failed', async () => {
    // The API server refuses the policy, after other objects were made.
    const bad = { ...VALUES, policy: { spec: { breaker: 'half' } } };
    await expect(installChart(by, 'install', bad)).rejects.toThrow('write a share in quotes');
    const again = await by.helm([
      'upgrade',
      '--install',
      'gpu-gate',
      CHART,
      '--namespace',
      'gpu-gate',
      '--create-namespace',
      '--set',
      'deployments.create=false',
    ]);
    ok(again);
    await remove();
    expect(await left()).toEqual([]);
  });
});

describe.each([
  ['client', []],
  ['server', ['--server-side']],
])('kubectl apply, on the %s side', (_, side) => {
  const apply = ['apply', ...side, '-f', '-'];
  const manifest = async (...values: string[]): Promise<string> =>
    ok(
      await cp.helm([
        'template',
        'gpu-gate',
        CHART,
        '--namespace',
        'gpu-gate',
        '--skip-tests',
        '--set',
        ['deployments.create=false', ...values].join(','),
      ]),
    );
  it('makes all, changes what changed, and leaves the CA bundle alone', async () => {
    const crds = readdirSync(join(CHART, 'crds')).map((file) => join(CHART, 'crds', file));
    for (const file of crds) await kubectl(['apply', '--server-side', '-f', file]);
    await kubectl(['wait', '--for=condition=Established', 'crd/gpupolicies.gpu-gate.dev']);
    await kubectl(
      ['apply', '-f', '-'],
      stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'gpu-gate' } }),
    );
    try {
      await kubectl(apply, await manifest());
      await writeBundles();
      const written = await bundles();
      await kubectl(apply, await manifest('webhook.timeoutSeconds=7'));
      expect(await bundles()).toEqual(written);
      expect(await kubectl(apply, await manifest('webhook.timeoutSeconds=7'))).not.toMatch(/configured/);
      const again = await manifest('webhook.timeoutSeconds=7');
      expect(again).toBe(await manifest('webhook.timeoutSeconds=7'));
      expect(await drift(again, side)).toEqual([0, '', '']);
    } finally {
      await kubectl(['delete', '--ignore-not-found', '-f', '-'], await manifest());
      await remove();
    }
    expect(await left()).toEqual([]);
  });

  it('of deploy/install.yaml, twice as it says: the first makes the CRD that the policy needs; then nothing drifts', async () => {
    const file = join(ROOT, 'deploy/install.yaml');
    const text = readFileSync(file, 'utf8');
    expect(text.split('\n')[0]).toContain('twice');
    try {
      const first = await cp.kubectl(apply, text);
      expect([first.code, first.stderr]).toEqual([1, expect.stringContaining('ensure CRDs are installed first')]);
      expect(first.stderr.match(/resource mapping not found/g)).toHaveLength(1);
      await kubectl(['wait', '--for=condition=Established', 'crd/gpupolicies.gpu-gate.dev']);
      await kubectl(apply, text);
      await writeBundles();
      const written = await bundles();
      // `configured` is what kubectl also says where its patch changes nothing.
      expect(await kubectl(apply, text)).not.toMatch(/created/);
      expect(await bundles()).toEqual(written);
      expect(await drift(text, side)).toEqual([0, '', '']);
    } finally {
      await kubectl(['delete', '--ignore-not-found', '-f', '-'], text);
      await remove();
    }
    expect(await left()).toEqual([]);
  });
});
