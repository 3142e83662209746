// The audit of rights: what the chart grants each ServiceAccount, as the API server itself answers,
// against what gpu-gate calls in a whole life, as the API server's audit log has it. A right that
// is not used fails here, and so does a call that is not allowed.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { certProbe } from '../../../certs/probe.ts';
import { readCert } from '../../../certs/cert.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { openKube, STRATEGIC_PATCH, type Kube } from '../../../platform/kube.ts';
import { called, entriesOf, granted, refusedCalls, text, unused, type Rule } from '../../builders/rights.ts';
import { isReady, viewOf } from '../../builders/view.ts';

const ACCOUNTS = {
  'request path': ['gpu-gate', 'gpu-gate'],
  reconciler: ['gpu-gate', 'gpu-gate-reconciler'],
  scheduler: ['gpu-gate', 'gpu-gate-scheduler'],
  driver: ['gpu-gate-operands', 'gpu-gate-driver'],
} as const;
type Account = keyof typeof ACCOUNTS;
const userOf = (account: Account): string => `system:serviceaccount:${ACCOUNTS[account].join(':')}`;
let cluster: Cluster;
let gate: Gate;
const { kubectl, validated, gpuPod, pod } = viewOf(() => cluster);
const kubes = new Map<Account, Kube>();

function rightsOf(account: Account): ReturnType<typeof granted> {
  const kube = kubes.get(account);
  if (kube === undefined) throw new Error(account);
  return granted(cluster, kube);
}

beforeAll(async () => {
  cluster = await startCluster({
    nodes: 2,
    say: console.log,
    auditRules: [
      {
        level: 'Metadata',
        userGroups: ['system:serviceaccounts:gpu-gate', 'system:serviceaccounts:gpu-gate-operands'],
      },
    ],
  });
  gate = await startGate(cluster, {
    flags: ['--not-ready-grace', '1s'],
    values: {
      policy: {
        // There is no DeviceClass, and the rights on rules are to be used.
        spec: {
          deviceTaints: 'On',
          rejectedPods: 'Delete',
          bringUp: { maxConcurrent: '2' },
          upgrade: { drain: { mode: 'Evict' } },
        },
      },
    },
  });
  await kubectl('create', 'namespace', 'elsewhere');
  await until('the account of that namespace', () =>
    cluster.admin.request('GET', '/api/v1/namespaces/elsewhere/serviceaccounts/default'),
  );
  for (const account of Object.keys(ACCOUNTS) as Account[])
    kubes.set(
      account,
      await openKube({
        kubeconfig: await cluster.serviceAccountKubeconfig(ACCOUNTS[account][0], ACCOUNTS[account][1]),
        userAgent: 'test',
      }),
    );
  await wholeLife();
});
afterAll(async () => cluster?.stop());

