// What people read: kubectl's own words and those of `kubectl gpu-gate`, on a cluster with a node
// that is validated, one that failed and one on its way, and a pod that waits. The docs hold what
// is printed today (`npm run transcripts` rewrites them), and goldens hold the screens at 0 and 500
// nodes, with no gpu-gate, no rights and no API server.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until, untilEnforcing } from '../../../lab/cluster/gate.ts';
import { MERGE_PATCH } from '../../../platform/kube.ts';
import { canonical, sectionsOf, transcriptsIn, withTranscripts } from '../../../scripts/transcripts.ts';
import { viewOf } from '../../builders/view.ts';
import { installPlugin, runPlugin } from '../../support/plugin.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const PAGES = ['docs/kubectl.md', 'docs/pending.md', 'docs/walk.md'];
const UPDATES = process.env['GPU_GATE_TEST_UPDATE'] === '1';
let cluster: Cluster;
let home: string;
let program: string;
const { kubectl, annotate, node, validated, gpuPod, state, pod } = viewOf(() => cluster);

/** What the plugin prints, and its exit code where that is not 0. */
const plugin = async (args: readonly string[], kubeconfig = cluster.kubeconfig): Promise<string> => {
  const { code, output } = await runPlugin(program, args, home, kubeconfig);
  return code === 0 ? output : `${output}exit code ${code}\n`;
};

/** Screens by the name of their golden, and transcripts by the name of their block. */
const screens = new Map<string, string>();
const transcripts = new Map<string, string>();

const both = async (name: string): Promise<void> => {
  for (const command of ['status', 'nodes']) screens.set(`${command}-${name}`, await plugin([command]));
};

/** A kubeconfig of a user who may read nothing. */
async function withoutRights(): Promise<string> {
  await kubectl('create', 'serviceaccount', 'stranger');
  return cluster.serviceAccountKubeconfig('default', 'stranger');
}

