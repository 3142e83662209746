// gpu-gate whole, on a real control plane with simulated hardware, under its chart's own RBAC: what
// the demo does not tell.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { wakeUps } from '../../../lab/cluster/wakeup.ts';
import { conditionOf, isReady, viewOf, type Pod } from '../../builders/view.ts';

let cluster: Cluster;
let gate: Gate;

beforeAll(async () => {
  cluster = await startCluster({ nodes: 3, say: console.log });
  gate = await startGate(cluster, {
    flags: ['--not-ready-grace', '3s', '--drain', '2s', '--wake-after', '1s,2s'],
    values: {
      policy: { spec: { validation: { backoff: { initial: '1s', max: '4s' } }, bringUp: { maxConcurrent: '3' } } },
    },
  });
  await restore(...NODES);
});
afterEach(async () => {
  await gate.allRunning();
  await restore(...NODES);
});
afterAll(async () => cluster?.stop());

const NODES = ['gpu-0', 'gpu-1', 'gpu-2'];
const { node, pod, kubectl, annotate, validated, gpuPod, gone, goneIfThere, restore } = viewOf(() => cluster);
/** A GPU pod on gpu-0 that is Ready through its gate, and goes when the test ends. */
async function serving(): Promise<void> {
  onTestFinished(() => goneIfThere('serving'));
  await gpuPod('serving', 'gpu-0');
  await until('the pod to be Ready', async () => isReady(await pod('serving')));
}
const count = async (name: string, labels = ''): Promise<number> =>
  (await gate.metrics())
    .split('\n')
    .filter((line) => line.startsWith(name) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);

