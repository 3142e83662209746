// The command line of `release`.
import { parseArgs } from 'node:util';
import { parseDuration } from '../core/parse-policy.ts';

export interface ReleaseArgs {
  /** Empty inside a pod: its ServiceAccount is used then. */
  readonly kubeconfig: string;
  readonly namespace: string;
  readonly operandNamespace: string;
  /** The Deployment whose pods may lead. */
  readonly deployment: string;
  /** The Job that runs this as a hook of helm; empty by hand. */
  readonly job: string;
  readonly force: boolean;
  readonly timeoutMs: number;
}

export const RELEASE_USAGE = `  node main.ts release [options]                   takes gpu-gate out of the cluster, before 'helm uninstall'
    --force                                        also while GPU pods run that need an operand of gpu-gate
    --timeout DURATION                             default: 4m; a second run goes on where the first one stopped
    --kubeconfig PATH                              default: the ServiceAccount of the pod
    --namespace, --operand-namespace NAME          gpu-gate's, if they are not gpu-gate and gpu-gate-operands
    --deployment NAME                              the one that leads; default: gpu-gate-reconciler
    --job NAME                                     the Job that runs it: only one that helm made does anything
`;

/** The arguments, or what is wrong with them. */
export function parseReleaseArgs(
  args: readonly string[],
): { readonly ok: true; readonly args: ReleaseArgs } | { readonly ok: false; readonly because: string } {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        kubeconfig: { type: 'string', default: '' },
        namespace: { type: 'string', default: 'gpu-gate' },
        'operand-namespace': { type: 'string', default: 'gpu-gate-operands' },
        deployment: { type: 'string', default: 'gpu-gate-reconciler' },
        job: { type: 'string', default: '' },
        force: { type: 'boolean', default: false },
        timeout: { type: 'string', default: '4m' },
      },
    });
    const timeoutMs = parseDuration(values.timeout);
    if (timeoutMs === undefined || timeoutMs <= 0)
      return { ok: false, because: `--timeout ${values.timeout} is not a duration: write one such as 90s or 10m` };
    return {
      ok: true,
      args: {
        kubeconfig: values.kubeconfig,
        namespace: values.namespace,
        operandNamespace: values['operand-namespace'],
        deployment: values.deployment,
        job: values.job,
        force: values.force,
        timeoutMs,
      },
    };
  } catch (error) {
    return { ok: false, because: error instanceof Error ? error.message : String(error) };
  }
}
