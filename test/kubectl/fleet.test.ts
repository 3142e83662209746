// The report and the text of it: goldens of whole screens at 0, 3 and 500 nodes, and single facts.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CLOSED, HOLD, MANAGED, PROOF, PROVE, RETRY, STATE, WALK } from '../../core/keys.ts';
import { fleetReport, isGpuPod, markOf, type FleetInput, type RawNode, type RawPodView } from '../../kubectl/fleet.ts';
import { exitCode, news, progressOf } from '../../kubectl/progress.ts';
import { stagesOf, timelineOf } from '../../kubectl/usual.ts';
import { podOf } from '../../kubectl/manifest.ts';
import { age, nodesText, nodeText, progressText, statusText, type Terminal } from '../../kubectl/render.ts';
import { aNode, aPolicy, NOW } from '../builders/objects.ts';

const PIPE: Terminal = { width: undefined, colour: false, now: NOW };
const golden = (name: string, text: string): void => {
  const file = join(import.meta.dirname, '../golden/kubectl', `${name}.txt`);
  if (process.env['GPU_GATE_TEST_UPDATE'] === '1') writeFileSync(file, text);
  expect(text).toBe(readFileSync(file, 'utf8'));
};

const since = (name: string, stage: string): string =>
  JSON.stringify({ node: `uid-${name}`, boot: 'boot-1', stage, since: '2026-11-24T09:48:00Z' });
/** A walk that has passed the driver in three minutes. */
const walked = (name: string): string =>
  JSON.stringify({ node: `uid-${name}`, boot: 'boot-1', stage: 'done', tookMs: { toolkit: 4000, driver: 180_000 } });
const walking = (name: string, state: string, message: string): RawNode => {
  const node = aNode({
    name,
    labels: { [STATE]: state },
    annotations: { [PROOF]: '', [WALK]: since(name, state === 'failed' ? 'driver' : state) },
  });
  return {
    ...node,
    status: {
      ...node.status,
      allocatable: {},
      conditions: [
        { type: 'Ready', status: 'True' },
        {
          type: 'GPUValidated',
          status: 'False',
          reason: state === 'failed' ? 'DriverFailedCrashLoop' : 'Driver',
          message,
        },
      ],
    },
  };
};
const unmanaged = (name: string, gpus = '4'): RawNode => {
  const node = aNode({ name, gpus });
  return { ...node, metadata: { name, uid: `uid-${name}`, labels: {}, annotations: {} } };
};
const gpuPod = (name: string, node: string | undefined, gpus = '1', status: object = {}): RawPodView => ({
  metadata: { name, namespace: 'team', uid: name, creationTimestamp: '2026-11-24T09:00:00Z' },
  spec: {
    ...(node === undefined ? {} : { nodeName: node }),
    containers: [{ resources: { limits: { 'nvidia.com/gpu': gpus } } }],
  },
  status: {
    phase: node === undefined ? 'Pending' : 'Running',
    conditions:
      node === undefined
        ? [
            {
              type: 'PodScheduled',
              status: 'False',
              reason: 'Unschedulable',
              message: '0/3 nodes are available: 2 GPU stack not validated: driver.',
              lastTransitionTime: '2026-11-24T09:55:00Z',
            },
          ]
        : [],
    ...status,
  },
});
const policy = aPolicy(
  {},
  {
    status: {
      enforcingSince: '2026-11-02T00:00:00Z',
      nodes: { total: 3, validated: 1, failed: 1 },
      conditions: [{ type: 'Enforcing', status: 'True', reason: 'Enforcing', message: 'since 2026-11-02' }],
    },
  },
);
const fleet = (more: Partial<FleetInput> = {}) =>
  fleetReport({ policies: [policy], nodes: [], pods: [], deployments: [], unread: [], now: NOW, ...more });
const rolling = (reason: string) =>
  aPolicy({}, { status: { conditions: [{ type: 'RollingOut', status: 'True', reason, message: 'so far' }] } });
const deployment = (name: string, ready: number) => ({
  metadata: { name },
  spec: { replicas: 2, template: { spec: { containers: [{ image: 'example/gpu-gate:0.1.0' }] } } },
  status: { readyReplicas: ready },
});

const THREE: readonly RawNode[] = [
  aNode({ name: 'gpu-0', annotations: { [WALK]: walked('gpu-0') } }),
  walking('gpu-1', 'driver', 'driver: waiting for driver-x to be Ready'),
  walking('gpu-2', 'failed', 'driver: container driver of driver-y keeps crashing'),
  unmanaged('gpu-3'),
];
const PODS = [
  gpuPod('train', 'gpu-0', '2'),
  gpuPod('waits', undefined),
  gpuPod('done', 'gpu-0', '1', { phase: 'Succeeded' }),
];

