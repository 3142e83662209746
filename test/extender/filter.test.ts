import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { CLOSED, HOLD, NODE_POLICY, PROOF, STATE } from '../../core/keys.ts';
import type { NodeView } from '../../core/node-proof.ts';
import { explainPod, explanationText } from '../../extender/explain.ts';
import { filter, preempt, prioritize, type View } from '../../extender/filter.ts';
import { nodeFacts, parseRequireCuda } from '../../extender/verdict.ts';
import { decodeArgs, decodePreemption, encodeFilter } from '../../extender/wire.ts';
import { aNode, aPod, aPolicy, NOW } from '../support/objects.ts';

const unmanaged = (name = 'plain'): NodeView => ({ metadata: { name, uid: 'x', labels: {} } });
const view = (nodes: readonly NodeView[], policy: GpuPolicy | undefined = aPolicy()): View => {
  const facts = new Map(nodes.map((node) => [node.metadata.name, nodeFacts(node)]));
  return {
    nodes: facts,
    policies: new Map(policy === undefined ? [] : [[policy.name, policy]]),
    operandNamespace: 'gpu-gate-operands',
  };
};
const args = (pod: object, names: readonly string[]) => {
  const decoded = decodeArgs({ Pod: pod, Nodes: null, NodeNames: names });
  if (!decoded.ok) throw new Error(decoded.because);
  return decoded.args;
};
const verdict = (pod: object, node: NodeView, policy?: GpuPolicy): string =>
  filter(args(pod, [node.metadata.name]), view([node], policy)).result.refused.get(node.metadata.name) ?? 'pass';
const gpuPod = (annotations: Record<string, string> = {}, env: { name: string; value: string }[] = []) =>
  aPod({ gpus: '1', annotations, container: { env } });

const CUDA_REASON = 'driver or its CUDA is not what NVIDIA_REQUIRE_CUDA of the pod asks';
const requiring = (value: string) => gpuPod({}, [{ name: 'NVIDIA_REQUIRE_CUDA', value }]);

