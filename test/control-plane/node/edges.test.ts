// What the reconciler keeps and says beside the walk, on a real control plane: counts, operands
// that were edited or are refused, reports on pods past webhook and gate, wake-ups after an edit of
// the policy, a lost leadership.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { MERGE_PATCH } from '../../../platform/kube.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { conditionOf, viewOf } from '../../builders/view.ts';

let cluster: Cluster;
let gate: Gate;
const { node, pod, kubectl, annotate, state, validated, gpuPod, goneIfThere, restore } = viewOf(() => cluster);

interface Policy {
  metadata: { resourceVersion: string; generation: number };
  status?: {
    observedGeneration?: number;
    nodes?: Record<string, number>;
    conditions?: { type: string; status: string; reason: string; message: string }[];
  };
}
interface DaemonSet {
  metadata: { name: string; generation: number };
  spec: {
    template: { spec: { nodeSelector: Record<string, string>; containers: { env?: { name: string }[] }[] } };
  };
}
const POLICY = '/apis/gpu-gate.dev/v1alpha1/gpupolicies/default';
const policy = (): Promise<Policy> => cluster.admin.request('GET', POLICY);
const edit = (spec: object): Promise<unknown> =>
  cluster.admin.request('PATCH', POLICY, { contentType: MERGE_PATCH, body: { spec } });
const degraded = (status: string): Promise<string> =>
  until(`Degraded to be ${status}`, async () => {
    const found = (await policy()).status?.conditions?.find(({ type }) => type === 'Degraded');
    return found?.status === status && `${found.reason}: ${found.message}`;
  });
const operands = async (component: string): Promise<readonly DaemonSet[]> =>
  (
    await cluster.admin.request<{ items: DaemonSet[] }>(
      'GET',
      '/apis/apps/v1/namespaces/gpu-gate-operands/daemonsets',
      { query: { labelSelector: `app.kubernetes.io/component=${component}` } },
    )
  ).items;
const operand = async (component: string): Promise<DaemonSet> => {
  const [first] = await operands(component);
  if (first === undefined) throw new Error(`no DaemonSet of ${component}`);
  return first;
};
const envOf = (daemonSet: DaemonSet): readonly string[] =>
  daemonSet.spec.template.spec.containers.flatMap(({ env }) => (env ?? []).map(({ name }) => name));
const podsOf = (component: string): Promise<string> =>
  kubectl(
    'get',
    'pods',
    '-n',
    'gpu-gate-operands',
    '-l',
    `app.kubernetes.io/component=${component}`,
    '-o',
    'jsonpath={.items[*].metadata.uid}',
  );
const events = (reason: string, about: string): Promise<string> =>
  kubectl(
    'get',
    'events',
    '-A',
    '--field-selector',
    `reason=${reason},involvedObject.name=${about}`,
    '-o',
    'jsonpath={range .items[*]}{.message}{"\\n"}{end}',
  );
const figure = async (name: string): Promise<number> =>
  Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await gate.metrics())?.[1] ?? Number.NaN);
const leads = (): Promise<unknown> => until('the leader', async () => (await figure('gpu_gate_leader')) === 1);
const make = (name: string, namespace: string, spec: object): Promise<unknown> =>
  cluster.admin.request('POST', `/api/v1/namespaces/${namespace}/pods`, {
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name },
      spec: {
        terminationGracePeriodSeconds: 0,
        containers: [{ name: 'c', image: 'example/train:1', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
        ...spec,
      },
    },
  });

beforeAll(async () => {
  cluster = await startCluster({ nodes: 3, say: console.log });
  gate = await startGate(cluster, {
    flags: ['--wake-after', '1s,2s'],
    values: {
      policy: { spec: { validation: { backoff: { initial: '1s', max: '2s' } }, bringUp: { maxConcurrent: '1' } } },
    },
  });
  await restore(...NODES);
});
afterEach(async () => {
  await gate.allRunning();
  await edit({ suspend: false, unmanagedNodes: 'Auto' });
  await restore(...NODES);
});
afterAll(async () => cluster?.stop());

const NODES = ['gpu-0', 'gpu-1', 'gpu-2'];
/** A node that is deleted when the test ends. */
async function oneMoreNode(...annotations: readonly string[]): Promise<string> {
  const [name] = await cluster.addNodes(1);
  if (name === undefined) throw new Error('no node');
  onTestFinished(() => kubectl('delete', 'node', name, '--ignore-not-found').then(() => undefined));
  if (annotations.length > 0) await annotate(name, ...annotations);
  return name;
}

