// The images that a GPUPolicy makes gpu-gate run, for mirroring them to another registry.
// `main.ts images` prints them.
import { COMPONENTS, isDeployed } from '../core/components.ts';
import { parsePolicy } from '../core/parse-policy.ts';
import { renderOperand } from '../reconciler/manifests/render.ts';
import { validationPod } from '../reconciler/manifests/validation-pod.ts';

const imagesIn = (value: unknown): readonly string[] =>
  Array.isArray(value)
    ? value.flatMap(imagesIn)
    : typeof value === 'object' && value !== null
      ? Object.entries(value).flatMap(([key, inner]) =>
          key === 'image' && typeof inner === 'string' ? [inner] : imagesIn(inner),
        )
      : [];

/** Sorted, each once. A policy without a spec gives the images of the defaults. */
export function imagesOf(raw: unknown): readonly string[] {
  const policy = parsePolicy(raw);
  const operands = COMPONENTS.filter((component) => isDeployed(component, policy)).map(
    (component) => renderOperand(component, policy, { namespace: '' }).daemonSet,
  );
  const validation = validationPod({
    kind: 'driver-validation',
    policy,
    namespace: '',
    node: { name: '', uid: '' },
    round: '',
    attempt: 0,
  });
  return [...new Set(imagesIn([operands, validation]))].toSorted();
}
