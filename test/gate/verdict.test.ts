// Every part that asks whether a pod may go to a node gets one answer.
import { NO_DEVICES } from '../../gate/devices.ts';
import { claiming, DEVICES } from '../builders/devices.ts';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { CLOSED, HOLD, MANAGED, NODE_POLICY, PROOF, STATE, WALK } from '../../core/keys.ts';
import { explainPod } from '../../explain/explanation.ts';
import { NameAnswers } from '../../extender/by-name/answer.ts';
import { NameScanner } from '../../extender/by-name/scan.ts';
import { NodeTable } from '../../extender/by-name/table.ts';
import { askIn, filter, preempt } from '../../extender/verbs.ts';
import { wantsOf, type RawPod } from '../../gate/gpu-request.ts';
import { ALL_REASONS } from '../../gate/reasons.ts';
import { MAX_TEXTS } from '../../gate/require-cuda.ts';
import { askOf, nodeFacts, verdict } from '../../gate/verdict.ts';
import { trimPod, type NodeObject } from '../../reconciler/model.ts';
import { boundPastGate, unlistedOf } from '../../reconciler/pods/reports.ts';
import { couldFit, nodesToWake } from '../../reconciler/pods/waiting.ts';
import { decide } from '../../webhook/inject.ts';
import { aNode, aPod, aPolicy } from '../builders/objects.ts';

const OPERANDS = 'gpu-gate-operands';
const pick = <T>(...values: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
/**
 * The first four times of five, so that every answer, down to the last rule, is among the cases.
 */
const mostly = <T>(usual: T, ...others: readonly T[]): fc.Arbitrary<T> =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...others) });
const NOTHING: unknown = undefined;
const FACTS = {
  runtimeClasses: new Map(),
  devices: DEVICES,
  namespaceLabels: {},
  excludedNamespaces: new Set<string>(),
};

const pods: fc.Arbitrary<RawPod> = fc
  .record({
    gpus: mostly<string | undefined>('1', '2', '0', '1k', 'x', undefined),
    resource: mostly(
      'nvidia.com/gpu',
      'nvidia.com/mig-1g.10gb',
      'nvidia.com/gpu.shared',
      'amd.com/gpu',
      'example.com/gpu',
      'deviceclass.resource.kubernetes.io/gpu.nvidia.com',
    ),
    claim: mostly<object | undefined>(
      undefined,
      { resourceClaimName: 'gpu' },
      { resourceClaimName: 'here' },
      { resourceClaimName: 'there' },
      { resourceClaimName: 'fpga' },
      { resourceClaimName: 'late' },
      { resourceClaimTemplateName: 'gpu' },
      { resourceClaimTemplateName: 'late' },
    ),
    init: fc.boolean(),
    policy: mostly<string | undefined>(undefined, 'default', 'pool', 'nope', '../x'),
    minDriver: pick(undefined, '580', '600', 'new'),
    requires: pick(
      NOTHING,
      'cuda>=12.4',
      'cuda>=14',
      'driver>=470,driver<471 cuda>=14',
      'cuda >= 14',
      'x'.repeat(20_000),
    ),
    more: pick(NOTHING, 'driver>=590', 'driver<590'),
    namespace: mostly('team', OPERANDS),
    validation: fc.boolean(),
  })
  .map(({ gpus, resource, claim, init, policy, minDriver, requires, more, namespace, validation }) => {
    const container = {
      name: 'c',
      resources: { limits: gpus === undefined ? {} : { [resource]: gpus } },
      env: [
        ...(requires === NOTHING ? [] : [{ name: 'NVIDIA_REQUIRE_CUDA', value: requires }]),
        ...(more === NOTHING ? [] : [{ name: 'NVIDIA_REQUIRE_DRIVER', value: more }]),
      ],
    };
    return aPod({
      namespace,
      labels: validation
        ? { 'app.kubernetes.io/part-of': 'gpu-gate', 'app.kubernetes.io/component': 'device-plugin-validation' }
        : {},
      annotations: {
        ...(policy === undefined ? {} : { 'gpu-gate.dev/policy': policy }),
        ...(minDriver === undefined ? {} : { 'gpu-gate.dev/min-driver': minDriver }),
      },
      spec: {
        ...(claim === undefined ? {} : claiming(claim)),
        ...(init ? { initContainers: [container], containers: [{ name: 'm' }] } : { containers: [container] }),
      },
    });
  });

