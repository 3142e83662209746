import { NO_DEVICES } from '../../gate/devices.ts';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { CLOSED, HOLD, NODE_POLICY, PROOF, STATE, WALK } from '../../core/keys.ts';
import type { NodeView } from '../../gate/node-proof.ts';
import { filter, preempt, prioritize, type View } from '../../extender/verbs.ts';
import { nodeFacts } from '../../gate/verdict.ts';
import { decodeArgs, decodePreemption, encodeFilter } from '../../extender/wire.ts';
import { aNode, aPod, aPolicy, NOW } from '../builders/objects.ts';

const unmanaged = (name = 'plain'): NodeView => ({ metadata: { name, uid: 'x', labels: {} } });
const view = (nodes: readonly NodeView[], policy: GpuPolicy | undefined = aPolicy()): View => {
  const facts = new Map(nodes.map((node) => [node.metadata.name, nodeFacts(node)]));
  return {
    nodes: facts,
    policies: new Map(policy === undefined ? [] : [[policy.name, policy]]),
    devices: NO_DEVICES,
    operandNamespace: 'gpu-gate-operands',
  };
};
const args = (pod: object, names: readonly string[]) => {
  const decoded = decodeArgs({ Pod: pod, Nodes: null, NodeNames: names });
  if (!decoded.ok) throw new Error(decoded.because);
  return decoded.args;
};
const verdict = (pod: object, node: NodeView, policy?: GpuPolicy): string =>
  filter(args(pod, [node.metadata.name]), view([node], policy)).result.refused.get(node.metadata.name)?.sentence ??
  'pass';
const gpuPod = (annotations: Record<string, string> = {}, env: { name: string; value: string }[] = []) =>
  aPod({ gpus: '1', annotations, container: { env } });

/** A proof as a default install writes it, where no feature discovery tells the CUDA. */
const proofWith = (versions: object, name = 'node-a') =>
  aNode({
    name,
    annotations: {
      [PROOF]: JSON.stringify({ node: `uid-${name}`, boot: 'boot-1', at: '2026-11-24T09:00:00Z', ...versions }),
    },
  });
const FAILED_WALK = JSON.stringify({
  node: 'uid-node-a',
  stage: 'device-plugin-validation',
  failed: { stage: 'device-plugin-validation' },
});
const CUDA_REASON = "driver/CUDA version does not satisfy the pod's NVIDIA_REQUIRE_CUDA";
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
      'GPU driver older than the pod requires',
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
    [
      'with a driver of unknown version, which is not new enough for anybody',
      gpuPod({ 'gpu-gate.dev/min-driver': '400' }),
      proofWith({ driver: '470.82-grid' }),
      undefined,
      'GPU driver version not known',
    ],
    [
      'not opted in, Allow, for a pod that requires a minimum driver, because the driver there is unknown',
      gpuPod({ 'gpu-gate.dev/min-driver': '400' }),
      unmanaged(),
      aPolicy({ unmanagedNodes: 'Allow' }),
      'GPU driver version not known',
    ],
    [
      'not opted in, Allow, for a pod that requires a CUDA: the toolkit looks at its start',
      requiring('cuda>=12.4'),
      unmanaged(),
      aPolicy({ unmanagedNodes: 'Allow' }),
      'pass',
    ],
    [
      'whose proof names no CUDA: an older one than asked by its driver',
      requiring('cuda>=13.0'),
      proofWith({ driver: '575.57.08' }),
      undefined,
      CUDA_REASON,
    ],
    [
      'whose proof names no CUDA: a new enough driver',
      requiring('cuda>=13.0'),
      proofWith({ driver: '580.1' }),
      undefined,
      'pass',
    ],
    [
      'whose proof names no CUDA: far too old for it',
      requiring('cuda>=99'),
      proofWith({ driver: '900' }),
      undefined,
      CUDA_REASON,
    ],
    ['whose proof names neither driver nor CUDA', requiring('cuda>=99'), proofWith({}), undefined, 'pass'],
    [
      'with a malformed proof',
      gpuPod(),
      proofWith({ components: { driver: null } }),
      undefined,
      'GPU stack not validated: walk not started',
    ],
    [
      'with an older CUDA than asked, beside an alternative that cannot be read',
      requiring('cuda>=14 driver>=600.1a'),
      aNode(),
      undefined,
      CUDA_REASON,
    ],
    ['of any CUDA, for a requirement that cannot be read', requiring('cuda >= 14'), aNode(), undefined, 'pass'],
    [
      'of any CUDA, for a requirement on brands, which are the toolkit’s to check',
      requiring('brand=geforce,arch=x86_64 cuda>=14'),
      aNode(),
      undefined,
      'pass',
    ],
    [
      'any, for a malformed driver version: the same few words for whatever is written there',
      gpuPod({ 'gpu-gate.dev/min-driver': `new ${'x'.repeat(100)}` }),
      aNode(),
      undefined,
      "the pod's annotation gpu-gate.dev/min-driver is malformed",
    ],
    [
      'any, for a malformed driver version, while the policy is suspended',
      gpuPod({ 'gpu-gate.dev/min-driver': 'new' }),
      aNode({ boot: 'boot-2' }),
      aPolicy({ suspend: true }),
      'pass',
    ],
    [
      'any, for a malformed name of a policy',
      gpuPod({ 'gpu-gate.dev/policy': '../x' }),
      aNode(),
      undefined,
      "the pod's annotation gpu-gate.dev/policy is malformed",
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
        ...aNode({ labels: { [STATE]: 'failed' }, annotations: { [WALK]: FAILED_WALK } }),
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
    expect(filter(args(gpuPod(), ['nowhere']), view([])).result.refused.get('nowhere')?.sentence).toBe(
      'GPU state not known yet',
    ));
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

