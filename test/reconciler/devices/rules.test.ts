// Whatever happens, no DeviceTaintRule is without its node, and none is missing while a node is not
// open: all controllers on a cluster in memory, over random histories.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HOLD, MANAGED, PROOF, STATE, WALK } from '../../../core/keys.ts';
import { isOurs, open, parseProof } from '../../../gate/node-proof.ts';
import type { Action } from '../../../reconciler/actions.ts';
import { changesOf, isRuleOfOurs, trimRule, wantedRules, type RuleView } from '../../../reconciler/devices/rules.ts';
import { parseWalk } from '../../../reconciler/walk.ts';
import { requestOf } from '../../../reconciler/requests.ts';
import { Cluster, VALIDATIONS_ONLY } from '../../builders/cluster.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';

const policyWith = (generation: number, spec: object, status: object = { enforcingSince: '2026-11-02T00:00:00Z' }) => {
  const { components } = VALIDATIONS_ONLY.spec;
  return aPolicy(
    { components, ...spec },
    { metadata: { name: 'default', uid: 'policy-uid', generation, creationTimestamp: '2026-11-01T00:00:00Z' }, status },
  );
};
const NODES = ['a', 'b', 'c'] as const;
const OTHER_DRIVER = 'other.example.com';

type Step =
  | { readonly kind: 'add'; readonly node: string; readonly proven: boolean; readonly uid: string }
  | { readonly kind: 'remove' | 'opt in' | 'opt out' | 'hold' | 'release' | 'reboot'; readonly node: string }
  | { readonly kind: 'policy'; readonly spec: object }
  | { readonly kind: 'policy is gone' }
  | { readonly kind: 'served'; readonly served: boolean }
  | { readonly kind: 'classes'; readonly names: readonly string[] }
  | { readonly kind: 'devices'; readonly node: string; readonly driver: string; readonly pool: string }
  | { readonly kind: 'a device fails'; readonly node: string; readonly device: string }
  | { readonly kind: 'rule is deleted' | 'rule is edited' | 'rule is left over'; readonly node: string };

/** Three times of four the first. */
const mostly = <T>(usual: T, ...others: readonly T[]): fc.Arbitrary<T> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...others) });
const node = fc.constantFrom(...NODES);
const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      node,
      proven: fc.boolean(),
      uid: fc.constantFrom('first', 'second'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('remove', 'opt in', 'opt out', 'hold', 'release', 'reboot' as const),
      node,
    }),
  },
  fc.record({
    kind: fc.constant('policy' as const),
    spec: fc.record({
      deviceTaints: mostly('Auto', 'On', 'Off'),
      unmanagedNodes: mostly('Deny', 'Allow', 'Auto'),
      withdrawnPods: fc.constantFrom('Keep', 'Evict'),
      suspend: mostly(false, true),
      deviceDrivers: mostly(['gpu.nvidia.com'], ['gpu.nvidia.com', OTHER_DRIVER], []),
    }),
  }),
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('devices' as const),
      node,
      driver: mostly('gpu.nvidia.com', OTHER_DRIVER),
      pool: mostly('', 'rack'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('a device fails' as const),
      node,
      device: fc.constantFrom('gpu-0', 'gpu-1'),
    }),
  },
  fc.record({ kind: fc.constant('policy is gone' as const) }),
  fc.record({ kind: fc.constant('served' as const), served: mostly(true, false) }),
  fc.record({ kind: fc.constant('classes' as const), names: mostly(['a', 'b'], ['a'], []) }),
  fc.record({
    kind: fc.constantFrom('rule is deleted', 'rule is edited', 'rule is left over' as const),
    node,
  }),
);

