// Controllers together, on a cluster in memory: what no one of them decides alone.
import { describe, expect, it } from 'vitest';
import { BREAKER_RELEASE, CLOSED, HOLD, MANAGED, PROOF, STARTUP_TAINT, STATE } from '../../core/keys.ts';
import { open } from '../../gate/node-proof.ts';
import { placementOf } from '../../gate/placement.ts';
import type { NodeObject, PodObject } from '../../reconciler/model.ts';
import { newWalk } from '../../reconciler/walk.ts';
import { Cluster, VALIDATIONS_ONLY } from '../builders/cluster.ts';
import { aNode, aPolicy, keptPod, NOW } from '../builders/objects.ts';

const GRACE_S = 60;
const names = Array.from({ length: 10 }, (_, i) => `n${i}`);

/** Ten nodes that were validated, and whose walk has come to its end. */
async function validated(policy = VALIDATIONS_ONLY, theirs: readonly PodObject[] = []): Promise<Cluster> {
  const cluster = new Cluster(policy);
  for (const pod of theirs) cluster.setTheirs(pod);
  cluster.passValidations();
  for (const name of names) {
    const { metadata, ...rest } = aNode({ name });
    const { [PROOF]: _, ...annotations } = metadata.annotations ?? {};
    const walk = JSON.stringify(newWalk(metadata.uid, 'boot-1', NOW));
    cluster.setNode({ ...rest, metadata: { ...metadata, annotations: { ...annotations, 'gpu-gate.dev/walk': walk } } });
  }
  await cluster.settle(60_000);
  for (const name of names) expect(open(cluster.node(name)).yes, name).toBe(true);
  return cluster;
}
const ready = (node: NodeObject, status: string): NodeObject => ({
  ...node,
  status: {
    ...node.status,
    conditions: (node.status?.conditions ?? []).map((one) => (one.type === 'Ready' ? { ...one, status } : one)),
  },
});
const proofs = (cluster: Cluster): (string | undefined)[] =>
  names.map((name) => cluster.node(name).metadata.annotations?.[PROOF]);

describe('kubelets that are silent', () => {
  it('at once, on many nodes: every proof stays, and the nodes open again with it', async () => {
    const cluster = await validated();
    const before = proofs(cluster);
    const writes = cluster.writes.length;
    for (const name of names.slice(0, 5)) {
      cluster.setNode(ready(cluster.node(name), 'Unknown'));
      await cluster.settle(2000);
    }
    await cluster.settle(10 * GRACE_S * 1000);
    expect(proofs(cluster)).toEqual(before);
    for (const name of names.slice(0, 5)) {
      cluster.setNode(ready(cluster.node(name), 'True'));
      await cluster.settle(2000);
    }
    await cluster.settle();
    expect(proofs(cluster)).toEqual(before);
    for (const name of names) expect(open(cluster.node(name)).yes, name).toBe(true);
    expect(cluster.writes.slice(writes).filter(({ kind }) => kind === 'create-pod')).toEqual([]);
  });
  it('on one node: its proof goes after the grace time', async () => {
    const cluster = await validated();
    cluster.setNode(ready(cluster.node('n0'), 'Unknown'));
    await cluster.settle((GRACE_S + 10) * 1000);
    expect(proofs(cluster).filter((proof) => proof === undefined)).toHaveLength(1);
  });
});