const nodes: fc.Arbitrary<NodeObject> = fc
  .record({
    managed: mostly(true, false),
    state: mostly<string | undefined>('validated', 'driver', 'failed', 'removing', undefined, undefined),
    policy: mostly<string | undefined>('default', 'pool', undefined),
    boot: mostly('boot-1', 'boot-2', ''),
    ready: mostly(true, false),
    validated: mostly(true, false),
    cordoned: mostly(false, true),
    held: mostly(false, true),
    closed: mostly<string | undefined>(undefined, 'awaiting driver'),
    driver: pick(undefined, '470.57.02', '595.91.07', '470-grid'),
    cuda: pick(undefined, '13.1', 'x'),
    proof: mostly('own', 'none', 'other', 'broken'),
  })
  .map((n) => {
    const node = aNode({ boot: n.boot, ready: n.ready, validated: n.validated, cordoned: n.cordoned, gpus: '10k' });
    const proof = {
      node: n.proof === 'other' ? 'another' : node.metadata.uid,
      boot: 'boot-1',
      at: '2026-11-24T09:00:00Z',
      driver: n.driver,
      cuda: n.cuda,
      components: n.proof === 'broken' ? null : {},
    };
    return {
      ...node,
      metadata: {
        ...node.metadata,
        labels: { ...(n.managed ? { [MANAGED]: 'true' } : {}), ...(n.state === undefined ? {} : { [STATE]: n.state }) },
        annotations: {
          ...(n.policy === undefined ? {} : { [NODE_POLICY]: n.policy }),
          ...(n.proof === 'none' ? {} : { [PROOF]: JSON.stringify(proof) }),
          ...(n.held ? { [HOLD]: '' } : {}),
          ...(n.closed === undefined ? {} : { [CLOSED]: n.closed }),
          [WALK]: JSON.stringify({ node: node.metadata.uid, stage: 'driver', failed: { stage: 'driver' } }),
        },
      },
      status: {
        ...node.status,
        // So that the amounts never keep a pod off, whatever resource it asks for.
        allocatable: Object.fromEntries(
          ['gpu', 'mig-1g.10gb', 'gpu.shared'].map((name) => [`nvidia.com/${name}`, '10k']),
        ),
      },
    };
  });

const policies: fc.Arbitrary<Map<string, GpuPolicy>> = fc
  .uniqueArray(
    fc.record({
      name: mostly('default', 'pool'),
      unmanagedNodes: pick('Auto', 'Allow', 'Deny'),
      suspend: mostly(false, true),
      enforcing: mostly(true, false),
      resources: mostly<string[] | undefined>(undefined, ['nvidia.com/mig-*']),
      allowedNamespaces: mostly<string[]>([], ['ops'], ['ops', 'team']),
    }),
    { selector: ({ name }) => name, minLength: 1, maxLength: 2 },
  )
  .map(
    (list) =>
      new Map(
        list.map(({ name, enforcing, ...spec }) => [
          name,
          aPolicy(spec, { metadata: { name }, ...(enforcing ? {} : { status: {} }) }),
        ]),
      ),
  );

/** Verdicts that chance brings so seldom that a run may lack them. */
const RARE: readonly NodeObject[] = [
  aNode({
    gpus: '10k',
    labels: { [STATE]: 'failed' },
    annotations: { [PROOF]: '', [WALK]: '{"node":"uid-node-a","stage":"driver","failed":{"stage":"driver"}}' },
  }),
  { ...aNode({ gpus: '10k' }), metadata: { name: 'node-a', uid: 'uid-node-a', resourceVersion: '1' } },
];

