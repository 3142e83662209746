import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { KubeError, type Kube } from '../../platform/kube.ts';
import type { Action } from '../../reconciler/actions.ts';
import { applier, refusalOf } from '../../reconciler/apply.ts';
import { reconcilerMetrics } from '../../reconciler/metrics.ts';
import { NOW } from '../builders/objects.ts';

it.each([
  [422, 'DaemonSet.apps "d" is invalid: spec.x: Invalid value', true],
  [403, 'pods "x" is forbidden: exceeded quota: gpus', true],
  [500, 'failed to create typed patch object (d): .spec.limitz: field not declared in schema', true],
  [500, 'failed to convert new object (d) to proper version: quantities must match', true],
  [500, 'etcdserver: request timed out', false],
  [429, 'too many requests', false],
])('%i %s: refused for good is %j', (status, sentence, isForGood) =>
  expect(refusalOf(new KubeError(status, '', 'PATCH /apis/x', sentence))).toBe(isForGood ? sentence : undefined),
);

/** The end of what a client answers; nothing is sent. */
const answering = (error: Error) =>
  applier({
    kube: {
      request: async () => {
        throw error;
      },
    } as unknown as Kube,
    metrics: reconcilerMetrics(new Registry()),
    leads: () => true,
    now: () => NOW,
    instance: 'replica-1',
    standing: () => undefined,
  });
const create: Action = { kind: 'create-pod', manifest: { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' } } };
const evict: Action = { kind: 'evict-pod', namespace: 'team', name: 'p', uid: 'u', because: 'x' };
const mark: Action = { kind: 'patch-node', node: 'n', uid: 'u', labels: {}, annotations: {} };

it.each([
  ['a refused pod is an answer', create, new KubeError(403, 'Forbidden', 'POST /x', 'exceeded quota'), 'refused'],
  ['an eviction that a budget holds back', evict, new KubeError(429, 'TooManyRequests', 'x', 'budget'), 'refused'],
  [
    'an eviction of a pod with two budgets',
    evict,
    new KubeError(500, 'InternalError', 'x', 'This pod has more than one PodDisruptionBudget'),
    'refused',
  ],
  ['an eviction without the right to it', evict, new KubeError(403, 'Forbidden', 'x', 'forbidden'), 'refused'],
  ['an eviction of a pod that is gone', evict, new KubeError(404, 'NotFound', 'x', 'gone'), 'stale'],
  ['an object that has changed is stale', mark, new KubeError(409, 'Conflict', 'x', 'changed'), 'stale'],
  ['an object that is gone is stale', mark, new KubeError(404, 'NotFound', 'x', 'gone'), 'stale'],
])('%s', async (_, action, error, kind) => expect(await answering(error).apply(action)).toMatchObject({ kind }));

it.each([
  ['an eviction that the server fails on', evict, new KubeError(500, 'InternalError', 'x', 'etcd')],
  ['a Node that may not be written', mark, new KubeError(403, 'Forbidden', 'x', 'no right')],
  ['a server that is not reached', create, new Error('x')],
])(
  '%s is an error',
  async (_, action, error) => await expect(answering(error).apply(action)).rejects.toThrow(action.kind),
);
