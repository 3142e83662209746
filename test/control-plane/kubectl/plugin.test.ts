// `kubectl gpu-gate` as users get it: packed, installed from the tarball, run beside a real control
// plane.
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseTarGzip } from 'nanotar';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { binariesFromEnvironment, startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { runCommand } from '../../../lab/cluster/control-plane.ts';
import { startGate, until } from '../../../lab/cluster/gate.ts';
import { STRATEGIC_PATCH } from '../../../platform/kube.ts';
import { viewOf } from '../../builders/view.ts';
import { installPlugin, runPlugin, type PluginResult } from '../../support/plugin.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
let cluster: Cluster;
let home: string;
let program: string;
const { kubectl, annotate, validated, gpuPod, gone, pod } = viewOf(() => cluster);

/** Runs the installed plugin with a kubeconfig, the test cluster's unless another is given. */
const plugin = (args: readonly string[], kubeconfig = cluster.kubeconfig): Promise<PluginResult> =>
  runPlugin(program, args, home, kubeconfig);

/** What it printed before gpu-gate was there. */
let notInstalled: PluginResult;
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'gpu-gate-plugin-'));
  program = await installPlugin(home);
  cluster = await startCluster({ nodes: 3, say: console.log });
  notInstalled = await plugin(['status']);
  await startGate(cluster, {
    values: { policy: { spec: { validation: { backoff: { initial: '5m', max: '10m' } } } } },
  });
});
afterAll(async () => {
  await cluster?.stop();
  rmSync(home, { recursive: true, force: true });
});

