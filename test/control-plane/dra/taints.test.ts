// DeviceTaintRules on a real control plane with Kubernetes' own scheduler alone: no extender is
// configured and no scheduler of gpu-gate runs, so nothing but the rule keeps pods off.
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import {
  createClaim,
  createClaimPod,
  createClass,
  createPod,
  createTemplate,
  exactly,
  GPU_DRIVER,
  publishSlice,
} from '../../../lab/cluster/devices.ts';
import { startGate, until, untilEnforcing, type Gate } from '../../../lab/cluster/gate.ts';
import { MERGE_PATCH, openKube } from '../../../platform/kube.ts';
import { viewOf } from '../../builders/view.ts';
import { isBefore, TAINTS_DEVICES } from '../../support/kubernetes.ts';
import { story } from '../../support/story.ts';

interface Rule {
  readonly metadata: { readonly name: string; readonly uid: string };
  readonly spec: { readonly deviceSelector: object; readonly taint: { readonly key: string; readonly effect: string } };
}

const RULES = '/apis/resource.k8s.io/v1/devicetaintrules';
const OURS = { key: 'gpu-gate.dev/not-open', operator: 'Exists' };
let cluster: Cluster;
let gate: Gate;
const { kubectl, annotate, validated, pod, gone } = viewOf(() => cluster);

const rules = async (): Promise<readonly Rule[]> =>
  (await cluster.admin.request<{ items: Rule[] }>('GET', RULES)).items;
const ruleOf = async (node: string): Promise<Rule | undefined> =>
  (await rules()).find(({ metadata }) => metadata.name === `gpu-gate.${node}.${GPU_DRIVER}`);
const ruleIs = (node: string, there: boolean): Promise<unknown> =>
  until(
    `a rule of ${node} to be ${there ? 'there' : 'gone'}`,
    // Without a reconciler it is the garbage collector's, which may take a minute.
    async () => ((await ruleOf(node)) !== undefined) === there,
  );
const boundTo = (name: string, node: string): Promise<unknown> =>
  until(
    `${name} to be bound to ${node}`,
    async () => (await pod(name)).spec.nodeName === node,
    undefined,
    async () => JSON.stringify((await pod(name)).status.conditions),
  );
/** The scheduler has looked at the pod and found no node. */
const waits = (name: string): Promise<unknown> =>
  until(`${name} to be unschedulable`, async () => {
    const { spec, status } = await pod(name);
    if (spec.nodeName !== undefined) throw new Error(`${name} was bound to ${spec.nodeName}`);
    return status.conditions?.some(({ type, reason }) => type === 'PodScheduled' && reason === 'Unschedulable');
  });
const hold = (node: string): Promise<unknown> => annotate(node, 'gpu-gate.dev/hold=test');
const release = (node: string): Promise<unknown> => kubectl('annotate', 'node', node, 'gpu-gate.dev/hold-');

beforeAll(async () => {
  cluster = await startCluster({ nodes: 2, say: console.log });
  const { admin } = cluster;
  await createClass(admin, 'gpu.nvidia.com', GPU_DRIVER, 'example.com/gpu');
  await createTemplate(admin, 'gpu', exactly('gpu.nvidia.com'));
  gate = await startGate(cluster, {
    scheduler: false,
    values: {
      scheduler: { create: false },
      draDriver: { deviceClasses: false },
      policy: { spec: { allocation: 'DRA', startupTaint: 'Off', bringUp: { maxConcurrent: '2' } } },
    },
  });
  // Walks stay at the driver until a test lets them go on.
  for (const node of ['gpu-0', 'gpu-1']) await annotate(node, 'sim.gpu-gate.dev/driver-seconds=3600');
  for (const node of ['gpu-0', 'gpu-1']) await kubectl('label', 'node', node, 'gpu-gate.dev/managed=true');
  await untilEnforcing(cluster);
  // A node with GPUs that is not validated would keep the policy auditing.
  for (const node of ['gpu-0', 'gpu-1']) await publishSlice(admin, node);
});
afterAll(async () => cluster?.stop());