describe('status', () => {
  it('at 0 nodes', () => golden('status-0', statusText(fleet({ policies: [] }), PIPE)));
  it('at 3 nodes', () =>
    golden(
      'status-3',
      statusText(
        fleet({
          nodes: THREE,
          pods: PODS,
          deployments: [deployment('gpu-gate', 2), deployment('gpu-gate-reconciler', 1)],
          certificatesUntil: '2027-11-24T10:00:00Z',
        }),
        PIPE,
      ),
    ));
  it('at 500 nodes is a screenful', () => {
    const nodes = Array.from({ length: 500 }, (_, i) =>
      i % 20 === 0
        ? walking(`gpu-${i}`, 'failed', 'driver: crashes')
        : i % 20 === 1
          ? walking(`gpu-${i}`, i % 40 === 1 ? 'driver' : 'driver-validation', 'waiting')
          : aNode({ name: `gpu-${i}`, annotations: { [WALK]: walked(`gpu-${i}`) } }),
    );
    const text = statusText(
      fleet({ nodes, pods: Array.from({ length: 40 }, (_, i) => gpuPod(`p${i}`, undefined)) }),
      PIPE,
    );
    expect(text.split('\n').length).toBeLessThan(56);
    golden('status-500', text);
  });
  it('with no rights says what is not shown, and not that all is well', () => {
    const because = 'you have no right to read them';
    const report = fleet({ policies: [], unread: ['GPUPolicies', 'nodes', 'pods'].map((what) => ({ what, because })) });
    const text = statusText(report, PIPE);
    expect(text).toContain('not shown: nodes (you have no right to read them)');
    expect(text).toMatch(/^gpu-gate: 1 problem, GPUPolicies not read, /);
    expect(report.problems).toEqual([
      'whether all is well is not known without GPUPolicies and nodes: ask a cluster administrator to let you read them',
    ]);
    expect(fleet({ unread: [{ what: 'pods', because }] }).problems).toEqual([]);
  });
});

describe('GPU pods', () => {
  const metadata = { name: 'p', namespace: 'team', uid: 'u' };
  it.each([
    ['by resource', { metadata, spec: { containers: [{ resources: { limits: { 'nvidia.com/gpu': '1' } } }] } }, true],
    [
      'by claim',
      { metadata: { ...metadata, labels: { 'gpu-gate.dev/injected': 'true' } }, spec: { containers: [{}] } },
      true,
    ],
    ['none', { metadata, spec: { containers: [{}] } }, false],
  ])('%s', (_, pod, is) => expect(isGpuPod(pod)).toBe(is));
});

describe('nodes', () => {
  it('as a table, and wide', () => {
    golden('nodes', nodesText(fleet({ nodes: THREE, pods: PODS }).nodes, PIPE));
    golden('nodes-wide', nodesText(fleet({ nodes: THREE, pods: PODS }).nodes, PIPE, true));
  });
  it('none', () => expect(nodesText([], PIPE)).toBe('no managed node, and no node that offers GPUs\n'));
  it('are no wider than the terminal, and coloured only there', () => {
    const { nodes } = fleet({ nodes: THREE });
    const narrow = nodesText(nodes, { ...PIPE, width: 60 });
    for (const line of narrow.trimEnd().split('\n')) expect(line.length).toBeLessThanOrEqual(60);
    expect(nodesText(nodes, { ...PIPE, colour: true })).toContain('\u001B[31mfailed\u001B[0m');
    expect(nodesText(nodes, PIPE)).not.toContain('\u001B');
  });
  it('print nothing that steers a terminal', () => {
    const text = nodesText(fleet({ nodes: [walking('gpu-1', 'driver', 'see \u001B[2J\u202Ehere')] }).nodes, PIPE);
    for (const character of ['\u001B', '\u202E']) expect(text).not.toContain(character);
  });
  it.each([
    ['an unmanaged node: the label', unmanaged('u'), `kubectl label node u ${MANAGED}=true`],
    ['a held node: release', aNode({ name: 'h', annotations: { [HOLD]: 'x' } }), 'kubectl gpu-gate release h'],
    ['a cordoned node: uncordon', aNode({ name: 'c', cordoned: true }), 'kubectl uncordon c'],
    ['a failed node: retry', walking('f', 'failed', ''), 'kubectl gpu-gate retry f'],
    [
      'a closed node: retry',
      aNode({ name: 'k', annotations: { [CLOSED]: 'awaiting toolkit' } }),
      'kubectl gpu-gate retry k',
    ],
    ['a node on its way: nothing', walking('w', 'driver', ''), ''],
    ['an open node: nothing', aNode({ name: 'o' }), ''],
  ])('name the next step: %s', (_, node, next) => expect(fleet({ nodes: [node] }).nodes[0]?.next).toBe(next));
  it('leave out unmanaged nodes without GPUs', () =>
    expect(fleet({ nodes: [unmanaged('cpu', '0')] }).nodes).toEqual([]));
  it('are sorted as people count', () =>
    expect(fleet({ nodes: ['gpu-10', 'gpu-9'].map((name) => aNode({ name })) }).nodes.map(({ name }) => name)).toEqual([
      'gpu-9',
      'gpu-10',
    ]));
});