describe('one verdict', () => {
  it('for webhook and extender, for explain, for pods past the gate and for wake-ups', () => {
    const seen = new Map<string, number>();
    fc.assert(
      fc.property(pods, nodes, policies, (raw, node, known) => {
        const { name } = node.metadata;
        const wanted = verdict(askOf(wantsOf(raw, OPERANDS), known, DEVICES), nodeFacts(node));
        const kind = wanted?.kind ?? 'yes';
        seen.set(kind, (seen.get(kind) ?? 0) + 1);

        // The webhook refuses the same names, where it looks at the pod at all.
        const ask = askOf(wantsOf(raw, OPERANDS), known, DEVICES);
        const namespace = raw.metadata?.namespace ?? '';
        if (namespace !== OPERANDS) {
          const admission = decide(raw, { ...FACTS, policies: known, namespace });
          const because = admission.kind === 'refuse' && admission.reason === 'policy-not-allowed' && admission.because;
          expect(because).toBe(ask.kind === 'refuse' && ask.because.kind === 'policy-not-allowed' && ask.detail);
        }

        const table = new NodeTable();
        table.set(name, nodeFacts(node));
        const view = { nodes: table, policies: known, devices: DEVICES, operandNamespace: OPERANDS };
        const plain = filter({ pod: raw, names: [name], nodes: undefined }, view);
        expect(plain.result.refused.get(name)).toEqual(wanted);
        const victims = new Map([[name, { uids: [], violations: 0 }]]);
        expect(preempt({ pod: raw, victims }, view).has(name)).toBe(wanted === undefined);

        const call = new NameScanner().scan(Buffer.from(JSON.stringify({ Pod: raw, Nodes: null, NodeNames: [name] })));
        if (call === undefined) throw new Error('the call by names is declined');
        const answer = new NameAnswers().filter(call, askIn(view, call.pod), table);
        const { FailedAndUnresolvableNodes: refused } = JSON.parse(answer?.bytes.toString() ?? '') as {
          FailedAndUnresolvableNodes: Record<string, string>;
        };
        expect(refused[name]).toBe(wanted?.sentence);
        expect(answer?.wouldRefuse).toBe(plain.result.wouldRefuse);

        const { rows } = explainPod({
          pod: raw,
          nodes: [node],
          policies: known,
          devices: DEVICES,
          operandNamespace: OPERANDS,
          webhookWould: '',
          unread: [],
        });
        // An auditing policy is explained as if it enforced.
        const explained = plain.result.wouldRefuse > 0 ? 'refused' : wanted === undefined ? 'open' : 'refused';
        expect(rows[0]?.verdict).toBe(explained);
        if (wanted !== undefined) expect(rows[0]).toMatchObject({ reason: wanted.sentence, kind: wanted.kind });

        const pod = trimPod(
          {
            ...raw,
            metadata: { ...raw.metadata, labels: { ...raw.metadata?.labels, 'gpu-gate.dev/injected': 'true' } },
          },
          OPERANDS,
          () => false,
        );
        if (pod === undefined) throw new Error('trimmed away');
        // A resource that no policy lists is gated by nobody, and reported all the same.
        const isListed = !nodeFacts(node).ours || unlistedOf(pod, known).length === 0;
        if (isListed)
          expect(boundPastGate(pod, node, known, DEVICES)).toEqual(kind === 'claim-unknown' ? undefined : wanted);
        const cordoned = node.spec?.unschedulable === true;
        expect(couldFit(pod, node, [], known, DEVICES)).toBe(wanted === undefined && !cordoned);
        expect(nodesToWake([pod], [node], () => [], known, DEVICES)).toHaveLength(
          wanted === undefined && !cordoned ? 1 : 0,
        );
      }),
      { numRuns: 2000, examples: RARE.map((node) => [aPod({ gpus: '1' }), node, new Map([['default', aPolicy()]])]) },
    );
    // Every answer but that for an unknown node was among them.
    const kinds = new Set(ALL_REASONS.map(({ kind }) => kind).filter((kind) => kind !== 'unknown'));
    expect([...kinds, 'yes'].filter((kind) => !seen.has(kind))).toEqual([]);
  });

  const stacks = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      ...nodeFacts(aNode()),
      driver: `595.${i % 3}`,
      stack: `595.${i % 3} 13.1`,
    }));
  it('compares an author’s text once per driver and CUDA, however many nodes there are', () => {
    const pod = aPod({ gpus: '1', container: { env: [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>=12' }] } });
    const ask = askOf(wantsOf(pod, OPERANDS), new Map([['default', aPolicy()]]), NO_DEVICES);
    if (ask.kind !== 'gate') throw new Error('not gated');
    for (const node of stacks(5000)) expect(verdict(ask, node)).toBeUndefined();
    expect(ask.judged.size).toBe(3);
  });
  it.each<[string, RawPod]>([
    [
      'one requirement of a megabyte',
      aPod({ gpus: '1', container: { env: [{ name: 'NVIDIA_REQUIRE_CUDA', value: 'cuda>99 '.repeat(125_000) }] } }),
    ],
    [
      'thousands of containers with a requirement each',
      aPod({
        spec: {
          containers: Array.from({ length: 5000 }, (_, i) => ({
            resources: { limits: { 'nvidia.com/gpu': '1' } },
            env: [{ name: 'NVIDIA_REQUIRE_CUDA', value: `cuda>=9 driver>=${i} ${'cuda>=99 '.repeat(20)}` }],
          })),
        },
      }),
    ],
    [
      'thousands of variables in one container',
      aPod({
        gpus: '1',
        container: {
          env: Array.from({ length: 30_000 }, (_, i) => ({ name: `NVIDIA_REQUIRE_${i}`, value: `cuda>=9.${i}` })),
        },
      }),
    ],
  ])('bounds what is compared for %s, and states what is not judged', (_, pod) => {
    const ask = askOf(wantsOf(pod, OPERANDS), new Map([['default', aPolicy()]]), NO_DEVICES);
    if (ask.kind !== 'gate') throw new Error('not gated');
    const characters = ask.requirements.flat(2).reduce((sum, { version }) => sum + version.length, 0);
    expect(characters).toBeLessThanOrEqual(MAX_TEXTS);
    expect(ask.unjudged.length).toBeGreaterThan(0);
    for (const node of stacks(5000)) verdict(ask, node);
    expect(ask.judged.size).toBeLessThanOrEqual(3);
  });
});

describe('the driver that a pod asks for', () => {
  const REFUSED = ALL_REASONS.map(({ sentence }) => sentence);
  const asked = (minDriver: string, driver: string | undefined): string => {
    const wants = wantsOf(aPod({ gpus: '1', annotations: { 'gpu-gate.dev/min-driver': minDriver } }), OPERANDS);
    const proof = { node: 'uid-node-a', boot: 'boot-1', at: '2026-11-24T09:00:00Z', driver, components: {} };
    const facts = nodeFacts(aNode({ annotations: { [PROOF]: JSON.stringify(proof) } }));
    return verdict(askOf(wants, new Map([['default', aPolicy()]]), NO_DEVICES), facts)?.sentence ?? 'may come';
  };
  it.each([
    ['595.91.07', '595.91.07', true],
    ['595', '595.91.07', true],
    ['595.91.08', '595.91.07', false],
    ['600', '595.91.07', false],
    ['1', undefined, false],
  ])('at least %s on %s: %s', (minDriver, driver, may) => {
    const said = asked(minDriver, driver);
    expect(said === 'may come').toBe(may);
    if (!may) expect(REFUSED).toContain(said);
  });
});
