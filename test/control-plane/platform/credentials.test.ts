// What a real API server makes of credentials that change while a process runs: its CA, client
// certificates, programs that hang.
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { issueCa, issueLeaf } from '../../../certs/issue.ts';
import type { KeyPair } from '../../../certs/cert.ts';
import { openKube, type Kube, type KubeOptions } from '../../../platform/kube.ts';
import { explainError } from '../../../platform/log.ts';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { runCommand, startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { until } from '../../../lab/cluster/gate.ts';
import { tcpProxy } from '../../support/tcp-proxy.ts';

let cp: ControlPlane;
let clients: KeyPair;
const dir = mkdtempSync(join(tmpdir(), 'gpu-gate-credentials-'));
const file = (name: string, text: string): string => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};

beforeAll(async () => {
  clients = await issueCa('clients', 3_600_000, Date.now());
  cp = await startControlPlane({
    binaries: await binariesFromEnvironment(console.log),
    scheduler: false,
    controllerManager: false,
    apiServerArgs: ['--client-ca-file', file('clients.crt', clients.cert)],
  });
});
afterAll(async () => {
  await cp.stop();
  rmSync(dir, { recursive: true });
});

const token = (): string =>
  (JSON.parse(readFileSync(cp.kubeconfig, 'utf8')) as { users: { user: { token: string } }[] }).users[0]?.user.token ??
  '';
/** A kubeconfig whose CA is a file beside it. */
const kubeconfig = (name: string, user: object, namespace?: string, more: object = {}): string => {
  cpSync(cp.caFile, join(dir, `${name}.ca.crt`));
  return file(
    name,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name, cluster: { server: cp.server, 'certificate-authority': `${name}.ca.crt`, ...more } }],
      users: [{ name, user }],
      contexts: [{ name, context: { cluster: name, user: name, namespace } }],
      'current-context': name,
    }),
  );
};
const open = (path: string | readonly string[], more: Partial<KubeOptions> = {}): Promise<Kube> =>
  openKube({ kubeconfig: path, userAgent: 'test', lookEveryMs: 100, ...more });
