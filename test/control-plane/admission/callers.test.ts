// Who may call the webhook, on a real API server that shows a client certificate.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../../certs/issue.ts';
import type { KeyPair } from '../../../certs/cert.ts';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';

const HOUR = 3_600_000;
const CALLERS = 'kube-system/extension-apiserver-authentication/client-ca-file';
const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-callers-'));
const file = (name: string, text: string): string => {
  writeFileSync(join(dir, name), text, { mode: 0o600 });
  return join(dir, name);
};
let cp: ControlPlane;
let gate: Gate;
let ca: KeyPair;
const client = (name: string, signer = ca): Promise<KeyPair> =>
  issueLeaf(signer, { name, sans: [], usage: 'client', life: HOUR }, Date.now());

beforeAll(async () => {
  ca = await issueCa('clients', HOUR, Date.now());
  const { cert, key } = await client('kube-apiserver');
  const kubeconfig = {
    apiVersion: 'v1',
    kind: 'Config',
    users: [{ name: '*', user: { 'client-certificate': file('api.crt', cert), 'client-key': file('api.key', key) } }],
  };
  const admission = {
    apiVersion: 'apiserver.config.k8s.io/v1',
    kind: 'AdmissionConfiguration',
    plugins: ['MutatingAdmissionWebhook'].map((name) => ({
      name,
      configuration: {
        apiVersion: 'apiserver.config.k8s.io/v1',
        kind: 'WebhookAdmissionConfiguration',
        kubeConfigFile: file('webhooks.kubeconfig', JSON.stringify(kubeconfig)),
      },
    })),
  };
  cp = await startControlPlane({
    binaries: await binariesFromEnvironment(console.log),
    scheduler: false,
    apiServerArgs: [
      '--client-ca-file',
      file('clients.crt', ca.cert),
      '--admission-control-config-file',
      file('admission.json', JSON.stringify(admission)),
    ],
  });
  gate = await startGate(cp, {
    values: { webhook: { clientCAConfigMap: CALLERS, clientNames: ['kube-apiserver'], failurePolicy: 'Fail' } },
    flags: ['--webhook-client-ca', CALLERS, '--webhook-clients', 'kube-apiserver'],
    scheduler: false,
  });
});
afterAll(async () => {
  await cp?.stop();
  rmSync(dir, { recursive: true });
});

/** The status of a call, or why there is none. */
const call = (credentials: Partial<KeyPair>): Promise<number | string> =>
  new Promise((resolve) => {
    const sent = request(
      {
        port: gate.webhookPort,
        host: '127.0.0.1',
        path: '/mutate',
        method: 'POST',
        agent: false,
        rejectUnauthorized: false,
        headers: { 'content-type': 'application/json' },
        ...credentials,
      },
      (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      },
    );
    sent.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    sent.end('{}');
  });

it('an API server that shows its certificate is served', async () => {
  // The failure policy is Fail: a pod that comes back was seen by the webhook.
  await until('the webhook to answer', () =>
    cp.admin.request('POST', '/api/v1/namespaces/default/pods', {
      query: { dryRun: 'All' },
      body: {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'p' },
        spec: { containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
      },
    }),
  );
  // No node is opted in yet, so the policy only watches.
  expect(await gate.metrics()).toMatch(/gpu_gate_admission_total\{outcome="left",reason="auditing"\} [1-9]/);
});

it('other callers are not: no certificate, one of another CA, one of another name', async () => {
  const other = await issueCa('other', HOUR, Date.now());
  for (const credentials of [{}, await client('kube-apiserver', other)])
    expect(await call(credentials)).toEqual(expect.any(String));
  expect(await call(await client('system:node:a'))).toBe(403);
  // Malformed, and answered.
  expect(await call(await client('kube-apiserver'))).toBe(400);
});