describe('reports about nodes', () => {
  it('a count that is no more goes from the policy, and then nothing more is written', async () => {
    const name = await oneMoreNode('sim.gpu-gate.dev/driver-fails=boom');
    await kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
    await until('the failure to be counted', async () => (await policy()).status?.nodes?.['failed'] === 1);
    await annotate(name, 'sim.gpu-gate.dev/driver-fails-');
    await validated(name);
    await until('the count to be whole', async () => {
      const { nodes } = (await policy()).status ?? {};
      return nodes?.['total'] === 4 && nodes['validated'] === 4 && nodes['failed'] === undefined;
    });
    const columns = await kubectl('get', 'gpupolicies', 'default');
    expect(columns.split('\n')[1]).toMatch(/^default +True +Enforcing +4 +(<none> +)?4 +\d/);
    const quiet = async (): Promise<string> => {
      let version = '';
      await until('nothing to be written for 2 s', async () => {
        version = (await policy()).metadata.resourceVersion;
        await sleep(2000);
        return (await policy()).metadata.resourceVersion === version;
      });
      return version;
    };
    const resourceVersion = await quiet();
    // Each change of a node makes the reconciler compute the status again.
    for (const nonce of ['1', '2', '3']) {
      await annotate(name, `example.com/nonce=${nonce}`);
      await sleep(600);
    }
    expect((await policy()).metadata.resourceVersion).toBe(resourceVersion);
  });

  it('a condition’s time of transition moves with its status, not with its text', async () => {
    const condition = async () =>
      (await node('gpu-0')).status.conditions.find(({ type }) => type === 'GPUValidated') as unknown as Record<
        'status' | 'reason' | 'lastTransitionTime',
        string
      >;
    const before = await condition();
    await sleep(1100);
    await annotate('gpu-0', 'sim.gpu-gate.dev/restart=device-plugin:1', 'sim.gpu-gate.dev/plugin-seconds=600');
    const closed = await until('the node to close', async () => {
      const now = await condition();
      return now.reason !== before.reason && now;
    });
    expect([closed.status, closed.lastTransitionTime]).toEqual(['True', before.lastTransitionTime]);
    await annotate('gpu-0', 'sim.gpu-gate.dev/plugin-seconds=0.1');
    await validated('gpu-0');
    await sleep(1100);
    await annotate('gpu-0', 'sim.gpu-gate.dev/restart=driver:2', 'sim.gpu-gate.dev/driver-seconds=600');
    await until('the status to change', async () => {
      const now = await condition();
      return now.status === 'False' && now.lastTransitionTime !== before.lastTransitionTime;
    });
  });

  it('a node that is deleted gives its place for a first walk to one that waits', async () => {
    const [first, second] = [await oneMoreNode('sim.gpu-gate.dev/driver-seconds=600'), await oneMoreNode()];
    await kubectl('label', 'node', first, 'gpu-gate.dev/managed=true');
    await until('the first to be on its way', async () => (await state(first)) === 'driver');
    await kubectl('label', 'node', second, 'gpu-gate.dev/managed=true');
    await until('the second to wait', async () => (await state(second)) === 'preflight');
    await sleep(2000);
    expect(await state(second)).toBe('preflight');
    await kubectl('delete', 'node', first);
    await validated(second);
  });
});