/** Everything that gpu-gate ever calls is called, with the rights that it has. */
async function wholeLife(): Promise<void> {
  for (const name of ['gpu-0', 'gpu-1']) await kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
  for (const name of ['gpu-0', 'gpu-1']) await validated(name);
  await gpuPod('works', 'gpu-0');
  await until('a GPU pod to be Ready', async () => isReady(await pod('works')));

  // A pod that a kubelet rejects is deleted.
  await kubectl('create', 'deployment', 'owner', '--image', 'example.com/c:1', '--replicas', '0');
  const uid = await kubectl('get', 'deployment', 'owner', '-o', 'jsonpath={.metadata.uid}');
  await cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: 'rejected',
        ownerReferences: [{ apiVersion: 'apps/v1', kind: 'Deployment', name: 'owner', uid, controller: true }],
      },
      spec: {
        nodeSelector: { 'kubernetes.io/hostname': 'gpu-1' },
        containers: [{ name: 'c', image: 'example.com/c:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
      },
    },
  });
  // Ready, because until then the simulated kubelet goes on writing that it runs.
  await until('it to be Ready', async () => isReady(await pod('rejected')));
  await cluster.admin.request('PATCH', '/api/v1/namespaces/default/pods/rejected/status', {
    contentType: STRATEGIC_PATCH,
    body: { status: { phase: 'Failed', reason: 'UnexpectedAdmissionError' } },
  });
  await until('it to be deleted', async () => (await cluster.kubectl(['get', 'pod', 'rejected'])).code !== 0);

  // A Secret of another type is made again, one with other data is written, and so is the
  // extender's CA.
  const tls = ['gpu-gate-webhook-tls', 'gpu-gate-canary-tls', 'gpu-gate-extender-tls', 'gpu-gate-scheduler-client'];
  const whole = (): Promise<unknown> =>
    until('all certificates to be there', async () => {
      const { items } = await cluster.admin.request<{
        items: { metadata: { name: string }; type: string; data: Record<string, string> }[];
      }>('GET', '/api/v1/namespaces/gpu-gate/secrets');
      const ca = await kubectl('get', 'configmap', '-n', 'gpu-gate', 'gpu-gate-extender-ca', '-o', 'jsonpath={.data}');
      return (
        tls.every((name) =>
          items.some(
            (item) =>
              item.metadata.name === name &&
              item.type === 'kubernetes.io/tls' &&
              Buffer.from(item.data['tls.crt'] ?? '', 'base64')
                .toString()
                .includes('BEGIN CERTIFICATE'),
          ),
        ) && !ca.includes('lost')
      );
    });
  await gate.stopReconciler();
  for (const name of tls) {
    await kubectl('delete', 'secret', '-n', 'gpu-gate', name);
    await kubectl('create', 'secret', 'generic', '-n', 'gpu-gate', name);
  }
  await gate.startReconciler();
  await whole();
  await gate.stopReconciler();
  for (const name of tls)
    await kubectl('patch', 'secret', '-n', 'gpu-gate', name, '-p', '{"data":{"tls.crt":"bG9zdA=="}}');
  await kubectl('patch', 'configmap', '-n', 'gpu-gate', 'gpu-gate-extender-ca', '-p', '{"data":{"ca.crt":"lost"}}');
  await gate.startReconciler();
  await whole();

  // The test cluster passes these to its processes as options. Pods find them out by themselves.
  const webhookCert = await kubectl(
    'get',
    'secret',
    '-n',
    'gpu-gate',
    'gpu-gate-canary-tls',
    '-o',
    'jsonpath={.data.tls\\.crt}',
  );
  const leaf = readCert(Buffer.from(webhookCert, 'base64').toString());
  const access = { kubeconfig: await cluster.serviceAccountKubeconfig(...ACCOUNTS.reconciler), userAgent: 'test' };
  const probe = certProbe({
    kube: await openKube(access),
    access,
    namespace: 'gpu-gate',
    apiServerName: 'kubernetes.default.svc',
    apiServers: [],
    webhook: { service: 'gpu-gate-webhook', replicas: [] },
    extender: { service: 'gpu-gate-extender', replicas: [] },
  });
  for (const of of ['webhook', 'extender'] as const) expect(await probe.replicas(of)).toMatchObject({ kind: 'known' });
  if (leaf !== undefined) await probe.canary(leaf);

  // The same hand edit twice is one Event, counted twice.
  const inOperands = (verb: string, ...args: readonly string[]): Promise<string> =>
    kubectl(verb, '-n', 'gpu-gate-operands', ...args);
  const driver = 'app.kubernetes.io/component=driver';
  const operand = (await inOperands('get', 'daemonset', '-l', driver, '-o', 'name')).trim();
  const image = (): Promise<string> =>
    inOperands('get', operand, '-o', 'jsonpath={.spec.template.spec.containers[0].image}');
  for (const times of [1, 2]) {
    await kubectl('set', 'image', '-n', 'gpu-gate-operands', operand, 'driver=example.com/other:1');
    await until('the image to be put back', async () => !(await image()).startsWith('example.com/'));
    await until('the Event to be counted', async () => {
      const events = await kubectl('get', 'events', '-A', '-o', 'jsonpath={.items[*].count}');
      return events.split(' ').some((count) => Number(count) >= times);
    });
  }

  // The policy's end evicts the pod, and takes all away.
  await kubectl('delete', 'gpupolicy', 'default', '--wait=false');
  await until('the policy to be gone', async () => (await cluster.kubectl(['get', 'gpupolicy', 'default'])).code !== 0);
  await until(
    'its DaemonSets to be gone',
    async () => (await kubectl('get', 'daemonsets', '-n', 'gpu-gate-operands', '-o', 'name')) === '',
  );
}

describe.each(['request path', 'reconciler'] as const)('the %s', (account) => {
  it('was refused nothing', () => expect(refusedCalls(cluster, userOf(account))).toEqual([]));
  it('used every right that it has', async () => {
    const rights = await rightsOf(account);
    expect(rights.length).toBeGreaterThan(5);
    expect(unused(rights, called(cluster, userOf(account)))).toEqual([]);
  });
});

it('the scheduler has the rights of Kubernetes’ own scheduler, and one Lease', async () => {
  const own = new Set<string>();
  for (const role of ['system:kube-scheduler', 'system:volume-scheduler']) {
    const { rules } = await cluster.admin.request<{ rules: Rule[] }>(
      'GET',
      `/apis/rbac.authorization.k8s.io/v1/clusterroles/${role}`,
    );
    for (const entry of entriesOf('elsewhere', rules)) own.add(text(entry));
  }
  const more = (await rightsOf('scheduler')).filter((entry) => !own.has(text(entry)));
  expect(more.map(text).toSorted()).toEqual(
    expect.arrayContaining(['gpu-gate: get coordination.k8s.io/leases gpu-gate-scheduler']),
  );
  expect(unused(more, called(cluster, userOf('scheduler')))).toEqual([]);
});

/**
 * What k8s-driver-manager v0.12 calls with ENABLE_GPU_POD_EVICTION and ENABLE_AUTO_DRAIN false;
 * update is what its earlier versions call.
 */
const DRIVER_MANAGER = [
  'elsewhere: get nodes *',
  'elsewhere: patch nodes *',
  'elsewhere: update nodes *',
  'gpu-gate-operands: list pods *',
];
it('a driver’s pod has the rights that NVIDIA’s driver-manager uses', async () =>
  expect((await rightsOf('driver')).map(text).toSorted()).toEqual(DRIVER_MANAGER));

it('no account but the scheduler’s may read a Secret that is not gpu-gate’s, or make a token', async () => {
  for (const account of ['request path', 'reconciler', 'driver'] as const) {
    const rights = await rightsOf(account);
    expect(rights.filter(({ what, name }) => what.endsWith(' secrets') && name === '*').map(text)).toEqual(
      account === 'reconciler' ? ['gpu-gate: create secrets *'] : [],
    );
    expect(rights.filter(({ what }) => /serviceaccounts|rbac|escalate|impersonate|bind /.test(what)).map(text)).toEqual(
      [],
    );
  }
});
