// Roll-outs on a cluster in memory: all controllers, operands that come and go, and hardware on
// which a version may not work.
import { beforeEach, describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { APPROVE, DEPLOY_PREFIX, MANAGED, RETRY, STATE, WALK } from '../../core/keys.ts';
import { open, serving } from '../../gate/node-proof.ts';
import { renderOperand } from '../../reconciler/manifests/render.ts';
import { parseWalk, type Walk } from '../../reconciler/walk.ts';
import { OPERANDS } from '../builders/caches.ts';
import { Cluster } from '../builders/cluster.ts';
import { aNode, aPolicy, keptPod } from '../builders/objects.ts';

const NAMES = ['n0', 'n1', 'n2', 'n3', 'n4'];
let generation = 1;
const policyOf = (driver: string, upgrade: object = {}, more: object = {}): GpuPolicy => ({
  ...aPolicy({
    components: { driver: { version: driver }, ...more },
    upgrade,
    bringUp: { maxConcurrent: '100%' },
    validation: { timeouts: { driver: '60s' }, backoff: { initial: '5s', max: '20s' } },
  }),
  generation: (generation += 1),
});

const walkOn = (cluster: Cluster, name: string): Walk | undefined =>
  parseWalk(cluster.node(name).metadata.annotations?.[WALK], `uid-${name}`);
const closedFor = (cluster: Cluster): string[] =>
  NAMES.filter((name) => {
    const rollOut = walkOn(cluster, name)?.rollOut;
    return rollOut !== undefined && rollOut.spare !== true;
  });
const conditionOn = (cluster: Cluster, name: string) =>
  cluster.node(name).status?.conditions?.find(({ type }) => type === 'GPUValidated');
const rollingOut = (cluster: Cluster) =>
  cluster.policies.get('default')?.status.conditions?.find(({ type }) => type === 'RollingOut');
const driverOn = (cluster: Cluster, name: string): string | undefined => walkOn(cluster, name)?.driver;
const user = (name: string, node: string, more: object = {}) =>
  keptPod({ namespace: 'team', name, uid: name, nodeName: node, gpus: { 'nvidia.com/gpu': 1 }, ...more });

const deletedPods = (cluster: Cluster): string[] =>
  cluster.writes.flatMap((action) =>
    (action.kind === 'delete-pod' || action.kind === 'evict-pod') && action.namespace === 'team' ? [action.name] : [],
  );
const evictions = (cluster: Cluster): string[] =>
  cluster.writes.flatMap((action) => (action.kind === 'evict-pod' ? [action.name] : []));
/** Changes of deploy labels in the order of their writes. */
const changesOf = (cluster: Cluster, name: string, from: number): string[] =>
  cluster.writes
    .slice(from)
    .flatMap((action) =>
      action.kind === 'patch-node' && action.node === name
        ? Object.entries(action.labels).flatMap(([key, value]) =>
            key.startsWith(DEPLOY_PREFIX) ? [(value === null ? '-' : '+') + key.slice(DEPLOY_PREFIX.length)] : [],
          )
        : [],
    );
const annotate = (cluster: Cluster, name: string, key: string, value: string): void => {
  const node = cluster.node(name);
  const annotations = { ...node.metadata.annotations, [key]: value };
  cluster.setNode({ ...node, metadata: { ...node.metadata, annotations } });
};
const BAD = renderOperand('driver', policyOf('2'), { namespace: OPERANDS }).revision;

/** Five nodes on driver 1. */
async function validated(policy = policyOf('1')): Promise<Cluster> {
  const cluster = new Cluster(policy);
  cluster.operandsWork = () => true;
  cluster.passValidations();
  for (const name of NAMES) {
    const { metadata, ...rest } = aNode({ name, gpus: '0' });
    const labels = { ...metadata.labels };
    delete labels[STATE];
    cluster.setNode({ ...rest, metadata: { ...metadata, labels, annotations: {} } });
  }
  await cluster.settle(120_000);
  for (const name of NAMES) expect(open(cluster.node(name)).yes, JSON.stringify(conditionOn(cluster, name))).toBe(true);
  return cluster;
}

/** Steps of a second until it is so. */
async function until(cluster: Cluster, holds: () => boolean, look: () => void = () => undefined): Promise<void> {
  for (let i = 0; i < 600 && !holds(); i += 1) {
    await cluster.settle(1000);
    look();
  }
  expect(holds(), NAMES.map((name) => JSON.stringify(conditionOn(cluster, name))).join('\n')).toBe(true);
}

describe('a driver version', () => {
  let cluster: Cluster;
  beforeEach(async () => {
    cluster = await validated();
  });
  it.each([
    [1, '1'],
    [2, '2'],
    [2, '40%'],
  ])('reaches all nodes, %i at a time (%s)', async (most, maxUnavailable) => {
    cluster.editPolicy(policyOf('2', { maxUnavailable }));
    let seen = 0;
    const all = (): boolean => NAMES.every((name) => driverOn(cluster, name) === '2' && open(cluster.node(name)).yes);
    await until(cluster, all, () => {
      seen = Math.max(seen, closedFor(cluster).length);
    });
    expect(seen).toBe(most);
    await cluster.settle(2000);
    expect(rollingOut(cluster)).toMatchObject({ status: 'False', reason: 'UpToDate' });
    expect(cluster.policies.get('default')?.status.nodes).toMatchObject({ upToDate: 5, validated: 5, total: 5 });
  });

  it('waits for pods that use GPUs: they stay Ready, new ones are refused by name of the roll-out', async () => {
    for (const name of NAMES) cluster.setPod(user(`on-${name}`, name));
    cluster.editPolicy(policyOf('2'));
    await cluster.settle(60_000);
    const [first = '', ...more] = closedFor(cluster);
    expect(more).toEqual([]);
    const node = cluster.node(first);
    expect([serving(node).yes, open(node)]).toMatchObject([
      true,
      { yes: false, because: { sentence: 'GPU node closed: roll-out' } },
    ]);
    expect(node.metadata.labels?.[STATE]).toBe('draining');
    expect(conditionOn(cluster, first)).toMatchObject({
      status: 'True',
      reason: 'RollOutDraining',
      message: expect.stringMatching(
        /^no new GPU pods, roll-out of driver: waiting for 1 GPU pod to end \(team\/on-n\d\), since /,
      ),
    });
    expect(node.spec?.unschedulable).toBe(false);
    expect(rollingOut(cluster)).toMatchObject({
      status: 'True',
      reason: 'Progressing',
      message: '0 of 5 validated nodes run what the policy says; 1 in their turn, 4 waiting for theirs',
    });
    for (const name of NAMES) cluster.removePod(`team/on-${name}`);
    await until(cluster, () => NAMES.every((name) => driverOn(cluster, name) === '2'));
    expect(deletedPods(cluster)).toEqual([]);
  });
  it('evicts where the policy says so, and never a pod that is opted out', async () => {
    const optedOut = user('b', 'n0', { labels: { 'gpu-gate.dev/inject': 'false' } });
    const wants = { ...optedOut.wants, read: { ok: true, wishes: { optedOut: true } } } as never;
    cluster.setPod(user('a', 'n0'));
    cluster.setPod({ ...optedOut, wants });
    cluster.editPolicy(policyOf('2', { drain: { mode: 'Evict' } }));
    await cluster.settle(60_000);
    expect(evictions(cluster)).toEqual(['a']);
    expect(conditionOn(cluster, 'n0')?.message).toContain('waiting for 1 GPU pod to end (team/b)');
    expect(serving(cluster.node('n0')).yes).toBe(true);
    const told = cluster.writes.find((action) => action.kind === 'event' && action.reason === 'GPUPodEvicted');
    expect(told).toMatchObject({ about: { kind: 'Pod', name: 'a' }, message: expect.stringContaining('node n0') });
  });
  it('says what a disruption budget holds back, and tries again', async () => {
    const because = "Cannot evict pod as it would violate the pod's disruption budget.";
    let refuses = true;
    cluster.answer = (action) => (action.kind === 'evict-pod' && refuses ? { kind: 'refused', because } : undefined);
    cluster.setPod(user('a', 'n0'));
    cluster.editPolicy(policyOf('2', { drain: { mode: 'Evict' } }));
    await cluster.settle(21_000);
    const tries = evictions(cluster).length;
    expect([tries > 2, tries < 6]).toEqual([true, true]);
    expect(conditionOn(cluster, 'n0')?.message).toContain(`the API server refuses to evict team/a: ${because}`);
    refuses = false;
    await until(cluster, () => NAMES.every((name) => driverOn(cluster, name) === '2'));
  });
  it('opens a node again on its old stack when its time to drain is over, and goes on with the others', async () => {
    cluster.setPod(user('a', 'n0'));
    cluster.editPolicy(policyOf('2', { drain: { timeoutSeconds: 30 } }));
    await until(cluster, () => NAMES.slice(1).every((name) => driverOn(cluster, name) === '2'));
    await until(cluster, () => closedFor(cluster).length === 0);
    await cluster.settle(60_000);
    expect([driverOn(cluster, 'n0'), open(cluster.node('n0')).yes]).toEqual(['1', true]);
    expect(conditionOn(cluster, 'n0')?.message).toMatch(
      /left out of the roll-out, because its time to drain ended: waiting for 1 GPU pod to end \(team\/a\).*gpu-gate.dev\/retry/,
    );
    expect(rollingOut(cluster)).toMatchObject({ status: 'True', reason: 'NodesLeftOut' });
    expect(rollingOut(cluster)?.message).toContain('(n0)');
    cluster.removePod('team/a');
    await cluster.settle(60_000);
    expect(driverOn(cluster, 'n0')).toBe('1');
    annotate(cluster, 'n0', RETRY, '1');
    await until(cluster, () => driverOn(cluster, 'n0') === '2' && open(cluster.node('n0')).yes);
  });
  it.each([{ mode: 'Wait' }, { mode: 'Evict' }])(
    'paused: no node closes, and one that drains opens again (%j)',
    async (drain) => {
      cluster.answer = (action) => (action.kind === 'evict-pod' ? { kind: 'refused', because: 'no' } : undefined);
      for (const name of NAMES) cluster.setPod(user(`on-${name}`, name));
      cluster.editPolicy(policyOf('2', { drain }));
      await cluster.settle(10_000);
      expect(closedFor(cluster)).toHaveLength(1);
      cluster.editPolicy(policyOf('2', { paused: true, drain }));
      await cluster.settle(60_000);
      for (const name of NAMES) expect([open(cluster.node(name)).yes, driverOn(cluster, name)]).toEqual([true, '1']);
      expect(rollingOut(cluster)).toMatchObject({ status: 'True', reason: 'Paused' });
      for (const name of NAMES) cluster.removePod(`team/on-${name}`);
      cluster.editPolicy(policyOf('2', { paused: false }));
      await until(cluster, () => NAMES.every((name) => driverOn(cluster, name) === '2'));
    },
  );
  it('stops at a node that fails on it: the others serve, an edit back rolls back', async () => {
    cluster.operandsWork = (node, _, revision) => !(node === 'n2' && revision === BAD);
    const second = policyOf('2', { maxUnavailable: 1 });
    cluster.editPolicy(second);
    await until(cluster, () => walkOn(cluster, 'n2')?.rollOut?.failed !== undefined);
    await cluster.settle(300_000);
    const moved = NAMES.filter((name) => driverOn(cluster, name) === '2' && name !== 'n2');
    const untouched = NAMES.filter((name) => driverOn(cluster, name) === '1' && name !== 'n2');
    expect([moved, untouched]).toEqual([
      ['n0', 'n1'],
      ['n3', 'n4'],
    ]);
    for (const name of [...moved, ...untouched]) expect(open(cluster.node(name)).yes, name).toBe(true);
    expect(rollingOut(cluster)).toMatchObject({ status: 'True', reason: 'Stopped' });
    expect(rollingOut(cluster)?.message).toMatch(
      /^stopped: node n2 failed on the new revision: driver: .*edit the policy back/,
    );
    expect(conditionOn(cluster, 'n2')).toMatchObject({
      status: 'False',
      reason: 'DriverFailedCrashLoop',
      message: expect.stringContaining('this stops the roll-out of GPUPolicy default'),
    });
    const stops = cluster.writes.filter((action) => action.kind === 'event' && action.reason === 'RollOutStopped');
    expect(stops).toMatchObject([{ about: { kind: 'GPUPolicy' }, message: expect.stringContaining('node n2') }]);
    const from = cluster.writes.length;
    cluster.editPolicy(policyOf('1', { maxUnavailable: 1 }));
    await until(cluster, () => NAMES.every((name) => driverOn(cluster, name) === '1' && open(cluster.node(name)).yes));
    const touched = new Set(
      cluster.writes.slice(from).flatMap((action) => (action.kind === 'patch-node' ? [action.node] : [])),
    );
    expect([...touched].toSorted()).toEqual(['n0', 'n1', 'n2']);
    await cluster.settle(2000);
    expect(rollingOut(cluster)).toMatchObject({ status: 'False', reason: 'UpToDate' });
  });
  it('goes on when the node that stopped it works again', async () => {
    let works = false;
    cluster.operandsWork = (node, _, revision) => works || !(node === 'n2' && revision === BAD);
    cluster.editPolicy(policyOf('2'));
    await until(cluster, () => walkOn(cluster, 'n2')?.rollOut?.failed !== undefined);
    works = true;
    await until(cluster, () => NAMES.every((name) => driverOn(cluster, name) === '2'));
  });
  it('reaches a node that had failed first, and beside the limit; its failure stops nothing', async () => {
    cluster.operandsWork = (node) => node !== 'n4';
    cluster.removePod('gpu-gate-operands/driver-n4');
    cluster.setPod(user('a', 'n0'));
    await until(cluster, () => cluster.node('n4').metadata.labels?.[STATE] === 'failed');
    cluster.editPolicy(policyOf('2'));
    await until(cluster, () => JSON.stringify(walkOn(cluster, 'n4')?.target).includes(BAD));
    expect(closedFor(cluster)).toEqual(['n0']);
    cluster.removePod('team/a');
    await until(cluster, () => NAMES.slice(0, 4).every((name) => driverOn(cluster, name) === '2'));
    expect(rollingOut(cluster)?.reason).toBe('Progressing');
    cluster.operandsWork = () => true;
    annotate(cluster, 'n4', RETRY, '1');
    await until(cluster, () => open(cluster.node('n4')).yes);
  });
  it('goes on under another leader, which closes no further node', async () => {
    cluster.setPod(user('a', 'n0'));
    cluster.editPolicy(policyOf('2'));
    await cluster.settle(10_000);
    cluster.takeOver();
    await cluster.settle(30_000);
    expect(closedFor(cluster)).toEqual(['n0']);
    cluster.removePod('team/a');
    await until(cluster, () => NAMES.every((name) => driverOn(cluster, name) === '2'));
  });
  it('closes no node for a DaemonSet that the API server refuses', async () => {
    const because = 'DaemonSet is invalid';
    let refuses = true;
    cluster.answer = (action) =>
      refuses && action.kind === 'apply-daemonset' ? { kind: 'refused', because } : undefined;
    cluster.editPolicy(policyOf('2'));
    await cluster.settle(120_000);
    for (const name of NAMES) expect([open(cluster.node(name)).yes, driverOn(cluster, name)]).toEqual([true, '1']);
    refuses = false;
    await until(cluster, () => NAMES.every((name) => driverOn(cluster, name) === '2'));
  });
  it('freezes while the policy is suspended, and no other node takes the place', async () => {
    cluster.setPod(user('a', 'n0'));
    cluster.editPolicy(policyOf('2'));
    await cluster.settle(10_000);
    const frozen = policyOf('2');
    cluster.editPolicy({ ...frozen, spec: { ...frozen.spec, suspend: true } });
    await cluster.settle(60_000);
    cluster.editPolicy(policyOf('2'));
    await cluster.settle(60_000);
    expect(closedFor(cluster)).toEqual(['n0']);
  });
  it('gives the turn of a node that went out of sight to another one', async () => {
    cluster.setPod(user('a', 'n0'));
    cluster.editPolicy(policyOf('2'));
    await cluster.settle(10_000);
    const node = cluster.node('n0');
    const conditions = (node.status?.conditions ?? []).map((one) =>
      one.type === 'Ready' ? { ...one, status: 'Unknown' } : one,
    );
    cluster.setNode({ ...node, status: { ...node.status, conditions } });
    await until(cluster, () => NAMES.slice(1).every((name) => driverOn(cluster, name) === '2'));
    expect(driverOn(cluster, 'n0')).toBe('1');
  });
  it('stops at a node that dies while its stack is replaced, as at one that fails; deleted, it holds nothing up', async () => {
    cluster.operandsWork = (node, _, revision) => !(node === 'n0' && revision === BAD);
    cluster.editPolicy(policyOf('2'));
    await until(cluster, () => walkOn(cluster, 'n0')?.rollOut?.phase === 'replace');
    const { status, ...rest } = cluster.node('n0');
    const conditions = (status?.conditions ?? []).map((one) =>
      one.type === 'Ready' ? { ...one, status: 'Unknown' } : one,
    );
    cluster.setNode({ ...rest, status: { ...status, conditions } });
    await cluster.settle(50_000);
    expect(rollingOut(cluster)?.reason).toBe('Progressing');
    await cluster.settle(600_000);
    expect(onDriver(cluster, '1')).toEqual(NAMES.slice(1));
    expect(rollingOut(cluster)).toMatchObject({
      reason: 'Stopped',
      message: expect.stringMatching(
        /^stopped: node n0 failed on the new revision: driver: the node is not Ready since 20\S+, in the middle of its replacement/,
      ),
    });
    expect(walkOn(cluster, 'n0')?.rollOut?.failed?.reason).toBe('NodeLost');
    cluster.removeNode('n0');
    cluster.setNode({
      ...aNode({ name: 'n0', gpus: '0' }),
      metadata: { ...rest.metadata, labels: {}, annotations: {} },
    });
    await until(cluster, () => NAMES.slice(1).every((name) => driverOn(cluster, name) === '2'));
  });
  it('goes on with a node that was away for long while its stack was replaced', async () => {
    cluster.operandsWork = (node, _, revision) => !(node === 'n0' && revision === BAD);
    cluster.editPolicy(policyOf('2'));
    await until(cluster, () => walkOn(cluster, 'n0')?.rollOut?.phase === 'replace');
    const seeAs = (ready: string): void => {
      const { status, ...rest } = cluster.node('n0');
      const conditions = (status?.conditions ?? []).map((one) =>
        one.type === 'Ready' ? { ...one, status: ready } : one,
      );
      cluster.setNode({ ...rest, status: { ...status, conditions } });
    };
    seeAs('Unknown');
    await until(cluster, () => rollingOut(cluster)?.reason === 'Stopped');
    cluster.operandsWork = () => true;
    cluster.reboot('n0');
    seeAs('True');
    await until(cluster, () => onDriver(cluster, '2').length === 5);
  });
  it('is taken down from the last component to the driver, and only what follows it is walked', async () => {
    const from = cluster.writes.length;
    cluster.editPolicy(policyOf('2'));
    await until(cluster, () => driverOn(cluster, 'n0') === '2' && open(cluster.node('n0')).yes);
    expect(changesOf(cluster, 'n0', from)).toEqual([
      '-dcgm-exporter',
      '-device-plugin',
      '-driver',
      '+driver',
      '+device-plugin',
      '+dcgm-exporter',
    ]);
  });
});

const onDriver = (cluster: Cluster, version: string): string[] =>
  NAMES.filter((name) => driverOn(cluster, name) === version && open(cluster.node(name)).yes);
const waitsTold = (cluster: Cluster): string[] =>
  cluster.writes.flatMap((action) =>
    action.kind === 'event' && action.reason === 'RollOutWaits' ? [action.message] : [],
  );

describe('a canary', () => {
  const approve = (cluster: Cluster, value: string): void => {
    const policy = cluster.policies.get('default');
    if (policy !== undefined) cluster.setPolicy({ ...policy, annotations: { [APPROVE]: value } });
  };
  it('of two nodes waits for an approval of this very stack; a canary that reboots calls no third node', async () => {
    const cluster = await validated();
    cluster.editPolicy(policyOf('2', { maxUnavailable: 3, canary: { first: 2 } }));
    let most = 0;
    await until(
      cluster,
      () => rollingOut(cluster)?.reason === 'CanaryAwaitsApproval',
      () => {
        most = Math.max(most, closedFor(cluster).length);
      },
    );
    expect(most).toBe(2);
    const message = rollingOut(cluster)?.message ?? '';
    expect(message).toMatch(
      /^canary: 2 of 2 nodes validated, waits for approval: kubectl annotate gpupolicy default --overwrite gpu-gate\.dev\/approve-roll-out=\w+; 2 of 5 /,
    );
    expect(waitsTold(cluster)).toEqual([message.split('; ')[0]]);
    approve(cluster, 'another');
    const canaries = onDriver(cluster, '2');
    cluster.operandsWork = (name) => name !== canaries[0];
    cluster.reboot(canaries[0] ?? '');
    await cluster.settle(300_000);
    expect(rollingOut(cluster)).toMatchObject({
      reason: 'Canary',
      message: expect.stringMatching(/^canary: 1 of 2 nodes validated; /),
    });
    expect(onDriver(cluster, '1')).toHaveLength(3);
    cluster.operandsWork = () => true;
    cluster.newLeader();
    annotate(cluster, canaries[0] ?? '', RETRY, '1');
    await cluster.settle(300_000);
    expect([onDriver(cluster, '2'), closedFor(cluster)]).toEqual([canaries, []]);
    approve(cluster, /approve-roll-out=(\w+)/.exec(message)?.[1] ?? '');
    await until(cluster, () => onDriver(cluster, '2').length === 5);
    await cluster.settle(2000);
    expect(rollingOut(cluster)?.reason).toBe('UpToDate');
  });
  it('of one node is one node, also where the watch brings late what was written', async () => {
    const cluster = await validated();
    cluster.watchMs = 200;
    cluster.editPolicy(policyOf('2', { maxUnavailable: 3, canary: { first: 1 } }));
    const begun = new Set<string>();
    await until(
      cluster,
      () => rollingOut(cluster)?.reason === 'CanaryAwaitsApproval',
      () => {
        for (const name of closedFor(cluster)) begun.add(name);
      },
    );
    await cluster.settle(60_000);
    for (const name of closedFor(cluster)) begun.add(name);
    expect([begun.size, onDriver(cluster, '2').length]).toEqual([1, 1]);
  });
  it('with a time goes on by itself when that is over, also under another leader', async () => {
    const cluster = await validated();
    cluster.editPolicy(policyOf('2', { maxUnavailable: 3, canary: { first: 1, wait: '1h' } }));
    await until(cluster, () => rollingOut(cluster)?.reason === 'CanaryWaits');
    await cluster.settle(30 * 60_000);
    cluster.newLeader();
    await cluster.settle(29 * 60_000);
    expect(onDriver(cluster, '2')).toHaveLength(1);
    expect(rollingOut(cluster)?.message).toMatch(/^canary: 1 of 1 nodes validated, the others wait until 20\S+Z or /);
    await cluster.settle(2 * 60_000);
    await until(cluster, () => onDriver(cluster, '2').length === 5);
  });
  it('is not asked for on the way back', async () => {
    const cluster = await validated();
    const canary = { first: 2 };
    cluster.editPolicy(policyOf('2', { canary }));
    await until(cluster, () => rollingOut(cluster)?.reason === 'CanaryAwaitsApproval');
    cluster.editPolicy(policyOf('1', { canary }));
    await until(cluster, () => onDriver(cluster, '1').length === 5);
  });
});

describe('a maintenance window', () => {
  /** Opens in ten minutes, for ten. */
  const windowAfter = (cluster: Cluster): object => {
    const at = new Date(cluster.now + 10 * 60_000);
    return { schedule: `${at.getUTCMinutes()} ${at.getUTCHours()} * * *`, duration: '10m', timeZone: 'UTC' };
  };
  it('lets no node close before it opens; when it ends a draining node opens again, until the next one', async () => {
    const cluster = await validated();
    const window = windowAfter(cluster);
    const opensAt = cluster.now + 10 * 60_000;
    for (const name of NAMES) cluster.setPod(user(`on-${name}`, name));
    cluster.editPolicy(policyOf('2', { window }));
    await cluster.settle(5 * 60_000);
    expect(closedFor(cluster)).toEqual([]);
    const said = `waiting for the window that opens at ${new Date(opensAt).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
    expect(rollingOut(cluster)).toMatchObject({
      reason: 'WaitingForWindow',
      message: `${said}; 0 of 5 validated nodes run what the policy says; 5 waiting for theirs`,
    });
    expect(waitsTold(cluster)).toEqual([said]);
    await cluster.settle(6 * 60_000);
    expect(closedFor(cluster)).toHaveLength(1);
    expect(rollingOut(cluster)?.reason).toBe('Progressing');
    await cluster.settle(10 * 60_000);
    expect([closedFor(cluster), onDriver(cluster, '1')]).toEqual([[], NAMES]);
    for (const name of NAMES) cluster.removePod(`team/on-${name}`);
    await cluster.settle(60_000);
    expect(onDriver(cluster, '1')).toEqual(NAMES);
    await cluster.settle(24 * 3_600_000);
    expect(onDriver(cluster, '2')).toEqual(NAMES);
  });
  it('that ends while a stack is replaced lets that node go on to its end', async () => {
    const cluster = await validated();
    cluster.operandsWork = () => false;
    cluster.editPolicy(policyOf('2', { window: windowAfter(cluster) }, {}));
    await cluster.settle(10 * 60_000 + 5000);
    await until(cluster, () => walkOn(cluster, 'n0')?.rollOut?.phase === 'replace');
    await cluster.settle(20 * 60_000);
    cluster.operandsWork = () => true;
    annotate(cluster, 'n0', RETRY, '1');
    await until(cluster, () => onDriver(cluster, '2').length === 1);
    await cluster.settle(60_000);
    expect(onDriver(cluster, '1')).toHaveLength(4);
  });
  it('that cannot be read lets no node close, and says why', async () => {
    const cluster = await validated();
    cluster.editPolicy(policyOf('2', { window: { schedule: '0 2 * * *', duration: '1h', timeZone: 'Berlin' } }));
    await cluster.settle(60_000);
    expect(closedFor(cluster)).toEqual([]);
    expect(rollingOut(cluster)).toMatchObject({
      reason: 'WindowUnreadable',
      message: expect.stringMatching(
        /^no node closes, because spec\.upgrade\.window\.timeZone "Berlin" is not a time zone/,
      ),
    });
  });
});

describe('a device plugin', () => {
  const plugin = { devicePlugin: { version: 'v9' } };
  it('is replaced under running pods with mode None: they stay Ready, and the proof stays', async () => {
    const cluster = await validated();
    for (const name of NAMES) cluster.setPod(user(`on-${name}`, name));
    const from = cluster.writes.length;
    cluster.editPolicy(policyOf('1', { drain: { mode: 'None' } }, plugin));
    const always: boolean[] = [];
    await until(
      cluster,
      () => NAMES.every((name) => changesOf(cluster, name, from).includes('+dcgm-exporter')),
      () => always.push(NAMES.every((name) => serving(cluster.node(name)).yes)),
    );
    expect(always).not.toContain(false);
    expect(changesOf(cluster, 'n0', from)).toEqual([
      '-dcgm-exporter',
      '-device-plugin',
      '+device-plugin',
      '+dcgm-exporter',
    ]);
    const rounds = cluster.writes
      .slice(from)
      .flatMap((a) => (a.kind === 'create-pod' ? [a.manifest.metadata.name] : []));
    expect(rounds.filter((name) => name.startsWith('driver-validation'))).toEqual([]);
  });
  it.each([
    ['Wait', plugin, '1'],
    ['None', { toolkit: { version: 'v9' } }, '1'],
    ['None', {}, '2'],
  ])('waits for pods with mode %s where %j changes, driver %s', async (mode, components, driver) => {
    const cluster = await validated();
    cluster.setPod(user('a', 'n0'));
    const from = cluster.writes.length;
    cluster.editPolicy(policyOf(driver, { drain: { mode } }, components));
    await cluster.settle(60_000);
    expect(changesOf(cluster, 'n0', from)).toEqual([]);
    expect(closedFor(cluster)).toEqual(['n0']);
  });
});

it('an exporter is replaced at once, and closes nothing', async () => {
  const cluster = await validated();
  const from = cluster.writes.length;
  cluster.editPolicy(policyOf('1', {}, { dcgmExporter: { version: '9' } }));
  for (let i = 0; i < 20; i += 1) {
    await cluster.settle(500);
    expect(NAMES.filter((name) => !open(cluster.node(name)).yes)).toEqual([]);
  }
  for (const name of NAMES) expect(changesOf(cluster, name, from)).toEqual(['-dcgm-exporter', '+dcgm-exporter']);
});

describe('an opt-out', () => {
  const optOut = (cluster: Cluster, name: string, out: boolean): void => {
    const node = cluster.node(name);
    const { [MANAGED]: _, ...labels } = node.metadata.labels ?? {};
    cluster.setNode({
      ...node,
      metadata: { ...node.metadata, labels: out ? labels : { ...labels, [MANAGED]: 'true' } },
    });
  };
  const marksOn = (cluster: Cluster, name: string): string[] => {
    const { labels, annotations } = cluster.node(name).metadata;
    return Object.keys({ ...labels, ...annotations }).filter((key) => key.includes('gpu-gate.dev'));
  };
  it('evicts as upgrade.drain says, and leaves nothing', async () => {
    const cluster = await validated(policyOf('1', { drain: { mode: 'Evict' } }));
    cluster.setPod(user('a', 'n0'));
    optOut(cluster, 'n0', true);
    await until(cluster, () => marksOn(cluster, 'n0').length === 0);
    expect(evictions(cluster)).toEqual(['a']);
    expect(conditionOn(cluster, 'n0')).toBeUndefined();
  });
  it('taken back while pods leave: the node opens again at once, and nothing is validated again', async () => {
    const cluster = await validated();
    cluster.setPod(user('a', 'n0'));
    optOut(cluster, 'n0', true);
    await cluster.settle(30_000);
    expect([serving(cluster.node('n0')).yes, open(cluster.node('n0')).yes]).toEqual([true, false]);
    const from = cluster.writes.length;
    optOut(cluster, 'n0', false);
    await cluster.settle(2000);
    expect(open(cluster.node('n0')).yes).toBe(true);
    expect(cluster.writes.slice(from).filter(({ kind }) => kind === 'create-pod')).toEqual([]);
  });
  it('taken back while it is torn down: the node walks up again, with what the policy says now', async () => {
    const cluster = await validated();
    cluster.editPolicy(policyOf('2', { paused: true }));
    optOut(cluster, 'n0', true);
    await until(cluster, () => cluster.node('n0').metadata.labels?.['gpu-gate.dev/deploy.driver'] === undefined);
    optOut(cluster, 'n0', false);
    await until(cluster, () => open(cluster.node('n0')).yes);
    expect(driverOn(cluster, 'n0')).toBe('2');
  });
  it('of a node in its turn gives the place to another', async () => {
    const cluster = await validated();
    cluster.setPod(user('a', 'n0'));
    cluster.editPolicy(policyOf('2'));
    await cluster.settle(10_000);
    expect(closedFor(cluster)).toEqual(['n0']);
    optOut(cluster, 'n0', true);
    await until(cluster, () => NAMES.slice(1).every((name) => driverOn(cluster, name) === '2'));
    expect(serving(cluster.node('n0')).yes).toBe(true);
  });
});