describe('operands', () => {
  it('what others add to one goes again, nothing restarts, and an Event says so', async () => {
    const before = await operand('driver');
    const { name } = before.metadata;
    const uids = await podsOf('driver');
    const addEnv = (): Promise<string> =>
      kubectl('set', 'env', `daemonset/${name}`, '-n', 'gpu-gate-operands', 'FOO=bar');
    const putBack = (): Promise<unknown> =>
      until('the variable to go', async () => !envOf(await operand('driver')).includes('FOO'));
    await addEnv();
    await putBack();
    await until('the Event', async () => (await events('OperandPutBack', 'default')).includes(name));
    await gate.stopReconciler();
    await addEnv();
    await gate.startReconciler();
    await putBack();
    await sleep(1500);
    const { generation } = (await operand('driver')).metadata;
    await sleep(1500);
    expect((await operand('driver')).metadata.generation).toBe(generation);
    expect((await operand('driver')).spec).toEqual(before.spec);
    expect(await podsOf('driver')).toBe(uids);
  });

  it('so does a node selector that another writer adds', async () => {
    const { metadata, spec } = await operand('dcgm-exporter');
    await kubectl(
      'patch',
      'daemonset',
      metadata.name,
      '-n',
      'gpu-gate-operands',
      '--type',
      'merge',
      '-p',
      '{"spec":{"template":{"spec":{"nodeSelector":{"example.com/never":"true"}}}}}',
    );
    await until('the selector to go', async () => {
      const now = await operand('dcgm-exporter');
      return (
        now.metadata.generation > metadata.generation && !('example.com/never' in now.spec.template.spec.nodeSelector)
      );
    });
    expect((await operand('dcgm-exporter')).spec).toEqual(spec);
  });

  it('one that the API server refuses stops no other; the policy says which, and why', async () => {
    onTestFinished(async () => {
      await edit({ components: { toolkit: { resources: null }, devicePlugin: { env: [] } } });
      await degraded('False');
    });
    await edit({
      components: {
        toolkit: { resources: { limitz: { cpu: '1' } } },
        devicePlugin: { env: [{ name: 'NEWER', value: '1' }] },
      },
    });
    expect(await degraded('True')).toMatch(
      /^OperandRefused: refused by the API server: DaemonSet container-toolkit-\w+: .*limitz/,
    );
    await until('the Event', async () => (await events('OperandRefused', 'default')).includes('limitz'));
    await until('the other operand', async () =>
      (await operands('device-plugin')).some((daemonSet) => envOf(daemonSet).includes('NEWER')),
    );
    await edit({ components: { toolkit: { resources: null }, devicePlugin: { env: [] } } });
    await degraded('False');
    // Garbage is collected: the newer one was no node's.
    await until('the left-over to go', async () => (await operands('device-plugin')).length === 1);
  });
});

describe('reports', () => {
  it('pods that the webhook leaves alone are not missed; those that are, are counted once', async () => {
    onTestFinished(async () => {
      for (const name of ['named', 'missed']) await goneIfThere(name);
      await kubectl('delete', 'namespace', 'quiet', '--wait=false');
    });
    const before = await figure('gpu_gate_missed_pods_total');
    await kubectl('create', 'namespace', 'quiet');
    await kubectl('label', 'namespace', 'quiet', 'gpu-gate.dev/inject=false');
    await until('the namespace to take pods', () => make('opted-out', 'quiet', {}));
    await make('named', 'default', { nodeName: 'gpu-0' });
    await gate.stopRequestPath();
    await make('missed', 'default', {});
    await gate.startRequestPath();
    await until('the count', async () => (await figure('gpu_gate_missed_pods_total')) === before + 1);
    await until('it to be bound', async () => (await pod('missed')).spec.nodeName);
    await until('the Event', async () => (await events('GPUPodNotInjected', 'missed')) !== '');
    await sleep(1000);
    expect(await figure('gpu_gate_missed_pods_total')).toBe(before + 1);
    for (const name of ['opted-out', 'named']) expect(await events('GPUPodNotInjected', name), name).toBe('');
    await gate.stopReconciler();
    await gate.startReconciler();
    await leads();
    await sleep(2000);
    expect(await figure('gpu_gate_missed_pods_total')).toBe(0);
    expect((await events('GPUPodNotInjected', 'missed')).trim().split('\n')).toHaveLength(1);
  });

  it('bound to a node that is not opted in, though the policy denies it', async () => {
    const name = await oneMoreNode();
    onTestFinished(() => goneIfThere('unmanaged'));
    await edit({ unmanagedNodes: 'Deny' });
    await until('the reconciler to know', async () => {
      const { metadata, status } = await policy();
      return status?.observedGeneration === metadata.generation;
    });
    const before = await figure('gpu_gate_pods_past_gate_total');
    await make('unmanaged', 'default', { nodeName: name });
    await until('the report', async () =>
      (await events('GPUPodPastGate', 'unmanaged')).includes(
        `bound to ${name} by spec.nodeName, although the gate refuses this node: node not opted in to gpu-gate`,
      ),
    );
    await until('the count', async () => (await figure('gpu_gate_pods_past_gate_total')) === before + 1);
  });

  it('bound past the gate while no reconciler ran', async () => {
    onTestFinished(async () => {
      for (const name of ['before', 'unseen']) await goneIfThere(name);
    });
    await make('before', 'default', { nodeName: 'gpu-0' });
    await until('the first to run', async () => (await pod('before')).status.phase === 'Running');
    await gate.stopReconciler();
    await annotate('gpu-0', 'sim.gpu-gate.dev/reboot=edges');
    await until('the node to be back', async () => {
      const { conditions } = (await node('gpu-0')).status;
      return (
        (await pod('before')).status.phase === 'Failed' &&
        conditions.some((c) => c.type === 'Ready' && c.status === 'True')
      );
    });
    await sleep(1100);
    await make('unseen', 'default', { nodeName: 'gpu-0' });
    await gate.startReconciler();
    await until('the report', async () =>
      (await events('GPUPodPastGate', 'unseen')).includes('node rebooted since validation'),
    );
    expect(await events('GPUPodPastGate', 'before')).toBe('');
  });
});