/** Every command's words where it can do nothing. */
const EVERY = [
  ['status'],
  ['nodes'],
  ['node', 'gpu-0'],
  ['wait', 'gpu-0'],
  ['explain', 'train', '-n', 'default'],
  ['hold', 'gpu-0'],
  ['release', 'gpu-0'],
  ['retry', 'gpu-0'],
  ['prove', 'gpu-0'],
];
const every = async (name: string, kubeconfig?: string): Promise<void> => {
  const parts: string[] = [];
  for (const args of EVERY) parts.push(`$ kubectl gpu-gate ${args.join(' ')}\n${await plugin(args, kubeconfig)}`);
  screens.set(name, parts.join('\n'));
};

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'gpu-gate-transcripts-'));
  program = await installPlugin(home);
  cluster = await startCluster({ nodes: 0, say: console.log });
  screens.set('not-installed', `${await plugin(['status'])}${await plugin(['nodes'])}`);
  const away = join(home, 'away');
  writeFileSync(away, readFileSync(cluster.kubeconfig, 'utf8').replace(/127\.0\.0\.1:\d+/, '127.0.0.1:1'));
  await every('api-server-away', away);
  await startGate(cluster, {
    values: { policy: { spec: { validation: { backoff: { initial: '1h', max: '1h' } } } } },
  });
  await until('the policy to be looked at', async () => (await plugin(['status'])).includes('GPU nodes open'));
  await both('0');

  await cluster.addNodes(3);
  await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
  await validated('gpu-0');
  await untilEnforcing(cluster);
  await annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails=insmod: ERROR: could not insert module nvidia.ko');
  await annotate('gpu-2', 'sim.gpu-gate.dev/driver-seconds=86400');
  await kubectl('label', 'nodes', 'gpu-1', 'gpu-2', 'gpu-gate.dev/managed=true');
  await until('gpu-1 to fail', async () => (await state('gpu-1')) === 'failed');
  await until('gpu-2 to wait for its driver', async () => (await state('gpu-2')) === 'driver');
  // A new sentence about the same state is written once it has settled.
  await until('gpu-2 to say what it waits for', async () => {
    const { conditions } = (await node('gpu-2')).status;
    return conditions.some(({ type, message }) => type === 'GPUValidated' && message.includes('to be Ready'));
  });
  await gpuPod('serve', 'gpu-0', 4);
  await until('serve to run', async () => (await pod('serve')).status.phase === 'Running');
  await gpuPod('train', undefined, 8);
  await until('both reports on train', async () => {
    const described = await kubectl('describe', 'pod', 'train');
    return /FailedScheduling/.test(described) && /WaitingForGPUNode/.test(described);
  });
  await until('the policy to count its nodes', async () => {
    const policies = await kubectl('get', 'gpupolicies', '-o', 'wide');
    return /^default +True +Enforcing +1 +1 +3/m.test(policies);
  });
  const printed = (name: string, command: string, text: string): unknown =>
    transcripts.set(name, `$ ${command}\n${text}`);
  for (const [name, args] of [
    ['get-gpupolicies', ['get', 'gpupolicies', '-o', 'wide']],
    ['get-nodes', ['get', 'nodes', '-L', 'gpu-gate.dev/state,gpu-gate.dev/managed']],
  ] as const)
    printed(name, `kubectl ${args.join(' ')}`, await kubectl(...args));
  printed(
    'describe-pod',
    'kubectl describe pod train',
    sectionsOf(await kubectl('describe', 'pod', 'train'), ['Conditions', 'Readiness Gates', 'Events']),
  );
  const described = sectionsOf(await kubectl('describe', 'node', 'gpu-1'), ['Conditions', 'Events']);
  printed(
    'describe-node',
    'kubectl describe node gpu-1',
    // The kubelet's own conditions and Events are Kubernetes' business.
    described.replaceAll(/^ {2}(?!GPU|Type|----|.* gpu-gate).*\n/gm, ''),
  );
  for (const [name, args] of [
    ['status', ['status']],
    ['node', ['node', 'gpu-1']],
    ['explain', ['explain', 'train']],
    ['wait', ['wait', 'gpu-0', 'gpu-1']],
  ] as const)
    printed(name, `kubectl gpu-gate ${args.join(' ')}`, await plugin(args));
  await both('3');
  await every('no-rights', await withoutRights());

  const many = await cluster.addNodes(497);
  for (const name of many)
    await cluster.admin.request('PATCH', `/api/v1/nodes/${name}/status`, {
      contentType: MERGE_PATCH,
      body: { status: { capacity: { 'nvidia.com/gpu': '8' }, allocatable: { 'nvidia.com/gpu': '8' } } },
    });
  await until('the policy to look at 500 nodes', async () => {
    const { nodes } = JSON.parse(await plugin(['nodes', '-o', 'json'])) as { nodes: unknown[] };
    return nodes.length === 500;
  });
  await both('500');
  if (UPDATES) {
    for (const page of PAGES) {
      const path = join(ROOT, page);
      writeFileSync(path, withTranscripts(readFileSync(path, 'utf8'), transcripts));
    }
    for (const [name, text] of screens)
      writeFileSync(join(ROOT, `test/golden/screens/${name}.txt`), `${canonical(text)}\n`);
  }
});
afterAll(async () => {
  await cluster?.stop();
  rmSync(home, { recursive: true, force: true });
});

it.each(['get-gpupolicies', 'get-nodes', 'describe-pod', 'describe-node', 'status', 'node', 'explain', 'wait'])(
  'the docs hold what the cluster prints today: %s',
  (name) => {
    const blocks = PAGES.flatMap((page) => {
      const text = transcriptsIn(readFileSync(join(ROOT, page), 'utf8')).get(name);
      return text === undefined ? [] : [text];
    });
    expect(blocks).not.toEqual([]);
    for (const block of blocks) expect(canonical(transcripts.get(name) ?? '')).toBe(canonical(block));
  },
);

it.each([
  'not-installed',
  'api-server-away',
  'no-rights',
  ...['0', '3', '500'].flatMap((count) => [`status-${count}`, `nodes-${count}`]),
])('the screen %s is as its golden', (name) => {
  const golden = readFileSync(join(ROOT, `test/golden/screens/${name}.txt`), 'utf8');
  expect(`${canonical(screens.get(name) ?? '')}\n`).toBe(golden);
});

it('with the API server away every command says one sentence and exits 1', () => {
  const answers = (screens.get('api-server-away') ?? '').split('\n\n');
  expect(answers).toHaveLength(EVERY.length);
  for (const answer of answers) expect(answer.trim().split('\n'), answer).toHaveLength(3);
  for (const answer of answers) expect(answer).toMatch(/\nexit code 1\n?$/);
});