const whoAmI = async (kube: Kube): Promise<string> =>
  (
    await kube.request<{ status: { userInfo: { username: string } } }>(
      'POST',
      '/apis/authentication.k8s.io/v1/selfsubjectreviews',
      { body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' } },
    )
  ).status.userInfo.username;
/** A client certificate of that user, in the files that a kubeconfig names. */
const certify = async (user: string, name: string): Promise<void> => {
  const { cert, key } = await issueLeaf(clients, { name: user, sans: [], usage: 'client', life: 600_000 }, Date.now());
  file(`${name}.crt`, cert);
  file(`${name}.key`, key);
};
/** A kubeconfig whose credentials a program makes: the given shell script. */
const byProgram = (name: string, script: string): string => {
  const program = file(`${name}.sh`, `#!/bin/sh\n${script}\n`);
  chmodSync(program, 0o755);
  return kubeconfig(name, {
    exec: { apiVersion: 'client.authentication.k8s.io/v1', command: program, interactiveMode: 'Never' },
  });
};
const giveToken = (): string =>
  `echo '${JSON.stringify({ apiVersion: 'client.authentication.k8s.io/v1', kind: 'ExecCredential', status: { token: token() } })}'`;

it('a client certificate renewed on disk is used from then on, on connections of its own', async () => {
  await certify('first', 'renewed');
  const kube = await open(kubeconfig('renewed', { 'client-certificate': 'renewed.crt', 'client-key': 'renewed.key' }));
  expect(await whoAmI(kube)).toBe('first');
  await certify('second', 'renewed');
  await until('the renewed certificate to be used', async () => (await whoAmI(kube)) === 'second');
});

const WITHIN = { credentialsWithinMs: 4000 };

it('a program that hangs holds up no call, and is gone after its time', async () => {
  const path = byProgram('hangs', giveToken());
  const kube = await open(path, WITHIN);
  expect(await whoAmI(kube)).toBe('admin');
  // The client reads the credentials again when the kubeconfig changes. The program now hangs.
  file('hangs.sh', '#!/bin/sh\nsleep 1234\n');
  writeFileSync(path, `${readFileSync(path, 'utf8')}\n`);
  const hanging = async (): Promise<string> => (await runCommand('pgrep', ['-f', '^sleep 1234$'], {})).stdout;
  await until('a call that began and ended while the program hung', async () => {
    const before = await hanging();
    expect(await whoAmI(kube)).toBe('admin');
    return before !== '' && (await hanging()) === before;
  });
  await until('the program to be gone', async () => {
    expect(await whoAmI(kube)).toBe('admin');
    return (await hanging()) === '';
  });
});

it('a program that hangs at the start is stopped, by name', async () => {
  const path = byProgram('hangs-first', 'sleep 4321');
  await expect(open(path, WITHIN)).rejects.toThrow(
    `the credential program ${join(dir, 'hangs-first.sh')} of kubeconfig ${path} was stopped: it gave no credentials within 4 s`,
  );
});

it('a refusal says why the credentials are old', async () => {
  const path = byProgram('refused', giveToken().replace(token(), 'nobody'));
  const kube = await open(path);
  file('refused.sh', '#!/bin/sh\necho the card is not inserted >&2\nexit 1\n');
  writeFileSync(path, `${readFileSync(path, 'utf8')}\n`);
  const why = (): Promise<string> => whoAmI(kube).catch((error: unknown) => explainError(error));
  await until('the reason', async () => (await why()).includes('the card is not inserted'));
});

it('kubeconfigs are merged as kubectl does', async () => {
  const first = kubeconfig('a', { token: token() }, 'team');
  const second = kubeconfig('b', { token: 'another' }, 'else');
  const kube = await open([join(dir, 'missing'), first, second]);
  expect([await whoAmI(kube), kube.namespace]).toEqual(['admin', 'team']);
  // What both have is the first one's.
  const same = file('same', readFileSync(second, 'utf8').replaceAll('"b"', '"a"').replace('b.ca.crt', 'a.ca.crt'));
  expect((await open([first, same])).namespace).toBe('team');
  await expect(open([join(dir, 'missing'), join(dir, 'too')])).rejects.toThrow('missing:');
});

it('tls-server-name is the name that the certificate is checked for', async () => {
  const named = kubeconfig('named', { token: token() }, undefined, { 'tls-server-name': 'kubernetes.default.svc' });
  expect(await whoAmI(await open(named))).toBe('admin');
  const wrong = kubeconfig('wrong', { token: token() }, undefined, { 'tls-server-name': 'else.example' });
  expect(await open(wrong).then(whoAmI).catch(explainError)).toContain('else.example');
});

it('a kubeconfig with a tokenFile is rejected with the reason that it is not read, rather than used without credentials', async () => {
  await expect(open(kubeconfig('file', { tokenFile: '/token' }))).rejects.toThrow(
    'names a tokenFile, which is not read',
  );
});

it('a pause that the server asks for is no longer than the caller waits, and ends with the caller', async () => {
  const pod = {
    metadata: { name: 'kept', labels: { app: 'kept' } },
    spec: { containers: [{ name: 'c', image: 'x' }] },
  };
  await cp.admin.request('POST', '/api/v1/namespaces/default/serviceaccounts', {
    body: { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } },
  });
  await cp.admin.request('POST', '/api/v1/namespaces/default/pods', {
    body: { apiVersion: 'v1', kind: 'Pod', ...pod },
  });
  // Nobody looks after budgets here, so that the server goes on asking to come back in 10 s.
  await cp.admin.request('POST', '/apis/policy/v1/namespaces/default/poddisruptionbudgets', {
    body: {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: 'kept' },
      spec: { minAvailable: 1, selector: { matchLabels: { app: 'kept' } } },
    },
  });
  await cp.admin.request('PATCH', '/api/v1/namespaces/default/pods/kept/status', {
    contentType: 'application/merge-patch+json',
    body: { status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] } },
  });
  const evict = (more: object): Promise<unknown> =>
    cp.admin.request('POST', '/api/v1/namespaces/default/pods/kept/eviction', {
      body: { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: 'kept', namespace: 'default' } },
      ...more,
    });
  // A pause that the client sat out would be followed by one more attempt.
  let attempts = 0;
  const beforeAttempt = (): void => void (attempts += 1);
  await expect(evict({ timeoutMs: 2000, beforeAttempt })).rejects.toMatchObject({ status: 429 });
  expect(attempts).toBe(1);
  const refused = async (): Promise<string | undefined> =>
    (await cp.kubectl(['get', '--raw', '/metrics'])).stdout
      .split('\n')
      .find((line) => line.startsWith('apiserver_request_total') && /code="429".*eviction/.test(line));
  const before = await refused();
  const ending = new AbortController();
  const call = evict({ timeoutMs: 600_000, signal: ending.signal, beforeAttempt }).catch(explainError);
  await until('the server to refuse it', async () => (await refused()) !== before);
  ending.abort();
  expect(await call).toContain('aborted');
  expect(attempts).toBe(2);
});

