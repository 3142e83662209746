import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { COMPONENTS } from '../../../core/components.ts';
import { renderOperand } from '../../../reconciler/manifests/render.ts';
import type { Manifest } from '../../../reconciler/actions.ts';
import { claimTemplate } from '../../../reconciler/manifests/claim-template.ts';
import { validationPod } from '../../../reconciler/manifests/validation-pod.ts';
import { aPolicy } from '../../builders/objects.ts';

const context = { namespace: 'gpu-gate-operands' };
const golden = (name: string, value: unknown): void => {
  const file = join(import.meta.dirname, '../../golden/operands', `${name}.json`);
  const text = `${JSON.stringify(value, undefined, 2)}\n`;
  if (process.env['GPU_GATE_TEST_UPDATE'] === '1') writeFileSync(file, text);
  expect(text).toBe(readFileSync(file, 'utf8'));
};

describe('resources of a validation pod', () => {
  const resourcesOf = (resources: object | undefined): unknown => {
    const { spec } = validationPod({
      kind: 'device-plugin-validation',
      policy: aPolicy({ validation: resources === undefined ? {} : { resources } }),
      namespace: 'o',
      node: { name: 'n', uid: 'u' },
      round: 'r',
      attempt: 0,
      resource: 'nvidia.com/gpu',
    });
    return (spec as { containers: { resources: unknown }[] }).containers[0]?.resources;
  };
  const requests = { cpu: '10m', memory: '64Mi' };
  it.each([
    ['the policy is silent', undefined, { requests, limits: { memory: '2Gi', 'nvidia.com/gpu': '1' } }],
    [
      'it raises the limit',
      { limits: { memory: '6Gi' } },
      { requests, limits: { memory: '6Gi', 'nvidia.com/gpu': '1' } },
    ],
    [
      'it requests more',
      { requests: { cpu: 1, memory: '1Gi' }, limits: { 'example.com/x': '1' } },
      {
        requests: { cpu: 1, memory: '1Gi' },
        limits: { memory: '2Gi', 'example.com/x': '1', 'nvidia.com/gpu': '1' },
      },
    ],
    [
      'it names the GPU that the round asks for',
      { limits: { 'nvidia.com/gpu': '8' } },
      { requests, limits: { memory: '2Gi', 'nvidia.com/gpu': '1' } },
    ],
  ])('where %s', (_, resources, expected) => expect(resourcesOf(resources)).toEqual(expected));
});

