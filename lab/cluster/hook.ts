// What a kubelet does with the Job that the chart's uninstall hook makes: its pod's command runs as
// a process, under the pod's ServiceAccount, and the pod ends as the process does.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { STRATEGIC_PATCH } from '../../platform/kube.ts';
import { runCommand, type CommandResult, type ControlPlane } from './control-plane.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const PODS = '/api/v1/namespaces/gpu-gate/pods';

interface JobPod {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly serviceAccountName: string;
    readonly nodeName?: string;
    readonly containers: readonly { readonly name: string; readonly args: readonly string[] }[];
  };
  readonly status: { readonly phase: string };
}

/**
 * Runs the next pod of the hook to its end. `began` is called with the pod's kubeconfig before the
 * process starts.
 */
export async function playHook(
  cp: ControlPlane,
  signal: AbortSignal,
  began: (kubeconfig: string) => Promise<void> = async () => undefined,
): Promise<CommandResult> {
  for (;;) {
    signal.throwIfAborted();
    const { items } = await cp.admin.request<{ items: JobPod[] }>('GET', PODS, {
      query: { labelSelector: 'batch.kubernetes.io/job-name=gpu-gate-release' },
    });
    const pod = items.find(({ spec, status }) => spec.nodeName !== undefined && status.phase === 'Running');
    const [container] = pod?.spec.containers ?? [];
    if (pod === undefined || container === undefined) {
      await sleep(200, undefined, { signal });
      continue;
    }
    const kubeconfig = await cp.serviceAccountKubeconfig('gpu-gate', pod.spec.serviceAccountName);
    await began(kubeconfig);
    const result = await runCommand(
      process.execPath,
      [join(ROOT, 'main.ts'), ...container.args, '--kubeconfig', kubeconfig],
      {},
    );
    const at = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    await cp.admin.request('PATCH', `${PODS}/${pod.metadata.name}/status`, {
      contentType: STRATEGIC_PATCH,
      body: {
        status: {
          phase: result.code === 0 ? 'Succeeded' : 'Failed',
          containerStatuses: [
            {
              name: container.name,
              image: '',
              imageID: '',
              ready: false,
              restartCount: 0,
              state: { terminated: { exitCode: result.code, startedAt: at, finishedAt: at } },
            },
          ],
        },
      },
    });
    return result;
  }
}
