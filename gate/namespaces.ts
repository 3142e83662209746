// Which namespaces the webhook leaves alone. The webhook decides by it, the reconciler reports no
// pod there as missed.
import { INJECT } from '../core/keys.ts';

/** Do these labels, of a pod or of a namespace, opt out of the injection? */
export const optsOut = (labels: Readonly<Record<string, string>> | null | undefined): boolean =>
  labels?.[INJECT] === 'false';

/** What the webhook may do in a namespace. */
export const namespaceRule = (
  name: string,
  optedOut: boolean,
  excluded: ReadonlySet<string>,
): 'inject' | 'excluded' | 'opted-out' => (excluded.has(name) ? 'excluded' : optedOut ? 'opted-out' : 'inject');
