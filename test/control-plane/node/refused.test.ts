// A cluster whose admission refuses gpu-gate's pods: the node's condition has the API server's own
// sentence, for pods that a DaemonSet's controller creates and for those that gpu-gate creates.
import { afterAll, beforeAll, it } from 'vitest';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { startGate, until } from '../../../lab/cluster/gate.ts';
import { viewOf } from '../../builders/view.ts';

let cluster: Cluster;
const { node, kubectl, validated } = viewOf(() => cluster);
const SENTENCE = 'privileged pods need an exception';
const ADMISSION = '/apis/admissionregistration.k8s.io/v1';

/** Refuses privileged pods of the operands' namespace that carry this component's label. */
async function refuse(name: string, component: string): Promise<() => Promise<unknown>> {
  await cluster.admin.request('POST', `${ADMISSION}/validatingadmissionpolicies`, {
    body: {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingAdmissionPolicy',
      metadata: { name },
      spec: {
        matchConstraints: {
          resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
        },
        matchConditions: [
          {
            name: 'component',
            expression: `object.metadata.?labels[?'app.kubernetes.io/component'].orValue('') == '${component}'`,
          },
        ],
        validations: [
          {
            expression: 'object.spec.containers.all(c, !c.?securityContext.?privileged.orValue(false))',
            message: SENTENCE,
          },
        ],
      },
    },
  });
  await cluster.admin.request('POST', `${ADMISSION}/validatingadmissionpolicybindings`, {
    body: {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata: { name },
      spec: { policyName: name, validationActions: ['Deny'] },
    },
  });
  return () => cluster.admin.request('DELETE', `${ADMISSION}/validatingadmissionpolicybindings/${name}`);
}
const says = (...parts: string[]): Promise<unknown> =>
  until(`the condition to say ${parts.join(', ')}`, async () => {
    const { status } = await node('gpu-0');
    const message = status.conditions.find(({ type }) => type === 'GPUValidated')?.message ?? '';
    return parts.every((part) => message.includes(part));
  });

beforeAll(async () => {
  cluster = await startCluster({ nodes: 1, say: console.log });
  await startGate(cluster, {
    values: { policy: { spec: { validation: { backoff: { initial: '1s', max: '2s' } } } } },
  });
});
afterAll(async () => cluster?.stop());

it('a DaemonSet’s pod, and then a validation pod; without the refusal the walk goes on by itself', async () => {
  const allowDriver = await refuse('no-privileged-driver', 'driver');
  const allowCheck = await refuse('no-privileged-check', 'driver-validation');
  await kubectl('label', 'node', 'gpu-0', 'gpu-gate.dev/managed=true');
  await says('driver: ', 'FailedCreate: ', SENTENCE);
  await allowDriver();
  await says('driver-validation: ', 'refused by the API server', SENTENCE);
  await allowCheck();
  await validated('gpu-0');
});