describe('operands', () => {
  it.each(COMPONENTS)('%s is rendered as its golden file (GPU_GATE_TEST_UPDATE=1 rewrites it)', (component) =>
    golden(component, renderOperand(component, aPolicy(), context).daemonSet),
  );
  it('toolkit installs where the policy says, on the host and in its container', () => {
    const { daemonSet } = renderOperand(
      'toolkit',
      aPolicy({ components: { toolkit: { installDir: '/opt/nvidia' } } }),
      context,
    );
    const text = JSON.stringify(daemonSet);
    expect(text).toContain('{"name":"ROOT","value":"/opt/nvidia"}');
    expect(text).toContain('{"name":"toolkit-install","mountPath":"/opt/nvidia"}');
    expect(text).toContain('"hostPath":{"path":"/opt/nvidia"');
    expect(text).not.toContain('/usr/local/nvidia');
  });
  it('device-plugin reads the ConfigMap that the policy names, and another name is another revision', () => {
    const of = (config?: string) =>
      renderOperand(
        'device-plugin',
        aPolicy({ components: { devicePlugin: config === undefined ? {} : { config } } }),
        context,
      );
    const text = JSON.stringify(of('time-slicing').daemonSet);
    expect(text).toContain('{"name":"CONFIG_FILE","value":"/config/config.yaml"}');
    expect(text).toContain('{"name":"config","mountPath":"/config","readOnly":true}');
    expect(text).toContain('{"name":"config","configMap":{"name":"time-slicing"}}');
    expect(new Set([of().revision, of('a').revision, of('b').revision]).size).toBe(3);
  });
  it('toolkit follows k3s’ paths and CRI-O', () => {
    golden(
      'toolkit-k3s',
      renderOperand(
        'toolkit',
        aPolicy({
          components: {
            toolkit: {
              configPath: '/var/lib/rancher/k3s/agent/etc/containerd/config.toml',
              socketPath: '/run/k3s/containerd/containerd.sock',
            },
          },
        }),
        context,
      ).daemonSet,
    );
    golden(
      'toolkit-crio',
      renderOperand('toolkit', aPolicy({ components: { toolkit: { runtime: 'crio' } } }), context).daemonSet,
    );
  });
  it.each(COMPONENTS)('%s tolerates everything, restarts only by label, and never pulls :latest', (component) => {
    const { daemonSet, revision } = renderOperand(component, aPolicy(), context);
    const text = JSON.stringify(daemonSet);
    expect(daemonSet['spec']).toMatchObject({
      updateStrategy: { type: 'OnDelete' },
      template: {
        spec: {
          tolerations: [{ operator: 'Exists' }],
          nodeSelector: { [`gpu-gate.dev/deploy.${component}`]: revision },
        },
      },
    });
    expect(text).not.toContain(':latest');
    for (const [, image] of text.matchAll(/"image":"([^"]+)"/g)) expect(image).toMatch(/:[\w.-]+$/);
  });
  it('a policy edit makes a new revision only of what it touches', () => {
    const revisions = (spec: object): string[] =>
      COMPONENTS.map((component) => renderOperand(component, aPolicy(spec), context).revision);
    const [before, after] = [revisions({}), revisions({ components: { driver: { version: '610.1.1' } } })];
    expect(COMPONENTS.filter((_, i) => before[i] !== after[i])).toEqual(['driver']);
    expect(revisions({ labelHold: '1m' })).toEqual(before);
  });
  it('the policy’s env, args and pull secrets win', () => {
    const { daemonSet } = renderOperand(
      'device-plugin',
      aPolicy({
        components: {
          devicePlugin: {
            env: [{ name: 'PASS_DEVICE_SPECS', value: 'false' }],
            args: ['--x'],
            imagePullSecrets: ['s'],
            image: 'example/plugin',
            version: '9',
          },
        },
      }),
      context,
    );
    expect(daemonSet['spec']).toMatchObject({
      template: {
        spec: {
          imagePullSecrets: [{ name: 's' }],
          containers: [
            {
              image: 'example/plugin:9',
              args: ['--x'],
              env: expect.arrayContaining([{ name: 'PASS_DEVICE_SPECS', value: 'false' }]),
            },
          ],
        },
      },
    });
  });
});

describe('what the policy cannot break', () => {
  it('a variable NODE_NAME of the policy’s is left out: a DaemonSet with a variable twice would be refused', () => {
    const components = { devicePlugin: { env: [{ name: 'NODE_NAME', value: 'x' }] } };
    const text = JSON.stringify(renderOperand('device-plugin', aPolicy({ components }), context).daemonSet);
    expect(text.match(/"name":"NODE_NAME"/g)).toHaveLength(1);
  });
  it.each([
    ['ours, where none is injected but our toolkit is there', {}, 'nvidia'],
    ['none, where the toolkit is external too', { toolkit: { mode: 'external' } }, undefined],
  ])('runtime class of operands: %s', (_, components, expected) => {
    const policy = aPolicy({ injection: { runtimeClassName: '' }, components });
    for (const component of ['device-plugin', 'dcgm-exporter', 'feature-discovery'] as const)
      expect(renderOperand(component, policy, context).daemonSet['spec']).toMatchObject({
        template: {
          spec: expect.toSatisfy((spec: { runtimeClassName?: string }) => spec.runtimeClassName === expected),
        },
      });
  });
});

