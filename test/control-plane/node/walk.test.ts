// The walk on a real control plane, where the demo and gate.test.ts do not go: places for first
// walks, a retry that an operator asks for, and what each kind of loss does to a node whose
// GPUs are all taken.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { MERGE_PATCH } from '../../../platform/kube.ts';
import { jsonLog } from '../../../platform/log.ts';
import { reflector } from '../../../platform/reflector.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until } from '../../../lab/cluster/gate.ts';
import { conditionOf, isReady, viewOf, type Node } from '../../builders/view.ts';

let cluster: Cluster;
const { node, pod, kubectl, annotate, state, validated, gpuPod, gone, goneIfThere, restore } = viewOf(() => cluster);

const PROOF = 'gpu-gate.dev/proof';
const CLOSED = 'gpu-gate.dev/closed';
const edit = (spec: object): Promise<unknown> =>
  cluster.admin.request('PATCH', '/apis/gpu-gate.dev/v1alpha1/gpupolicies/default', {
    contentType: MERGE_PATCH,
    body: { spec },
  });
const conditionOn = async (name: string): Promise<Node['status']['conditions'][number] | undefined> =>
  (await node(name)).status.conditions.find(({ type }) => type === 'GPUValidated');
const optIn = (name: string): Promise<string> => kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');

beforeAll(async () => {
  cluster = await startCluster({ nodes: 4, say: console.log });
  await startGate(cluster, {
    flags: ['--not-ready-grace', '3s'],
    values: {
      policy: {
        spec: {
          validation: { backoff: { initial: '5m', max: '10m' } },
          bringUp: { maxConcurrent: '1' },
          // Proofs go one after the other here, on purpose.
          breaker: '100%',
        },
      },
    },
  });
  first = await firstWalks();
});
afterAll(async () => cluster?.stop());

/** What the first walks of all four nodes were like, of which the one of gpu-3 failed. */
let first: Awaited<ReturnType<typeof firstWalks>>;
async function firstWalks() {
  const underWay = new Set<string>();
  let most = 0;
  const stop = new AbortController();
  const states = reflector<string>({
    kube: cluster.admin,
    log: jsonLog('error', () => undefined),
    path: '/api/v1/nodes',
    trim: (raw: Node) => raw.metadata.labels['gpu-gate.dev/state'],
    onChange: (name, _, after) => {
      const walks = after !== undefined && !['preflight', 'validated', 'failed'].includes(after);
      if (walks) underWay.add(name);
      else underWay.delete(name);
      most = Math.max(most, underWay.size);
    },
  });
  states.start(stop.signal);
  await states.whenSynced();
  await annotate('gpu-3', 'sim.gpu-gate.dev/driver-fails=boom');
  await optIn('gpu-3');
  await until('gpu-3 to be on its way', () => underWay.has('gpu-3'));
  for (const name of ['gpu-0', 'gpu-1', 'gpu-2']) await optIn(name);
  await until('a node to say that it waits for a place', async () =>
    /waiting until fewer nodes are on their way \(bringUp\.maxConcurrent 1\)/.test(
      (await conditionOn('gpu-2'))?.message ?? '',
    ),
  );
  for (const name of ['gpu-0', 'gpu-1', 'gpu-2']) await validated(name);
  stop.abort();
  const seen = { most, state: await state('gpu-3'), failed: await conditionOn('gpu-3') };
  await annotate('gpu-3', 'sim.gpu-gate.dev/driver-fails-');
  await annotate('gpu-3', 'gpu-gate.dev/retry=1');
  await validated('gpu-3');
  return seen;
}

describe('first walks', () => {
  it('bringUp.maxConcurrent 1: one at a time; a failure gives its place up', () => {
    expect([first.state, first.most]).toEqual(['failed', 1]);
  });

  it('a failed node says when it is tried again, and how to ask for that sooner', () => {
    const { failed } = first;
    expect(failed?.reason).toBe('DriverFailedCrashLoop');
    const retryAt = /retried after (\S+),/.exec(failed?.message ?? '')?.[1] ?? '';
    // 5 min less the jitter's fifth.
    expect(Date.parse(retryAt) - Date.parse(failed?.lastTransitionTime ?? '')).toBeGreaterThanOrEqual(240_000);
    expect(failed?.message).toContain('kubectl annotate node gpu-3 --overwrite gpu-gate.dev/retry=');
  });
});

/**
 * A pod that holds all eight GPUs of the node, Ready through its gate. When the test ends, the pod
 * goes and the node is open.
 */
async function fill(name: string): Promise<void> {
  onTestFinished(async () => {
    await goneIfThere(`fills-${name}`);
    await restore(name);
  });
  await gpuPod(`fills-${name}`, name, 8);
  await until('the pod that fills the node to be Ready', async () => isReady(await pod(`fills-${name}`)));
}
const marksOf = async (name: string): Promise<{ proof: boolean; closed: string | undefined }> => {
  const { annotations } = (await node(name)).metadata;
  return { proof: annotations[PROOF] !== undefined, closed: annotations[CLOSED] };
};
const operandOf = async (name: string, component: string): Promise<string> =>
  (
    await kubectl(
      'get',
      'pods',
      '-n',
      'gpu-gate-operands',
      '-l',
      `app.kubernetes.io/component=${component}`,
      '--field-selector',
      `spec.nodeName=${name}`,
      '-o',
      'name',
    )
  ).trim();
