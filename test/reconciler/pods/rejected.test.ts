import { describe, expect, it } from 'vitest';
import { MANAGED, STATE } from '../../../core/keys.ts';
import { fateOf, isRejected, wordsOf } from '../../../reconciler/pods/rejected.ts';
import { aNode, keptPod } from '../../builders/objects.ts';

const UNEXPECTED = 'UnexpectedAdmissionError';
const rejected = (reason: string, message = '') => keptPod({ namespace: 'team', phase: 'Failed', reason, message });
const LOST =
  'Pod was rejected: Allocate failed due to device plugin GetPreferredAllocation rpc failed with err: GPU is lost, which is unexpected';
const unavailable = (resource: string): string =>
  `Pod was rejected: Allocate failed due to requested number of devices unavailable for ${resource}. Requested: 1, Available: 0, which is unexpected`;

describe('a GPU rejection', () => {
  it.each([
    ['no GPU left', UNEXPECTED, unavailable('nvidia.com/gpu'), true],
    ['a MIG device', UNEXPECTED, unavailable('nvidia.com/mig-1g.5gb'), true],
    ['a lost GPU, whose message names no resource', UNEXPECTED, LOST, true],
    [
      'unhealthy devices',
      UNEXPECTED,
      'no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu',
      true,
    ],
    ['no message', UNEXPECTED, '', true],
    ['out of GPUs', 'OutOfnvidia.com/gpu', 'Node didn’t have enough resource', true],
    ['another device', UNEXPECTED, unavailable('rdma/hca'), false],
    ['another vendor’s device', UNEXPECTED, unavailable('amd.com/gpu'), false],
    ['out of CPU', 'OutOfcpu', '', false],
    ['evicted', 'Evicted', 'The node was low on resource: memory.', false],
  ])('%s', (_, reason, message, is) => expect(isRejected(rejected(reason, message), aNode())).toBe(is));
  it('is also that of a bare pod', () => {
    expect(isRejected({ ...rejected(UNEXPECTED, LOST), owned: false }, aNode())).toBe(true);
  });
  it('is of a pod that failed, on a managed node', () => {
    expect(isRejected({ ...rejected(UNEXPECTED, LOST), phase: 'Running' }, aNode())).toBe(false);
    expect(isRejected(rejected(UNEXPECTED, LOST), undefined)).toBe(false);
    const unmanaged = aNode({ labels: { [MANAGED]: 'false', [STATE]: undefined as never } });
    expect(isRejected(rejected(UNEXPECTED, LOST), unmanaged)).toBe(false);
  });
});

it('the kubelet’s words come without their frame', () => {
  expect(wordsOf(rejected(UNEXPECTED, LOST))).toBe(
    'Allocate failed due to device plugin GetPreferredAllocation rpc failed with err: GPU is lost',
  );
  expect(wordsOf(rejected('OutOfnvidia.com/gpu'))).toBe('OutOfnvidia.com/gpu');
});

it.each([
  [undefined, 'no controller owns it, so it has failed for good: create it again'],
  ['Job', 'its Job creates another one only if its backoffLimit and podFailurePolicy allow that'],
  ['ReplicaSet', 'its ReplicaSet creates another one'],
])('a pod of %s: %s', (controller, fate) => expect(fateOf(controller)).toBe(fate));
