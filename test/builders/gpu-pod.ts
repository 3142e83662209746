import { trimPod, type PodObject } from '../../reconciler/model.ts';

/** A user's injected GPU pod on node-a, as the reconciler keeps it. */
export const aGpuPod = (more: object = {}, spec: object = {}, status: object = {}): PodObject => {
  const pod = trimPod(
    {
      metadata: {
        name: 'p',
        namespace: 'team',
        uid: 'u',
        creationTimestamp: '2026-11-24T09:00:00Z',
        labels: { 'gpu-gate.dev/injected': 'true' },
        ownerReferences: [{ kind: 'ReplicaSet', controller: true }],
        ...more,
      },
      spec: {
        nodeName: 'node-a',
        readinessGates: [{ conditionType: 'gpu-gate.dev/node-validated' }],
        containers: [{ resources: { limits: { 'nvidia.com/gpu': '2', cpu: '1' } } }],
        ...spec,
      },
      status: { phase: 'Running', ...status },
    },
    'gpu-gate-operands',
    () => false,
  );
  if (pod === undefined) throw new Error('trimmed away');
  return pod;
};