const waitsForGPU = (name: string): Promise<unknown> =>
  until('the validation to wait for a free GPU', async () => {
    const { proof, closed } = await marksOf(name);
    return (
      proof &&
      closed === 'awaiting device-plugin-validation' &&
      (await conditionOn(name))?.message.includes('Insufficient nvidia.com/gpu')
    );
  });
/** The pod was Ready all the time since: its Ready condition has not changed. */
const readySince = async (name: string): Promise<string | undefined> =>
  conditionOf(await pod(name), 'Ready')?.lastTransitionTime;

describe('losses on a full node', () => {
  it('no loss: a full node is open all the same', async () => {
    await fill('gpu-0');
    expect(await marksOf('gpu-0')).toEqual({ proof: true, closed: undefined });
  });

  it.each(['restarted', 'pod gone'])(
    'toolkit %s: closed, proof and pod stay, open again with no free GPU',
    async (how) => {
      await fill('gpu-0');
      const since = await readySince('fills-gpu-0');
      await annotate('gpu-0', 'sim.gpu-gate.dev/toolkit-seconds=600');
      if (how === 'restarted') await annotate('gpu-0', 'sim.gpu-gate.dev/restart=container-toolkit:1');
      else await kubectl('delete', '-n', 'gpu-gate-operands', await operandOf('gpu-0', 'container-toolkit'));
      await until('the node to close', async () => {
        const { proof, closed } = await marksOf('gpu-0');
        return proof && closed === 'awaiting toolkit';
      });
      await annotate('gpu-0', 'sim.gpu-gate.dev/toolkit-seconds=0.1');
      await validated('gpu-0');
      expect(await readySince('fills-gpu-0')).toBe(since);
    },
  );

  it.each(['restarted', 'pod gone'])(
    'device plugin %s: closed until a GPU is free and was used, beyond the time limit of that stage; the pod stays',
    async (how) => {
      const name = how === 'restarted' ? 'gpu-0' : 'gpu-1';
      await fill(name);
      onTestFinished(() => edit({ validation: { timeouts: { devicePluginValidation: '1m' } } }).then(() => undefined));
      const since = await readySince(`fills-${name}`);
      await edit({ validation: { timeouts: { devicePluginValidation: '3s' } } });
      if (how === 'restarted') await annotate(name, 'sim.gpu-gate.dev/restart=device-plugin:1');
      else await kubectl('delete', '-n', 'gpu-gate-operands', await operandOf(name, 'device-plugin'));
      await waitsForGPU(name);
      await sleep(5000);
      expect([(await conditionOn(name))?.reason, await state(name), await readySince(`fills-${name}`)]).toEqual([
        'Closed',
        'validated',
        since,
      ]);
      await edit({ validation: { timeouts: { devicePluginValidation: '1m' } } });
      await gone(`fills-${name}`);
      await validated(name);
    },
  );

  it.each(['restarted', 'pod gone'])(
    'driver %s: the proof goes first, the gate closes; driver-validation alone gives it back, closed until a GPU is free',
    async (how) => {
      const name = how === 'restarted' ? 'gpu-0' : 'gpu-1';
      await fill(name);
      await annotate(name, 'sim.gpu-gate.dev/driver-seconds=600');
      if (how === 'restarted') await annotate(name, 'sim.gpu-gate.dev/restart=driver:1');
      else await kubectl('delete', '-n', 'gpu-gate-operands', await operandOf(name, 'driver'));
      await until('the proof to go', async () => !(await marksOf(name)).proof);
      await until('the pod to leave its Service', async () => !isReady(await pod(`fills-${name}`)));
      await annotate(name, 'sim.gpu-gate.dev/driver-seconds=0.1');
      await waitsForGPU(name);
      await until('the pod to be Ready again', async () => isReady(await pod(`fills-${name}`)));
      expect((await marksOf(name)).closed).toBe('awaiting device-plugin-validation');
      // No reboot: pods that cannot tolerate the startup taint are none of this.
      expect((await node(name)).spec.taints ?? []).toEqual([]);
      await gone(`fills-${name}`);
      await validated(name);
    },
  );

  it('driver validation fails: no proof, the gate closes, repaired when the operator requests a retry', async () => {
    await fill('gpu-2');
    await annotate('gpu-2', 'sim.gpu-gate.dev/validation-fails=driver', 'sim.gpu-gate.dev/restart=container-toolkit:1');
    await until('the failure', async () => (await conditionOn('gpu-2'))?.reason === 'DriverValidationFailedVectorAdd');
    await until('the proof to go', async () => !(await marksOf('gpu-2')).proof);
    await until('the pod to leave its Service', async () => !isReady(await pod('fills-gpu-2')));
    await annotate('gpu-2', 'sim.gpu-gate.dev/validation-fails-', 'gpu-gate.dev/retry=again');
    await until('the proof', async () => (await marksOf('gpu-2')).proof);
    await until('the pod to be Ready again', async () => isReady(await pod('fills-gpu-2')));
    await gone('fills-gpu-2');
    await validated('gpu-2');
  });

  it('some GPUs lost on a full node: open, reported in its condition until they are back', async () => {
    await fill('gpu-1');
    await annotate('gpu-1', 'sim.gpu-gate.dev/lost-gpus=2');
    await until('the condition to tell', async () =>
      (await conditionOn('gpu-1'))?.message.includes('6 of 8 nvidia.com/gpu allocatable'),
    );
    expect(await marksOf('gpu-1')).toEqual({ proof: true, closed: undefined });
    expect(await kubectl('get', 'events', '-A', '--field-selector', 'reason=GPUsLost', '-o', 'name')).not.toBe('');
    await annotate('gpu-1', 'sim.gpu-gate.dev/lost-gpus-');
    await until(
      'the condition to be as before',
      async () => (await conditionOn('gpu-1'))?.message.includes('allocatable') === false,
    );
    await gone('fills-gpu-1');
  });

  it('all GPUs no longer allocatable: closed, proof and pod stay; back, they must be used once', async () => {
    await fill('gpu-3');
    const since = await readySince('fills-gpu-3');
    await annotate('gpu-3', 'sim.gpu-gate.dev/lost-gpus=8');
    await until('the node to close', async () => (await marksOf('gpu-3')).closed === 'awaiting device-plugin');
    expect((await marksOf('gpu-3')).proof).toBe(true);
    await annotate('gpu-3', 'sim.gpu-gate.dev/lost-gpus-');
    await waitsForGPU('gpu-3');
    expect(await readySince('fills-gpu-3')).toBe(since);
    await gone('fills-gpu-3');
    await validated('gpu-3');
  });

  it('an operand edited by hand on a full node: put back, nothing restarts, nothing closes', async () => {
    await fill('gpu-3');
    const since = await readySince('fills-gpu-3');
    for (const component of ['container-toolkit', 'driver', 'device-plugin']) {
      const before = await operandOf('gpu-3', component);
      const template = (...more: string[]): Promise<string> =>
        kubectl(
          'get',
          'daemonset',
          '-n',
          'gpu-gate-operands',
          '-l',
          `app.kubernetes.io/component=${component}`,
          '-o',
          'jsonpath={.items[0].spec.template.spec.containers[0].image}',
          ...more,
        );
      const image = await template();
      const daemonSet = (
        await kubectl(
          'get',
          'daemonset',
          '-n',
          'gpu-gate-operands',
          '-l',
          `app.kubernetes.io/component=${component}`,
          '-o',
          'name',
        )
      ).trim();
      await kubectl('set', 'image', daemonSet, '-n', 'gpu-gate-operands', '*=example/other:1');
      await until(`the image of ${component} to be put back`, async () => (await template()) === image);
      expect(await operandOf('gpu-3', component)).toBe(before);
    }
    expect(await marksOf('gpu-3')).toEqual({ proof: true, closed: undefined });
    expect(await readySince('fills-gpu-3')).toBe(since);
    await gone('fills-gpu-3');
  });

  it('unreachable too long: the proof goes, nothing is deleted, both validations run again; opt-out: the proof stays until the pod has ended', async () => {
    await fill('gpu-2');
    const operands = (): Promise<string[]> =>
      Promise.all(['container-toolkit', 'driver'].map((component) => operandOf('gpu-2', component)));
    const before = await operands();
    const validation = await operandOf('gpu-2', 'driver-validation');
    await annotate('gpu-2', 'sim.gpu-gate.dev/not-ready=unreachable');
    await until('the proof to go', async () => !(await marksOf('gpu-2')).proof);
    await annotate('gpu-2', 'sim.gpu-gate.dev/not-ready-');
    await waitsForGPU('gpu-2');
    expect(await operands()).toEqual(before);
    expect(await operandOf('gpu-2', 'driver-validation')).not.toBe(validation);
    await until('the pod to be Ready again', async () => isReady(await pod('fills-gpu-2')));
    const since = await readySince('fills-gpu-2');
    await kubectl('label', 'node', 'gpu-2', 'gpu-gate.dev/managed-');
    await until('the removal to wait', async () =>
      (await conditionOn('gpu-2'))?.message.includes('waiting for 1 GPU pod to end (default/fills-gpu-2)'),
    );
    expect([(await marksOf('gpu-2')).proof, await state('gpu-2')]).toEqual([true, 'removing']);
    expect(await readySince('fills-gpu-2')).toBe(since);
    await gone('fills-gpu-2');
    await until('the state to go', async () => (await state('gpu-2')) === undefined);
  });
});