/** Two nodes before their proof, and after it, until the policy goes. */
const chapter = story();

const SHAPES: Readonly<Record<string, () => Promise<unknown>>> = {
  template: () => createClaimPod(cluster.admin, 'template', { resourceClaimTemplateName: 'gpu' }),
  mapped: () => createPod(cluster.admin, 'mapped', { resources: { limits: { 'example.com/gpu': '1' } } }),
  implicit: () =>
    createPod(cluster.admin, 'implicit', {
      resources: { limits: { 'deviceclass.resource.kubernetes.io/gpu.nvidia.com': '1' } },
    }),
};

describe.skipIf(isBefore(TAINTS_DEVICES))('while no node is proven', () => {
  chapter('each node has one rule for the driver', async () => {
    for (const node of ['gpu-0', 'gpu-1']) await ruleIs(node, true);
    expect(await rules()).toHaveLength(2);
    expect((await ruleOf('gpu-0'))?.spec).toMatchObject({
      deviceSelector: { driver: GPU_DRIVER, pool: 'gpu-0' },
      taint: { key: OURS.key, effect: 'NoSchedule' },
    });
  });

  // Before any pod waits: for some milliseconds there is no rule.
  chapter('a rule that is deleted or edited by hand is put back', async () => {
    const before = await ruleOf('gpu-0');
    await cluster.admin.request('DELETE', `${RULES}/${before?.metadata.name}`);
    await until('another rule', async () => {
      const now = await ruleOf('gpu-0');
      return now !== undefined && now.metadata.uid !== before?.metadata.uid;
    });
    await cluster.admin.request('PATCH', `${RULES}/${before?.metadata.name}`, {
      contentType: MERGE_PATCH,
      body: { spec: { deviceSelector: { device: 'gpu-7' } } },
    });
    await until('the rule as it was', async () => {
      const now = await ruleOf('gpu-0');
      return now !== undefined && !('device' in now.spec.deviceSelector);
    });
  });

  for (const [name, make] of Object.entries(SHAPES))
    chapter(`a pod that asks by ${name} waits`, async () => {
      await make();
      await waits(name);
    });

  chapter('a claim of gpu-gate’s own namespace that tolerates the taint is allocated', async () => {
    const kube = cluster.admin;
    await createClaim(kube, 'validation', exactly('gpu.nvidia.com', { tolerations: [OURS] }), 'gpu-gate-operands');
    await kube.request('POST', '/api/v1/namespaces/gpu-gate-operands/pods', {
      body: {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'tolerates' },
        spec: {
          resourceClaims: [{ name: 'device', resourceClaimName: 'validation' }],
          containers: [{ name: 'c', image: 'x', resources: { claims: [{ name: 'device' }] } }],
        },
      },
    });
    await until('it to be bound', async () => {
      const { spec } = await kube.request<{ spec: { nodeName?: string } }>(
        'GET',
        '/api/v1/namespaces/gpu-gate-operands/pods/tolerates',
      );
      return spec.nodeName;
    });
    await kube.request('DELETE', '/api/v1/namespaces/gpu-gate-operands/pods/tolerates', {
      query: { gracePeriodSeconds: 0 },
    });
  });

  const tolerating = (toleration: object): object => exactly('gpu.nvidia.com', { tolerations: [toleration] });
  const walksPast: readonly (readonly [string, (name: string) => Promise<unknown>])[] = [
    ['a claim that tolerates the taint', (name) => createClaim(cluster.admin, name, tolerating(OURS))],
    [
      'a claim that tolerates every taint',
      (name) => createClaim(cluster.admin, name, tolerating({ operator: 'Exists' })),
    ],
    [
      'a claim that tolerates the taint of a device that failed',
      (name) => createClaim(cluster.admin, name, tolerating({ key: 'gpu-gate.dev/device-failed', operator: 'Exists' })),
    ],
    ['a template of such claims', (name) => createTemplate(cluster.admin, name, tolerating(OURS))],
    [
      'an alternative that tolerates the taint',
      (name) =>
        createClaim(cluster.admin, name, {
          devices: {
            requests: [
              { name: 'r', firstAvailable: [{ name: 'a', deviceClassName: 'gpu.nvidia.com', tolerations: [OURS] }] },
            ],
          },
        }),
    ],
  ];
  for (const [what, create] of walksPast)
    chapter(`no other namespace may have ${what}`, () =>
      expect(create('walks-past')).rejects.toThrow('no claim tolerates the device taint gpu-gate.dev/not-open'),
    );
  chapter('a claim may tolerate other taints', () =>
    expect(
      createClaim(cluster.admin, 'tolerant', tolerating({ key: 'example.com/x', operator: 'Exists' })),
    ).resolves.toBeDefined(),
  );

  chapter('the reconciler’s account can write no other rule', async () => {
    const kube = await openKube({
      kubeconfig: await cluster.serviceAccountKubeconfig('gpu-gate', 'gpu-gate-reconciler'),
      userAgent: 'test',
    });
    const rule = (name: string, spec: object): Promise<unknown> =>
      kube.request('POST', RULES, {
        body: { apiVersion: 'resource.k8s.io/v1', kind: 'DeviceTaintRule', metadata: { name }, spec },
      });
    const deviceSelector = { driver: GPU_DRIVER, pool: 'x' };
    const taint = { key: OURS.key, effect: 'NoSchedule' };
    const refused = "ValidatingAdmissionPolicy 'gpu-gate-reconciler-device-taints'";
    await expect(rule('gpu-gate.x', { deviceSelector, taint: { ...taint, effect: 'NoExecute' } })).rejects.toThrow(
      refused,
    );
    await expect(rule('gpu-gate.x', { deviceSelector, taint: { ...taint, key: 'a.b/c' } })).rejects.toThrow(refused);
    const ofDevice = { ...taint, key: 'gpu-gate.dev/device-failed' };
    await expect(rule('gpu-gate.x', { deviceSelector, taint: ofDevice })).rejects.toThrow(refused);
    await expect(rule('gpu-gate.x', { deviceSelector: { driver: GPU_DRIVER }, taint })).rejects.toThrow(refused);
    await expect(rule('other', { deviceSelector, taint })).rejects.toThrow(refused);
  });
});

