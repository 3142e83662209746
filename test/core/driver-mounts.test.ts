import { describe, expect, it } from 'vitest';
import { driverMounts } from '../../core/driver-mounts.ts';
import { aPolicy } from '../builders/objects.ts';

const of = (injection: object, more: object = {}): readonly string[] => {
  const { volumes, env } = driverMounts(aPolicy({ injection, ...more }));
  return [
    ...volumes.map(({ name, hostPath, mountPath }) => `${name} ${hostPath} -> ${mountPath}`),
    ...env.map(({ name, value }) => `${name}=${value}`),
  ];
};
const volume = (name: string, mountPath: string): object => ({ name, hostPath: `/opt/${name}`, mountPath });

const files = (folder: string): string[] =>
  ['libcuda', 'libnvidia-ml', 'libnvidia-ptxjitcompiler'].map(
    (name) => `gpu-gate-${name}-so-1 ${folder}/${name}.so.1 -> /usr/local/nvidia/lib64/${name}.so.1`,
  );

describe('driver mounts', () => {
  it.each([
    ['nothing by default', {}, {}, []],
    [
      'GKE',
      { driverVolumesPreset: 'GKE' },
      {},
      ['gpu-gate-driver /home/kubernetes/bin/nvidia -> /usr/local/nvidia', 'LD_LIBRARY_PATH=/usr/local/nvidia/lib64'],
    ],
    [
      'a pre-installed driver: its own files, none of the distribution’s',
      { driverVolumesPreset: 'Host' },
      {},
      [...files('/usr/lib/x86_64-linux-gnu'), 'LD_LIBRARY_PATH=/usr/local/nvidia/lib64'],
    ],
    [
      'a driver container, wherever the policy has its root',
      { driverVolumesPreset: 'DriverContainer' },
      { hostPaths: { driverRoot: '/srv/driver/' } },
      [...files('/srv/driver/usr/lib/x86_64-linux-gnu'), 'LD_LIBRARY_PATH=/usr/local/nvidia/lib64'],
    ],
    [
      'the policy’s own volume at the preset’s path wins',
      { driverVolumesPreset: 'GKE', driverVolumes: [volume('own', '/usr/local/nvidia/')] },
      {},
      ['own /opt/own -> /usr/local/nvidia/', 'LD_LIBRARY_PATH=/usr/local/nvidia/lib64'],
    ],
    [
      'the policy’s own volume of the preset’s name wins',
      { driverVolumesPreset: 'GKE', driverVolumes: [volume('gpu-gate-driver', '/elsewhere')] },
      {},
      ['gpu-gate-driver /opt/gpu-gate-driver -> /elsewhere', 'LD_LIBRARY_PATH=/usr/local/nvidia/lib64'],
    ],
    ['two at one path: the first', { driverVolumes: [volume('a', '/x'), volume('b', '/x/')] }, {}, ['a /opt/a -> /x']],
    [
      'a variable once, the policy’s own before the preset’s',
      {
        driverVolumesPreset: 'GKE',
        env: [
          { name: 'LD_LIBRARY_PATH', value: '/mine' },
          { name: 'LD_LIBRARY_PATH', value: '/again' },
        ],
      },
      {},
      ['gpu-gate-driver /home/kubernetes/bin/nvidia -> /usr/local/nvidia', 'LD_LIBRARY_PATH=/mine'],
    ],
  ])('%s', (_, injection, more, expected) => expect(of(injection, more)).toEqual(expected));

  it.each(['Host', 'DriverContainer'])('%s mounts files: a folder of that name is not what is meant', (preset) => {
    const { volumes } = driverMounts(aPolicy({ injection: { driverVolumesPreset: preset } }));
    expect(new Set(volumes.map(({ type, readOnly }) => `${type} ${readOnly}`))).toEqual(new Set(['File true']));
    for (const { name } of volumes) expect(name).toMatch(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
  });
});