describe('problems', () => {
  it.each([
    [
      'none, with a held and a cordoned node',
      { nodes: [aNode({ name: 'a', annotations: { [HOLD]: 'x' } }), aNode({ name: 'b', cordoned: true })] },
      [],
    ],
    [
      'failed nodes',
      { nodes: THREE },
      ['1 node failed: kubectl gpu-gate node gpu-2 says why, kubectl gpu-gate retry gpu-2 tries again now'],
    ],
    [
      'closed nodes',
      { nodes: [aNode({ annotations: { [CLOSED]: 'x' } })] },
      ['1 node validated and closed: kubectl gpu-gate node node-a says why'],
    ],
    ['replicas', { deployments: [deployment('gpu-gate', 1)] }, ['Deployment gpu-gate: 1 of 2 replicas are ready']],
    [
      'a CA near its end',
      { certificatesUntil: '2026-11-25T10:00:00Z' },
      ["the webhook's CA ends 2026-11-25T10:00:00Z: check that gpu-gate-reconciler is running"],
    ],
    [
      'a policy in conflict',
      {
        policies: [
          aPolicy(
            {},
            { status: { conditions: [{ type: 'Conflict', status: 'True', reason: 'x', message: 'two have it' }] } },
          ),
        ],
      },
      ['GPUPolicy default: Conflict: two have it'],
    ],
    ['a roll-out that stopped', { policies: [rolling('Stopped')] }, ['GPUPolicy default: RollingOut: so far']],
    ['nodes left out', { policies: [rolling('NodesLeftOut')] }, ['GPUPolicy default: RollingOut: so far']],
    ['a window unread', { policies: [rolling('WindowUnreadable')] }, ['GPUPolicy default: RollingOut: so far']],
    ['a canary', { policies: [rolling('CanaryAwaitsApproval')] }, ['GPUPolicy default: RollingOut: so far']],
    ['not a canary that waits', { policies: [rolling('CanaryWaits')] }, []],
    ['not a roll-out that goes on', { policies: [rolling('Progressing')] }, []],
  ])('are %s', (_, more, problems) => expect(fleet(more as Partial<FleetInput>).problems).toEqual(problems));
});

describe('one node', () => {
  it('as a story', () => {
    const node = fleet({ nodes: [aNode({ name: 'gpu-0' })], pods: PODS }).nodes[0];
    if (node === undefined) throw new Error('no node');
    golden(
      'node',
      nodeText(
        {
          ...node,
          timeline: timelineOf(
            stagesOf(aNode({ name: 'gpu-0' })),
            undefined,
            false,
            { toolkit: 4000, driver: 184_000 },
            { toolkit: 5000 },
          ),
          components: { driver: { revision: 'abc', pod: 'p', started: '2026-11-24T08:00:00Z' } },
          events: [
            {
              at: '2026-11-24T09:00:00Z',
              type: 'Normal',
              reason: 'GPUValidated',
              message: 'driver and device plugin validated',
              count: 2,
            },
          ],
          unread: [],
        },
        PIPE,
      ),
    );
  });
});

describe('wait', () => {
  const at = (node: RawNode | undefined) => progressOf('n', node, { default: { driver: 180_000 } });
  it.each([
    ['a node that is open', aNode({ name: 'n' }), 'validated', 0],
    ['a node that failed', walking('n', 'failed', 'driver: crashes'), 'failed', 1],
    ['a node on its way', walking('n', 'driver', ''), 'waiting', undefined],
    ['a closed node', aNode({ name: 'n', annotations: { [CLOSED]: 'awaiting toolkit' } }), 'waiting', undefined],
    ['no node', undefined, 'failed', 1],
    ['an unmanaged node', unmanaged('n'), 'failed', 1],
    [
      'a node that nobody has looked at',
      aNode({ name: 'n', labels: { [STATE]: '' }, annotations: { [PROOF]: '' } }),
      'waiting',
      undefined,
    ],
  ])('%s', (_, node, outcome, code) => {
    expect(at(node).outcome).toBe(outcome);
    expect(exitCode([at(node)])).toBe(code);
  });
  it('says how long a stage usually takes, or that nobody knows yet', () => {
    expect(progressText(at(walking('n', 'driver', '')))).toBe('n: driver since 2026-11-24T09:48:00Z, usually 3m');
    expect(progressText(at(walking('n', 'toolkit', '')))).toBe(
      'n: toolkit since 2026-11-24T09:48:00Z, no usual time yet',
    );
    expect(progressText(at(aNode({ name: 'n' })))).toMatch(/^n: validated at \S+$/);
  });
  it('prints a line only if something changed', () => {
    const first = [at(walking('n', 'driver', ''))];
    expect(news([], first)).toEqual(first);
    expect(news(first, first)).toEqual([]);
    expect(news(first, [at(aNode({ name: 'n' }))])).toHaveLength(1);
  });
  it('one failed node of several ends it', () =>
    expect(exitCode([at(aNode({ name: 'n' })), at(walking('n', 'failed', ''))])).toBe(1));
});