describe('the walk on a real control plane', () => {
  it('leaves no taint on a validated node', async () => {
    for (const name of NODES) expect((await node(name)).spec.taints ?? []).toEqual([]);
  });

  it('a pod that waits is bound once the proof is written: six tries, none left behind', async () => {
    // Without a wake-up it waits for the scheduler's own five minutes. How long it takes is in
    // `npm run bench -- wakeup`.
    const tries = await wakeUps(cluster, 'gpu-1', 6, 120_000);
    expect(tries.filter(({ ms }) => ms === Infinity)).toEqual([]);
  });

  it('a restart of gpu-gate writes nothing where nothing changed', async () => {
    const versions = async (): Promise<string> =>
      `${(await node('gpu-0')).metadata.resourceVersion} ${await kubectl('get', 'daemonset', '-n', 'gpu-gate-operands', '-o', 'jsonpath={.items[*].metadata.resourceVersion}')}`;
    let before = '';
    // Longer than between two wake-ups: see --wake-after above.
    await until('nothing to be written for 3 s', async () => {
      before = await versions();
      await sleep(3000);
      return (await versions()) === before;
    });
    await gate.stopReconciler();
    await gate.startReconciler();
    await until('the new leader', async () => (await gate.metrics()).includes('gpu_gate_leader 1'));
    await sleep(3000);
    expect(await versions()).toBe(before);
  });

  it('driver restarted: the proof goes at once, the pod’s gate closes, and both come back by themselves', async () => {
    await serving();
    await annotate('gpu-0', 'sim.gpu-gate.dev/restart=driver:1', 'sim.gpu-gate.dev/driver-seconds=600');
    await until(
      'the proof to go',
      async () => (await node('gpu-0')).metadata.annotations['gpu-gate.dev/proof'] === undefined,
    );
    await until(
      'the gate to close',
      async () => conditionOf(await pod('serving'), 'gpu-gate.dev/node-validated')?.status === 'False',
    );
    await until('the pod not to be Ready', async () => !isReady(await pod('serving')));
    await annotate('gpu-0', 'sim.gpu-gate.dev/driver-seconds=0.1');
    await validated('gpu-0');
    await until('the pod to be Ready again', async () => isReady(await pod('serving')));
  });

  it('device plugin restarted: the node closes, the pod there stays Ready', async () => {
    await serving();
    await annotate('gpu-0', 'sim.gpu-gate.dev/restart=device-plugin:1', 'sim.gpu-gate.dev/plugin-seconds=600');
    await until(
      'the node to close',
      async () => (await node('gpu-0')).metadata.annotations['gpu-gate.dev/closed'] !== undefined,
    );
    expect(isReady(await pod('serving'))).toBe(true);
    await annotate('gpu-0', 'sim.gpu-gate.dev/plugin-seconds=0.1');
    await validated('gpu-0');
    expect(isReady(await pod('serving'))).toBe(true);
  });

  it('some of several GPUs lost: still open', async () => {
    await annotate('gpu-2', 'sim.gpu-gate.dev/lost-gpus=2');
    await until(
      'the GPUs to go',
      async () =>
        (await kubectl('get', 'node', 'gpu-2', '-o', 'jsonpath={.status.allocatable.nvidia\\.com/gpu}')) === '6',
    );
    await sleep(1000);
    expect((await node('gpu-2')).metadata.annotations['gpu-gate.dev/closed']).toBeUndefined();
  });

  it('node not Ready beyond the grace time: withdrawn, restored when it is back', async () => {
    await annotate('gpu-2', 'sim.gpu-gate.dev/not-ready=true');
    await until(
      'the proof to go',
      async () => (await node('gpu-2')).metadata.annotations['gpu-gate.dev/proof'] === undefined,
    );
    await annotate('gpu-2', 'sim.gpu-gate.dev/not-ready-');
    await validated('gpu-2');
  });

  it('reboot while gpu-gate is down: no pod is bound before the new proof', async () => {
    onTestFinished(() => goneIfThere('after-reboot'));
    await gate.stopReconciler();
    const bootID = (): Promise<string> => kubectl('get', 'node', 'gpu-1', '-o', 'jsonpath={.status.nodeInfo.bootID}');
    const before = await bootID();
    await annotate('gpu-1', 'sim.gpu-gate.dev/reboot=1', 'sim.gpu-gate.dev/driver-seconds=4');
    await until('the new boot ID', async () => (await bootID()) !== before);
    await gpuPod('after-reboot', 'gpu-1');
    await sleep(4000);
    expect((await pod('after-reboot')).spec.nodeName).toBeUndefined();
    await gate.startReconciler();
    await validated('gpu-1');
    await until('the pod to be Ready', async () => isReady(await pod('after-reboot')));
  });

  it('an image that cannot be pulled is named, and the walk goes on once it can be', async () => {
    await annotate('gpu-1', 'sim.gpu-gate.dev/image-pull-fails=driver', 'sim.gpu-gate.dev/reboot=2');
    const condition = await until('the failure', async () =>
      (await node('gpu-1')).status.conditions.find(
        (c) => c.type === 'GPUValidated' && c.reason === 'DriverFailedImagePull',
      ),
    );
    expect(condition.message).toContain('nvcr.io/nvidia/driver:');
    await annotate('gpu-1', 'sim.gpu-gate.dev/image-pull-fails-', 'sim.gpu-gate.dev/driver-seconds=1');
    await validated('gpu-1');
  });

  it('opt-out: waits for the GPU pod, then leaves nothing of gpu-gate on the node; taken back midway it resumes', async () => {
    await serving();
    await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed-');
    await until('the removal to wait', async () =>
      (await node('gpu-0')).status.conditions.some(
        (c) => c.type === 'GPUValidated' && c.message.includes('waiting for 1 GPU pod to end (default/serving)'),
      ),
    );
    expect(isReady(await pod('serving'))).toBe(true);
    await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
    await validated('gpu-0');
    await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed-');
    await gone('serving');
    await until('every key to go', async () => {
      const { metadata, spec, status } = await node('gpu-0');
      const keys = Object.keys({ ...metadata.labels, ...metadata.annotations }).filter((key) =>
        key.startsWith('gpu-gate.dev/'),
      );
      return (
        keys.length === 0 &&
        (spec.taints ?? []).length === 0 &&
        !status.conditions.some((c) => c.type === 'GPUValidated')
      );
    });
    expect(
      await kubectl('get', 'pods', '-n', 'gpu-gate-operands', '--field-selector', 'spec.nodeName=gpu-0', '-o', 'name'),
    ).toBe('');
  });
});

