// What is reported of a node's changes, as values.
import { describe, expect, it } from 'vitest';
import { CLOSED, MANAGED, PROOF, STATE } from '../../../core/keys.ts';
import { eventsOf, misspeltOf, nodeEvent, restartsOf } from '../../../reconciler/node/events.ts';
import type { Desired } from '../../../reconciler/node/marks.ts';
import type { NodeObject } from '../../../reconciler/model.ts';
import { newWalk, type Failure, type Walk } from '../../../reconciler/walk.ts';
import { aNode, NOW } from '../../builders/objects.ts';

const at = new Date(NOW).toISOString();
const walk = newWalk('uid-node-a', 'boot-1', NOW);
const proof = { node: 'uid-node-a', boot: 'boot-1', at, level: 'full', components: {} } as const;
/** A node in that state, with a proof and a closing or not. */
const node = (state: string | undefined, annotations: Record<string, string> = {}): NodeObject => {
  const whole = aNode();
  const { [STATE]: _, ...labels } = whole.metadata.labels ?? {};
  const metadata = {
    ...whole.metadata,
    labels: state === undefined ? labels : { ...labels, [STATE]: state },
    annotations,
  };
  return { ...whole, metadata };
};
const bare: NodeObject = { metadata: { name: 'node-a', uid: 'uid-node-a', resourceVersion: '1' } };
const desired = (state: string, more: Partial<Desired> = {}): Desired => ({
  state,
  deploy: {},
  proof: undefined,
  closed: undefined,
  walk,
  policy: 'default',
  condition: { status: 'False', reason: 'R', said: { text: 'the sentence' } },
  taint: false,
  ...more,
});
const PROVEN = { [PROOF]: '{}' };
const validated = (more: Partial<Desired> = {}): Desired => desired('validated', { proof, ...more });
const failure: Failure = { stage: 'driver', reason: 'CrashLoop', message: 'it crashes', at, retryAt: at, inputs: 'i' };
const failed: Walk = { ...walk, failed: failure };
const lost = (count: number): Walk => ({ ...walk, lost: { 'nvidia.com/gpu': count } });
const out: Walk = { ...walk, leftOut: { 'd/p/gpu-0': { at, because: 'xid 79' } } };
const rollOut: Walk = { ...walk, rollOut: { phase: 'drain', since: at } };
const skipped: Walk = { ...walk, skipped: { move: 'm', at, text: 't' } };
const installer: Walk = { ...walk, installer: 'nvidia.com/gpu.deploy.driver' };

