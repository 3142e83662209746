import { describe, expect, it } from 'vitest';
import { driverMounts } from '../../core/driver-mounts.ts';
import { aPolicy } from '../support/objects.ts';

const of = (injection: object, more: object = {}): readonly string[] => {
  const { volumes, env } = driverMounts(aPolicy({ injection, ...more }));
  return [
    ...volumes.map(({ name, hostPath, mountPath }) => `${name} ${hostPath} -> ${mountPath}`),
    ...env.map(({ name, value }) => `${name}=${value}`),
  ];
};
const volume = (name: string, mountPath: string): object => ({ name, hostPath: `/opt/${name}`, mountPath });

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
      'a pre-installed driver',
      { driverVolumesPreset: 'Host' },
      {},
      [
        'gpu-gate-driver /usr/lib/x86_64-linux-gnu -> /usr/local/nvidia/lib64',
        'LD_LIBRARY_PATH=/usr/local/nvidia/lib64',
      ],
    ],
    [
      'a driver container, wherever the policy has its root',
      { driverVolumesPreset: 'DriverContainer' },
      { hostPaths: { driverRoot: '/srv/driver' } },
      [
        'gpu-gate-driver /srv/driver -> /run/nvidia/driver',
        'LD_LIBRARY_PATH=/run/nvidia/driver/usr/lib/x86_64-linux-gnu:/run/nvidia/driver/usr/lib64',
      ],
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
});