let generation = 1;
function take(cluster: Cluster, step: Step): void {
  const present = 'node' in step ? cluster.nodes.all.get(step.node) : undefined;
  const relabel = (labels: Record<string, string>, annotations: Record<string, string>): void => {
    if (present === undefined) return;
    const { metadata } = present;
    cluster.setNode({
      ...present,
      metadata: {
        ...metadata,
        labels: { ...metadata.labels, ...labels },
        annotations: { ...metadata.annotations, ...annotations },
      },
    });
  };
  const rule = 'node' in step ? [...cluster.rules.values()].find((one) => one.node === step.node) : undefined;
  switch (step.kind) {
    case 'add': {
      if (present !== undefined) return;
      const fresh = aNode({
        name: step.node,
        ...(step.proven ? {} : { annotations: { [PROOF]: '' }, validated: false }),
      });
      const uid = `${fresh.metadata.uid}-${step.uid}`;
      const text = JSON.stringify(fresh).replaceAll(fresh.metadata.uid, uid);
      cluster.setNode(JSON.parse(text) as typeof fresh);
      return;
    }
    case 'remove':
      return cluster.removeNode(step.node);
    case 'opt in':
      return relabel({ [MANAGED]: 'true' }, {});
    case 'opt out':
      return relabel({ [MANAGED]: 'false' }, {});
    case 'hold':
      return relabel({}, { [HOLD]: 'x' });
    case 'release': {
      if (present === undefined) return;
      const { [HOLD]: _, ...annotations } = present.metadata.annotations ?? {};
      cluster.setNode({ ...present, metadata: { ...present.metadata, annotations } });
      return;
    }
    case 'reboot':
      if (present !== undefined)
        cluster.setNode({ ...present, status: { ...present.status, nodeInfo: { bootID: `boot-${cluster.now}` } } });
      return;
    case 'devices':
      return cluster.setPools(step.node, [
        {
          driver: step.driver,
          name: step.pool === '' ? step.node : step.pool,
          generation: 1,
          slices: 1,
          count: 1,
          devices: [],
        },
      ]);
    case 'a device fails': {
      const walk = parseWalk(present?.metadata.annotations?.[WALK], present?.metadata.uid ?? '');
      if (walk === undefined) return;
      const id = `gpu.nvidia.com/${step.node}/${step.device}`;
      const leftOut = { ...walk.leftOut, [id]: { at: '2026-11-24T10:00:00Z', because: 'x' } };
      return relabel({}, { [WALK]: JSON.stringify({ ...walk, leftOut }) });
    }
    case 'policy':
      generation += 1;
      return cluster.setPolicy(policyWith(generation, step.spec));
    case 'policy is gone':
      return cluster.removePolicy('default');
    case 'classes':
      return cluster.setClasses(step.names);
    case 'served':
      return cluster.serveRules(step.served);
    case 'rule is deleted':
      return rule === undefined ? undefined : cluster.setRule(rule.name, undefined);
    case 'rule is edited':
      return rule === undefined ? undefined : cluster.setRule(rule.name, { ...rule, says: 'something else' });
    case 'rule is left over': {
      const name = `gpu-gate.${step.node}.gone.example.com`;
      if (cluster.rulesServed) cluster.setRule(name, { name, uid: 'old', node: step.node, device: '', says: '' });
    }
  }
}

/** What must be there, from the node and its policy alone. */
function expected(cluster: Cluster): readonly string[] {
  const policy = cluster.policies.get('default');
  if (!cluster.rulesServed || policy === undefined || policy.spec.suspend || policy.spec.deviceTaints === 'Off')
    return [];
  const { deviceDrivers, unmanagedNodes, withdrawnPods, deviceTaints } = policy.spec;
  const mayAllocate = cluster.classes.size > 0 || deviceTaints === 'On';
  return [...cluster.nodes.all.values()]
    .flatMap((one) => {
      const { uid, name, annotations } = one.metadata;
      const rule = (driver: string, device: string, key: string, effect: string): string =>
        JSON.stringify([uid, driver, name, device, `gpu-gate.dev/${key}`, effect]);
      if (!isOurs(one)) {
        const there = (cluster.pools.get(name) ?? []).filter((pool) => pool.name === name);
        return unmanagedNodes === 'Allow' || !mayAllocate
          ? []
          : there
              .filter(({ driver }) => deviceDrivers.includes(driver))
              .map(({ driver }) => rule(driver, '', 'not-open', 'NoSchedule'));
      }
      const walk = parseWalk(annotations?.[WALK], uid);
      const failed = Object.keys(walk?.leftOut ?? {})
        .filter(() => deviceDrivers.includes('gpu.nvidia.com'))
        .map((id) => rule('gpu.nvidia.com', id.split('/')[2] ?? '', 'device-failed', 'NoSchedule'));
      if (open(one).yes || !mayAllocate) return failed;
      const proof = parseProof(annotations?.[PROOF]);
      const holds = proof?.node === uid && proof.boot === one.status?.nodeInfo?.bootID;
      const evicts = withdrawnPods === 'Evict' && walk?.proven !== undefined && !holds;
      return [
        ...failed,
        ...deviceDrivers.flatMap((driver) => [
          rule(driver, '', 'not-open', 'NoSchedule'),
          ...(evicts ? [rule(driver, '', 'not-open', 'NoExecute')] : []),
        ]),
      ];
    })
    .toSorted();
}

