// The command line of `explain`, which takes kubeconfigs and namespaces as kubectl does.
import { parseArgs } from 'node:util';
import { kubeconfigsOf } from '../core/kubeconfigs.ts';
import type { RawPod } from '../gate/gpu-request.ts';

export interface ExplainArgs {
  readonly pod: string;
  /** `undefined` means the context's. */
  readonly namespace: string | undefined;
  readonly kubeconfigs: readonly string[];
  readonly ownNamespace: string;
  readonly operandNamespace: string;
  readonly excludedNamespaces: readonly string[];
  readonly output: 'text' | 'json';
  /** A pod that does not exist yet, in place of one that is read from the API. */
  readonly manifest?: RawPod;
  /** Only this node. */
  readonly whyNot?: string | undefined;
}

export const EXPLAIN_USAGE = `  node main.ts explain POD [options]               every node and its verdict for that pod
    -n, --namespace NAMESPACE                      default: that of the kubeconfig's context
    -o, --output text|json
    --kubeconfig PATH                              default: $KUBECONFIG, one path or several, else ~/.kube/config
    --own-namespace, --operand-namespace NAME      gpu-gate's, if they are not gpu-gate and gpu-gate-operands
    --excluded-namespaces LIST                     as given to gpu-gate; default: kube-system
`;

/** The arguments, or what is wrong with them. */
export function parseExplainArgs(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): { readonly ok: true; readonly args: ExplainArgs } | { readonly ok: false; readonly because: string } {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        namespace: { type: 'string', short: 'n' },
        output: { type: 'string', short: 'o', default: 'text' },
        kubeconfig: { type: 'string' },
        'own-namespace': { type: 'string', default: 'gpu-gate' },
        'operand-namespace': { type: 'string', default: 'gpu-gate-operands' },
        'excluded-namespaces': { type: 'string', default: 'kube-system' },
      },
    });
    const { output } = values;
    const [pod, ...more] = positionals;
    if (pod === undefined || more.length > 0 || (output !== 'text' && output !== 'json'))
      return { ok: false, because: 'write: explain POD [-n NAMESPACE] [-o text|json]; see --help' };
    return {
      ok: true,
      args: {
        pod,
        namespace: values.namespace,
        kubeconfigs: values.kubeconfig === undefined ? kubeconfigsOf(env) : [values.kubeconfig],
        ownNamespace: values['own-namespace'],
        operandNamespace: values['operand-namespace'],
        excludedNamespaces: values['excluded-namespaces']
          .split(',')
          .map((part) => part.trim())
          .filter((part) => part !== ''),
        output,
      },
    };
  } catch (error) {
    return { ok: false, because: error instanceof Error ? error.message : String(error) };
  }
}