describe.skipIf(isBefore(TAINTS_DEVICES))('after the proof', () => {
  chapter('the rule goes, and every pod that waited is bound there', async () => {
    await annotate('gpu-0', 'sim.gpu-gate.dev/driver-seconds=1');
    await validated('gpu-0');
    await ruleIs('gpu-0', false);
    await ruleIs('gpu-1', true);
    for (const name of Object.keys(SHAPES)) await boundTo(name, 'gpu-0');
    for (const name of Object.keys(SHAPES)) await gone(name);
  });

  chapter('a pod is bound after each end of a rule: 20 tries, none left behind', async () => {
    for (let i = 0; i < 20; i += 1) {
      await hold('gpu-0');
      await ruleIs('gpu-0', true);
      await createClaimPod(cluster.admin, `try-${i}`, { resourceClaimTemplateName: 'gpu' });
      await waits(`try-${i}`);
      await release('gpu-0');
      await boundTo(`try-${i}`, 'gpu-0');
      await gone(`try-${i}`);
    }
  });

  chapter('a node that is deleted takes its rule along, also while no reconciler runs', async () => {
    await gate.stopReconciler();
    await kubectl('delete', 'node', 'gpu-1');
    await ruleIs('gpu-1', false);
    await gate.startReconciler();
  });

  chapter('an opt-out ends with no rule, and so does the policy', async () => {
    await hold('gpu-0');
    await ruleIs('gpu-0', true);
    await kubectl('delete', 'gpupolicy', 'default', '--wait=false');
    await until(
      'the policy to be gone',
      async () => (await cluster.kubectl(['get', 'gpupolicy', 'default'])).code !== 0,
    );
    await until('no rule to be left', async () => (await rules()).length === 0);
  });
});
