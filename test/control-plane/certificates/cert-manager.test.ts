// Certificates by cert-manager in place of gpu-gate: what the chart renders for it, and gpu-gate
// with Secrets of its form (EC keys) on a real API server. The test writes what cert-manager and
// its cainjector would.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseAllDocuments } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureOwnProgram } from '../../../lab/cluster/binaries.ts';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { runCommand, startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { startLoad } from '../../support/calls.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zz-gpu-gate';

interface Rendered {
  kind: string;
  metadata: { name: string; namespace?: string; annotations?: Record<string, string> };
  rules?: { resources: string[]; resourceNames?: string[]; verbs: string[] }[];
  webhooks?: { name: string; clientConfig: { caBundle?: string } }[];
  spec?: Record<string, unknown>;
  data?: Record<string, string>;
}

let cp: ControlPlane;
let gate: Gate;
let program: string;
let rounds: readonly [SecretList, SecretList];

const kinds = ['Certificate', 'Issuer'];
/** The kinds of cert-manager, any content: its own definitions are not ours to test. */
const crd = (kind: string) => ({
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: `${kind.toLowerCase()}s.cert-manager.io` },
  spec: {
    group: 'cert-manager.io',
    scope: 'Namespaced',
    names: { kind, plural: `${kind.toLowerCase()}s`, singular: kind.toLowerCase() },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
});

interface SecretList {
  items: { metadata: { name: string }; data: Record<string, string> }[];
}
/** Two rounds of Secrets with EC keys, as cert-manager writes them first and at a renewal. */
async function issued(): Promise<readonly [SecretList, SecretList]> {
  const { stdout } = await runCommand(
    program,
    [
      'gpu-gate',
      'gpu-gate-webhook-tls=gpu-gate-webhook.gpu-gate.svc',
      'gpu-gate-extender-tls=gpu-gate-extender.gpu-gate.svc',
    ],
    {},
  );
  const [first = '', renewed = ''] = stdout.trim().split('\n');
  return [JSON.parse(first) as SecretList, JSON.parse(renewed) as SecretList];
}
async function write(list: SecretList): Promise<void> {
  const applied = await cp.kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], JSON.stringify(list));
  if (applied.code !== 0) throw new Error(applied.stderr);
}
const inject = (caBundle: string): Promise<unknown> =>
  cp.admin.request('PATCH', CONFIGURATION, {
    contentType: 'application/json-patch+json',
    body: [{ op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: caBundle }],
  });

beforeAll(async () => {
  cp = await startControlPlane({ binaries: await binariesFromEnvironment(console.log), scheduler: false });
  program = await ensureOwnProgram(join(ROOT, 'test', 'support', 'ec-secrets'), 'ec-secrets', {
    cacheHome: process.env['XDG_CACHE_HOME'],
    path: process.env['PATH'],
    say: console.log,
  });
  for (const kind of kinds)
    await cp.admin.request('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', { body: crd(kind) });
  await until('the kinds of cert-manager', () => cp.admin.request('GET', '/apis/cert-manager.io/v1/issuers'));
  await cp.admin.request('POST', '/api/v1/namespaces', { body: { metadata: { name: 'gpu-gate' } } });
  rounds = await issued();
  await write(rounds[0]);
  gate = await startGate(cp, {
    scheduler: false,
    values: { webhook: { failurePolicy: 'Fail', timeoutSeconds: 30 }, certs: { source: 'cert-manager' } },
    flags: ['--cert-source', 'cert-manager', '--cert-check', '200ms', '--calls-per-connection', '5'],
  });
});
afterAll(async () => cp?.stop());

const render = async (...sets: string[]): Promise<readonly Rendered[]> => {
  const args = [
    'template',
    'gpu-gate',
    join(ROOT, 'deploy', 'chart'),
    '-n',
    'gpu-gate',
    ...sets.flatMap((s) => ['--set', s]),
  ];
  const { code, stdout, stderr } = await cp.helm(args);
  if (code !== 0) throw new Error(stderr);
  return parseAllDocuments(stdout)
    .map((document) => document.toJS() as Rendered | null)
    .filter((object) => object !== null);
};
const named = (objects: readonly Rendered[], kind: string, name: string, namespace?: string): Rendered | undefined =>
  objects.find(
    (o) =>
      o.kind === kind && o.metadata.name === name && (namespace === undefined || o.metadata.namespace === namespace),
  );

