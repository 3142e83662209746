// What single rows of the screens say; whole screens are goldens of fleet.test.ts.
import { describe, expect, it } from 'vitest';
import { CLOSED, HOLD, NODE_POLICY, PROOF, STATE } from '../../core/keys.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { fleetReport, type EventView, type RawNode } from '../../kubectl/fleet.ts';
import { nodesText, nodeText, statusText, wrapped, type Terminal } from '../../kubectl/render.ts';
import { aNode, aPolicy, NOW } from '../builders/objects.ts';

const PIPE: Terminal = { width: undefined, colour: false, now: NOW };
const report = (nodes: readonly RawNode[], policies: readonly GpuPolicy[] = []) =>
  fleetReport({ policies, nodes, pods: [], deployments: [], unread: [], now: NOW });
const story = (node: RawNode, events: readonly EventView[] = [], components = {}): string =>
  nodeText(
    { ...(report([node]).nodes[0] ?? expect.unreachable()), timeline: [], components, events, unread: [] },
    PIPE,
  );
const proof = (more: object): Record<string, string> => ({
  [PROOF]: JSON.stringify({ node: 'uid-node-a', boot: 'boot-1', at: '2026-11-24T09:00:00Z', components: {}, ...more }),
});
const saying = (message: string | undefined, more: object = {}): RawNode => {
  const node = aNode({ annotations: { [PROOF]: '' }, labels: { [STATE]: 'driver' }, ...more });
  const conditions =
    message === undefined
      ? []
      : [{ type: 'GPUValidated', status: 'False', message, lastTransitionTime: '2026-11-24T09:30:00Z' }];
  return { ...node, status: { ...node.status, conditions } };
};

describe('the story of one node', () => {
  it.each<[what: string, node: RawNode, line: RegExp]>([
    ['an open node', aNode(), /^open: +yes: new GPU pods may come$/m],
    ['a held node', aNode({ annotations: { [HOLD]: 'fans' } }), /^open: +no: GPU node held by an operator$/m],
    ['what helps a held node', aNode({ annotations: { [HOLD]: 'fans' } }), /^next: +kubectl gpu-gate release node-a$/m],
    ['its policy', aNode(), /^policy: +default$/m],
    ['no policy', aNode({ annotations: { [NODE_POLICY]: '' } }), /^policy: +-$/m],
    [
      'since when it walks',
      saying('driver: compiles'),
      /^state: +driver, since 2026-11-24T09:30:00Z \(30m, no usual time yet\)$/m,
    ],
    ['a state without a time', saying(undefined), /^state: +driver$/m],
    ['what it waits for', saying('driver: compiles'), /^what: +driver: compiles$/m],
    ['nothing that it waits for', saying(undefined), /^what: +-$/m],
    ['no proof', saying('driver: compiles'), /^proof: +none$/m],
    ['a proof with versions', aNode(), /^proof: +full, 2026-11-24T09:00:00Z \(60m\), driver 595\.91\.07, CUDA 13\.1$/m],
    ['a proof without versions', aNode({ annotations: proof({}) }), /^proof: +full, 2026-11-24T09:00:00Z \(60m\)$/m],
    [
      'a proof of the driver alone',
      aNode({ annotations: proof({ level: 'driver' }) }),
      /^proof: +driver, 2026-11-24T09:00:00Z \(60m\)$/m,
    ],
    [
      'a driver that was validated again',
      aNode({ annotations: proof({ level: 'full', driverAt: '2026-11-24T09:50:00Z' }) }),
      /^proof: +full, 2026-11-24T09:00:00Z \(60m\), driver validated again 10m ago$/m,
    ],
    ['GPUs', aNode({ gpus: '8' }), /^GPUs used: +0\/8$/m],
    ['no GPUs', aNode({ gpus: '0' }), /^GPUs used: +-$/m],
  ])('shows %s', (_, node, line) => expect(story(node)).toMatch(line));

  it('counts Events of one text, and marks none', () => {
    const event = { at: '2026-11-24T09:00:00Z', type: 'Warning', reason: 'GPUStageFailed', message: 'crashes' };
    expect(story(aNode(), [{ ...event, count: 3 }])).toContain('60m  Warning  GPUStageFailed (x3)  crashes');
    expect(story(aNode(), [{ ...event, count: 1 }])).toContain('60m  Warning  GPUStageFailed  crashes');
  });
  it('shows a component whose start nobody knows', () =>
    expect(story(aNode(), [], { driver: { revision: 'abc', started: '' } })).toMatch(/^driver +abc +-$/m));
});