describe('the claim template of validation pods', () => {
  const template = (deviceClasses: readonly string[], there: readonly string[] = deviceClasses) =>
    claimTemplate(aPolicy({ deviceClasses }), 'gpu-gate-operands', (name) => there.includes(name));
  it('asks for a device of the class, and tolerates the taint of a node that is not open', () =>
    golden('claim-template', template(['gpu.nvidia.com'])));
  it('asks for one of several classes, the first that is free', () =>
    golden('claim-template-of-two', template(['gpu.nvidia.com', 'mig.nvidia.com'])));
  it('names no class that is not there, because the scheduler would look no further', () => {
    expect(template(['a', 'b'], ['b'])).toEqual(template(['b']));
    expect(template(['a', 'b'], [])).toBeUndefined();
    expect(template([])).toBeUndefined();
  });
  it('has another name for another content', () =>
    expect(template(['a'])?.metadata.name).not.toBe(template(['b'])?.metadata.name));
});

describe('validation pods', () => {
  const input = {
    policy: aPolicy(),
    namespace: 'gpu-gate-operands',
    node: { name: 'node-a', uid: 'u' },
    round: 'r',
    attempt: 1,
  } as const;
  it('are rendered as their golden files', () => {
    golden('driver-validation', validationPod({ ...input, kind: 'driver-validation' }));
    golden(
      'device-plugin-validation',
      validationPod({
        ...input,
        kind: 'device-plugin-validation',
        resource: 'nvidia.com/gpu',
        schedulerName: 'gpu-gate-scheduler',
      }),
    );
  });
  it('dra-validation asks by a claim, and takes no driver of the host', () => {
    const of = (more: object) =>
      validationPod({ ...input, ...more, kind: 'dra-validation', claimTemplate: 'template' });
    golden('dra-validation', of({}));
    const policy = aPolicy({ injection: { driverVolumesPreset: 'DriverContainer' } });
    const full = aPolicy({ injection: { driverVolumesPreset: 'DriverContainer', claimPods: 'Full' } });
    const volumes = (of: Manifest): number => (of['spec'] as { volumes: unknown[] }).volumes.length;
    expect([volumes(of({ policy })), volumes(of({ policy: full }))]).toEqual([0, expect.any(Number)]);
    expect(volumes(of({ policy: full }))).toBeGreaterThan(0);
    expect(of({ policy: full })['spec']).toMatchObject({ runtimeClassName: 'nvidia' });
  });

  it.each(['driver-validation', 'device-plugin-validation'] as const)(
    '%s has what users’ pods get: the volumes of the preset, the variables of the policy',
    (kind) => {
      const env = [{ name: 'THEIRS', value: 'x' }];
      const policy = aPolicy({ injection: { driverVolumesPreset: 'GKE', env } });
      expect(validationPod({ ...input, policy, kind })['spec']).toMatchObject({
        volumes: expect.arrayContaining([
          { name: 'gpu-gate-driver', hostPath: { path: '/home/kubernetes/bin/nvidia', type: 'Directory' } },
        ]),
        containers: [
          {
            volumeMounts: expect.arrayContaining([
              { name: 'gpu-gate-driver', mountPath: '/usr/local/nvidia', readOnly: true },
            ]),
            env: expect.arrayContaining(env),
          },
        ],
      });
    },
  );
  it('device-plugin-validation has no runtime class where users’ pods get none', () => {
    const policy = aPolicy({ injection: { runtimeClassName: '' } });
    const of = (kind: 'driver-validation' | 'device-plugin-validation'): unknown =>
      (validationPod({ ...input, policy, kind })['spec'] as { runtimeClassName?: string }).runtimeClassName;
    expect([of('driver-validation'), of('device-plugin-validation')]).toEqual(['nvidia', undefined]);
  });
  it('have a name that changes with what they prove', () => {
    const name = (more: object): string =>
      validationPod({ ...input, kind: 'driver-validation', ...more }).metadata.name;
    expect(
      new Set([name({}), name({ round: 's' }), name({ attempt: 2 }), name({ node: { name: 'node-a', uid: 'v' } })])
        .size,
    ).toBe(4);
    expect(name({})).toBe(name({}));
    expect(name({ node: { name: 'a'.repeat(300), uid: 'u' } }).length).toBeLessThan(76);
  });
});