describe('an Event is written where', () => {
  it.each<[what: string, node: NodeObject, before: Walk | undefined, desired: Desired, reasons: readonly string[]]>([
    ['a walk begins', node(undefined), undefined, desired('preflight'), ['GPUStage']],
    ['a walk begins on a node without a label', bare, undefined, desired('preflight'), ['GPUStage']],
    ['not: a walk goes on', node('toolkit'), walk, desired('driver'), []],
    ['not: nothing changes', node('driver'), walk, desired('driver'), []],
    ['a node is validated', node('device-plugin-validation'), walk, validated(), ['GPUValidated']],
    [
      'a node whose proof stood for running pods is validated',
      node('driver', PROVEN),
      walk,
      validated(),
      ['GPUValidated'],
    ],
    ['a node that shows it already is proven', node('validated'), walk, validated(), ['GPUValidated']],
    ['not: it stays validated', node('validated', PROVEN), walk, validated(), []],
    ['a node is not validated any more', node('validated', PROVEN), walk, desired('driver'), ['GPUStage']],
    ['a node closes', node('validated', PROVEN), walk, validated({ closed: 'awaiting driver' }), ['GPUNodeClosed']],
    ['not: it stays closed', node('validated', { ...PROVEN, [CLOSED]: 'x' }), walk, validated({ closed: 'x' }), []],
    ['a node opens', node('validated', { ...PROVEN, [CLOSED]: 'x' }), walk, validated(), ['GPUNodeOpen']],
    [
      'not: a node without a proof is not closed any more',
      node('driver', { [CLOSED]: 'x' }),
      walk,
      desired('driver'),
      [],
    ],
    ['a state fails', node('driver'), walk, desired('failed', { walk: failed }), ['R']],
    [
      'a state fails in the first look at a node',
      node('driver'),
      undefined,
      desired('failed', { walk: failed }),
      ['R'],
    ],
    [
      'a state fails, and no condition says why',
      node('driver'),
      walk,
      desired('failed', { walk: failed, condition: undefined }),
      ['Failed'],
    ],
    ['not: it has failed before', node('failed'), failed, desired('failed', { walk: failed }), []],
    [
      'a turn in a roll-out begins',
      node('validated', PROVEN),
      walk,
      validated({ walk: rollOut, closed: 'roll-out' }),
      ['GPURollOutBegun'],
    ],
    [
      'a turn begins that nobody remembers',
      node('validated', PROVEN),
      undefined,
      validated({ walk: rollOut }),
      ['GPURollOutBegun'],
    ],
    ['not: it goes on', node('validated', PROVEN), rollOut, validated({ walk: rollOut }), []],
    [
      'a drain was in vain',
      node('validated', PROVEN),
      rollOut,
      validated({ walk: skipped }),
      ['GPURollOutDrainTimedOut'],
    ],
    [
      'a drain was in vain, and nobody remembers the turn',
      node('validated', PROVEN),
      undefined,
      validated({ walk: skipped }),
      ['GPURollOutDrainTimedOut'],
    ],
    ['not: that has been reported', node('validated', PROVEN), skipped, validated({ walk: skipped }), []],
    ['a device is left out', node('validated', PROVEN), walk, validated({ walk: out }), ['GPUDeviceLeftOut']],
    [
      'a device is left out that nobody remembers',
      node('validated', PROVEN),
      undefined,
      validated({ walk: out }),
      ['GPUDeviceLeftOut'],
    ],
    ['not: that has been reported', node('validated', PROVEN), out, validated({ walk: out }), []],
    ['GPUs are lost', node('validated', PROVEN), walk, validated({ walk: lost(1) }), ['GPUsLost']],
    [
      'GPUs are lost that nobody remembers',
      node('validated', PROVEN),
      undefined,
      validated({ walk: lost(1) }),
      ['GPUsLost'],
    ],
    ['more GPUs are lost', node('validated', PROVEN), lost(1), validated({ walk: lost(2) }), ['GPUsLost']],
    ['not: that has been reported', node('validated', PROVEN), lost(1), validated({ walk: lost(1) }), []],
    [
      'another installer comes',
      node('validated', PROVEN),
      walk,
      validated({ walk: installer }),
      ['GPUSecondInstaller'],
    ],
    [
      'another installer is there that nobody remembers',
      node('validated', PROVEN),
      undefined,
      validated({ walk: installer }),
      ['GPUSecondInstaller'],
    ],
    ['not: that has been reported', node('validated', PROVEN), installer, validated({ walk: installer }), []],
    [
      'not: the memory of the node goes',
      node('driver'),
      walk,
      desired('driver', { walk: undefined, condition: undefined }),
      [],
    ],
  ])('%s', (_, of, before, wanted, reasons) =>
    expect(eventsOf(of, before, wanted).map(({ reason }) => reason)).toEqual(reasons),
  );
  it('it has the sentence of the condition, and is about the Node', () =>
    expect(eventsOf(node(undefined), undefined, desired('preflight'))).toEqual([
      {
        kind: 'event',
        about: { kind: 'Node', name: 'node-a', uid: 'uid-node-a' },
        type: 'Normal',
        reason: 'GPUStage',
        message: 'the sentence',
      },
    ]));
});

it('a restart is reported, and a new pod of a validation is not', () => {
  const pod = { namespace: 'n', name: 'driver-pod', uid: 'u', because: 'trying driver again' };
  const manifest = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'x' } };
  expect(
    restartsOf(bare, [
      { kind: 'delete-pod', ...pod },
      { kind: 'create-pod', manifest },
    ]),
  ).toEqual([nodeEvent(bare, 'Normal', 'GPUOperandRestart', 'pod driver-pod is restarted: trying driver again')]);
});

it.each([
  ['yes', 1],
  ['true', 0],
  [undefined, 0],
])('a label that is meant to opt in is named as it stands: %s', (value, count) => {
  const labels = value === undefined ? undefined : { [MANAGED]: value };
  const of: NodeObject = { metadata: { ...bare.metadata, ...(labels === undefined ? {} : { labels }) } };
  const events = misspeltOf(of);
  expect(events).toHaveLength(count);
  for (const { once } of events) expect(once).toBe(true);
  for (const { message } of events) expect(message).toContain(`gpu-gate.dev/managed=${value ?? ''} does not opt`);
});
