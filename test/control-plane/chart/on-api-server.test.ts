// The chart on a real API server with no gpu-gate running: which GPUPolicies it refuses and with
// what advice, and that an uninstall keeps what running work stands on.
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { installChart, until } from '../../../lab/cluster/gate.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');

const VALUES = { deployments: { create: false } };
let cp: ControlPlane;

beforeAll(async () => {
  cp = await startControlPlane({
    binaries: await binariesFromEnvironment(console.log),
    scheduler: false,
  });
  await installChart(cp, 'install', VALUES);
});
afterAll(async () => cp?.stop());

describe('a GPUPolicy', () => {
  const create = async (spec: object): Promise<string> =>
    (
      await cp.kubectl(
        ['create', '--dry-run=server', '-f', '-'],
        JSON.stringify({ apiVersion: 'gpu-gate.dev/v1alpha1', kind: 'GPUPolicy', metadata: { name: 'y' }, spec }),
      )
    ).stderr;
  const volumes = (...driverVolumes: object[]): object => ({ injection: { driverVolumes } });
  const volume = (more: object = {}): object => ({ name: 'lib', hostPath: '/opt/lib', mountPath: '/lib64', ...more });
  const PATH = 'write the plain absolute path, such as /run/nvidia';

  it.each([
    ['resources of another vendor', { resources: ['amd.com/gpu'] }, 'write exact names such as nvidia.com/gpu'],
    [
      'a podSelector on a managed component',
      { components: { driver: { podSelector: { namespace: 'gpu-operator', matchLabels: { a: 'b' } } } } },
      'write mode: external',
    ],
    ['an unknown mode', { components: { driver: { mode: 'auto' } } }, 'supported values'],
    ['a duration without a unit', { labelHold: '5' }, 'write a duration such as 30s, 5m or 1h30m'],
    ['days', { validation: { interval: '1d' } }, 'write a duration such as 30s, 5m or 1h30m'],
    ['a timeout of 0s', { validation: { timeouts: { driver: '0s' } } }, 'write a duration above zero'],
    ['a first wait of 0', { validation: { backoff: { initial: '0' } } }, 'write a duration above zero'],
    ['a timeout without a unit', { validation: { timeouts: { toolkit: '30' } } }, 'write a duration above zero'],
    [
      'a first wait above the longest',
      { validation: { backoff: { initial: '20m' } } },
      'initial is above max; write a first wait that is no longer than the longest',
    ],
    ['a breaker above 100%', { breaker: '101%' }, 'write a share in quotes from "0%" to "100%"'],
    ['a breaker that is not a share', { breaker: 'half' }, 'write a share in quotes'],
    ['maxConcurrent 0', { bringUp: { maxConcurrent: 0 } }, 'write a number of nodes from 1'],
    ['maxConcurrent "0%"', { bringUp: { maxConcurrent: '0%' } }, 'or a share from "1%" to "100%"'],
    ['maxConcurrent in words', { bringUp: { maxConcurrent: 'all' } }, 'write a number of nodes from 1'],
    ['a volume name in capitals', volumes(volume({ name: 'Lib' })), 'write a volume name: lower-case letters'],
    ['the whole host as /.', volumes(volume({ hostPath: '/.' })), PATH],
    ['the whole host as //', volumes(volume({ hostPath: '//' })), PATH],
    ['the whole host as /', volumes(volume({ hostPath: '/' })), "name the driver's folder"],
    ['a host path with ..', volumes(volume({ hostPath: '/opt/..' })), PATH],
    ['a relative host path', volumes(volume({ hostPath: 'opt' })), PATH],
    ['a mount path with ..', volumes(volume({ mountPath: '/a/../b' })), PATH],
    ["a mount over the container's root", volumes(volume({ mountPath: '/' })), 'name a folder in it'],
    ['a relative host root', { hostPaths: { driverRoot: 'run' } }, PATH],
    ['a relative runtime socket', { components: { toolkit: { socketPath: 'containerd.sock' } } }, PATH],
    ['one volume name twice', volumes(volume(), volume({ mountPath: '/b' })), 'Duplicate value'],
    ['one mount path twice', volumes(volume(), volume({ name: 'b' })), 'give each a folder of its own'],
    [
      "the preset's volume name beside a preset",
      { injection: { driverVolumesPreset: 'GKE', driverVolumes: [volume({ name: 'gpu-gate-driver' })] } },
      'or write driverVolumesPreset: None',
    ],
    ['a variable without a name', { injection: { env: [{ name: '', value: 'x' }] } }, 'spec.injection.env[0].name'],
    ['a variable name with =', { injection: { env: [{ name: 'A=B', value: 'x' }] } }, "printable ASCII without '='"],
    [
      "an operand's variable name with =",
      { components: { driver: { env: [{ name: 'A=B', value: 'x' }] } } },
      "printable ASCII without '='",
    ],
  ])('refuses %s with what to write', async (_, spec, message) => expect(await create(spec)).toContain(message));

  it.each([
    ['maxConcurrent as a number', { bringUp: { maxConcurrent: 5 } }],
    ['maxConcurrent as a number in quotes', { bringUp: { maxConcurrent: '5' } }],
    ['maxConcurrent as a share', { bringUp: { maxConcurrent: '100%' } }],
    ['a breaker that never trips', { breaker: '100%' }],
    ['no repeated validation', { validation: { interval: '0' } }],
    ['a fraction of a second', { validation: { timeouts: { driver: '1.5s' } } }],
    ['hidden folders and dots in names', volumes(volume({ hostPath: '/opt/.lib/a..b' }))],
    ['two volumes', volumes(volume(), volume({ name: 'b', mountPath: '/b' }))],
    ["the preset's volume name without a preset", volumes(volume({ name: 'gpu-gate-driver' }))],
    ['a preset and a volume of another name', { injection: { driverVolumesPreset: 'GKE', driverVolumes: [volume()] } }],
    ['an empty spec', {}],
  ])('takes %s', async (_, spec) => expect(await create(spec)).toBe(''));
});