describe('kubectl gpu-gate', () => {
  it('brings nothing but its own files', () => {
    const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'kubectl/package.json'), 'utf8')) as {
      dependencies?: object;
    };
    expect(dependencies).toBeUndefined();
  });

  it('says in one sentence that gpu-gate is not installed, that there is no API server, or no kubeconfig', async () => {
    expect(notInstalled).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/^gpu-gate is not installed in this cluster.*\n$/),
    });
    const away = join(home, 'away');
    writeFileSync(away, readFileSync(cluster.kubeconfig, 'utf8').replace(/127\.0\.0\.1:\d+/, '127.0.0.1:1'));
    expect(await plugin(['nodes'], away)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/^API server .* not reached.*\n$/),
    });
    expect(await plugin(['nodes'], join(home, 'none'))).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/^kubeconfig .* cannot be read.*\n$/),
    });
  });

  describe('with gpu-gate', () => {
    it('waits with a line for each state, and shows a node that is open', async () => {
      await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
      const waited = await plugin(['wait', 'gpu-0', '--timeout', '2m']);
      expect(waited).toMatchObject({ code: 0, stderr: '' });
      expect(waited.stdout).toMatch(/^gpu-0: validated at /m);
      const nodes = await plugin(['nodes']);
      expect(nodes.stdout).toMatch(/^gpu-0 +validated +yes +0\/\d/m);
      const story = await plugin(['node', 'gpu-0']);
      expect(story).toMatchObject({ code: 0, stderr: '' });
      expect(story.stdout).toMatch(/^proof: +full, \d{4}-/m);
      expect(story.stdout).toMatch(/GPUValidated/);
      const { nodes: rows } = JSON.parse((await plugin(['nodes', '-o', 'json'])).stdout) as {
        nodes: { name: string; open: boolean }[];
      };
      expect(rows.find(({ name }) => name === 'gpu-0')?.open).toBe(true);
      expect((await plugin(['nodes', '-o', 'name'])).stdout.split('\n')).toContain('node/gpu-0');
      expect((await plugin(['status', '-o', 'yaml'])).stdout).toMatch(/^policies:$/m);
    });

    it('shows a failed node and the pod that waits, exits 1, and the next step works', async () => {
      await annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails=boom');
      await kubectl('label', 'node', 'gpu-1', 'gpu-gate.dev/managed=true');
      try {
        const failed = await plugin(['wait', 'gpu-1', '--timeout', '10m']);
        expect(failed.code).toBe(1);
        expect(failed.stdout).toMatch(/^gpu-1: failed, driver: /m);
        await gpuPod('plugin-waits', 'gpu-1');
        await until('status to show the pod', async () =>
          (await plugin(['status'])).stdout.includes('default/plugin-waits'),
        );
        const status = await plugin(['status']);
        expect(status.code).toBe(1);
        expect(status.stdout).toMatch(/^gpu-1 +failed +no/m);
        expect(status.stdout).toContain('kubectl gpu-gate explain plugin-waits -n default');
        const explained = await plugin(['explain', 'plugin-waits', '-n', 'default', '--why-not', 'gpu-1']);
        expect(explained).toMatchObject({ code: 0, stderr: '' });
        expect(explained.stdout).toMatch(/gpu-1 +failed +refused/);
        expect(explained.stdout).not.toContain('gpu-0');
        await annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails-');
        expect(await plugin(['retry', 'gpu-1'])).toMatchObject({ code: 0, stdout: 'node/gpu-1 retry\n' });
        await validated('gpu-1');
      } finally {
        await annotate('gpu-1', 'sim.gpu-gate.dev/driver-fails-');
        await gone('plugin-waits');
      }
    });

    it('holds a node and releases it; a dry run writes nothing', async () => {
      await kubectl('label', 'node', 'gpu-0', '--overwrite', 'gpu-gate.dev/managed=true');
      await validated('gpu-0');
      const held = async (): Promise<boolean> => (await plugin(['node', 'gpu-0'])).stdout.includes('held');
      expect((await plugin(['hold', 'gpu-0', '--dry-run'])).stdout).toBe(
        'node/gpu-0 hold (dry run, nothing was written)\n',
      );
      expect(await held()).toBe(false);
      expect((await plugin(['hold', 'gpu-0', '--reason', 'fans'])).code).toBe(0);
      expect(await held()).toBe(true);
      expect((await plugin(['release', 'gpu-0'])).code).toBe(0);
      expect(await held()).toBe(false);
    });

    it('proves a node that serves again, to the level that is asked for', { timeout: 180_000 }, async () => {
      await kubectl('label', 'node', 'gpu-0', '--overwrite', 'gpu-gate.dev/managed=true');
      await validated('gpu-0');
      const proof = async () => {
        const { nodes } = JSON.parse((await plugin(['nodes', '-o', 'json'])).stdout) as {
          nodes: { name: string; open: boolean; proof?: { level: string; at: string; driverAt?: string } }[];
        };
        const gpu0 = nodes.find(({ name }) => name === 'gpu-0');
        return gpu0?.open === true ? gpu0.proof : undefined;
      };
      const first = await until('a proof', proof);
      expect(first).toMatchObject({ level: 'full' });
      expect((await plugin(['prove', 'gpu-0', '--level', 'driver'])).stdout).toBe('node/gpu-0 prove\n');
      const again = await until('the driver to be validated again', async () => {
        const now = await proof();
        return now?.driverAt === undefined ? undefined : now;
      });
      expect(again).toMatchObject({ level: 'full', at: first.at });
      expect((await plugin(['prove', 'gpu-0'])).code).toBe(0);
      const whole = await until('another proof', async () => {
        const now = await proof();
        return now === undefined || now.at === first.at ? undefined : now;
      });
      expect(whole.driverAt).toBeUndefined();
    });

    it('completes kubectl gpu-gate in kubectl itself', async () => {
      const { PATH = '' } = process.env;
      const completed = async (...words: string[]): Promise<readonly string[]> => {
        const binaries = await binariesFromEnvironment(console.log);
        const env = { PATH: `${join(home, 'node_modules/.bin')}:${PATH}`, HOME: home, KUBECONFIG: cluster.kubeconfig };
        const { stdout } = await runCommand(binaries('kubectl'), ['__complete', 'gpu-gate', ...words], env);
        return stdout.trim().split('\n');
      };
      expect(await completed('sta')).toEqual(['status', ':4']);
      expect(await completed('node', 'gpu-')).toEqual(['gpu-0', 'gpu-1', 'gpu-2', ':4']);
    });

    it('explains a manifest of a pod that does not exist yet', async () => {
      const file = join(home, 'job.yaml');
      writeFileSync(
        file,
        'apiVersion: batch/v1\nkind: Job\nmetadata: {name: later}\nspec:\n  template:\n    spec:\n      containers: [{name: c, image: x, resources: {limits: {nvidia.com/gpu: 1}}}]\n',
      );
      const explained = await plugin(['explain', '-f', file, '-n', 'default']);
      expect(explained).toMatchObject({ code: 0, stderr: '' });
      expect(explained.stdout).toMatch(/later/);
      expect(explained.stdout).toMatch(/gpu-2 +- +refused/);
    });

    it('packs a support bundle without one of the secrets that are planted', async () => {
      await kubectl('label', 'node', 'gpu-0', '--overwrite', 'gpu-gate.dev/managed=true');
      await validated('gpu-0');
      const pods = '/api/v1/namespaces/default/pods';
      await kubectl('create', 'secret', 'generic', 'keys', '--from-literal=key=PLANTED-secret');
      await kubectl('create', 'secret', 'generic', 'keys', '-n', 'gpu-gate', '--from-literal=key=PLANTED-secret');
      await kubectl('create', 'configmap', 'keys', '-n', 'gpu-gate', '--from-literal=key=PLANTED-configmap');
      await annotate('gpu-0', 'other=PLANTED-annotation', 'gpu-gate.dev/hold=password=PLANTED-hold');
      const container = {
        name: 'c',
        image: 'example.com/c:1',
        command: ['PLANTED-command'],
        env: [{ name: 'TOKEN', value: 'PLANTED-variable' }],
        resources: { limits: { 'nvidia.com/gpu': '64' } },
      };
      await cluster.admin.request('POST', pods, {
        body: {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: 'secretive', labels: { other: 'PLANTED-label' }, annotations: { other: 'PLANTED-note' } },
          spec: { containers: [container], volumes: [{ name: 'v', secret: { secretName: 'planted-volume' } }] },
        },
      });
      const message =
        'pull https://joe:PLANTED-password@registry: Bearer PLANTED-token, HF_TOKEN=PLANTED-value refused';
      await until('the pod to wait', async () => {
        const { conditions } = (await pod('secretive')).status;
        return conditions?.some(({ type, status }) => type === 'PodScheduled' && status === 'False');
      });
      await cluster.admin.request('PATCH', `${pods}/secretive/status`, {
        contentType: STRATEGIC_PATCH,
        body: { status: { reason: message, conditions: [{ type: 'Ready', status: 'False', message }] } },
      });
      await cluster.admin.request('POST', '/api/v1/namespaces/gpu-gate-operands/events', {
        body: {
          apiVersion: 'v1',
          kind: 'Event',
          metadata: { name: 'planted', namespace: 'gpu-gate-operands' },
          involvedObject: { kind: 'Pod', namespace: 'gpu-gate-operands', name: 'x' },
          reason: 'Failed',
          message,
          type: 'Warning',
        },
      });
      const unpacked = async (file: string): Promise<ReadonlyMap<string, string>> =>
        new Map((await parseTarGzip(readFileSync(file))).map(({ name, text }) => [name.replace(/^[^/]*\//, ''), text]));
      try {
        const file = join(home, 'bundle.tgz');
        expect(await plugin(['support', '-o', file])).toMatchObject({ code: 0, stderr: '' });
        expect(statSync(file).mode & 0o777).toBe(0o600);
        const files = await unpacked(file);
        for (const [name, text] of files) expect(text.match(/.{0,60}planted.{0,60}/gi), name).toBeNull();
        expect([...files.keys()][0]).toBe('summary.txt');
        expect(files.get('summary.txt')).toContain('default/secretive');
        expect(files.get('nodes.jsonl')).toContain('"gpu-gate.dev/hold":"password=[redacted]"');
        expect(files.get('events.jsonl')).toContain('pull https://[redacted]@registry');
        expect(files.get('operand-pods.jsonl')).toContain('driver-validation');
        expect(files.get('policies.jsonl')).toContain('"enforcingSince"');
        const other = join(home, 'other.tgz');
        const byMain = await runCommand(
          process.execPath,
          [join(ROOT, 'main.ts'), 'support', '-o', other, '--kubeconfig', cluster.kubeconfig],
          {},
        );
        expect(byMain).toMatchObject({ code: 0, stderr: '' });
        expect([...(await unpacked(other)).keys()]).toEqual([...files.keys()]);
      } finally {
        await annotate('gpu-0', 'other-', 'gpu-gate.dev/hold-');
        await gone('secretive');
        await kubectl('delete', 'secret', 'keys');
        await kubectl('delete', 'secret', 'keys', '-n', 'gpu-gate');
        await kubectl('delete', 'configmap', 'keys', '-n', 'gpu-gate');
        await kubectl('delete', 'event', 'planted', '-n', 'gpu-gate-operands');
      }
    });

    it('shows a user without rights what he may see, and one line on what he may not', async () => {
      await kubectl('create', 'serviceaccount', 'reader', '-n', 'default');
      await kubectl('create', 'clusterrole', 'policies-only', '--verb=get,list', '--resource=gpupolicies.gpu-gate.dev');
      await kubectl(
        'create',
        'clusterrolebinding',
        'policies-only',
        '--clusterrole=policies-only',
        '--serviceaccount=default:reader',
      );
      try {
        const config = await cluster.serviceAccountKubeconfig('default', 'reader');
        const status = await plugin(['status'], config);
        expect(status.stderr).toBe('');
        expect(status.stdout).toContain('not shown: nodes (you have no right to read them)');
        expect(status.stdout).toMatch(/^default +(yes|no)/m);
        const bundle = await plugin(['support', '-o', join(home, 'few.tgz')], config);
        expect(bundle).toMatchObject({ code: 0, stderr: '' });
        expect(bundle.stdout).toContain('not read: Nodes (you have no right to read them)\n');
        const held = await plugin(['hold', 'gpu-0'], config);
        expect(held).toMatchObject({
          code: 1,
          stdout: '',
          stderr: expect.stringContaining('ask a cluster administrator for that right'),
        });
      } finally {
        await kubectl('delete', 'clusterrolebinding', 'policies-only');
        await kubectl('delete', 'clusterrole', 'policies-only');
        await kubectl('delete', 'serviceaccount', 'reader', '-n', 'default');
      }
    });
  });
});
