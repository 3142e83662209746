// Which condition an action writes, and what the caches have of it.
import { expect, it } from 'vitest';
import { GPU_VALIDATED } from '../../core/keys.ts';
import type { Action } from '../../reconciler/actions.ts';
import { standingIn } from '../../reconciler/standing.ts';
import { cachesOf } from '../builders/caches.ts';
import { aNode, keptPod } from '../builders/objects.ts';

const READY = 'gpu-gate.dev/gpu-ready';
const caches = cachesOf({
  nodes: [aNode({ validated: false })],
  pods: [keptPod({ namespace: 'team', name: 'p', conditions: [{ type: READY, status: 'True' }] })],
});
const condition = { type: GPU_VALIDATED, status: 'True', reason: '', message: '' } as const;
const onNode = { node: 'node-a', uid: 'u' };
const onPod = { kind: 'set-pod-condition', namespace: 'team', name: 'p', uid: 'u' } as const;
const marks = { kind: 'patch-node', ...onNode, labels: {}, annotations: {} } as const;

it.each<[what: string, action: Action, standing: string | undefined]>([
  ['the condition of a node', { kind: 'set-node-condition', ...onNode, type: GPU_VALIDATED, condition }, 'False'],
  [
    'a condition that the node does not have',
    { kind: 'set-node-condition', ...onNode, type: 'Other', condition },
    undefined,
  ],
  [
    'the condition of a node that is gone',
    { kind: 'set-node-condition', ...onNode, node: 'gone', type: GPU_VALIDATED, condition },
    undefined,
  ],
  ['marks with a condition', { ...marks, status: { type: GPU_VALIDATED, condition } }, 'False'],
  ['marks without one', marks, undefined],
  ['the condition of a pod', { ...onPod, condition: { ...condition, type: READY } }, 'True'],
  [
    'the condition of a pod that is gone',
    { ...onPod, name: 'gone', condition: { ...condition, type: READY } },
    undefined,
  ],
  ['no condition', { kind: 'delete-pod', namespace: 'team', name: 'p', uid: 'u', because: '' }, undefined],
])('%s', (_, action, standing) => expect(standingIn(caches)(action)).toBe(standing));
