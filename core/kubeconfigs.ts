// Which kubeconfigs kubectl's users mean.
import { delimiter, join } from 'node:path';

/** All files in `$KUBECONFIG` as kubectl takes it, or the file at home. */
export const kubeconfigsOf = (env: Readonly<Record<string, string | undefined>>): string[] => {
  const named = (env['KUBECONFIG'] ?? '').split(delimiter).filter((path) => path !== '');
  return named.length > 0 ? [...new Set(named)] : [join(env['HOME'] ?? '', '.kube', 'config')];
};
