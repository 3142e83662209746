import { claiming, DEVICES } from '../builders/devices.ts';
import { NO_DEVICES } from '../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import { CLOSED, HOLD, PROOF, STATE, WALK } from '../../core/keys.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { withTimes } from '../../core/said.ts';
import type { NodeView } from '../../gate/node-proof.ts';
import { explanationText } from '../../explain/table.ts';
import { explainPod, type ExplainInput } from '../../explain/explanation.ts';
import { aNode, aPod, aPolicy } from '../builders/objects.ts';

const gpuPod = (annotations: Record<string, string> = {}, spec: object = {}, container: object = {}) =>
  aPod({ gpus: '1', annotations, container, spec: { schedulerName: 'gpu-gate-scheduler', ...spec } });
const policy = aPolicy({ injection: { schedulerName: 'gpu-gate-scheduler' } });
const explained = (nodes: readonly NodeView[], more: Partial<ExplainInput> = {}) =>
  explainPod({
    pod: gpuPod(),
    nodes,
    policies: new Map([['default', policy]]),
    devices: NO_DEVICES,
    unread: [],
    operandNamespace: 'o',
    webhookWould: 'it would get runtimeClassName by policy default',
    ...more,
  });
const unmanaged = (name = 'plain'): NodeView => ({ metadata: { name, uid: 'x', labels: {} } });
const PROVEN = '2026-11-24T09:00:00Z';
const SINCE = '2026-11-24T08:00:00.000Z';
const walk = (name: string, since = SINCE, stage = 'driver') =>
  JSON.stringify({ node: `uid-${name}`, boot: 'boot-1', stage, since });
/** A node whose condition GPUValidated changed at another time than anything that is asked here. */
const withConditions = (node: NodeView, ready: object, validated: object): NodeView => ({
  ...node,
  status: {
    ...node.status,
    conditions: [
      { type: 'Ready', status: 'True', lastTransitionTime: '2026-11-01T01:00:00Z', ...ready },
      { type: 'GPUValidated', status: 'True', lastTransitionTime: '2026-11-01T02:00:00Z', ...validated },
    ],
  },
});
/** The walk remembers what the condition says, its times apart. */
const walking = (name: string, text: string, since = SINCE): NodeView => {
  const said = { text, at: since, retryAt: '2026-11-24T11:00:00.000Z', command: `kubectl annotate node ${name} x=1` };
  const memory = JSON.stringify({ node: `uid-${name}`, boot: 'boot-1', stage: 'driver', since, said });
  return withConditions(
    aNode({ name, labels: { [STATE]: 'driver' }, annotations: { [PROOF]: '', [WALK]: memory } }),
    {},
    { status: 'False', reason: 'Driver', message: withTimes(said) },
  );
};

describe('explain: a claim', () => {
  const noted = (how: object) =>
    explained([aNode()], { pod: aPod({ spec: claiming(how) }), devices: DEVICES }).notes[0];
  it.each([
    [{ resourceClaimName: 'gpu' }, 'claim gpu (class gpu.nvidia.com): not allocated yet'],
    [
      { resourceClaimName: 'here' },
      'claim here (class gpu.nvidia.com): allocated gpu.nvidia.com/node-a/gpu-3 on node node-a, so only that node counts for this pod',
    ],
    [{ resourceClaimName: 'fpga' }, 'claim fpga (class fpga): not allocated yet; not a GPU of the policy'],
    [{ resourceClaimTemplateName: 'gpu' }, 'a claim of template gpu (class gpu.nvidia.com): not allocated yet'],
    [{ resourceClaimName: 'late' }, 'claim late: not known'],
  ])('%j', (how, note) => expect(noted(how)).toBe(note));
  it('that is not known: no node, and what is awaited', () => {
    const { summary, rows } = explained([aNode()], { pod: aPod({ spec: claiming({ resourceClaimName: 'late' }) }) });
    expect(summary).toBe(
      'a resource claim of the pod is not known yet: ResourceClaim team/late is not known yet; the pod is retried',
    );
    expect(rows[0]).toMatchObject({ verdict: 'refused', kind: 'claim-unknown' });
  });
});

