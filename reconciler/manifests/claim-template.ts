// The ResourceClaimTemplate of validation pods: one device of a class of the policy, as users ask
// for one, and tolerating the taint of a node that is not open yet. Pure.
import { canonical, digestOf } from '../../core/digest.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { COMPONENT, DEVICE_TAINT, MANAGED_BY, PART_OF, PRODUCT } from '../../core/keys.ts';
import type { Manifest } from '../actions.ts';

/** Names of these templates begin with it. */
export const CLAIM_TEMPLATE_PREFIX = 'dra-validation-';
/** So many choices a request may have. */
const MOST_CHOICES = 8;
const tolerations = [{ key: DEVICE_TAINT, operator: 'Exists' }];

/**
 * `undefined` while none of the policy's classes is there. A class that is not there would keep the
 * scheduler from looking at the others.
 */
export function claimTemplate(
  policy: GpuPolicy,
  namespace: string,
  isClass: (name: string) => boolean,
): Manifest | undefined {
  const classes = policy.spec.deviceClasses.filter(isClass).slice(0, MOST_CHOICES);
  const [first] = classes;
  if (first === undefined) return undefined;
  const request =
    classes.length === 1
      ? { name: 'gpu', exactly: { deviceClassName: first, tolerations } }
      : {
          name: 'gpu',
          firstAvailable: classes.map((deviceClassName, i) => ({ name: `choice-${i}`, deviceClassName, tolerations })),
        };
  const spec = { devices: { requests: [request] } };
  const labels = { [PART_OF]: PRODUCT, [COMPONENT]: 'dra-validation', [MANAGED_BY]: PRODUCT };
  return {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceClaimTemplate',
    metadata: {
      name: CLAIM_TEMPLATE_PREFIX + digestOf(JSON.stringify(canonical(spec)), 10),
      namespace,
      labels,
    },
    spec: { spec },
  };
}
