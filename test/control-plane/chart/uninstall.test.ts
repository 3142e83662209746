// `helm uninstall` with the chart's hook, on a cluster that has run gpu-gate: what the whole API
// holds before the installation and after the removal differs in what docs/uninstall.md names.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { runCommand, type CommandResult } from '../../../lab/cluster/control-plane.ts';
import { startGate, until, type Gate } from '../../../lab/cluster/gate.ts';
import { createClass, createTemplate, exactly, GPU_DRIVER, publishSlice } from '../../../lab/cluster/devices.ts';
import { playHook } from '../../../lab/cluster/hook.ts';
import { openKube } from '../../../platform/kube.ts';
import { called, granted, refusedCalls, text, unused, type Entry } from '../../builders/rights.ts';
import { conditionOf, viewOf } from '../../builders/view.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const ACCOUNT = 'system:serviceaccount:gpu-gate:gpu-gate-release';

let cluster: Cluster;
let gate: Gate;
const { kubectl, node, pod, validated, gpuPod, gone } = viewOf(() => cluster);

/** Objects that come and go by themselves, whatever is installed. */
const VOLATILE = /^(events|componentstatuses|leases)/;
/** Fields that change with every write, or with time. */
const FIELDS = new Set([
  'resourceVersion',
  'managedFields',
  'generation',
  'observedGeneration',
  'lastHeartbeatTime',
  'uid',
]);
/** What docs/uninstall.md names: a kubelet keeps a resource that it has known at 0. */
const NAMED = 'nvidia.com/gpu';
const stable = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(stable)
    : typeof value === 'object' && value !== null
      ? Object.fromEntries(
          Object.entries(value)
            .filter(([key]) => !FIELDS.has(key) && key !== NAMED)
            .toSorted(([a], [b]) => (a < b ? -1 : 1))
            .map(([key, inner]) => [key, stable(inner)]),
        )
      : value;

/** Every object of the API by kind, namespace and name. */
async function everything(): Promise<ReadonlyMap<string, string>> {
  const kinds = (await kubectl('api-resources', '--verbs=list', '-o', 'name')).trim().split('\n');
  const asked = kinds.filter((kind) => !VOLATILE.test(kind)).join(',');
  const { items } = JSON.parse(await kubectl('get', asked, '-A', '-o', 'json')) as {
    items: { kind: string; metadata: { name: string; namespace?: string } }[];
  };
  return new Map(
    items.map((item) => [
      `${item.kind} ${item.metadata.namespace === undefined ? '' : `${item.metadata.namespace}/`}${item.metadata.name}`,
      JSON.stringify(stable(item)),
    ]),
  );
}

/** What has come, gone or changed. */
function differences(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): readonly string[] {
  const keys = [...new Set([...before.keys(), ...after.keys()])].toSorted();
  return keys.flatMap((key) => {
    const [was, is] = [before.get(key), after.get(key)];
    if (was === is) return [];
    return [was === undefined ? `+ ${key}` : is === undefined ? `- ${key}` : `! ${key}: ${was} -> ${is}`];
  });
}