const files = (folder: string): readonly string[] =>
  readdirSync(join(ROOT, 'deploy', folder))
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => join(ROOT, 'deploy', folder, file));

describe('a preset for a platform', () => {
  it.each(files('presets').map((file) => [basename(file), file]))('%s is taken by an API server', async (_, file) => {
    const place = ['--namespace', 'gpu-gate', '--values', file, '--skip-tests'];
    const rendered = await cp.helm(['template', 'gpu-gate', join(ROOT, 'deploy/chart'), ...place]);
    expect(rendered.code, rendered.stderr).toBe(0);
    const apply = ['apply', '--server-side', '--force-conflicts', '--dry-run=server', '-f', '-'];
    const { code, stderr } = await cp.kubectl(apply, rendered.stdout);
    expect(code, stderr).toBe(0);
  });
});

describe('an example', () => {
  it.each(files('examples').map((file) => [basename(file), file]))('%s is taken by an API server', async (_, file) => {
    const { code, stderr } = await cp.kubectl(['apply', '--server-side', '--dry-run=server', '-f', file]);
    expect(code, stderr).toBe(0);
  });
});

describe('the admission policies', () => {
  it('have no expression that the API server’s own type check doubts', async () => {
    const names = [
      'gpu-gate-node-keys',
      'gpu-gate-reconciler-nodes',
      'gpu-gate-reconciler-objects',
      'gpu-gate-reconciler-pod-status',
      'gpu-gate-reconciler-device-taints',
      'gpu-gate-device-tolerations',
    ];
    for (const name of names) {
      const { status, metadata } = await until(`${name} to be checked`, async () => {
        const policy = await cp.admin.request<{
          metadata: { generation: number };
          status?: { observedGeneration?: number; typeChecking?: { expressionWarnings?: { warning: string }[] } };
        }>('GET', `/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/${name}`);
        return policy.status?.observedGeneration === undefined ? undefined : policy;
      });
      expect(status?.observedGeneration).toBe(metadata.generation);
      expect(status?.typeChecking?.expressionWarnings ?? [], name).toEqual([]);
    }
  });
});

describe('helm uninstall', () => {
  const have = async (...names: string[]): Promise<string[]> =>
    (await cp.kubectl(['get', '--ignore-not-found', '-o', 'name', ...names])).stdout.trim().split('\n').filter(Boolean);

  it('keeps the operands’ namespace and the policy, and the same release takes them up again', async () => {
    const kept = ['namespace/gpu-gate-operands', 'gpupolicy.gpu-gate.dev/default'];
    const uninstalled = await cp.helm(['uninstall', 'gpu-gate', '--namespace', 'gpu-gate']);
    expect(uninstalled.code, uninstalled.stderr).toBe(0);
    expect(await have(...kept)).toEqual(kept);
    expect(await have('mutatingwebhookconfiguration/zz-gpu-gate', 'clusterrole/gpu-gate-reconciler')).toEqual([]);
    await installChart(cp, 'install', { ...VALUES, policy: { spec: { suspend: true } } });
    const { stdout } = await cp.kubectl(['get', 'gpupolicy', 'default', '-o', 'jsonpath={.spec.suspend}']);
    expect(stdout).toBe('true');
  });
});
