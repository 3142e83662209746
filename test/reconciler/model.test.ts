import { describe, expect, it } from 'vitest';
import { isSameNode, trimEvent, trimNode, type RawEvent } from '../../reconciler/model.ts';

const raw = (more: { version?: string; heartbeat?: string; ready?: string; labels?: Record<string, string> } = {}) => ({
  metadata: {
    name: 'n',
    uid: 'u',
    resourceVersion: more.version ?? '1',
    labels: { pool: 'a', ...more.labels },
    annotations: {
      'gpu-gate.dev/proof': '{}',
      'nfd.node.kubernetes.io/feature-labels': 'a,b,c',
      'node.alpha.kubernetes.io/ttl': '0',
    },
    managedFields: [{ manager: 'kubelet' }],
  },
  spec: { taints: [] },
  status: {
    nodeInfo: { bootID: 'b', kernelVersion: 'k', osImage: 'x' },
    images: [{ names: ['x'] }],
    conditions: [
      { type: 'MemoryPressure', status: 'False', lastHeartbeatTime: more.heartbeat ?? 'a' },
      {
        type: 'Ready',
        status: more.ready ?? 'True',
        reason: 'KubeletReady',
        message: 'm',
        lastHeartbeatTime: more.heartbeat ?? 'a',
        lastTransitionTime: 't',
      },
    ],
    allocatable: { 'nvidia.com/gpu': '8', cpu: '64' },
  },
});

describe('a Node is kept', () => {
  it('with our annotations and the conditions that we read', () => {
    const node = trimNode(raw());
    expect(node.metadata.annotations).toEqual({ 'gpu-gate.dev/proof': '{}' });
    expect(node.status?.conditions).toEqual([
      { type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'm', lastTransitionTime: 't' },
    ]);
    expect(node.status?.allocatable).toEqual({ 'nvidia.com/gpu': '8' });
    expect(JSON.stringify(node)).not.toMatch(/images|managedFields|osImage/);
  });
  it.each([
    ['a heartbeat is not a change', { version: '2', heartbeat: 'b' }, true],
    ['not Ready is', { version: '2', ready: 'False' }, false],
    ['a label is', { version: '2', labels: { pool: 'b' } }, false],
  ])('so that %s', (_, more, same) => expect(isSameNode(trimNode(raw()), trimNode(raw(more)))).toBe(same));
});

describe('an Event is kept', () => {
  const event = (more: RawEvent = {}): RawEvent => ({
    involvedObject: { kind: 'Pod', name: 'driver-x', uid: 'u' },
    reason: 'FailedMount',
    message: ' MountVolume.SetUp failed ',
    lastTimestamp: '2026-11-24T10:00:00Z',
    ...more,
  });
  it('if it says why a pod does not come or does not start', () =>
    expect(trimEvent(event())).toEqual({
      about: 'u',
      kind: 'Pod',
      name: 'driver-x',
      message: 'FailedMount: MountVolume.SetUp failed',
      at: Date.parse('2026-11-24T10:00:00Z'),
    }));
  it.each([
    ['another reason', { reason: 'BackOff' }],
    ['another kind', { involvedObject: { kind: 'Node', name: 'n', uid: 'u' } }],
    ['no object', { involvedObject: {} }],
  ])('and not with %s', (_, more) => expect(trimEvent(event(more))).toBeUndefined());
  it('with whatever time it has', () => {
    const at = '2026-11-24T11:00:00Z';
    const late = { lastTimestamp: null, eventTime: at };
    expect(trimEvent(event(late))?.at).toBe(Date.parse(at));
    expect(trimEvent(event({ lastTimestamp: null, metadata: { creationTimestamp: at } }))?.at).toBe(Date.parse(at));
    expect(trimEvent(event({ lastTimestamp: 'x' }))?.at).toBe(0);
  });
  it('without words where it has none', () =>
    expect(
      trimEvent(event({ message: undefined as never, involvedObject: { kind: 'DaemonSet', uid: 'u' } })),
    ).toMatchObject({
      kind: 'DaemonSet',
      name: '',
      message: 'FailedMount: ',
    }));
});

it('a Node is kept with the handlers of its container runtime, and with its deletion', () => {
  const at = '2026-11-24T11:00:00Z';
  const node = trimNode({
    ...raw(),
    metadata: { ...raw().metadata, deletionTimestamp: at },
    status: { ...raw().status, runtimeHandlers: [{ name: 'nvidia' }, {}] },
  });
  expect(node.metadata.deletionTimestamp).toBe(at);
  expect(node.status?.runtimeHandlers).toEqual(['nvidia', '']);
});