describe('a watch that is slower than the writes', () => {
  const touch = (cluster: Cluster, value: string): void => {
    const node = cluster.node('n0');
    const annotations = { ...node.metadata.annotations, 'example.com/touched': value };
    cluster.setNode({ ...node, metadata: { ...node.metadata, annotations } });
  };
  it('makes no validation pod a second time, unless the watch never brings it', async () => {
    const cluster = new Cluster(VALIDATIONS_ONLY);
    cluster.answer = (action) => (action.kind === 'create-pod' ? { kind: 'done' } : undefined);
    const { metadata, ...rest } = aNode({ name: 'n0' });
    cluster.setNode({ ...rest, metadata: { ...metadata, annotations: {} } });
    await cluster.settle(10);
    const made = (): number => cluster.writes.filter(({ kind }) => kind === 'create-pod').length;
    expect(made()).toBe(1);
    for (let i = 0; i < 9; i += 1) {
      touch(cluster, String(i));
      await cluster.settle(100);
    }
    expect(made()).toBe(1);
    await cluster.settle(500);
    expect(made()).toBe(2);
  });
  it('deletes no DeviceTaintRule a second time, unless the watch goes on to show it', async () => {
    const cluster = new Cluster(VALIDATIONS_ONLY);
    cluster.validationsPass = false;
    cluster.setClasses(['gpu.nvidia.com']);
    cluster.serveRules(true);
    const { metadata, ...rest } = aNode({ name: 'n0' });
    cluster.setNode({ ...rest, metadata: { ...metadata, annotations: {} } });
    await cluster.settle(1000);
    expect([...cluster.rules.keys()]).toHaveLength(1);
    cluster.answer = (action) => (action.kind === 'delete-device-taint' ? { kind: 'done' } : undefined);
    cluster.removeNode('n0');
    const deleted = (): number => cluster.writes.filter(({ kind }) => kind === 'delete-device-taint').length;
    for (let i = 0; i < 5; i += 1) {
      cluster.serveRules(true);
      await cluster.settle(100);
    }
    expect(deleted()).toBe(1);
    await cluster.settle(1000);
    expect(deleted()).toBe(2);
  });
});

it('all nodes reboot at once: none is open before it is proven again, and all are in the end', async () => {
  const cluster = await validated();
  const before = proofs(cluster);
  for (const name of names) cluster.reboot(name);
  expect(names.filter((name) => open(cluster.node(name)).yes)).toEqual([]);
  const from = cluster.writes.length;
  await cluster.settle(5000);
  for (const name of names) {
    const { metadata, status } = cluster.node(name);
    cluster.setNode({ metadata, status: { ...status, allocatable: { 'nvidia.com/gpu': '8' } } });
  }
  await cluster.settle(300_000);
  for (const [i, name] of names.entries()) {
    expect(open(cluster.node(name)).yes, name).toBe(true);
    expect(proofs(cluster)[i]).not.toBe(before[i]);
  }
  const rounds = cluster.writes
    .slice(from)
    .flatMap((one) => (one.kind === 'create-pod' ? [one.manifest.metadata.name] : []));
  // Two validations each, none doubled.
  expect([rounds.length, new Set(rounds).size]).toEqual([20, 20]);
});

describe('a kubelet that rejects GPU pods', () => {
  const reject = (cluster: Cluster, count: number): void => {
    for (let i = 0; i < count; i += 1)
      cluster.setPod(
        keptPod({
          namespace: 'team',
          name: `p${i}`,
          uid: `p${i}`,
          nodeName: 'n0',
          phase: 'Failed',
          reason: 'UnexpectedAdmissionError',
          message: 'Pod was rejected: Allocate failed: GPU is lost',
          created: new Date(cluster.now).toISOString(),
        }),
      );
  };
  it('again and again closes its node, with its words, until a validation passes', async () => {
    const cluster = await validated();
    cluster.validationsPass = false;
    reject(cluster, 5);
    await cluster.settle();
    const { metadata, status } = cluster.node('n0');
    expect(metadata.annotations?.[CLOSED]).toBe('awaiting device-plugin-validation');
    expect(status?.conditions?.find(({ type }) => type === 'GPUValidated')?.message).toContain('GPU is lost');
    expect(proofs(cluster)[0]).toBeDefined();
    expect(open(cluster.node('n1')).yes).toBe(true);
  });
  it('now and then does not', async () => {
    const cluster = await validated();
    reject(cluster, 4);
    await cluster.settle();
    expect(open(cluster.node('n0')).yes).toBe(true);
  });
});

it('a validation pod that the API server refuses is in the condition within seconds, and tried again', async () => {
  const cluster = new Cluster(VALIDATIONS_ONLY);
  cluster.answer = ({ kind }) =>
    kind === 'create-pod' ? { kind: 'refused', because: 'pods is forbidden: PodSecurity' } : undefined;
  const { metadata, ...rest } = aNode({ name: 'n0' });
  cluster.setNode({ ...rest, metadata: { ...metadata, labels: { ...metadata.labels }, annotations: {} } });
  await cluster.settle(10_000);
  const message = (): string =>
    cluster.node('n0').status?.conditions?.find(({ type }) => type === 'GPUValidated')?.message ?? '';
  expect(message()).toContain('refused by the API server: pods is forbidden: PodSecurity');
  const tries = cluster.writes.filter(({ kind }) => kind === 'create-pod').length;
  await cluster.settle(30_000);
  const more = cluster.writes.filter(({ kind }) => kind === 'create-pod').length - tries;
  expect(more).toBeGreaterThanOrEqual(2);
  expect(more).toBeLessThanOrEqual(8);
});