it('a watch that is cut before anybody reads it fails its reader, and not the process', async () => {
  const proxy = await tcpProxy(Number(new URL(cp.server).port));
  const kube = await open(cp.kubeconfig, { server: `https://127.0.0.1:${proxy.port}` });
  const lines = await kube.stream('/api/v1/namespaces', { watch: true }, new AbortController().signal);
  proxy.cut();
  await sleep(300);
  await expect(lines[Symbol.asyncIterator]().next()).rejects.toThrow('aborted');
  await proxy.close();
});

it('a pod reads its own files, and a token that the kubelet renews is used from then on', async () => {
  const folder = join(dir, 'pod');
  mkdirSync(folder);
  const tokenOf = async (name: string): Promise<string> => {
    await cp.admin.request('POST', '/api/v1/namespaces/default/serviceaccounts', {
      body: { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name } },
    });
    const { status } = await cp.admin.request<{ status: { token: string } }>(
      'POST',
      `/api/v1/namespaces/default/serviceaccounts/${name}/token`,
      { body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 600 } } },
    );
    return status.token;
  };
  cpSync(cp.caFile, join(folder, 'ca.crt'));
  writeFileSync(join(folder, 'namespace'), 'default');
  writeFileSync(join(folder, 'token'), await tokenOf('one'));
  const { hostname: host, port } = new URL(cp.server);
  const kube = await openKube({ userAgent: 'test', lookEveryMs: 100, pod: { folder, host, port } });
  expect([await whoAmI(kube), kube.namespace]).toEqual(['system:serviceaccount:default:one', 'default']);
  writeFileSync(join(folder, 'token'), await tokenOf('two'));
  await until('the renewed token', async () => (await whoAmI(kube)) === 'system:serviceaccount:default:two');
});

it('a new CA of the API server is taken from its file, with no restart', async () => {
  const path = kubeconfig('rotated', { token: token() });
  const kube = await open(path);
  expect(await whoAmI(kube)).toBe('admin');
  await cp.stopApiServer();
  // It signs a certificate for itself where it has none.
  rmSync(join(cp.caFile, '..', 'apiserver.crt'));
  rmSync(join(cp.caFile, '..', 'apiserver.key'));
  await cp.startApiServer();
  // Other tests ask the server by it.
  onTestFinished(() =>
    until('the administrator to know the new CA', () => cp.admin.request('GET', '/api')).then(() => undefined),
  );
  await expect(whoAmI(kube)).rejects.toThrow();
  cpSync(cp.caFile, join(dir, 'rotated.ca.crt'));
  await until('the new CA to be known', async () => (await whoAmI(kube)) === 'admin');
});
