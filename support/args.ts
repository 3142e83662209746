// The command line of `support`.
import { parseArgs } from 'node:util';
import { kubeconfigsOf } from '../core/kubeconfigs.ts';

export interface SupportArgs {
  /** Empty: a name with the time, in the working directory. */
  readonly file: string;
  readonly kubeconfigs: readonly string[];
  readonly context?: string | undefined;
  readonly ownNamespace: string;
  readonly operandNamespace: string;
}

export const SUPPORT_USAGE = `  node main.ts support [options]                   a file for those who help: states, reasons, messages, no Secret
    -o, --output FILE                              default: gpu-gate-support-TIME.tgz
    --kubeconfig PATH                              default: $KUBECONFIG, one path or several, else ~/.kube/config
    --own-namespace, --operand-namespace NAME      gpu-gate's, if they are not gpu-gate and gpu-gate-operands
`;

/** The arguments, or what is wrong with them. */
export function parseSupportArgs(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): { readonly ok: true; readonly args: SupportArgs } | { readonly ok: false; readonly because: string } {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        output: { type: 'string', short: 'o', default: '' },
        kubeconfig: { type: 'string' },
        'own-namespace': { type: 'string', default: 'gpu-gate' },
        'operand-namespace': { type: 'string', default: 'gpu-gate-operands' },
      },
    });
    return {
      ok: true,
      args: {
        file: values.output,
        kubeconfigs: values.kubeconfig === undefined ? kubeconfigsOf(env) : [values.kubeconfig],
        ownNamespace: values['own-namespace'],
        operandNamespace: values['operand-namespace'],
      },
    };
  } catch (error) {
    return { ok: false, because: error instanceof Error ? error.message : String(error) };
  }
}