describe('a driver of another installer', () => {
  const selector = (app: string) => ({ namespace: 'theirs', matchLabels: { app } });
  const policyWith = (driver: object, generation = 1) => ({
    ...aPolicy({ components: { ...VALIDATIONS_ONLY.spec.components, driver } }),
    generation,
  });
  const NOWHERE = { pool: 'none' };
  const EXTERNAL = { mode: 'external', podSelector: selector('driver') };
  const driverOn = (nodeName: string, startedAt = '2026-11-24T09:00:00Z', app = 'driver'): PodObject =>
    keptPod({
      namespace: 'theirs',
      name: `${app}-${nodeName}`,
      uid: `${app}-${nodeName}`,
      nodeName,
      labels: { app },
      conditions: [{ type: 'Ready', status: 'True' }],
      containers: [{ name: 'c', ready: true, restartCount: 0, state: { running: { startedAt } } }],
    });
  const drivers = names.map((name) => driverOn(name));
  const selected = (): Promise<Cluster> => validated(policyWith(EXTERNAL), drivers);
  const madeSince = (cluster: Cluster, writes: number): readonly string[] =>
    cluster.writes.slice(writes).flatMap((one) => (one.kind === 'create-pod' ? [one.manifest.metadata.name] : []));

  it('is watched on after the policy went to managed, where nodes stay with it', async () => {
    const cluster = await selected();
    const [before, writes] = [proofs(cluster), cluster.writes.length];
    cluster.setPolicy(policyWith({ mode: 'managed' }, 2));
    await cluster.settle(60_000);
    expect(proofs(cluster)).toEqual(before);
    expect(names.filter((name) => !open(cluster.node(name)).yes)).toEqual([]);
    expect([madeSince(cluster, writes), cluster.relists]).toEqual([[], 0]);
    cluster.validationsPass = false;
    cluster.setTheirs(driverOn('n3', '2026-11-24T12:00:00Z'));
    await cluster.settle(60_000);
    expect(proofs(cluster).map((proof) => proof !== undefined)).toEqual(names.map((name) => name !== 'n3'));
  });
  it('is watched on while the node is opted out: a driver that crashes withdraws', async () => {
    const cluster = await selected();
    cluster.setPolicy(policyWith({ mode: 'managed' }, 2));
    const opted = cluster.node('n3');
    cluster.setPod(
      keptPod({ namespace: 'team', name: 'user', uid: 'user', nodeName: 'n3', gpus: { 'nvidia.com/gpu': 1 } }),
    );
    cluster.setNode({
      ...opted,
      metadata: { ...opted.metadata, labels: { ...opted.metadata.labels, [MANAGED]: 'false' } },
    });
    await cluster.settle(60_000);
    expect(proofs(cluster)[3]).toBeDefined();
    cluster.setTheirs({ ...driverOn('n3'), conditions: [], containers: [] });
    await cluster.settle(60_000);
    expect(proofs(cluster).map((proof) => proof !== undefined)).toEqual(names.map((name) => name !== 'n3'));
  });
  it.each<[string, (cluster: Cluster) => void]>([
    [
      'while their nodes are being opted out',
      (cluster) => {
        for (const name of names) {
          const gpus = { 'nvidia.com/gpu': 1 };
          cluster.setPod(keptPod({ namespace: 'team', name: `user-${name}`, uid: `u-${name}`, nodeName: name, gpus }));
          const { metadata, ...rest } = cluster.node(name);
          cluster.setNode({ ...rest, metadata: { ...metadata, labels: { ...metadata.labels, [MANAGED]: 'false' } } });
        }
      },
    ],
    [
      'while no policy selects their nodes',
      (cluster) =>
        cluster.setPolicy({
          ...policyWith(EXTERNAL, 2),
          spec: { ...policyWith(EXTERNAL).spec, nodeSelector: NOWHERE },
        }),
    ],
  ])('of ten nodes ends everywhere at once %s: the breaker keeps the proofs until it is released', async (_, leave) => {
    const cluster = await selected();
    leave(cluster);
    await cluster.settle(10_000);
    const kept = proofs(cluster);
    expect(kept.filter((proof) => proof === undefined)).toEqual([]);
    for (const name of names) cluster.setTheirs(driverOn(name, '2026-11-24T12:00:00Z'));
    await cluster.settle(60_000);
    expect(proofs(cluster)).toEqual(kept);
    for (const name of names) {
      const { metadata, status } = cluster.node(name);
      expect(metadata.annotations?.[CLOSED], name).toBe('circuit breaker');
      expect(status?.conditions?.find(({ type }) => type === 'GPUValidated')?.message, name).toMatch(
        /the circuit breaker keeps its proof.*now: kubectl annotate gpupolicy default --overwrite gpu-gate\.dev\/breaker-release=/,
      );
    }
    const policy = cluster.policies.get(VALIDATIONS_ONLY.name) ?? VALIDATIONS_ONLY;
    cluster.setPolicy({ ...policy, annotations: { ...policy.annotations, [BREAKER_RELEASE]: '1' } });
    await cluster.settle(60_000);
    expect(proofs(cluster).filter((proof) => proof !== undefined)).toEqual([]);
  });
  it.each([
    [
      'that means its pods: they are validated, and never taken for missing while they are listed',
      'driver',
      ['awaiting driver-validation', 'awaiting device-plugin-validation'],
    ],
    ['that means no pod: no proof goes, and nodes say what they wait for', 'wrong', ['awaiting driver']],
  ])('gets a podSelector %s', async (_, app, expected) => {
    const cluster = await validated(policyWith({ mode: 'external' }), drivers);
    expect(cluster.pods.all.get('theirs/driver-n0')).toBeUndefined();
    const writes = cluster.writes.length;
    cluster.setPolicy(policyWith({ mode: 'external', podSelector: selector(app) }, 2));
    await cluster.settle(60_000);
    const closings = cluster.writes
      .slice(writes)
      .flatMap((one) => (one.kind === 'patch-node' ? (one.annotations[CLOSED] ?? []) : []));
    expect([...new Set(closings)]).toEqual(expected);
    expect(names.every((name) => open(cluster.node(name)).yes)).toBe(app === 'driver');
    expect(proofs(cluster).filter((proof) => proof === undefined)).toEqual([]);
    expect([cluster.relists, cluster.pods.all.has('theirs/driver-n0')]).toEqual([1, app === 'driver']);
  });
  it('is dropped when neither a policy nor a node names it: one list for each change, however many nodes', async () => {
    const cluster = await selected();
    for (const name of names) cluster.setTheirs(driverOn(name, '2026-11-24T09:30:00Z', 'other'));
    cluster.setPolicy(policyWith({ mode: 'external', podSelector: selector('other') }, 2));
    await cluster.settle(60_000);
    expect(proofs(cluster).filter((proof) => proof === undefined)).toEqual([]);
    expect([...cluster.pods.all.keys()].filter((key) => key.startsWith('theirs/driver-'))).toEqual([]);
    expect([...cluster.pods.all.keys()].filter((key) => key.startsWith('theirs/other-'))).toHaveLength(10);
    expect(cluster.relists).toBe(2);
  });
});

