import { NO_DEVICES } from '../../../gate/devices.ts';
import { devices as devicesOf } from '../../builders/devices.ts';
import { describe, expect, it } from 'vitest';
import type { GpuPolicy } from '../../../core/gpu-policy.ts';
import { MANAGED, PROOF, STATE, WALK } from '../../../core/keys.ts';
import { enforcement, policyStatus, sameStatus } from '../../../reconciler/policies/status.ts';
import { newWalk } from '../../../reconciler/walk.ts';
import { fleetOf } from '../../builders/caches.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';

describe('a policy', () => {
  const fresh = (spec: object = {}) => aPolicy(spec, { status: {} });
  it.each([
    ['audits while nothing is opted in', fresh(), [aNode({ labels: { [MANAGED]: 'false' } })], false, 'NoNodeOptedIn'],
    ['enforces at once where no other node offers GPUs', fresh(), [aNode()], true, 'Enforcing'],
    [
      'waits for every node that offers GPUs',
      fresh(),
      [
        aNode(),
        aNode({
          name: 'old',
          labels: { [MANAGED]: 'false', [STATE]: undefined as never },
          annotations: { [PROOF]: '' },
        }),
      ],
      false,
      'NodesNotValidated',
    ],
    [
      'does not wait for GPUs by resources that it does not list: their pods are not gated',
      fresh(),
      [
        aNode(),
        {
          ...aNode({
            name: 'mig',
            labels: { [MANAGED]: 'false', [STATE]: undefined as never },
            annotations: { [PROOF]: '' },
          }),
          status: { allocatable: { 'nvidia.com/mig-1g.10gb': '7' } },
        },
      ],
      true,
      'Enforcing',
    ],
    [
      'denies from the first opt-in',
      fresh({ unmanagedNodes: 'Deny' }),
      [aNode(), aNode({ name: 'old', annotations: { [PROOF]: '' } })],
      true,
      'Enforcing',
    ],
    ['enforces for good, also with no node left', aPolicy(), [], true, 'Enforcing'],
    ['does not enforce while suspended', aPolicy({ suspend: true }), [aNode()], false, 'Suspended'],
  ])('%s', (_, policy, nodes, enforcing, reason) =>
    expect(enforcement(policy, fleetOf(nodes, [policy]))).toMatchObject({ enforcing, reason }),
  );
  it('names the next command where it waits', () => {
    const old = aNode({ name: 'old', labels: { [MANAGED]: 'false' }, annotations: { [PROOF]: '' } });
    expect(enforcement(fresh(), fleetOf([aNode(), old], [fresh()])).message).toContain(
      'kubectl label node old gpu-gate.dev/managed=true',
    );
  });
  it('counts a node as validated once, also after its proof was withdrawn', () => {
    const withdrawn = aNode({
      labels: { [STATE]: 'driver' },
      annotations: {
        [PROOF]: '',
        [WALK]: JSON.stringify({ ...newWalk('uid-node-a', 'boot-1', NOW), proven: 'boot-0' }),
      },
    });
    expect(enforcement(fresh(), fleetOf([withdrawn], [fresh()])).enforcing).toBe(true);
  });
  const AROUND = {
    conflicts: [],
    refusals: [],
    webhookResources: ['nvidia.com/gpu', 'nvidia.com/gpu.shared'],
    devices: NO_DEVICES,
    taintsServed: true,
    now: NOW,
  };
  const degraded = (policy: GpuPolicy, around: object = {}) =>
    policyStatus(policy, fleetOf([aNode()], [policy]), { ...AROUND, ...around }).conditions?.find(
      (c) => c.type === 'Degraded',
    );
  it('has a status that is the same when nothing changed', () => {
    const first = policyStatus(aPolicy(), fleetOf([aNode()], [aPolicy()]), AROUND);
    const again = policyStatus({ ...aPolicy(), status: first }, fleetOf([aNode()], [aPolicy()]), {
      ...AROUND,
      now: NOW + 60_000,
    });
    expect(sameStatus(first, again)).toBe(true);
    expect(first.nodes).toEqual({ validated: 1, total: 1 });
  });
  it('is degraded by resources that the webhook is not called for, as the chart has it', () => {
    const pgpu = aPolicy({ resources: ['nvidia.com/pgpu', 'nvidia.com/mig-1g.5gb'] });
    expect(degraded(pgpu)).toMatchObject({ status: 'True', reason: 'UnknownResources' });
    expect(degraded(pgpu)?.message).toBe(
      "nvidia.com/pgpu: the chart's webhook looks only at nvidia.com/gpu, nvidia.com/gpu.shared, nvidia.com/mig-*; name them in the chart's policy.spec.resources too",
    );
    expect(degraded(pgpu, { webhookResources: ['nvidia.com/pgpu'] })).toMatchObject({ status: 'False' });
    expect(degraded(aPolicy(), { webhookResources: ['nvidia.com/pgpu'] })?.message).toContain('nvidia.com/pgpu');
  });
  it('is degraded by a resource that a class of its own maps and the webhook is not called for', () => {
    const devices = devicesOf({ classes: { 'gpu.nvidia.com': { spec: { extendedResourceName: 'nvidia.com/h100' } } } });
    expect(degraded(aPolicy(), { devices })?.message).toContain('nvidia.com/h100: the chart');
    expect(degraded(aPolicy({ deviceClasses: [], deviceDrivers: [] }), { devices })).toMatchObject({ status: 'False' });
  });
  it('is degraded where it wants DeviceTaintRules that the API server does not serve', () => {
    const around = { taintsServed: false };
    expect(degraded(aPolicy({ deviceTaints: 'On' }), around)).toMatchObject({ reason: 'DeviceTaintsNotServed' });
    for (const deviceTaints of ['Auto', 'Off'])
      expect(degraded(aPolicy({ deviceTaints }), around)).toMatchObject({ status: 'False' });
  });
  it('is degraded by an operand that the API server refuses, and stays so until a new leader knows', () => {
    const refusals = ['DaemonSet driver-1: .spec.x: field not declared in schema'];
    const known = degraded(aPolicy(), { refusals });
    expect(known).toMatchObject({
      status: 'True',
      reason: 'OperandRefused',
      message: 'refused by the API server: DaemonSet driver-1: .spec.x: field not declared in schema',
    });
    const policy = { ...aPolicy(), status: { conditions: known === undefined ? [] : [known] } };
    expect(degraded(policy, { refusals: undefined, now: NOW + 60_000 })).toEqual(known);
    expect(degraded(policy)).toMatchObject({ status: 'False', reason: 'None' });
  });
  it('is degraded while the circuit breaker keeps proofs, with what to do, also before operands were tried', () => {
    const breaker = { trippedAt: '2026-11-24T09:59:00.000Z', release: '' };
    for (const refusals of [[], undefined]) {
      const condition = degraded(aPolicy(), { breaker, kept: 7, refusals });
      expect(condition).toMatchObject({ status: 'True', reason: 'CircuitBreaker' });
      expect(condition?.message).toContain('7 nodes');
      expect(condition?.message).toContain(
        'kubectl annotate gpupolicy default --overwrite gpu-gate.dev/breaker-release=$(date +%s)',
      );
    }
    expect(policyStatus(aPolicy(), fleetOf([], []), { ...AROUND, breaker }).breaker).toEqual(breaker);
    expect(degraded(aPolicy(), { breaker: { releasedAt: '2026-11-24T09:59:00.000Z' } })).toMatchObject({
      status: 'False',
    });
  });
  const conditionsOf = (policy: GpuPolicy, around: object = {}) =>
    policyStatus(policy, fleetOf([aNode()], [policy]), { ...AROUND, ...around });
  it('names the policies whose selectors overlap with its own, and what to do', () =>
    expect(conditionsOf(aPolicy(), { conflicts: ['pool-b', 'pool-c'] }).conditions).toContainEqual(
      expect.objectContaining({
        type: 'Conflict',
        status: 'True',
        reason: 'SelectorsOverlap',
        message:
          'nodes are also selected by pool-b, pool-c: the older policy has them; make the nodeSelectors disjoint',
      }),
    ));
  it.each<[what: string, policy: GpuPolicy, since: string | undefined]>([
    ['notes when it began to enforce', fresh(), new Date(NOW).toISOString()],
    ['keeps that time', aPolicy(), '2026-11-02T00:00:00Z'],
    ['has none while it audits', fresh({ suspend: true }), undefined],
  ])('%s', (_, policy, since) => expect(conditionsOf(policy).enforcingSince).toBe(since));
  it('names five nodes that it waits for, and counts the others', () => {
    const old = ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((name) =>
      aNode({ name, labels: { [MANAGED]: 'false' }, annotations: { [PROOF]: '' } }),
    );
    expect(enforcement(fresh(), fleetOf([aNode(), ...old], [fresh()])).message).toMatch(
      /^auditing until these nodes that offer GPUs are validated: a, b, c, d, e and 2 more; opt them in: kubectl label node a /,
    );
  });
});