describe('pods and the gate', () => {
  it('a pod without GPUs, or with zero, is not sent to the webhook: by the API server’s own count', async () => {
    const calls = async (): Promise<string | undefined> =>
      (await kubectl('get', '--raw', '/metrics'))
        .split('\n')
        .find(
          (line) => line.startsWith('apiserver_admission_webhook_request_total') && line.includes('pods.gpu-gate.dev'),
        );
    const before = await calls();
    expect(before).toBeDefined();
    const make = (name: string, limits: object): Promise<unknown> =>
      cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
        query: { dryRun: 'All' },
        body: {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name },
          spec: { containers: [{ name: 'c', image: 'x', resources: { limits } }] },
        },
      });
    await make('none', { cpu: '1' });
    await make('zero', { 'nvidia.com/gpu': '0' });
    expect(await calls()).toBe(before);
    await make('one', { 'nvidia.com/gpu': '1' });
    expect(await calls()).not.toBe(before);
  });

  it('the webhook down, failurePolicy Ignore: the pod is created, counted as missed, and reported', async () => {
    onTestFinished(() => goneIfThere('missed'));
    await gate.stopRequestPath();
    const before = await count('gpu_gate_missed_pods_total').catch(() => 0);
    const missed = await gpuPod('missed', 'gpu-2');
    expect([missed.spec.runtimeClassName, missed.spec.readinessGates]).toEqual([undefined, undefined]);
    await gate.startRequestPath();
    await until('the count', async () => (await count('gpu_gate_missed_pods_total')) > before);
    expect(await kubectl('get', 'events', '--field-selector', 'reason=GPUPodNotInjected', '-o', 'name')).not.toBe('');
  });

  it('`explain` shows every node and its verdict for a waiting pod, as text and as JSON', async () => {
    const [unmanaged] = await cluster.addNodes(1);
    if (unmanaged === undefined) throw new Error('no node');
    onTestFinished(async () => {
      await goneIfThere('waits');
      await kubectl('delete', 'node', unmanaged);
    });
    await gpuPod('waits', unmanaged);
    const explain = (...more: string[]): { status: number | null; stdout: string; stderr: string } =>
      spawnSync(process.execPath, ['main.ts', 'explain', ...more], {
        cwd: join(import.meta.dirname, '..', '..', '..'),
        env: { PATH: process.env['PATH'] ?? '', KUBECONFIG: cluster.kubeconfig },
        encoding: 'utf8',
      });
    const text = explain('waits', '-n', 'default');
    expect([text.status, text.stdout]).toEqual([
      0,
      expect.stringMatching(new RegExp(`${unmanaged} +- +refused +node not opted in to gpu-gate`)),
    ]);
    // The pod selects that node by name.
    expect(text.stdout).toMatch(/gpu-1 +validated +kept off/);
    expect(text.stdout).toContain(
      'the webhook injected runtimeClassName, readinessGate, schedulerName by policy default',
    );
    const { rows } = JSON.parse(explain('waits', '-o', 'json').stdout) as {
      rows: { node: string; verdict: string }[];
    };
    expect(rows.map(({ node: name, verdict }) => `${name} ${verdict}`)).toEqual([
      'gpu-0 kept off',
      'gpu-1 kept off',
      'gpu-2 kept off',
      `${unmanaged} refused`,
    ]);
    expect(explain('nowhere')).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining("check the pod's name"),
    });
  });

  it('a pod that names an unknown policy is refused in one sentence', async () => {
    const manifest = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'odd', annotations: { 'gpu-gate.dev/policy': 'nope' } },
      spec: { containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
    });
    const { code, stderr } = await cluster.kubectl(['create', '-f', '-'], manifest);
    expect([code, stderr]).toEqual([1, expect.stringContaining('GPUPolicy "nope" does not exist')]);
  });

  it('a wiped caBundle comes back, and an upgrade keeps it', async () => {
    const bundle = (): Promise<string> =>
      kubectl(
        'get',
        'mutatingwebhookconfiguration',
        'zz-gpu-gate',
        '-o',
        'jsonpath={.webhooks[0].clientConfig.caBundle}',
      );
    const before = await bundle();
    expect(before.length).toBeGreaterThan(100);
    await kubectl(
      'patch',
      'mutatingwebhookconfiguration',
      'zz-gpu-gate',
      '--type',
      'json',
      '-p',
      '[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]',
    );
    await until('the bundle', async () => (await bundle()) === before);
    await gate.upgrade({ webhook: { timeoutSeconds: 4 } });
    expect(await bundle()).toBe(before);
  });

  it('the webhook’s Secret, deleted or corrupted, is issued again and served', async () => {
    const fingerprint = (): Promise<string> =>
      kubectl('get', 'secret', 'gpu-gate-webhook-tls', '-n', 'gpu-gate', '-o', 'jsonpath={.data.tls\\.crt}');
    for (const harm of [
      ['delete', 'secret', 'gpu-gate-webhook-tls', '-n', 'gpu-gate'],
      ['patch', 'secret', 'gpu-gate-webhook-tls', '-n', 'gpu-gate', '-p', '{"data":{"tls.key":"AAAA"}}'],
    ]) {
      const before = await fingerprint();
      await kubectl(...harm);
      await until('a new certificate', async () => {
        const now = await fingerprint();
        return now !== '' && now !== before;
      });
      await until('it to be served', async () => (await gpuPodDryRun()).spec.runtimeClassName === 'nvidia');
    }
  });

  it('the request path may read nothing of the CA and write nothing', async () => {
    const can = async (verb: string, ...what: string[]): Promise<string> =>
      (
        await cluster.kubectl(['auth', 'can-i', verb, ...what, '--as', 'system:serviceaccount:gpu-gate:gpu-gate'])
      ).stdout.trim();
    expect(
      await Promise.all([
        can('get', 'secret/gpu-gate-ca', '-n', 'gpu-gate'),
        can('patch', 'nodes'),
        can('patch', 'pods', '--subresource', 'status'),
        can('create', 'pods'),
        can('list', 'secret/gpu-gate-webhook-tls', '-n', 'gpu-gate'),
      ]),
    ).toEqual(['no', 'no', 'no', 'no', 'yes']);
  });

  it('suspend: nothing injected, nothing refused', async () => {
    onTestFinished(() =>
      kubectl('patch', 'gpupolicy', 'default', '--type', 'merge', '-p', '{"spec":{"suspend":false}}').then(
        () => undefined,
      ),
    );
    await kubectl('patch', 'gpupolicy', 'default', '--type', 'merge', '-p', '{"spec":{"suspend":true}}');
    await until('no injection', async () => (await gpuPodDryRun()).spec.runtimeClassName === undefined);
    await kubectl('patch', 'gpupolicy', 'default', '--type', 'merge', '-p', '{"spec":{"suspend":false}}');
    await until('injection', async () => (await gpuPodDryRun()).spec.runtimeClassName === 'nvidia');
  });

  it('a stop: readiness fails first, calls are still answered, then it ends', async () => {
    const readyz = gate.metricsUrls.requestPath.replace('/metrics', '/readyz');
    const stopping = gate.stopRequestPath();
    await until('readiness to fail', async () => (await fetch(readyz)).status === 503);
    expect(await (await fetch(readyz)).text()).toContain('stopping');
    expect((await gpuPodDryRun()).spec.runtimeClassName).toBe('nvidia');
    expect(await stopping).toBe(0);
    await expect(fetch(readyz)).rejects.toThrow();
  });

  it('private keys are in no log', async () => {
    const logs = ['gpu-gate', 'gpu-gate-reconciler']
      .map((name) => readFileSync(`${cluster.dir}/${name}.log`, 'utf8'))
      .join('');
    expect(logs).toContain('certificate step');
    expect(logs).not.toMatch(/PRIVATE KEY|eyJhbGci/);
  });
});

const gpuPodDryRun = (): Promise<Pod> =>
  cluster.admin.request('POST', '/api/v1/namespaces/default/pods', {
    query: { dryRun: 'All' },
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'dry' },
      spec: { containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }] },
    },
  });
