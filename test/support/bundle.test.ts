// Secrets are planted wherever a bundle could take them from. None of them is in it.
import { describe, expect, it } from 'vitest';
import { filesOf, type Collected } from '../../support/bundle.ts';
import { parseSupportArgs } from '../../support/args.ts';
import {
  eventOf,
  isOurNode,
  nodeOf,
  ownPodOf,
  policyOf,
  sliceOf,
  taintRuleOf,
  userPodOf,
  webhookOf,
  workloadOf,
} from '../../support/pick.ts';
import { redacted } from '../../support/redact.ts';

const KEY = '-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49PLANTED\n-----END PRIVATE KEY-----';
const JWT = 'eyJhbGciOiJSUzI1NiIsImtpZCI6IlBMQU5URUQifQ.eyJpc3MiOiJQTEFOVEVEIn0.PLANTED-sig_nature';

describe('a text', () => {
  it.each([
    ['a key', `cannot read ${KEY}: refused`, 'cannot read [redacted]: refused'],
    ['a key whose end was cut off', KEY.slice(0, 50), '[redacted]'],
    ['a token', `401 for ${JWT}, again`, '401 for [redacted], again'],
    ['HTTP’s token', 'Authorization: Bearer PLANTED-abc.def failed', 'Authorization: [redacted] [redacted] failed'],
    ['HTTP’s token alone', 'sent bearer PLANTEDabcdef', 'sent bearer [redacted]'],
    ['a password in an address', 'pull https://joe:PLANTED@registry/x', 'pull https://[redacted]@registry/x'],
    ['a variable', 'env HF_TOKEN=PLANTED set', 'env HF_TOKEN=[redacted] set'],
    ['JSON', '{"password": "PLANTED with spaces", "a": 1}', '{"password": [redacted], "a": 1}'],
    ['an option', '--api-key=PLANTED --n=3', '--api-key=[redacted] --n=3'],
    ['a service’s token', 'nvapi-PLANTED-12345678 and hf_PLANTED12345', '[redacted] and [redacted]'],
    ['a key without a name', `x ${'aB3'.repeat(15)} y`, 'x [redacted] y'],
  ])('loses %s', (_, planted, left) => expect(redacted(planted)).toBe(left));
  it.each([
    'container driver of driver-y keeps crashing: exit code 1',
    `image nvcr.io/nvidia/driver@sha256:${'0f'.repeat(32)} not found`,
    'waiting for pod driver-7c9f8d6b5-x2x4z to be Ready, since 2026-01-02T03:04:05Z; now: kubectl gpu-gate retry gpu-0',
    '0/3 nodes are available: 2 GPU stack not validated: driver.',
  ])('without one stays: %s', (text) => expect(redacted(text)).toBe(text));
  it('is bounded', () => expect(redacted('x '.repeat(100_000)).length).toBeLessThanOrEqual(2000));
});

/** Everything that a cluster may hold of a secret, beside what a bundle shows. */
const planted = (n: number): string => `PLANTED-${n}`;
const meta = {
  namespace: 'team',
  name: 'thing',
  uid: 'u',
  labels: { secret: planted(1), 'gpu-gate.dev/injected': 'true' },
  annotations: {
    'kubectl.kubernetes.io/last-applied-configuration': planted(2),
    'gpu-gate.dev/hold': `token=${planted(3)}`,
  },
  managedFields: [{ manager: planted(4) }],
};
const container = {
  name: 'c',
  image: 'example/c:1',
  command: ['sh', '-c', planted(5)],
  args: [`--password=${planted(6)}`],
  env: [{ name: 'MODEL_TOKEN', value: planted(7) }],
  envFrom: [{ secretRef: { name: planted(8) } }],
  volumeMounts: [{ name: planted(9) }],
  resources: { limits: { 'nvidia.com/gpu': '1' } },
};
const RAW = {
  metadata: meta,
  spec: {
    containers: [container],
    template: { spec: { containers: [container] } },
    volumes: [{ secret: { secretName: planted(10) } }],
    imagePullSecrets: [{ name: planted(11) }],
    components: { driver: { env: [{ name: 'LICENCE', value: planted(12) }] } },
    providerID: planted(13),
  },
  status: {
    phase: 'Running',
    message: `password: ${planted(14)}`,
    conditions: [
      { type: 'GPUValidated', status: 'False', message: `Bearer ${planted(15)}` },
      { type: 'Foreign', status: 'True', message: planted(16) },
    ],
    containerStatuses: [
      { name: 'c', state: { terminated: { exitCode: 1, message: `key ${KEY} and ${JWT}`, containerID: planted(17) } } },
    ],
    addresses: [{ type: 'InternalIP', address: planted(18) }],
    nodeInfo: { kernelVersion: '6.8', machineID: planted(19) },
  },
  involvedObject: { kind: 'Pod', name: 'thing', fieldPath: planted(20) },
  reason: 'Failed',
  message: `pull https://joe:${planted(21)}@registry failed`,
  webhooks: [{ name: 'pods', clientConfig: { caBundle: planted(22) } }],
};
const collected: Collected = {
  at: '2026-01-02T03:04:05Z',
  status: `gpu-gate: 1 problem\nteam/thing waits: secret=${planted(23)}\n`,
  failed: [
    {
      name: 'gpu-0',
      reason: 'driver: crashed',
      message: `HF_TOKEN=${planted(24)} is wrong`,
      next: 'kubectl gpu-gate retry gpu-0',
    },
  ],
  versions: { images: [`https://joe:${planted(25)}@registry/x`] },
  lists: {
    'nodes.jsonl': [nodeOf(RAW)],
    'policies.jsonl': [
      policyOf({
        metadata: meta,
        spec: { components: RAW.spec.components },
        status: { conditions: [RAW.status.conditions[0]] },
      }),
    ],
    'pods.jsonl': [
      userPodOf(RAW),
      ownPodOf({ ...RAW, status: { ...RAW.status, conditions: [RAW.status.conditions[0]] } }),
    ],
    'workloads.jsonl': [workloadOf({ ...RAW, status: {} })],
    'events.jsonl': [eventOf(RAW)],
    'webhook.jsonl': [webhookOf(RAW)],
    'slices.jsonl': [
      sliceOf({
        metadata: meta,
        spec: {
          driver: 'gpu.nvidia.com',
          nodeName: 'gpu-0',
          pool: { name: 'gpu-0', generation: 2, resourceSliceCount: 1 },
          devices: [
            {
              name: 'gpu-3',
              attributes: { uuid: { string: planted(27) } },
              taints: [{ key: 'gpu.nvidia.com/xid', value: '79', effect: 'NoSchedule' }],
            },
          ],
        },
      }),
    ],
    'taint-rules.jsonl': [
      taintRuleOf({
        metadata: meta,
        spec: {
          deviceSelector: { driver: 'gpu.nvidia.com', pool: 'gpu-0', device: 'gpu-3' },
          taint: { key: 'gpu-gate.dev/device-failed', effect: 'NoSchedule' },
        },
      }),
    ],
  },
  metrics: { 'gpu-gate-0': ['a{reason="x"} 1', `b{t="token=${planted(26)}"} 2`] },
  unread: [{ what: 'Events', because: 'you have no right to read them' }],
};