describe('the chart', () => {
  it('names every Secret one by one, in both roles', async () => {
    const objects = await render();
    const secretsOf = (name: string) =>
      named(objects, 'Role', name, 'gpu-gate')?.rules?.filter(({ resources }) => resources.includes('secrets'));
    expect(secretsOf('gpu-gate')).toEqual([
      {
        apiGroups: [''],
        resources: ['secrets'],
        resourceNames: ['gpu-gate-webhook-tls', 'gpu-gate-canary-tls', 'gpu-gate-extender-tls'],
        verbs: ['list', 'watch'],
      },
    ]);
    const [create, ...others] = secretsOf('gpu-gate-reconciler') ?? [];
    expect(create?.verbs).toEqual(['create']);
    expect(others.every(({ resourceNames = [] }) => resourceNames.length > 0)).toBe(true);
    // A CA that is gone cannot be got back.
    for (const { resourceNames = [], verbs } of others)
      expect(verbs.includes('delete') && resourceNames.includes('gpu-gate-ca')).toBe(false);
    for (const name of ['gpu-gate', 'gpu-gate-reconciler'])
      expect(
        named(objects, 'ClusterRole', name)?.rules?.filter(({ resources }) =>
          resources.includes('mutatingwebhookconfigurations'),
        ),
      ).toMatchObject([{ resourceNames: ['zz-gpu-gate'] }]);
    expect(named(objects, 'Role', 'gpu-gate-reconciler', 'default')?.rules).toEqual([
      { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], resourceNames: ['kubernetes'], verbs: ['get'] },
    ]);
  });

  it('with cert-manager: certificates of a CA issuer, an annotation for the cainjector, no right to write any of it', async () => {
    const objects = await render('certs.source=cert-manager');
    expect(named(objects, 'Certificate', 'gpu-gate-webhook')?.spec).toMatchObject({
      secretName: 'gpu-gate-webhook-tls',
      issuerRef: { name: 'gpu-gate-ca', kind: 'Issuer' },
      privateKey: { algorithm: 'ECDSA', size: 256 },
    });
    expect(named(objects, 'Issuer', 'gpu-gate-ca')?.spec).toEqual({ ca: { secretName: 'gpu-gate-ca' } });
    const configuration = named(objects, 'MutatingWebhookConfiguration', 'zz-gpu-gate');
    expect(configuration?.metadata.annotations).toEqual({
      'cert-manager.io/inject-ca-from': 'gpu-gate/gpu-gate-webhook',
    });
    expect(configuration?.webhooks?.map(({ name }) => name)).toEqual(['pods.gpu-gate.dev']);
    const text = JSON.stringify(objects.filter(({ metadata }) => metadata.name === 'gpu-gate-reconciler'));
    expect(text).not.toContain('mutatingwebhookconfigurations');
    expect(JSON.stringify(named(objects, 'ClusterRole', 'gpu-gate'))).not.toContain('mutatingwebhookconfigurations');
    expect(text).not.toContain('"secrets"');
    expect(text).toContain('"--cert-source=cert-manager"');
  });

  it('with an issuer of your own: that one signs, and the chart makes none', async () => {
    const objects = await render(
      'certs.source=cert-manager',
      'certs.certManager.issuerRef.name=corp',
      'certs.certManager.issuerRef.kind=ClusterIssuer',
    );
    expect(objects.filter(({ kind }) => kind === 'Issuer')).toEqual([]);
    expect(named(objects, 'Certificate', 'gpu-gate-extender')?.spec?.['issuerRef']).toEqual({
      kind: 'ClusterIssuer',
      name: 'corp',
    });
  });

  it('with client certificates by default: scheduler and extender both know', async () => {
    for (const source of ['self', 'cert-manager']) {
      const objects = await render(`certs.source=${source}`);
      expect(named(objects, 'ConfigMap', 'gpu-gate-scheduler')?.data?.['config.yaml']).toContain(
        'certFile: /etc/gpu-gate/client/tls.crt',
      );
      expect(JSON.stringify(named(objects, 'Deployment', 'gpu-gate'))).toContain(
        '"--extender-clients=gpu-gate-scheduler"',
      );
      expect(JSON.stringify(named(objects, 'Deployment', 'gpu-gate-scheduler'))).toContain(
        '"secretName":"gpu-gate-scheduler-client"',
      );
      expect(named(objects, 'Certificate', 'gpu-gate-scheduler-client') !== undefined).toBe(source === 'cert-manager');
      const open = await render(`certs.source=${source}`, 'extender.requireClientCertificate=false');
      expect(JSON.stringify(named(open, 'Deployment', 'gpu-gate'))).toContain('"--extender-clients="');
    }
  });

  it('refuses another source in one sentence', async () => {
    await expect(render('certs.source=vault')).rejects.toThrow(
      "at '/certs/source': value must be one of 'self', 'cert-manager'",
    );
  });
});

describe("cert-manager's Secrets", () => {
  it('with EC keys are served, and a renewed one is taken up with no call failed', async () => {
    await inject(rounds[0].items[0]?.data['ca.crt'] ?? '');
    const load = startLoad([cp.admin], 25, 20);
    await until(
      'calls to succeed',
      () => load.calls.slice(-20).length === 20 && load.calls.slice(-20).every(({ failure }) => failure === undefined),
    );
    const began = Date.now();
    const taken = (): number => readFileSync(`${cp.dir}/gpu-gate.log`, 'utf8').split('certificate in use').length - 1;
    const before = taken();
    await write(rounds[1]);
    await until('webhook and extender to take the renewed ones', () => taken() === before + 2);
    const after = load.calls.length;
    await until('thirty more calls', () => load.calls.length >= after + 30);
    expect(load.failures(began)).toEqual([]);
    expect(await gate.metrics()).toContain(
      'gpu_gate_served_certificate_not_after_seconds{secret="gpu-gate-webhook-tls"}',
    );
    await load.stop();
  });

  it('leave caBundle to the cainjector: wiped, it stays wiped', async () => {
    await inject('');
    await sleep(2000);
    const { webhooks } = await cp.admin.request<{ webhooks: { clientConfig: { caBundle?: string } }[] }>(
      'GET',
      CONFIGURATION,
    );
    expect(webhooks[0]?.clientConfig.caBundle ?? '').toBe('');
  });
});
