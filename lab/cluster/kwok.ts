// kwok plays the kubelets of simulated nodes: it keeps their leases and runs ordinary pods. GPU
// pods and operands are the simulated hardware's (hardware.ts), because what they do depends on
// other objects, which a stage cannot see.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Binaries } from './binaries.ts';
import type { ControlPlane } from './control-plane.ts';
import { freePort } from './control-plane.ts';
import { tailOf } from './lifetime.ts';

export const SIMULATED = 'sim.gpu-gate.dev/node';

const stage = (name: string, spec: object): object => ({
  apiVersion: 'kwok.x-k8s.io/v1alpha1',
  kind: 'Stage',
  metadata: { name },
  spec: { resourceRef: { apiGroup: 'v1', kind: 'Pod' }, ...spec },
});

const notOurs = [
  { key: '.metadata.namespace', operator: 'NotIn', values: ['gpu-gate-operands'] },
  { key: '.spec.containers[].resources.limits["nvidia.com/gpu"]', operator: 'DoesNotExist' },
  { key: '.spec.resourceClaims', operator: 'DoesNotExist' },
];

const READY = `
{{ $now := Now }}
conditions:
{{ range .spec.readinessGates }}
- {type: {{ .conditionType | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- {image: {{ .image | Quote }}, imageID: "", name: {{ .name | Quote }}, ready: true, restartCount: 0, state: {running: {startedAt: {{ $now | Quote }}}}}
{{ end }}
phase: Running
startTime: {{ $now | Quote }}
`;

const documents = (leaseSeconds: number): object[] => [
  {
    apiVersion: 'config.kwok.x-k8s.io/v1alpha1',
    kind: 'KwokConfiguration',
    options: {
      nodeIP: '127.0.0.1',
      manageNodesWithLabelSelector: `${SIMULATED}=true`,
      nodeLeaseDurationSeconds: leaseSeconds,
      nodeLeaseParallelism: 4,
      nodePlayStageParallelism: 4,
      podPlayStageParallelism: 4,
      podsOnNodeSyncParallelism: 4,
    },
  },
  // Nodes have their status from cluster.ts and hardware.ts; without any node stage kwok would not
  // keep their leases either.
  {
    apiVersion: 'kwok.x-k8s.io/v1alpha1',
    kind: 'Stage',
    metadata: { name: 'node-nothing' },
    spec: {
      resourceRef: { apiGroup: 'v1', kind: 'Node' },
      selector: { matchExpressions: [{ key: '.metadata.labels["sim.gpu-gate.dev/never"]', operator: 'Exists' }] },
      next: { statusTemplate: 'phase: Running' },
    },
  },
  stage('pod-ready', {
    selector: {
      matchExpressions: [
        { key: '.metadata.deletionTimestamp', operator: 'DoesNotExist' },
        { key: '.status.podIP', operator: 'DoesNotExist' },
        { key: '.status.containerStatuses', operator: 'DoesNotExist' },
        ...notOurs,
      ],
    },
    next: { statusTemplate: READY },
  }),
  stage('pod-delete', {
    selector: { matchExpressions: [{ key: '.metadata.deletionTimestamp', operator: 'Exists' }, ...notOurs] },
    next: { finalizers: { empty: true }, delete: true },
  }),
];

/** Starts kwok beside the control plane. */
export async function startKwok(cp: ControlPlane, binaries: Binaries, leaseSeconds: number): Promise<void> {
  const config = join(cp.dir, 'kwok.yaml');
  writeFileSync(
    config,
    documents(leaseSeconds)
      .map((document) => JSON.stringify(document))
      .join('\n---\n'),
  );
  const args = ['--kubeconfig', cp.kubeconfig, '--config', config, '--server-address', `127.0.0.1:${await freePort()}`];
  const kwok = cp.lifetime.start('kwok', binaries('kwok'), args, {}, 0);
  await sleep(300);
  const code = kwok.exitCode();
  if (code !== undefined) throw new Error(`kwok ended at once (${code}); the end of its log:\n${tailOf(kwok.logFile)}`);
}
