import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { CLOSED, NODE_POLICY, STATE } from '../../core/keys.ts';
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
    node: (name) => facts.get(name),
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
      'CUDA older than the pod asks',
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
      }),
    );
    expect(text).toMatch(/1 of 3 nodes open/);
    expect(text).toMatch(/node-a +validated +open/);
    expect(text).toMatch(/b +driver +refused +node rebooted since validation/);
    expect(text).toContain('kubectl label node plain gpu-gate.dev/managed=true');
  });
  it('groups 500 nodes into a screenful', () => {
    const nodes = Array.from({ length: 500 }, (_, i) => (i % 2 === 0 ? aNode({ name: `n${i}` }) : unmanaged(`n${i}`)));
    expect(
      explanationText(
        explainPod({ pod: gpuPod(), nodes, policies: new Map([['default', aPolicy()]]), operandNamespace: 'o' }),
      ).split('\n').length,
    ).toBeLessThan(12);
  });
});
