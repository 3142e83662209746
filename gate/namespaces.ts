// Which namespaces the webhook leaves alone, and which may name a policy. Webhook, extender,
// `explain` and reconciler all ask here.
import type { GpuPolicy } from '../core/gpu-policy.ts';
import { INJECT, POLICY } from '../core/keys.ts';

/** Do these labels, of a pod or of a namespace, opt out of the injection? */
export const optsOut = (labels: Readonly<Record<string, string>> | null | undefined): boolean =>
  labels?.[INJECT] === 'false';

/** What the webhook may do in a namespace. */
export const namespaceRule = (
  name: string,
  optedOut: boolean,
  excluded: ReadonlySet<string>,
): 'inject' | 'excluded' | 'opted-out' => (excluded.has(name) ? 'excluded' : optedOut ? 'opted-out' : 'inject');

/**
 * Why a pod of the namespace may not name this policy, in one sentence; `undefined` if it may, or
 * if it names none. Decided before all else that the policy says, because naming a policy that does
 * not enforce must not be a way around the one that does.
 */
export const namingRefused = (
  named: string | undefined,
  namespace: string,
  { spec }: Pick<GpuPolicy, 'spec'>,
): string | undefined =>
  named === undefined || spec.allowedNamespaces.length === 0 || spec.allowedNamespaces.includes(namespace)
    ? undefined
    : `GPUPolicy ${named} may not be named in this namespace: leave the annotation ${POLICY} out, or have the namespace added to the policy's allowedNamespaces`;