interface Left {
  /** In gpu-gate's two namespaces. */
  readonly inside: readonly string[];
  /** What docs/uninstall.md names of the rest. */
  readonly named: readonly string[];
  readonly outside: readonly string[];
}
const KEPT = [
  '+ APIService v1alpha1.gpu-gate.dev',
  '+ CustomResourceDefinition gpupolicies.gpu-gate.dev',
  '+ GPUPolicy default',
  '+ Namespace gpu-gate',
  '+ Namespace gpu-gate-operands',
  '+ RuntimeClass nvidia',
];
function leftOf(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): Left {
  const all = differences(before, after).map((line) => line.slice(0, 6000));
  const inside = all.filter((line) => /^\+ \w+ gpu-gate(-operands)?\//.test(line));
  const named = all.filter((line) => KEPT.includes(line));
  return { inside, named, outside: all.filter((line) => !inside.includes(line) && !named.includes(line)) };
}
/** What is left once controllers have cleaned up, or what is left if they do not. */
async function settled(is: (left: Left) => boolean): Promise<Left> {
  let left = leftOf(before, await everything());
  await until('controllers to clean up', async () => {
    if (is(left)) return true;
    await sleep(1000);
    left = leftOf(before, await everything());
    return is(left);
  }).catch(() => undefined);
  return left;
}

/** `helm uninstall` beside the kubelet that runs its Job. */
async function uninstall(
  began?: (kubeconfig: string) => Promise<void>,
): Promise<{ readonly helm: CommandResult; readonly hook: CommandResult }> {
  const stop = new AbortController();
  const hook = playHook(cluster, stop.signal, began);
  const ended = cluster.helm(['uninstall', 'gpu-gate', '--namespace', 'gpu-gate', '--timeout', '10m']);
  const helm = await ended;
  // A Job that never had a pod has nothing to play.
  const timer = setTimeout(() => stop.abort(), 60_000);
  try {
    return { helm, hook: await hook };
  } catch (error) {
    throw new Error(`helm ended before the hook: ${helm.stdout}${helm.stderr}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
const byHand = (...args: string[]): Promise<CommandResult> =>
  runCommand(process.execPath, [join(ROOT, 'main.ts'), 'release', '--kubeconfig', cluster.kubeconfig, ...args], {});

let before: ReadonlyMap<string, string>;
let rights: readonly Entry[] = [];
let refused: Awaited<ReturnType<typeof uninstall>>;
let unchanged: readonly string[] = [];
let rolledBack: CommandResult;
let status: CommandResult;
let removed: Awaited<ReturnType<typeof uninstall>>;
let works: Awaited<ReturnType<typeof pod>>;
let after: Left;
let again: CommandResult;
let applied: CommandResult;
let wiped: Left;

/** The whole story once; the tests below look at its chapters. */
beforeAll(async () => {
  cluster = await startCluster({
    nodes: 2,
    say: console.log,
    auditRules: [{ level: 'Metadata', userGroups: ['system:serviceaccounts:gpu-gate'] }],
  });
  await kubectl('create', 'namespace', 'elsewhere');
  await until('the accounts of namespaces', () =>
    cluster.admin.request('GET', '/api/v1/namespaces/elsewhere/serviceaccounts/default'),
  );
  await createClass(cluster.admin, 'gpu.nvidia.com', GPU_DRIVER, 'example.com/gpu');
  before = await everything();
  // The Deployments' pods do nothing here. The processes beside them do, and so the reconciler goes
  // on living when its Deployment has no replica any more.
  const values = {
    deployments: { create: true },
    uninstall: { timeoutSeconds: 540 },
    policy: { spec: { bringUp: { maxConcurrent: '2' } } },
  };
  gate = await startGate(cluster, { values });
  for (const name of ['gpu-0', 'gpu-1']) await kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
  for (const name of ['gpu-0', 'gpu-1']) await validated(name);
  await kubectl('annotate', 'node', 'gpu-1', 'gpu-gate.dev/hold=by hand');
  // Its devices are another way to it, which a rule closes.
  await publishSlice(cluster.admin, 'gpu-1');
  // As of a policy that allocates by claim; under this name the reconciler does not know it.
  await createTemplate(cluster.admin, 'claims', exactly('gpu.nvidia.com'), 'gpu-gate-operands', {
    'app.kubernetes.io/part-of': 'gpu-gate',
  });
  await until('the rule of the node that is held', async () =>
    (await kubectl('get', 'devicetaintrules', '-o', 'name')).includes('gpu-1'),
  );
  await gpuPod('works', 'gpu-0');
  await until('the GPU pod to run', async () => (await pod('works')).status.phase === 'Running');
  await gpuPod('waits', undefined, 64);
  await until('the other pod to wait', async () => conditionOf(await pod('waits'), 'PodScheduled')?.status === 'False');

  const running = await everything();
  refused = await uninstall();
  const since = await everything();
  unchanged = differences(running, since).filter((line) => !/gpu-gate-release|Secret gpu-gate\/sh\.helm/.test(line));

  rolledBack = await cluster.helm(['rollback', 'gpu-gate', '1', '--namespace', 'gpu-gate']);
  status = await cluster.helm(['status', 'gpu-gate', '--namespace', 'gpu-gate']);
  await kubectl('annotate', 'gpupolicies', '--all', 'gpu-gate.dev/release=force');
  // A validation is under way when everything has to go.
  await kubectl('annotate', 'node', 'gpu-1', 'sim.gpu-gate.dev/validation-seconds=600', 'gpu-gate.dev/retry=1');
  await until('a validation pod', async () =>
    (await kubectl('get', 'pods', '-n', 'gpu-gate-operands', '-o', 'name')).includes('validation-gpu-1-'),
  );
  removed = await uninstall(async (kubeconfig) => {
    rights = await granted(cluster, await openKube({ kubeconfig, userAgent: 'test' }));
    // It lives until every mark is gone.
    void until('the marks to be gone', async () => !('gpu-gate.dev/state' in (await node('gpu-1')).metadata.labels))
      .then(() => gate.stopReconciler())
      .catch(() => undefined);
  });
  works = await pod('works');
  await gone('works');
  await gone('waits');
  await kubectl('annotate', 'node', 'gpu-1', 'sim.gpu-gate.dev/validation-seconds-');
  await kubectl('delete', 'resourceslices', '--all');
  after = await settled(({ outside, inside }) => outside.length === 0 && inside.length <= 4);
  again = await byHand();
  const job = await cluster.helm([
    'template',
    'gpu-gate',
    join(ROOT, 'deploy/chart'),
    '--namespace',
    'gpu-gate',
    '--show-only',
    'templates/uninstall.yaml',
  ]);
  await cluster.kubectl(['apply', '-f', '-'], job.stdout);
  const stop = new AbortController();
  applied = await playHook(cluster, stop.signal);
  await cluster.kubectl(['delete', '-f', '-'], job.stdout);
  for (const command of commandsOfTheDocs()) await cluster.kubectl(command.split(' ').slice(1));
  await until(
    'the namespaces to be gone',
    async () => (await cluster.kubectl(['get', 'namespace', 'gpu-gate-operands'])).code !== 0,
  );
  await until(
    'the namespaces to be gone',
    async () => (await cluster.kubectl(['get', 'namespace', 'gpu-gate'])).code !== 0,
  );
  wiped = await settled(({ outside, inside }) => outside.length + inside.length === 0);
});
afterAll(async () => cluster?.stop());

/** What docs/uninstall.md says to run after `helm uninstall`. */
function commandsOfTheDocs(): readonly string[] {
  const page = readFileSync(join(ROOT, 'docs/uninstall.md'), 'utf8');
  const [, block = ''] = /## What stays[\s\S]*?```sh\n([\s\S]*?)```/.exec(page) ?? [];
  return block.split('\n').filter((line) => line.startsWith('kubectl '));
}

describe('helm uninstall, while a GPU pod needs the driver', () => {
  it('is refused and names the pod and the next step', () => {
    expect(refused.helm.code).not.toBe(0);
    expect(refused.hook.code).toBe(1);
    expect(refused.hook.stderr).toContain('1 GPU pod would lose driver or device plugin: default/works');
    expect(refused.hook.stderr).toContain('kubectl annotate gpupolicies --all gpu-gate.dev/release=force');
  });
  it('has changed nothing', () => expect(unchanged).toEqual([]));
  it('can be taken back', () => {
    expect(rolledBack.code, rolledBack.stderr).toBe(0);
    expect(status.stdout).toContain('STATUS: deployed');
  });
});

describe('helm uninstall at the word of the operator', () => {
  it('goes through all steps while the reconciler lives', () => {
    expect(removed.hook.stderr).toBe('');
    expect(removed.hook.code).toBe(0);
    expect(removed.helm.code, removed.helm.stderr).toBe(0);
    expect(removed.hook.stdout.split('\n').filter((line) => /^\d\/\d/.test(line))).toEqual([
      '1/9 pods that need an operand: these GPU pods lose what they need: default/works',
      '2/9 Lease gpu-gate-reconciler: held, so that no reconciler writes',
      '3/9 webhook configuration: deleted, new pods are created as their authors wrote them',
      '4/9 Deployment gpu-gate-reconciler: has no replica',
      "5/9 pods' readiness gates: 2 opened",
      '6/9 marks on nodes: 2 nodes cleared; these were opted in: gpu-0, gpu-1',
      '7/9 finalizers of GPUPolicies: 1 removed',
      expect.stringMatching(/^8\/9 operands: \d+ objects deleted$/),
      '9/9 certificates and Lease: deleted',
    ]);
  });
  it('opens the gate of the pod that runs', () =>
    expect(conditionOf(works, 'gpu-gate.dev/node-validated')).toMatchObject({
      status: 'True',
      reason: 'GateReleased',
    }));
  it('says what becomes of pods that wait for the chart’s scheduler', () =>
    expect(removed.hook.stdout).toContain(
      'These pods wait for gpu-gate-scheduler, which ends with the chart, and then stay Pending: default/waits',
    ));
  it('leaves what the docs name, and nothing else', () =>
    expect(after).toEqual({
      inside: [
        '+ ConfigMap gpu-gate-operands/kube-root-ca.crt',
        '+ ConfigMap gpu-gate/kube-root-ca.crt',
        '+ ServiceAccount gpu-gate-operands/default',
        '+ ServiceAccount gpu-gate/default',
      ],
      named: KEPT,
      outside: [],
    }));
  it('and by the commands of the docs the RuntimeClass alone', () =>
    expect(wiped).toEqual({ inside: [], named: ['+ RuntimeClass nvidia'], outside: [] }));
});

describe('the account of the hook', () => {
  it('was refused nothing', () => expect(refusedCalls(cluster, ACCOUNT)).toEqual([]));
  it('used every right that it has', () => {
    expect(rights.length).toBeGreaterThan(5);
    // Only where no reconciler ever led.
    const spare = ['gpu-gate: create coordination.k8s.io/leases *'];
    expect(unused(rights, called(cluster, ACCOUNT))).toEqual(spare);
  });
  it('reads no Secret, and writes no right', () =>
    expect(rights.map(text).filter((right) => /(get|list|watch) secrets|rbac|token|impersonate/.test(right))).toEqual(
      [],
    ));
});

it('a second run finds nothing to do', () => {
  expect(again.code, again.stderr).toBe(0);
  expect(again.stdout).toContain("5/9 pods' readiness gates: 0 opened");
  expect(again.stdout).toContain('6/9 marks on nodes: 0 nodes cleared\n');
  expect(again.stdout).toContain('8/9 operands: 0 objects deleted\n');
});

it('a Job that kubectl applied with the rest of the chart does nothing', () => {
  expect(applied.code).toBe(1);
  expect(applied.stderr).toContain('was not made by helm uninstall');
});