describe('DeviceTaintRules', () => {
  it('are those of the nodes that are not open, after any history', async () => {
    const seen = { some: 0, none: 0 };
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(steps, fc.constantFrom(Infinity, 0, Infinity, 1)), { minLength: 1, maxLength: 12 }),
        fc.boolean(),
        async (history, validationsPass) => {
          const cluster = new Cluster(policyWith((generation += 1), {}));
          cluster.validationsPass = validationsPass;
          cluster.setClasses(['gpu.nvidia.com']);
          cluster.serveRules(true);
          for (const [step, writes] of history) {
            // A leader that dies meanwhile has sent some of its writes, and not the others.
            let left = writes;
            cluster.answer = () => ((left -= 1) < 0 ? { kind: 'stale' } : undefined);
            take(cluster, step);
            if (writes < Infinity) {
              await cluster.settle(1);
              cluster.newLeader();
            }
            cluster.answer = () => undefined;
            await cluster.settle(3000);
            const rules = [...cluster.rules.values()].map(({ says }) => says).toSorted();
            expect(rules, JSON.stringify(step)).toEqual(expected(cluster));
            if (rules.length > 0) seen.some += 1;
            else seen.none += 1;
          }
        },
      ),
      { numRuns: 300 },
    );
    expect(seen.some).toBeGreaterThan(100);
    expect(seen.none).toBeGreaterThan(100);
  });

  const one = (policy = aPolicy()) => new Map([[policy.name, policy]]);
  const closed = aNode({ boot: 'other' });
  const leaving = aNode({ boot: 'other', labels: { [MANAGED]: 'false', [STATE]: 'removing' } });
  const theirs = aNode({ boot: 'other', labels: { [MANAGED]: 'false', [STATE]: undefined as never } });
  const SERVED = { served: true, hasClasses: true };
  const NO_CLASS = { served: true, hasClasses: false };
  const DENY = aPolicy({ unmanagedNodes: 'Deny' });
  const POOLS = [{ driver: 'gpu.nvidia.com', name: 'node-a', generation: 1, slices: 1, count: 1, devices: [] }];
  it.each<[string, Parameters<typeof wantedRules>, number]>([
    ['a node that is not open', [closed, one(), SERVED], 1],
    ['an open node', [aNode(), one(), SERVED], 0],
    ['a node that is gone', [undefined, one(), SERVED], 0],
    ['a node that is not opted in', [theirs, one(), SERVED], 0],
    ['an opted-out node until its tear-down has ended', [leaving, one(), SERVED], 1],
    ['a cluster that does not serve rules', [closed, one(), { ...SERVED, served: false }], 0],
    ['a cluster without a DeviceClass, where no claim gets a device', [closed, one(), NO_CLASS], 0],
    ['the same with unmanaged nodes', [theirs, one(DENY), NO_CLASS, POOLS], 0],
    ['which have rules where there is one', [theirs, one(DENY), SERVED, POOLS], 1],
    ['no DeviceClass yet, and GPUs by claims', [closed, one(aPolicy({ allocation: 'DRA' })), NO_CLASS], 1],
    ['no DeviceClass, and a policy that wants rules', [closed, one(aPolicy({ deviceTaints: 'On' })), NO_CLASS], 1],
    ['a policy that does not want them', [closed, one(aPolicy({ deviceTaints: 'Off' })), SERVED], 0],
    ['a policy that is suspended', [closed, one(aPolicy({ suspend: true })), SERVED], 0],
    ['a policy that audits', [closed, one(aPolicy({}, { status: {} })), SERVED], 0],
    ['a policy with two drivers', [closed, one(aPolicy({ deviceDrivers: ['a', 'b'] })), SERVED], 2],
  ])('%s', (_, args, count) => expect(wantedRules(...args)).toHaveLength(count));

  const [wanted] = wantedRules(closed, one(), SERVED);
  const present = (more: Partial<RuleView> = {}): RuleView => {
    if (wanted === undefined) throw new Error('none wanted');
    const raw = requestOf(wanted, { now: NOW, instance: 'x' }).body as { metadata: object };
    const rule = trimRule({ ...raw, metadata: { ...raw.metadata, uid: 'u' } });
    if (!isRuleOfOurs(rule)) throw new Error('not ours');
    return { ...rule, ...more };
  };
  const kinds = (actions: readonly Action[]): readonly string[] => actions.map(({ kind }) => kind);
  it('that are there as they should be are left alone', () =>
    expect(changesOf([present()], [wanted ?? fail()])).toEqual([]));
  it('that say something else are deleted, and created once they are gone', () => {
    expect(kinds(changesOf([present({ says: 'x' })], [wanted ?? fail()]))).toEqual(['delete-device-taint']);
    expect(kinds(changesOf([], [wanted ?? fail()]))).toEqual(['create-device-taint']);
  });
  it('of other people are read, and are not ours', () => {
    const rule = trimRule({
      metadata: { name: 'drain-rack-7' },
      spec: { deviceSelector: { pool: 'node-a' }, taint: { key: 'a/b', value: '7', effect: 'NoSchedule' } },
    });
    expect(rule).toEqual({ driver: '', pool: 'node-a', device: '', key: 'a/b', value: '7', effect: 'NoSchedule' });
    expect(isRuleOfOurs(rule)).toBe(false);
  });

  const walked = (walk: object, more: Parameters<typeof aNode>[0] = {}) =>
    aNode({
      annotations: { [WALK]: JSON.stringify({ node: 'uid-node-a', boot: 'b', stage: 'done', ...walk }) },
      ...more,
    });
  const out = (...devices: readonly string[]) => ({
    leftOut: Object.fromEntries(devices.map((id) => [id, { at: '2026-11-24T10:00:00Z', because: 'x' }])),
  });
  const summary = (...args: Parameters<typeof wantedRules>) =>
    wantedRules(...args).map(({ name, device = '', taint: { key, effect } }) => [name, device, `${key}:${effect}`]);

  it('leave one device of an open node out', () =>
    expect(summary(walked(out('gpu.nvidia.com/node-a/gpu-3')), one(), SERVED)).toEqual([
      ['gpu-gate.node-a.gpu.nvidia.com.gpu-3', 'gpu-3', 'gpu-gate.dev/device-failed:NoSchedule'],
    ]));
  it.each<[string, Parameters<typeof wantedRules>, number]>([
    [
      'and of one that is not open beside its own',
      [walked(out('gpu.nvidia.com/node-a/gpu-3'), { boot: 'x' }), one(), SERVED],
      2,
    ],
    ['and none of another driver', [walked(out('a.example.com/node-a/gpu-3')), one(), SERVED], 0],
    ['and none of a pool of another name', [walked(out('gpu.nvidia.com/rack/gpu-3')), one(), SERVED], 0],
    [
      'and none that is malformed',
      [walked({ leftOut: { x: 7, 'gpu.nvidia.com': { because: 'y' } } }), one(), SERVED],
      0,
    ],
    [
      'and none where the policy wants no taints',
      [walked(out('gpu.nvidia.com/node-a/gpu-3')), one(aPolicy({ deviceTaints: 'Off' })), SERVED],
      0,
    ],
  ])('%s', (_, args, count) => expect(wantedRules(...args)).toHaveLength(count));

  it('evict where the policy says so and a proof was withdrawn, and nowhere else', () => {
    const evicting = one(aPolicy({ withdrawnPods: 'Evict' }));
    const effects = (...args: Parameters<typeof wantedRules>) => wantedRules(...args).map(({ taint }) => taint.effect);
    const lost = walked({ proven: 'b' }, { boot: 'other' });
    expect(effects(lost, evicting, SERVED)).toEqual(['NoSchedule', 'NoExecute']);
    expect(effects(lost, one(), SERVED)).toEqual(['NoSchedule']);
    // On its first walk, and closed with a proof that holds.
    expect(effects(walked({}, { boot: 'other' }), evicting, SERVED)).toEqual(['NoSchedule']);
    expect(effects(aNode({ annotations: { [HOLD]: 'x' } }), evicting, SERVED)).toEqual(['NoSchedule']);
  });
  it('have a name within the limit, whatever the node is called', () => {
    const long = aNode({ name: 'n'.repeat(253), boot: 'other' });
    expect(wantedRules(long, one(), SERVED)[0]?.name.length).toBeLessThanOrEqual(253);
    expect(wanted?.name).toBe('gpu-gate.node-a.gpu.nvidia.com');
  });
});

const fail = (): never => {
  throw new Error('none wanted');
};