describe('a row of the nodes', () => {
  const row = (node: RawNode): string => nodesText(report([node]).nodes, PIPE).split('\n')[1] ?? '';
  it.each<[what: string, node: RawNode, end: string]>([
    ['an open node says nothing more', aNode(), '0/8   -      full 60m'],
    ['what a node waits for', saying('driver: compiles'), 'driver: compiles'],
    [
      'else the extender’s reason',
      aNode({ annotations: { [CLOSED]: 'awaiting toolkit' } }),
      'GPU node closed: awaiting toolkit',
    ],
    [
      'GPUs of another name by that name',
      { ...aNode(), status: { ...aNode().status, allocatable: { 'nvidia.com/mig-1g.5gb': '7' } } },
      '-',
    ],
  ])('%s', (_, node, end) => expect(row(node)).toContain(end));
  it('counts shares apart from whole GPUs', () => {
    const node = {
      ...aNode(),
      status: { ...aNode().status, allocatable: { 'nvidia.com/gpu': '1', 'nvidia.com/gpu.shared': '4' } },
    };
    expect(nodesText(report([node], [aPolicy()]).nodes, PIPE)).toContain('0/1 0/4 gpu.shared');
  });
});

describe('in a narrow terminal', () => {
  const node = saying(
    'driver: waiting for driver-4f2a1 to be Ready, and this is a long sentence about what is awaited',
  );
  const lines = (width: number): readonly string[] =>
    nodesText(report([{ ...node, metadata: { ...node.metadata, name: 'ip-10-0-12-34.ec2.internal' } }]).nodes, {
      ...PIPE,
      width,
    })
      .trimEnd()
      .split('\n');
  it('what a node waits for has a line of its own, and is cut only there', () => {
    const [header, row, what] = lines(100);
    expect(header).toMatch(/PROOF$/);
    expect(row).toMatch(/^ip-10-0-12-34\.ec2\.internal .*no usual time yet  -$/);
    expect(what).toBe(
      '    driver: waiting for driver-4f2a1 to be Ready, and this is a long sentence about what is awaited',
    );
    expect(lines(80).at(-1)).toBe('    driver: waiting for driver-4f2a1 to be Ready, and this is a long sentence a…');
  });
  it('where the row is too wide too, the name stands above it', () => {
    expect(lines(60).slice(0, 4)).toEqual([
      'NODE',
      '    STATE   OPEN  GPUS  SINCE                   PROOF',
      'ip-10-0-12-34.ec2.internal',
      expect.stringMatching(/^    driver  no    .* no usual time yet  -$/),
    ]);
    for (const line of lines(60)) expect(line.length).toBeLessThanOrEqual(60);
  });
  it('in a wide one all is one line', () => expect(lines(220)).toHaveLength(2));
  it.each([
    ['a b c', 3, ['a b', 'c']],
    ['', 3, ['']],
    ['abcdefg h', 3, ['abc', 'def', 'g h']],
  ])('%j is wrapped at %i', (text, width, parts) => expect(wrapped(text, width)).toEqual(parts));
});

describe('a row of the policies', () => {
  const status = (enforcing: string, nodes = {}) =>
    aPolicy(
      {},
      {
        status: {
          nodes,
          conditions: [{ type: 'Enforcing', status: enforcing, reason: 'R', message: 'the first node was opted in' }],
        },
      },
    );
  it.each<[what: string, policy: GpuPolicy, row: RegExp]>([
    ['that enforces', status('True', { total: 3, validated: 2, failed: 1 }), /^default +yes +2\/3 +1$/m],
    ['that audits says why', status('False'), /^default +no +0\/0 +0 +the first node was opted in$/m],
    [
      'that nobody has looked at',
      aPolicy({}, { status: {} }),
      /^default +no +0\/0 +0 +the reconciler has not looked at this policy yet/m,
    ],
  ])('%s', (_, policy, row) => expect(statusText(report([], [policy]), PIPE)).toMatch(row));
});