describe('a GPU pod and a node', () => {
  it.each([
    ['open', gpuPod(), aNode(), undefined, 'pass'],
    ['rebooted', gpuPod(), aNode({ boot: 'b' }), undefined, 'node rebooted since validation'],
    [
      'closed',
      gpuPod(),
      aNode({ annotations: { [CLOSED]: 'awaiting device-plugin-validation' } }),
      undefined,
      'GPU node closed: awaiting device-plugin-validation',
    ],
    ['of another policy', gpuPod(), aNode({ annotations: { [NODE_POLICY]: 'b' } }), undefined, 'other GPU policy'],
    ['not opted in, Auto', gpuPod(), unmanaged(), undefined, 'node not opted in to gpu-gate'],
    ['not opted in, Allow', gpuPod(), unmanaged(), aPolicy({ unmanagedNodes: 'Allow' }), 'pass'],
    ['any, while the policy audits', gpuPod(), unmanaged(), aPolicy({}, { status: {} }), 'pass'],
    ['any, while suspended', gpuPod(), aNode({ boot: 'b' }), aPolicy({ suspend: true }), 'pass'],
    ['any, for a pod without GPUs', aPod(), unmanaged(), undefined, 'pass'],
    [
      'any, for our validation pod',
      {
        metadata: {
          namespace: 'gpu-gate-operands',
          labels: {
            'app.kubernetes.io/part-of': 'gpu-gate',
            'app.kubernetes.io/component': 'device-plugin-validation',
          },
        },
        spec: gpuPod().spec,
      },
      aNode({ boot: 'b' }),
      undefined,
      'pass',
    ],
    [
      'any, for one that only says it is ours',
      aPod({
        gpus: '1',
        labels: { 'app.kubernetes.io/part-of': 'gpu-gate', 'app.kubernetes.io/component': 'device-plugin-validation' },
      }),
      aNode({ boot: 'b' }),
      undefined,
      'node rebooted since validation',
    ],
    ['with a driver that is new enough', gpuPod({ 'gpu-gate.dev/min-driver': '595' }), aNode(), undefined, 'pass'],
    [
      'with a driver that is too old',
      gpuPod({ 'gpu-gate.dev/min-driver': '600' }),
      aNode(),
      undefined,
      'GPU driver older than the pod asks',
    ],
    [
      'with the CUDA that the image’s env asks',
      gpuPod({}, [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=12.4 brand=tesla,driver>=470' }]),
      aNode(),
      undefined,
      'pass',
    ],
    [
      'with an older CUDA',
      gpuPod({}, [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=14.0' }]),
      aNode(),
      undefined,
      CUDA_REASON,
    ],
    ['held', gpuPod(), aNode({ annotations: { [HOLD]: '' } }), undefined, 'GPU node held by an operator'],
    ['cordoned', gpuPod(), aNode({ cordoned: true }), undefined, 'node cordoned'],
    ['not Ready', gpuPod(), aNode({ ready: false }), undefined, 'node not Ready'],
    [
      'on its way',
      gpuPod(),
      aNode({ validated: false, labels: { [STATE]: 'driver' } }),
      undefined,
      'GPU stack not validated: driver',
    ],
    [
      'that failed',
      gpuPod(),
      {
        ...aNode({ labels: { [STATE]: 'failed' } }),
        status: {
          nodeInfo: { bootID: 'boot-1' },
          conditions: [{ type: 'GPUValidated', status: 'False', reason: 'DevicePluginValidationFailed' }],
        },
      },
      undefined,
      'GPU stack failed: device-plugin-validation',
    ],
    ['whose driver no clause takes', requiring('brand=tesla,driver>=470,driver<471'), aNode(), undefined, CUDA_REASON],
    ['whose driver one of two clauses takes', requiring('cuda>=14 driver>=590,driver<600'), aNode(), undefined, 'pass'],
    [
      'with an older CUDA than the second GPU container asks',
      aPod({
        spec: {
          containers: ['cuda>=12', 'cuda>=14'].map((value) => ({
            resources: { limits: { 'nvidia.com/gpu': '1' } },
            env: [{ name: 'NVIDIA_REQUIRE_CUDA', value }],
          })),
        },
      }),
      aNode(),
      undefined,
      CUDA_REASON,
    ],
    [
      'with an older CUDA than a container without GPUs says',
      aPod({
        spec: {
          containers: [
            { resources: { limits: { 'nvidia.com/gpu': '1' } } },
            { env: [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=14' }] },
          ],
        },
      }),
      aNode(),
      undefined,
      'pass',
    ],
    [
      'with an older CUDA, the requirement switched off',
      gpuPod({}, [
        { name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=14' },
        { name: 'NVIDIA_DISABLE_REQUIRE', value: 'true' },
      ]),
      aNode(),
      undefined,
      'pass',
    ],
    [
      'any, for a policy that does not exist',
      gpuPod({ 'gpu-gate.dev/policy': 'nope' }),
      aNode(),
      undefined,
      'the GPUPolicy that the pod names does not exist',
    ],
    ['any, where there is no policy', gpuPod(), unmanaged(), aPolicy({}, { metadata: { name: 'other' } }), 'pass'],
    [
      'any, for a pod without GPUs whose annotation is malformed',
      aPod({ annotations: { 'gpu-gate.dev/min-driver': 'new' } }),
      unmanaged(),
      undefined,
      'pass',
    ],
    [
      'any, for a validation pod of another namespace with our labels and a namespace-like name',
      aPod({
        gpus: '1',
        namespace: 'gpu-gate-operands-2',
        labels: { 'app.kubernetes.io/part-of': 'gpu-gate', 'app.kubernetes.io/component': 'driver-validation' },
      }),
      aNode({ boot: 'b' }),
      undefined,
      'node rebooted since validation',
    ],
    [
      'any, for an operand in our namespace that asks for a GPU',
      aPod({
        gpus: '1',
        namespace: 'gpu-gate-operands',
        labels: { 'app.kubernetes.io/part-of': 'gpu-gate', 'app.kubernetes.io/component': 'dcgm-exporter' },
      }),
      aNode({ boot: 'b' }),
      undefined,
      'node rebooted since validation',
    ],
  ])('node %s', (_, pod, node, policy, expected) => expect(verdict(pod, node, policy)).toBe(expected));

  it('a node that the cache does not know is refused', () =>
    expect(filter(args(gpuPod(), ['nowhere']), view([])).result.refused.get('nowhere')).toBe(
      'GPU state not known yet',
    ));
  it('NVIDIA_REQUIRE_CUDA: a space is OR, a comma AND', () =>
    expect(parseRequireCuda('cuda>=12.4,driver>=550 cuda>=11')).toEqual([
      [
        { what: 'cuda', operator: '>=', version: '12.4' },
        { what: 'driver', operator: '>=', version: '550' },
      ],
      [{ what: 'cuda', operator: '>=', version: '11' }],
    ]));
});

describe('the protocol', () => {
  it('answers with empty lists, never null, and every refusal unresolvable', () => {
    const { result } = filter(args(gpuPod(), ['node-a']), view([aNode({ boot: 'b' })]));
    expect(JSON.parse(encodeFilter(result, undefined))).toEqual({
      Nodes: null,
      NodeNames: [],
      FailedNodes: {},
      FailedAndUnresolvableNodes: { 'node-a': 'node rebooted since validation' },
      Error: '',
    });
  });
  it.each([[null], [[]], [{}], [{ Pod: {} }], [{ Pod: {}, NodeNames: [1] }], [{ Pod: {}, Nodes: { items: [{}] } }]])(
    'says what is wrong with %j',
    (body) => expect(decodeArgs(body)).toMatchObject({ ok: false }),
  );
  it('keeps victims only on open nodes', () => {
    const decoded = decodePreemption({
      Pod: gpuPod(),
      NodeNameToVictims: null,
      NodeNameToMetaVictims: { open: { Pods: [{ UID: 'a' }], NumPDBViolations: 1 }, shut: { Pods: [{ UID: 'b' }] } },
    });
    if (!decoded.ok) throw new Error(decoded.because);
    expect([...preempt(decoded.args, view([aNode({ name: 'open' }), aNode({ name: 'shut', boot: 'b' })]))]).toEqual([
      ['open', { uids: ['a'], violations: 1 }],
    ]);
  });
  it('prefers the stack that has not changed for longer: a restart after the proof counts', () => {
    const proof = (started: string): Record<string, string> => ({
      [PROOF]: JSON.stringify({
        node: 'uid-node-b',
        boot: 'boot-1',
        at: '2026-11-24T09:00:00Z',
        components: { driver: { revision: 'r', pod: 'p', started } },
      }),
    });
    const score = (started: string): number | undefined =>
      prioritize(
        args(gpuPod(), ['node-b']),
        view([aNode({ name: 'node-b', annotations: proof(started) })]),
        NOW + 24 * 3_600_000,
      )[0]?.Score;
    expect([score('2026-11-24T08:00:00Z'), score('2026-11-25T09:00:00Z')]).toEqual([10, 1]);
  });
  it('a pod without GPUs is not drawn to GPU nodes', () =>
    expect(prioritize(args(aPod(), ['node-a']), view([aNode()]), NOW + 48 * 3_600_000)).toEqual([
      { Host: 'node-a', Score: 0 },
    ]));
  it('prefers the older proof', () => {
    const scores = prioritize(
      args(gpuPod(), ['node-a', 'shut']),
      view([aNode(), aNode({ name: 'shut', boot: 'b' })]),
      NOW + 48 * 3_600_000,
    );
    expect(scores).toEqual([
      { Host: 'node-a', Score: 10 },
      { Host: 'shut', Score: 0 },
    ]);
  });
});

const kinds = fc.constantFrom('open', 'shut', 'plain', 'unknown');
const nodesOf = (list: readonly string[]): NodeView[] =>
  list.flatMap((kind, i) =>
    kind === 'unknown'
      ? []
      : [
          kind === 'open'
            ? aNode({ name: `n${i}` })
            : kind === 'shut'
              ? aNode({ name: `n${i}`, boot: 'b' })
              : unmanaged(`n${i}`),
        ],
  );

describe('laws of the filter', () => {
  it('every node given comes back exactly once, none that was not given, and order does not matter', () => {
    fc.assert(
      fc.property(fc.array(kinds, { maxLength: 30 }), fc.boolean(), (list, twice) => {
        const names = list.map((_, i) => `n${i}`);
        const given = twice ? [...names, ...names] : names;
        const { result } = filter(args(gpuPod(), given), view(nodesOf(list)));
        expect([...result.passed, ...result.refused.keys()].toSorted()).toEqual(names.toSorted());
        const { result: reversed } = filter(args(gpuPod(), given.toReversed()), view(nodesOf(list)));
        expect([...reversed.passed].toSorted()).toEqual([...result.passed].toSorted());
      }),
    );
  });
  it('whole nodes and names are judged alike', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('open', 'shut', 'plain'), { maxLength: 20 }), (list) => {
        const nodes = nodesOf(list);
        const byName = filter(
          args(
            gpuPod(),
            nodes.map((node) => node.metadata.name),
          ),
          view(nodes),
        ).result;
        const decoded = decodeArgs({ Pod: gpuPod(), Nodes: { items: nodes }, NodeNames: null });
        if (!decoded.ok) throw new Error(decoded.because);
        const whole = filter(decoded.args, view([])).result;
        expect([whole.passed, [...whole.refused]]).toEqual([byName.passed, [...byName.refused]]);
      }),
    );
  });
});

describe('explain', () => {
  it('shows every node, its verdict and what next', () => {
    const text = explanationText(
      explainPod({
        pod: gpuPod(),
        nodes: [aNode(), aNode({ name: 'b', boot: 'x', labels: { [STATE]: 'driver' } }), unmanaged()],
        policies: new Map([['default', aPolicy()]]),
        operandNamespace: 'o',
        webhookWould: 'it would get runtimeClassName by policy default',
      }),
    );
    expect(text).toMatch(/1 of 3 nodes open/);
    expect(text).toContain('the webhook did not inject this pod; created now, it would get runtimeClassName');
    expect(text).toMatch(/node-a +validated +open/);
    expect(text).toMatch(/b +driver +refused +node rebooted since validation/);
    expect(text).toContain('kubectl label node plain gpu-gate.dev/managed=true');
  });
  it('groups 500 nodes into a screenful', () => {
    const nodes = Array.from({ length: 500 }, (_, i) => (i % 2 === 0 ? aNode({ name: `n${i}` }) : unmanaged(`n${i}`)));
    expect(
      explanationText(
        explainPod({
          pod: gpuPod(),
          nodes,
          policies: new Map([['default', aPolicy()]]),
          operandNamespace: 'o',
          webhookWould: '',
        }),
      ).split('\n').length,
    ).toBeLessThan(12);
  });
});