it('an opt-in in a spelling that does not count is reported when it comes, and not at every change', async () => {
  const cluster = await validated();
  const reported = (): number =>
    cluster.writes.filter((one) => one.kind === 'event' && one.reason === 'GPUNotOptedIn').length;
  const { metadata, ...rest } = aNode({ name: 'new', validated: false });
  const labelled = (labels: Record<string, string>): void => {
    cluster.setNode({ ...rest, metadata: { ...metadata, labels, annotations: {} } });
  };
  labelled({ [MANAGED]: 'True' });
  await cluster.settle();
  labelled({ [MANAGED]: 'True', other: 'x' });
  await cluster.settle();
  expect(reported()).toBe(1);
  labelled({ [MANAGED]: 'yes' });
  await cluster.settle();
  expect(reported()).toBe(2);
  expect(cluster.node('new').metadata.labels).toEqual({ [MANAGED]: 'yes' });
});

it('a node with the startup taint and no opt-in is looked at when that begins, and not for its other changes', async () => {
  const cluster = await validated();
  const told = (): number =>
    cluster.writes.filter((action) => action.kind === 'event' && action.reason === 'GPUTaintWithoutOptIn').length;
  const stray = (labels: Record<string, string>): NodeObject => {
    const node = aNode({ name: 'stray', validated: false });
    return {
      ...node,
      metadata: { ...node.metadata, labels, annotations: {} },
      spec: { taints: [{ key: STARTUP_TAINT, effect: 'NoSchedule' }] },
    };
  };
  cluster.setNode({ ...stray({}), spec: {} });
  await cluster.settle();
  expect(told()).toBe(0);
  cluster.setNode(stray({}));
  await cluster.settle();
  cluster.setNode(stray({ zone: 'a' }));
  await cluster.settle();
  expect(told()).toBe(1);
  cluster.setNode(stray({ zone: 'a', [MANAGED]: 'true' }));
  await cluster.settle();
  expect(cluster.node('stray').metadata.labels?.[STATE]).toBeDefined();
});