describe('explain: a node', () => {
  it.each([
    ['open: since its proof', aNode(), '', PROVEN, ''],
    [
      'not Ready: since it is not, and what its kubelet says',
      withConditions(
        aNode(),
        {
          status: 'Unknown',
          lastTransitionTime: '2026-11-24T09:30:00Z',
          message: 'Kubelet stopped posting node status.',
        },
        {},
      ),
      'node not Ready',
      '2026-11-24T09:30:00Z',
      'Kubelet stopped posting node status.: see kubectl describe node node-a',
    ],
    [
      'walking: since the stage began, and what is awaited',
      walking('node-a', 'driver: waiting for its pod'),
      'GPU stack not validated: driver',
      SINCE,
      `driver: waiting for its pod, since ${SINCE}; retried after 2026-11-24T11:00:00.000Z, or now: kubectl annotate node node-a x=1`,
    ],
    [
      'closed: since the stage that was lost, though the condition is True for longer',
      withConditions(
        aNode({ annotations: { [CLOSED]: 'awaiting device-plugin', [WALK]: walk('node-a', SINCE, 'device-plugin') } }),
        {},
        { message: 'no new GPU pods, device-plugin: its pod is gone' },
      ),
      'GPU node closed: awaiting device-plugin',
      SINCE,
      'no new GPU pods, device-plugin: its pod is gone',
    ],
    [
      'closed by an opt-out: no walk tells since when',
      withConditions(
        aNode({ annotations: { [CLOSED]: 'opting out', [WALK]: walk('node-a', SINCE, 'done') } }),
        {},
        { message: 'waiting for 2 GPU pods to end' },
      ),
      'GPU node closed: opting out',
      '',
      'waiting for 2 GPU pods to end',
    ],
    [
      'rebooted: its condition still tells of the time before, and is not shown',
      withConditions(aNode({ boot: 'boot-2' }), {}, { message: 'driver and device plugin validated' }),
      'node rebooted since validation',
      '',
      'revalidation is automatic; if this persists, check that gpu-gate-reconciler is running',
    ],
    [
      'opted in, and the walk has not begun',
      { metadata: { name: 'new', uid: 'u', labels: { 'gpu-gate.dev/managed': 'true' } } },
      'GPU stack not validated: walk not started',
      '',
      'the walk begins by itself; if this persists, check that gpu-gate-reconciler is running',
    ],
    [
      'of another policy: how the pod could name it',
      aNode({ annotations: { 'gpu-gate.dev/node-policy': 'pool' } }),
      'other GPU policy',
      '',
      "annotate the pod's template gpu-gate.dev/policy: pool, if it may run there",
    ],
    [
      'not Ready, and its kubelet says nothing',
      aNode({ ready: false }),
      'node not Ready',
      '',
      'see kubectl describe node node-a',
    ],
    [
      'held',
      aNode({ annotations: { [HOLD]: '' } }),
      'GPU node held by an operator',
      '',
      'kubectl annotate node node-a gpu-gate.dev/hold-',
    ],
    ['cordoned', aNode({ cordoned: true }), 'node cordoned', '', 'kubectl uncordon node-a'],
    [
      'not opted in',
      unmanaged(),
      'node not opted in to gpu-gate',
      '',
      'kubectl label node plain gpu-gate.dev/managed=true',
    ],
  ])('%s', (_, node, reason, since, next) =>
    expect(explained([node]).rows).toEqual([
      expect.objectContaining({ verdict: reason === '' ? 'open' : 'refused', reason, since, next }),
    ]),
  );

  it('too old for the pod: what it has', () =>
    expect(explained([aNode()], { pod: gpuPod({ 'gpu-gate.dev/min-driver': '600' }) }).rows[0]).toMatchObject({
      reason: 'GPU driver older than the pod requires',
      next: 'the node has driver 595.91.07, CUDA 13.1',
    }));
});

