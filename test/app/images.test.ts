import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { imagesOf } from '../../app/images.ts';

const run = (input: string, ...args: readonly string[]) =>
  spawnSync(process.execPath, [join(import.meta.dirname, '../../main.ts'), 'images', ...args], {
    encoding: 'utf8',
    input,
  });

describe('images', () => {
  it('of the defaults: each operand that is on, driver-manager, and the validation', () => {
    const images = imagesOf({ spec: {} });
    expect(images.map((image) => image.replace(/:.*/, ''))).toEqual([
      'nvcr.io/nvidia/cloud-native/k8s-driver-manager',
      'nvcr.io/nvidia/driver',
      'nvcr.io/nvidia/k8s-device-plugin',
      'nvcr.io/nvidia/k8s/container-toolkit',
      'nvcr.io/nvidia/k8s/cuda-sample',
      'nvcr.io/nvidia/k8s/dcgm-exporter',
    ]);
    for (const image of images) expect(image).toMatch(/:[\w.-]+$/);
  });
  it('of a policy: not those of components that others install', () =>
    expect(
      imagesOf({
        spec: { components: { driver: { mode: 'external' }, dcgmExporter: { enabled: false } } },
      }).filter((image) => /driver|dcgm/.test(image)),
    ).toEqual([]));
  it('are printed one a line, of the defaults or of a policy on stdin', () => {
    const { status, stdout } = run('');
    expect([status, stdout.trim().split('\n')]).toEqual([0, imagesOf({ spec: {} })]);
    const policy = { spec: { components: { devicePlugin: { image: 'mirror.example.com/p:1' } } } };
    expect(run(JSON.stringify(policy), '-').stdout).toContain('mirror.example.com/p:1\n');
  });
  it('of something else than JSON: one sentence, exit code 2', () => {
    const { status, stderr } = run('a: b', '-');
    expect(status).toBe(2);
    expect(stderr).toContain('write: kubectl get gpupolicy default -o json | node main.ts images -');
  });
});
