import { describe, expect, it } from 'vitest';
import { driverMounts, isBelow, plainPath } from '../../core/driver-mounts.ts';
import { aPolicy } from '../builders/objects.ts';

const of = (injection: object, more: object = {}): readonly string[] => {
  const { volumes, env } = driverMounts(aPolicy({ injection, ...more }));
  return [
    ...volumes.map(({ name, hostPath, mountPath }) => `${name} ${hostPath} -> ${mountPath}`),
    ...env.map(({ name, value }) => `${name}=${value}`),
  ];
};
const volume = (name: string, mountPath: string): object => ({ name, hostPath: `/opt/${name}`, mountPath });

const LIBRARIES = ['libcuda', 'libnvidia-ml', 'libnvidia-ptxjitcompiler'];
/** The driver's files where the linkers of Debian's and of all other images look. */
const files = (folder: string): string[] =>
  [
    ['gpu-gate', '/usr/lib/x86_64-linux-gnu'],
    ['gpu-gate-lib64', '/usr/lib64'],
  ].flatMap(([prefix, to]) =>
    LIBRARIES.map((name) => `${prefix}-${name}-so-1 ${folder}/${name}.so.1 -> ${to}/${name}.so.1`),
  );
const GKE = [
  'gpu-gate-driver /home/kubernetes/bin/nvidia -> /usr/local/nvidia',
  ...files('/home/kubernetes/bin/nvidia/lib64'),
];

describe('driver mounts', () => {
  it.each([
    ['nothing by default', {}, {}, []],
    ['GKE: the folder, and its libraries where linkers look', { driverVolumesPreset: 'GKE' }, {}, GKE],
    [
      'a pre-installed driver: its own files, none of the distribution’s',
      { driverVolumesPreset: 'Host' },
      {},
      files('/usr/lib/x86_64-linux-gnu'),
    ],
    [
      'a driver container, wherever the policy has its root',
      { driverVolumesPreset: 'DriverContainer' },
      { hostPaths: { driverRoot: '/srv/driver/' } },
      files('/srv/driver/usr/lib/x86_64-linux-gnu'),
    ],
    [
      'the policy’s own volume at the preset’s path wins',
      { driverVolumesPreset: 'GKE', driverVolumes: [volume('own', '/usr/local/nvidia/')] },
      {},
      ['own /opt/own -> /usr/local/nvidia', ...GKE.slice(1)],
    ],
    [
      'the policy’s own volume below the preset’s folder wins: no mount can be made in a read-only one',
      { driverVolumesPreset: 'GKE', driverVolumes: [volume('own', '/usr/local/nvidia/bin')] },
      {},
      ['own /opt/own -> /usr/local/nvidia/bin', ...GKE.slice(1)],
    ],
    [
      'the policy’s own volume above the preset’s files wins',
      { driverVolumesPreset: 'Host', driverVolumes: [volume('own', '/usr/lib64')] },
      {},
      ['own /opt/own -> /usr/lib64', ...files('/usr/lib/x86_64-linux-gnu').slice(0, 3)],
    ],
    [
      'the policy’s own volume of the preset’s name wins',
      { driverVolumesPreset: 'GKE', driverVolumes: [volume('gpu-gate-driver', '/elsewhere')] },
      {},
      ['gpu-gate-driver /opt/gpu-gate-driver -> /elsewhere', ...GKE.slice(1)],
    ],
    ['two at one path: the first', { driverVolumes: [volume('a', '/x'), volume('b', '/x/')] }, {}, ['a /opt/a -> /x']],
    ['two of one name: the first', { driverVolumes: [volume('a', '/x'), volume('a', '/y')] }, {}, ['a /opt/a -> /x']],
    [
      'a variable once, the first of its name',
      {
        env: [
          { name: 'A', value: 'mine' },
          { name: 'A', value: 'again' },
        ],
      },
      {},
      ['A=mine'],
    ],
  ])('%s', (_, injection, more, expected) => expect(of(injection, more)).toEqual(expected));

  it.each(['Host', 'DriverContainer', 'GKE'])('%s sets no variable, least of all one that images set', (preset) => {
    const { env, volumes } = driverMounts(aPolicy({ injection: { driverVolumesPreset: preset } }));
    expect(env).toEqual([]);
    for (const { name } of volumes) expect(name).toMatch(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
    expect(new Set(volumes.map(({ name }) => name)).size).toBe(volumes.length);
  });

  it.each(['Host', 'DriverContainer'])('%s mounts files: a folder of that name is not what is meant', (preset) => {
    const { volumes } = driverMounts(aPolicy({ injection: { driverVolumesPreset: preset } }));
    expect(new Set(volumes.map(({ type, readOnly }) => `${type} ${readOnly}`))).toEqual(new Set(['File true']));
  });
});

it.each([
  ['/a/b', '/a/b'],
  ['/a/b/', '/a/b'],
  ['//a/./b/../c', '/a/c'],
  ['a', '/a'],
  ['/', '/'],
  ['', '/'],
  ['/../..', '/'],
])('the path %j is %j', (path, plain) => expect(plainPath(path)).toBe(plain));

it.each([
  ['/a/b', '/a', true],
  ['/a', '/a', false],
  ['/ab', '/a', false],
  ['/a', '/a/b', false],
  ['/a', '/', true],
  ['/', '/', false],
])('%s is below %s: %s', (inner, outer, expected) => expect(isBelow(inner, outer)).toBe(expected));