describe('leaders', () => {
  it('suspending the policy wakes a pending pod, which had the reason reported', async () => {
    onTestFinished(() => goneIfThere('waits'));
    for (const name of NODES) await annotate(name, 'gpu-gate.dev/hold=test');
    await gpuPod('waits', 'gpu-0');
    await until('the Event', async () =>
      (await events('WaitingForGPUNode', 'waits')).includes(
        'node gpu-0 takes no new GPU pods (GPU node held by an operator)',
      ),
    );
    await until('the refusal', async () =>
      conditionOf(await pod('waits'), 'PodScheduled')?.message?.includes('node held'),
    );
    // Until nothing else is about to make the scheduler try again: see --wake-after above.
    await sleep(4000);
    const before = await figure('gpu_gate_wakes_total');
    await edit({ suspend: true });
    await until('the pod to be bound', async () => (await pod('waits')).spec.nodeName === 'gpu-0');
    await until('the wake-up to be counted', async () => (await figure('gpu_gate_wakes_total')) > before);
  });

  it('a replica that no longer leads reports nothing about the cluster; one that leads again knows the last validation', async () => {
    await until('the nodes to be counted', async () =>
      /^gpu_gate_nodes\{state="validated",policy="default"\} 3$/m.test(await gate.metrics()),
    );
    await until('the queue to be empty', async () => (await figure('gpu_gate_queue_depth')) === 0);
    const steal = setInterval(() => {
      const renewTime = new Date().toISOString().replace('Z', '000Z');
      cluster.admin
        .request('PATCH', '/apis/coordination.k8s.io/v1/namespaces/gpu-gate/leases/gpu-gate-reconciler', {
          contentType: MERGE_PATCH,
          // After a second without a renewal the Lease is anybody's.
          body: { spec: { holderIdentity: 'thief', renewTime, leaseDurationSeconds: 1 } },
        })
        .catch(() => undefined);
    }, 300);
    try {
      await until('it to be lost', async () => (await figure('gpu_gate_leader')) === 0);
      const lost = await gate.metrics();
      expect(lost).not.toMatch(/^gpu_gate_nodes\{/m);
      expect(lost).toMatch(/^gpu_gate_open_nodes 0$/m);
    } finally {
      clearInterval(steal);
    }
    await leads();
    await until('the nodes to be counted again', async () => (await figure('gpu_gate_open_nodes')) === 3);
    await gate.stopReconciler();
    await gate.startReconciler();
    await leads();
    const proofs = await Promise.all(NODES.map(async (name) => (await node(name)).metadata.annotations));
    const times = proofs.map((all) =>
      Date.parse((JSON.parse(all['gpu-gate.dev/proof'] ?? '') as { readonly at: string }).at),
    );
    const last = Math.round(Math.max(...times) / 1000);
    await until(
      'the last validation to be known',
      async () => (await figure('gpu_gate_last_validation_timestamp_seconds')) === last,
    );
  });

  it('the chart tells the reconciler what the webhook is called for', async () => {
    const { stdout, stderr } = await cluster.helm([
      'template',
      'gpu-gate',
      join(import.meta.dirname, '..', '..', '..', 'deploy', 'chart'),
      '--set',
      'policy.spec.resources={nvidia.com/pgpu}',
      '--show-only',
      'templates/deployments.yaml',
    ]);
    expect(stderr).toBe('');
    expect(stdout.match(/--webhook-resources=nvidia\.com\/pgpu$/gm)).toHaveLength(1);
  });
});