describe('what a pod that waits is reported', () => {
  const waiting = (more: Partial<PodObject>): PodObject =>
    keptPod({
      namespace: 'team',
      name: 'waits',
      uid: 'waits',
      nodeName: undefined,
      gpus: { 'nvidia.com/gpu': 1 },
      conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }],
      ...more,
    });
  const toldOf = async (cluster: Cluster, more: Partial<PodObject>): Promise<readonly string[]> => {
    cluster.setPod(waiting(more));
    await cluster.settle();
    return cluster.writes.flatMap((action) =>
      action.kind === 'event' && action.reason === 'WaitingForGPUNode' ? [action.message] : [],
    );
  };
  const held = (cluster: Cluster, name: string): void => {
    const { metadata, ...rest } = cluster.node(name);
    cluster.setNode({ ...rest, metadata: { ...metadata, annotations: { ...metadata.annotations, [HOLD]: 'x' } } });
  };
  const HELD = 'takes no new GPU pods (GPU node held by an operator)';

  it('nothing, while an open node is for it', async () => expect(await toldOf(await validated(), {})).toEqual([]));
  it('the node that its affinity names, and no other', async () => {
    const cluster = await validated();
    for (const name of names) held(cluster, name);
    const term = { matchFields: [{ key: 'metadata.name', operator: 'In', values: ['n3'] }] };
    const affinity = {
      nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [term] } },
    };
    expect(await toldOf(cluster, { placement: placementOf({ affinity }) })).toEqual([
      `waiting for a GPU node: node n3 ${HELD}`,
    ]);
  });
  it('the nodes of the pool that its nodeSelector names', async () => {
    const cluster = await validated();
    const { metadata, ...rest } = cluster.node('n4');
    cluster.setNode({ ...rest, metadata: { ...metadata, labels: { ...metadata.labels, pool: 'a' } } });
    held(cluster, 'n4');
    held(cluster, 'n5');
    const placement = placementOf({ nodeSelector: { pool: 'a' } });
    expect(await toldOf(cluster, { placement })).toEqual([
      `waiting for a GPU node: node n4 ${HELD}; others are not for this pod: the pod's nodeSelector pool=a is not met (node n5)`,
    ]);
  });
  it('that no node takes it, where it names a policy that it may not name', async () => {
    const cluster = await validated(aPolicy({ ...VALIDATIONS_ONLY.spec, allowedNamespaces: ['ops'] }));
    const { wants } = waiting({});
    const named = {
      ...wants,
      read: { ok: true, wishes: { optedOut: false, policy: 'default' } },
      namedIn: 'team',
    } as const;
    expect(await toldOf(cluster, { wants: named })).toEqual([
      expect.stringMatching(/^no node takes this pod: GPUPolicy default may not be named in this namespace: /),
    ]);
  });
});

it('an etcd that was restored to older revisions: nodes are looked at again once no watch could be that late', async () => {
  const cluster = await validated();
  const writes = cluster.writes.length;
  cluster.restored();
  const { status, ...rest } = cluster.node('n0');
  cluster.setNode({ ...rest, status: { ...status, nodeInfo: { bootID: 'boot-2' } } });
  await cluster.settle(30_000);
  expect(cluster.writes.slice(writes).filter((action) => 'node' in action)).toEqual([]);
  await cluster.settle(120_000);
  expect(JSON.parse(cluster.node('n0').metadata.annotations?.[PROOF] ?? '{}')).toMatchObject({ boot: 'boot-2' });
  expect(open(cluster.node('n0')).yes).toBe(true);
});