describe('a bundle', () => {
  const files = filesOf(collected);
  const summary = files[0]?.text ?? '';
  it('holds none of the secrets that were planted', () => {
    for (const { name, text } of files) expect(text.match(/.{0,60}PLANTED.{0,60}/g), name).toBeNull();
  });
  it('opens with what is asked first', () => {
    expect(files[0]?.name).toBe('summary.txt');
    expect(summary).toContain('gpu-gate: 1 problem');
    expect(summary).toContain(
      'gpu-0: driver: crashed\n  HF_TOKEN=[redacted] is wrong\n  next: kubectl gpu-gate retry gpu-0',
    );
    expect(summary).toContain('not read: Events (you have no right to read them)');
  });
  it('names variables, and says what options of gpu-gate are set to', () => {
    const env = [
      { name: 'GPU_GATE_LOG_LEVEL', value: 'debug' },
      { name: 'OTHER', value: 'x' },
    ];
    expect(workloadOf({ spec: { template: { spec: { containers: [{ env }] } } } })['containers']).toEqual([
      { env: { GPU_GATE_LOG_LEVEL: 'debug', OTHER: '[not shown]' } },
    ]);
  });
  it('has devices with their taints, and rules that taint them', () => {
    const lineOf = (file: string): unknown => JSON.parse(files.find(({ name }) => name === file)?.text ?? '');
    expect(lineOf('slices.jsonl')).toMatchObject({
      nodeName: 'gpu-0',
      pool: { generation: 2, resourceSliceCount: 1 },
      devices: [{ name: 'gpu-3', taints: [{ key: 'gpu.nvidia.com/xid', value: '79' }] }],
    });
    expect(lineOf('taint-rules.jsonl')).toMatchObject({
      selector: { device: 'gpu-3' },
      taint: { key: 'gpu-gate.dev/device-failed' },
    });
  });
  it('is bounded, and says what it leaves out', () => {
    const many = {
      ...collected,
      lists: { 'many.jsonl': Array.from({ length: 5000 }, () => ({ text: 'x '.repeat(1000) })) },
    };
    const text = filesOf(many)[1]?.text ?? '';
    expect(text.length).toBeLessThan(4.2 * 1024 * 1024);
    expect(JSON.parse(text.trimEnd().split('\n').at(-1) ?? '')).toMatchObject({
      because: 'the file would be too large',
    });
  });
});

it('only nodes that carry a mark of gpu-gate are in it', () => {
  expect(isOurNode({ metadata: { labels: { 'gpu-gate.dev/managed': 'true' } } })).toBe(true);
  expect(isOurNode({ spec: { taints: [{ key: 'startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate' }] } })).toBe(
    true,
  );
  expect(isOurNode({ status: { conditions: [{ type: 'GPUValidated' }] } })).toBe(true);
  expect(isOurNode({ metadata: { labels: { a: 'b' } } })).toBe(false);
});

it('pods that have nothing to do with GPUs are not in it', () =>
  expect(userPodOf({ metadata: { name: 'p' }, spec: { containers: [{ name: 'c' }] } })).toBeUndefined());

describe('the command line', () => {
  it('has defaults', () =>
    expect(parseSupportArgs(['-o', 'x.tgz'], { KUBECONFIG: '/k' })).toEqual({
      ok: true,
      args: { file: 'x.tgz', kubeconfigs: ['/k'], ownNamespace: 'gpu-gate', operandNamespace: 'gpu-gate-operands' },
    }));
  it('refuses what it does not know', () => expect(parseSupportArgs(['--all'], {}).ok).toBe(false));
});