const KINDS = ['open', 'old driver', 'shut', 'held', 'other policy', 'plain'] as const;
const nodesOf = (list: readonly string[]): NodeView[] =>
  list.flatMap((kind, i): NodeView[] => {
    const name = `n${i}`;
    switch (kind) {
      case 'open':
        return [aNode({ name })];
      case 'old driver':
        return [proofWith({ driver: '470.57.02' }, name)];
      case 'shut':
        return [aNode({ name, boot: 'b' })];
      case 'held':
        return [aNode({ name, annotations: { [HOLD]: '' } })];
      case 'other policy':
        return [aNode({ name, annotations: { [NODE_POLICY]: 'b' } })];
      case 'plain':
        return [unmanaged(name)];
      default:
        return [];
    }
  });
const worlds = fc.record({
  pod: fc.constantFrom(
    gpuPod(),
    aPod(),
    gpuPod({ 'gpu-gate.dev/min-driver': '580' }),
    gpuPod({ 'gpu-gate.dev/min-driver': 'new' }),
    gpuPod({ 'gpu-gate.dev/policy': 'b' }),
    requiring('cuda>=12.4'),
    requiring('driver>=470,driver<471 cuda>=14'),
  ),
  policy: fc.constantFrom(
    aPolicy(),
    aPolicy({ unmanagedNodes: 'Allow' }),
    aPolicy({ suspend: true }),
    aPolicy({}, { status: {} }),
    aPolicy({}, { metadata: { name: 'b' } }),
    undefined,
  ),
});

describe('laws of the filter', () => {
  it('every node given comes back exactly once, none that was not given, and order matters for no verdict', () => {
    fc.assert(
      fc.property(
        worlds,
        fc.array(fc.constantFrom(...KINDS, 'unknown'), { maxLength: 30 }),
        fc.boolean(),
        ({ pod, policy }, list, twice) => {
          const names = list.map((_, i) => `n${i}`);
          const given = twice ? [...names, ...names] : names;
          const { result } = filter(args(pod, given), view(nodesOf(list), policy));
          expect([...result.passed, ...result.refused.keys()].toSorted()).toEqual(names.toSorted());
          const { result: reversed } = filter(args(pod, given.toReversed()), view(nodesOf(list), policy));
          expect([...reversed.passed].toSorted()).toEqual([...result.passed].toSorted());
          expect(Object.fromEntries(reversed.refused)).toEqual(Object.fromEntries(result.refused));
          expect(reversed.wouldRefuse).toBe(result.wouldRefuse);
        },
      ),
      { numRuns: 300 },
    );
  });
  it('whole nodes and names are judged alike, whatever the pod wishes and its policy says', () => {
    fc.assert(
      fc.property(worlds, fc.array(fc.constantFrom(...KINDS), { maxLength: 20 }), ({ pod, policy }, list) => {
        const nodes = nodesOf(list);
        const known = view(nodes, policy);
        const byName = args(
          pod,
          nodes.map((node) => node.metadata.name),
        );
        const decoded = decodeArgs({ Pod: pod, Nodes: { items: nodes }, NodeNames: null });
        if (!decoded.ok) throw new Error(decoded.because);
        const none = view([], policy);
        expect(filter(decoded.args, none)).toEqual(filter(byName, known));
        expect(prioritize(decoded.args, none, NOW)).toEqual(prioritize(byName, known, NOW));
      }),
      { numRuns: 300 },
    );
  });
});