describe('marks', () => {
  it.each([
    ['hold', { [HOLD]: 'fans' }],
    ['release', { [HOLD]: null }],
    ['retry', { [RETRY]: String(NOW / 1000) }],
    ['prove', { [PROVE]: `driver-${NOW / 1000}` }],
  ] as const)('%s', (what, annotations) => expect(markOf(what, 'fans', 'driver', NOW)).toEqual(annotations));
});

describe('a manifest', () => {
  it.each([
    [
      'a Pod',
      'kind: Pod\nmetadata: {name: p, namespace: team}\nspec: {containers: []}',
      { metadata: { name: 'p', namespace: 'team' } },
    ],
    [
      'a Job',
      'kind: Job\nmetadata: {name: j}\nspec: {template: {metadata: {labels: {a: b}}, spec: {containers: []}}}',
      { metadata: { name: 'j', labels: { a: 'b' } } },
    ],
    [
      'a CronJob after a Service',
      'kind: Service\n---\nkind: CronJob\nmetadata: {name: c}\nspec: {jobTemplate: {spec: {template: {spec: {}}}}}',
      { metadata: { name: 'c' } },
    ],
  ])('of %s', (_, text, pod) => expect(podOf(text, 'f.yaml')).toMatchObject(pod));
  it('that is not YAML, or holds no pod, gets one sentence', () => {
    expect(() => podOf('a: [', 'f.yaml')).toThrow(/^f\.yaml is not YAML: /);
    expect(() => podOf('kind: Service', 'f.yaml')).toThrow('f.yaml holds no Pod, Deployment');
  });
});

it.each([
  ['2026-11-24T09:59:00Z', '60s'],
  ['2026-11-24T09:00:00Z', '60m'],
  ['2026-11-23T10:00:00Z', '24h'],
  ['2026-11-01T10:00:00Z', '23d'],
  ['', '-'],
])('the age of %s is %s', (at, text) => expect(age(at, NOW)).toBe(text));

describe('a pod that waits', () => {
  const waiting = (condition: object, metadata: object = {}) => {
    const pod = gpuPod('p', undefined, '1', { conditions: [{ type: 'PodScheduled', status: 'False', ...condition }] });
    return fleet({ pods: [{ ...pod, metadata: { ...pod.metadata, ...metadata } }] }).waiting;
  };
  it.each<[what: string, condition: object, expected: object]>([
    [
      'with the scheduler’s words and its time',
      { message: '0/3 nodes', lastTransitionTime: '2026-11-24T09:55:00Z' },
      { reason: '0/3 nodes', since: '2026-11-24T09:55:00Z' },
    ],
    ['with the reason where there are no words', { reason: 'SchedulingGated' }, { reason: 'SchedulingGated' }],
    ['since it was created where there is no time', {}, { since: '2026-11-24T09:00:00Z', reason: '' }],
  ])('is shown %s', (_, condition, expected) => expect(waiting(condition)).toMatchObject([expected]));
  it('is not shown once it is being deleted', () =>
    expect(waiting({}, { deletionTimestamp: '2026-11-24T09:55:00Z' })).toEqual([]));
});

it('shows how far a roll-out is, and nothing where there is none', () => {
  const text = (reason: string, status: string): string => {
    const conditions = [{ type: 'RollingOut', status, reason, message: '1 of 3 nodes' }];
    const report = fleet({ policies: [aPolicy({}, { status: { conditions } })] });
    return statusText(report, { width: undefined, colour: false, now: NOW });
  };
  expect(text('Progressing', 'True')).toContain('ROLL-OUTS\nPOLICY   HOW FAR\ndefault  Progressing: 1 of 3 nodes');
  expect(text('UpToDate', 'False')).not.toContain('ROLL-OUTS');
});
it('has no command for a node in its turn of a roll-out', () =>
  expect(
    fleet({ nodes: [aNode({ name: 'gpu-0', labels: { [STATE]: 'draining' }, annotations: { [CLOSED]: 'roll-out' } })] })
      .nodes[0],
  ).toMatchObject({ next: '', reason: 'GPU node closed: roll-out' }));