describe('explain: a pod', () => {
  it.each([
    ['that names an unknown policy', { 'gpu-gate.dev/policy': 'nope' }, 'there is no GPUPolicy nope'],
    [
      'with a malformed annotation: the text that is in no reason',
      { 'gpu-gate.dev/min-driver': 'new' },
      '"new" is not a driver version',
    ],
  ])('%s', (_, annotations, detail) => {
    const { summary, rows } = explained([aNode()], { pod: gpuPod(annotations) });
    expect(summary).toContain(detail);
    expect(rows[0]).toMatchObject({ verdict: 'refused', since: '', next: expect.stringContaining(detail) });
    expect(rows[0]?.reason).not.toContain('new ');
  });
  it('that gpu-gate does not judge: nothing is reported about the nodes', () =>
    expect(explained([aNode()], { pod: aPod() })).toMatchObject({
      notes: [],
      rows: [{ verdict: 'open', since: '', next: '' }],
    }));
  it('whose scheduler may not ask', () => {
    expect(explained([]).notes).toEqual([]);
    const note = expect.stringMatching(/^its scheduler, \S+, asks gpu-gate only if/);
    expect(explained([], { pod: aPod({ gpus: '1' }) }).notes).toEqual([
      expect.stringContaining('default-scheduler, asks'),
    ]);
    expect(explained([], { pod: gpuPod({}, { schedulerName: 'volcano' }) }).notes).toEqual([note]);
    expect(explained([], { policies: new Map([['default', aPolicy()]]) }).notes).toEqual([note]);
  });
  it('that its own selector or tolerations keep off: the gate lets it in, and the row says what does not', () => {
    const taints = [{ key: 'nvidia.com/gpu', value: 'present', effect: 'NoSchedule' }];
    const behind = { ...aNode({ name: 'behind' }), spec: { taints } };
    const walks = { ...walking('walks', 'driver: waiting for its pod'), spec: { taints } };
    const text = 'the pod does not tolerate the taint nvidia.com/gpu=present:NoSchedule';
    const advice = 'add a toleration to the pod, or to injection.tolerations of its GPUPolicy';
    const explanation = explained([behind, walks, aNode()]);
    expect(explanation.rows).toMatchObject([
      { node: 'behind', verdict: 'kept off', reason: text, keptOff: text, kind: '', next: advice },
      { node: 'walks', verdict: 'refused', reason: 'GPU stack not validated: driver', keptOff: text },
      { node: 'node-a', verdict: 'open', reason: '', keptOff: '' },
    ]);
    expect(explanation.summary).toContain('1 of 3 nodes open to it');
    const shown = explanationText(explanation);
    expect(shown).toMatch(/behind +validated +kept off +the pod does not tolerate the taint/);
    expect(shown).toContain(`GPU stack not validated: driver; ${text}`);
    const tolerations = [{ key: 'nvidia.com/gpu', operator: 'Exists' }];
    expect(explained([behind], { pod: gpuPod({}, { tolerations }) }).rows[0]).toMatchObject({ verdict: 'open' });
    expect(explained([behind], { pod: gpuPod({}, { nodeName: 'behind' }) }).rows[0]).toMatchObject({ verdict: 'open' });
  });
  it('whose requirement cannot be read', () => {
    const env = [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=v14' }];
    expect(explained([], { pod: gpuPod({}, {}, { env }) }).notes).toEqual([
      'NVIDIA_REQUIRE_CUDA: "cuda>=v14" cannot be read and is not judged; write one such as "cuda>=12.4"',
    ]);
  });
});

describe('explain: what the webhook did', () => {
  const recorded = (record: string): string =>
    explained([], { pod: gpuPod({ 'gpu-gate.dev/injection': record }) }).webhook;
  it.each([
    [
      { policy: 'default', injected: ['runtimeClassName', 'env'], skipped: [] },
      'the webhook injected runtimeClassName, env by policy default',
    ],
    [
      { policy: 'default', skipped: [{ what: 'driverVolumes', because: 'Pod Security baseline' }] },
      'the webhook injected nothing by policy default; left out: driverVolumes (Pod Security baseline)',
    ],
    [{}, 'the webhook injected nothing by policy ?'],
    [{ injected: 'x' }, 'the annotation gpu-gate.dev/injection was edited and cannot be read'],
    [null, 'the annotation gpu-gate.dev/injection was edited and cannot be read'],
  ])('by the record %j', (record, text) => expect(recorded(JSON.stringify(record))).toBe(text));
  it('by a record that is not JSON', () => expect(recorded('{')).toContain('was edited'));
});

describe('explain: a policy that does not enforce', () => {
  it('is explained as if it enforced', () => {
    const auditing = aPolicy({ injection: { schedulerName: 'gpu-gate-scheduler' } }, { status: {} });
    const { summary, rows } = explained([unmanaged()], { policies: new Map([['default', auditing]]) });
    expect(summary).toContain('does not enforce yet');
    expect(rows[0]).toMatchObject({ verdict: 'refused', kind: 'not-opted-in' });
  });
  it.each([
    ['none', new Map<string, GpuPolicy>(), 'no GPUPolicy applies'],
    ['a suspended one', new Map([['default', aPolicy({ suspend: true })]]), 'suspended'],
  ])('%s', (_, policies, text) => {
    const { summary, rows } = explained([unmanaged()], { policies });
    expect(summary).toContain(text);
    expect(rows[0]?.verdict).toBe('open');
  });
});

describe('explain: as text', () => {
  it('shows every node, its verdict, since when and what next', () => {
    const text = explanationText(
      explained([aNode(), aNode({ name: 'b', boot: 'x', labels: { [STATE]: 'driver' } }), unmanaged()]),
    );
    expect(text).toMatch(/1 of 3 nodes open/);
    expect(text).toContain('the webhook did not inject this pod; created now, it would get runtimeClassName');
    expect(text).toMatch(/node-a +validated +open +2026-11-24T09:00:00Z/);
    expect(text).toMatch(/b +driver +refused +node rebooted since validation/);
    expect(text).toContain('kubectl label node plain gpu-gate.dev/managed=true');
  });
  it('groups 500 nodes into a screenful', () => {
    const nodes = Array.from({ length: 500 }, (_, i) => (i % 2 === 0 ? aNode({ name: `n${i}` }) : unmanaged(`n${i}`)));
    const lines = explanationText(explained(nodes)).split('\n');
    expect(lines.length).toBeLessThan(12);
    // The command is for all 250, not for the one that is named.
    expect(lines.find((line) => line.includes('not opted in'))).toMatch(
      /250 nodes, such as n1 .* kubectl label node \$\(node main\.ts explain pod -n team -o json \| jq -r '\.rows\[\] \| select\(\.kind == "not-opted-in" and \.state == "-"\)\.node'\) gpu-gate\.dev\/managed=true$/,
    );
  });
  it('groups: the earliest time that is known, one message where all say the same, else that they differ', () => {
    const lineOf = (...more: NodeView[]): string =>
      explanationText(explained([...Array.from({ length: 20 }, (_, i) => aNode({ name: `n${i}` })), ...more]))
        .split('\n')
        .find((line) => line.includes('GPU stack')) ?? '';
    const early = '2026-11-24T07:00:00.000Z';
    const same = lineOf(
      walking('a', 'driver: crashed', SINCE),
      walking('b', 'driver: crashed', early),
      aNode({ name: 'c', labels: { [STATE]: 'driver' }, annotations: { [PROOF]: '' } }),
    );
    expect(same).toContain(early);
    expect(same).toMatch(/2 different messages, such as: driver: crashed/);
    expect(lineOf(walking('a', 'driver: crashed', SINCE), walking('b', 'driver: crashed', early))).toMatch(
      /  driver: crashed$/,
    );
    const held = explanationText(
      explained([
        ...Array.from({ length: 20 }, (_, i) => aNode({ name: `n${i}` })),
        ...['x', 'y'].map((name) => aNode({ name, annotations: { [HOLD]: '' } })),
      ]),
    );
    expect(held).toContain('kubectl annotate node x y gpu-gate.dev/hold-');
  });
});

describe('explain: a pod that passes everywhere', () => {
  it.each<[what: string, more: Partial<ExplainInput>, summary: string]>([
    ['a pod without GPUs', { pod: aPod() }, 'requests no GPU of its policy, so gpu-gate does not judge it'],
    ['no policy', { policies: new Map() }, 'no GPUPolicy applies to it, so it may go to every node'],
    [
      'a suspended policy',
      { policies: new Map([['default', aPolicy({ suspend: true })]]) },
      'its GPUPolicy is suspended, so it may go to every node',
    ],
  ])('%s', (_, more, summary) => {
    const { summary: said, rows } = explained([aNode(), unmanaged()], more);
    expect(said).toBe(summary);
    expect(rows.map(({ verdict }) => verdict)).toEqual(['open', 'open']);
  });
});

describe('explain: what the webhook did', () => {
  const record = (value: unknown): string =>
    explained([], {
      pod: gpuPod({ 'gpu-gate.dev/injection': typeof value === 'string' ? value : JSON.stringify(value) }),
    }).webhook;
  it.each<[what: string, value: unknown, sentence: string]>([
    [
      'what it injected',
      { policy: 'default', injected: ['runtimeClassName', 'volumes'] },
      'the webhook injected runtimeClassName, volumes by policy default',
    ],
    [
      'what it left out, and why',
      {
        policy: 'default',
        injected: ['volumes'],
        skipped: [{ what: 'runtimeClassName', because: 'RuntimeClass x does not exist' }],
      },
      'the webhook injected volumes by policy default; left out: runtimeClassName (RuntimeClass x does not exist)',
    ],
    ['that it injected nothing', { policy: 'default', injected: [] }, 'the webhook injected nothing by policy default'],
    ['a record without a policy', {}, 'the webhook injected nothing by policy ?'],
    ['an edited record', '{', 'the annotation gpu-gate.dev/injection was edited and cannot be read'],
  ])('%s', (_, value, sentence) => expect(record(value)).toBe(sentence));
  it('what it would do now', () =>
    expect(explained([]).webhook).toBe(
      'the webhook did not inject this pod; created now, it would get runtimeClassName by policy default',
    ));
});
