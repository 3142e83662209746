// Nothing that a tenant can write in a namespace of his own changes what is believed of a node:
// with random pods beside it the plan writes what it writes without them.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COMPONENT, DEPLOY_PREFIX, INJECTED, MANAGED, MANAGED_BY, PART_OF, REVISION } from '../../../core/keys.ts';
import { COMPONENTS, POD_COMPONENT } from '../../../core/components.ts';
import { trimPod, type PodObject } from '../../../reconciler/model.ts';
import { planNode } from '../../../reconciler/node/plan.ts';
import { aPolicy, verdict } from '../../builders/objects.ts';
import { World } from './world.ts';

const SELECTOR = { namespace: 'gpu-operator', matchLabels: { app: 'nvidia-driver' } };
const EXTERNAL = aPolicy({ components: { driver: { mode: 'external', podSelector: SELECTOR } } });

/**
 * What an API server would hold of a pod that a tenant made up, seen through the reconciler's own
 * reader.
 */
function tenantPod(world: World, parts: Parts): PodObject | undefined {
  const labels = {
    ...parts.labels,
    [COMPONENT]: POD_COMPONENT[parts.component],
    [REVISION]: parts.isRevision ? (world.node.metadata.labels?.[DEPLOY_PREFIX + parts.component] ?? 'x') : 'x',
    app: 'nvidia-driver',
  };
  const [copied] = [...world.pods.values()].filter((pod) => pod.labels[COMPONENT] === POD_COMPONENT[parts.component]);
  const owner =
    parts.owner === 'node'
      ? { kind: 'Node', uid: 'node-uid', name: 'n' }
      : { kind: parts.owner, uid: copied?.controller?.uid ?? 'ds', name: 'ds', controller: true };
  const raw = {
    metadata: {
      name: parts.isNamedAlike ? (copied?.name ?? 'pod') : 'pod',
      namespace: parts.namespace,
      uid: `tenant-${parts.namespace}-${parts.component}`,
      creationTimestamp: '2026-11-24T08:00:00Z',
      labels,
      ownerReferences: [owner],
      ...(parts.isDeleting ? { deletionTimestamp: '2026-11-24T10:00:00Z' } : {}),
    },
    spec: { nodeName: 'n', containers: [{ name: 'c' }] },
    status: {
      phase: parts.phase,
      conditions: [{ type: 'Ready', status: parts.isReady ? 'True' : 'False' }],
      containerStatuses: [
        {
          name: 'c',
          ready: parts.isReady,
          restartCount: 0,
          state: parts.isReady
            ? { running: { startedAt: '2026-11-24T12:00:00Z' } }
            : { waiting: { reason: 'CrashLoopBackOff' } },
        },
      ],
    },
  };
  return trimPod(
    raw,
    'gpu-gate-operands',
    (namespace, given) => namespace === SELECTOR.namespace && given['app'] === 'nvidia-driver',
  );
}

interface Parts {
  readonly namespace: string;
  readonly component: (typeof COMPONENTS)[number];
  readonly labels: Record<string, string>;
  readonly isRevision: boolean;
  readonly isNamedAlike: boolean;
  readonly isDeleting: boolean;
  readonly isReady: boolean;
  readonly owner: string;
  readonly phase: string;
}
const parts = fc.record<Parts>({
  namespace: fc.constantFrom('team', 'default', 'gpu-operator-2', 'gpu-gate'),
  component: fc.constantFrom(...COMPONENTS),
  labels: fc.record(
    {
      [INJECTED]: fc.constantFrom('true', 'false'),
      [PART_OF]: fc.constant('gpu-gate'),
      [MANAGED_BY]: fc.constant('gpu-gate'),
    },
    { requiredKeys: [] },
  ) as fc.Arbitrary<Record<string, string>>,
  isRevision: fc.boolean(),
  isNamedAlike: fc.boolean(),
  isDeleting: fc.boolean(),
  isReady: fc.boolean(),
  owner: fc.constantFrom('DaemonSet', 'ReplicaSet', 'Job', 'node'),
  phase: fc.constantFrom('Pending', 'Running', 'Succeeded', 'Failed'),
});
/** Where the node stands when the tenant's pods come. */
const stand = fc.record({
  passes: fc.integer({ min: 1, max: 25 }),
  policy: fc.constantFrom(undefined, EXTERNAL),
  optsOut: fc.boolean(),
  driverRestarts: fc.boolean(),
});

describe('pods of tenants', () => {
  it('change no write', () => {
    fc.assert(
      fc.property(stand, fc.array(parts, { minLength: 1, maxLength: 4 }), (at, made) => {
        const world = new World(at.policy);
        for (let i = 0; i < at.passes; i += 1) world.step();
        if (at.optsOut) world.relabel((labels) => delete labels[MANAGED]);
        if (at.driverRestarts && world.pods.has('driver-pod')) world.start('driver');
        const input = world.input();
        const theirs = made.flatMap((one) => tenantPod(world, one) ?? []);
        for (const pods of [
          [...theirs, ...input.pods],
          [...input.pods, ...theirs],
        ])
          expect(planNode({ ...input, pods }).actions).toEqual(planNode(input).actions);
      }),
      { numRuns: 300 },
    );
  });
  it('a pod that validates the node counts in the operand namespace alone, and for this Node object alone', () => {
    const world = new World();
    world.validationsFail = true;
    world.settle(10);
    const [name = '', pod] = [...world.pods].find(([key]) => key.startsWith('driver-validation')) ?? [];
    if (pod === undefined) throw new Error('no validation pod');
    const message = verdict(true, 'Test PASSED');
    const ended = { name: 'c', ready: false, restartCount: 0, state: { terminated: { exitCode: 0, message } } };
    const passes = (validates: string): boolean => {
      const forged: PodObject = { ...pod, validates, phase: 'Succeeded', containers: [ended] };
      const { actions } = planNode({ ...world.input(), validationPods: new Map([[name, forged]]) });
      return actions.some(
        (action) => action.kind === 'patch-node' && 'gpu-gate.dev/deploy.device-plugin' in action.labels,
      );
    };
    expect([passes('another-node'), passes('node-uid')]).toEqual([false, true]);
  });
});
