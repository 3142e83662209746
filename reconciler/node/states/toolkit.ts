// The NVIDIA container toolkit: its pod is Ready, and the container runtime knows the handler.
import { HANDLER } from '../../manifests/parts.ts';
import type { Finding } from '../findings.ts';
import { isManagedHere, type Observed } from '../observed.ts';
import { operand } from './operand.ts';
import type { WalkState } from './state.ts';

export const toolkit: WalkState = {
  name: 'toolkit',
  limit: (policy) => policy.spec.validation.timeouts.toolkit,
  look(seen, ground) {
    const look = operand(seen, ground, 'toolkit');
    return look.finding.kind === 'done' ? { ...look, finding: handlerMissing(seen) ?? look.finding } : look;
  },
  operand: 'toolkit',
  restarts: ['toolkit', 'driver'],
};

/**
 * A pod that names a handler that the runtime does not have would wait with an Event and no more.
 */
function handlerMissing(seen: Observed): Finding | undefined {
  const handlers = seen.input.node.status?.runtimeHandlers ?? [];
  if (handlers.length === 0 || handlers.includes(HANDLER) || !isManagedHere(seen, 'toolkit')) return undefined;
  const has = handlers.filter((name) => name !== '').join(', ');
  return {
    kind: 'waiting',
    reason: 'RuntimeHandlerMissing',
    message: `the toolkit is Ready, but the container runtime has no handler ${HANDLER} (it has ${has}): ${
      seen.walk.proven === undefined
        ? "check the toolkit's runtime, configPath and socketPath in the GPUPolicy"
        : "its configuration was changed since this node was validated; restarting the toolkit's pod writes it again"
    }`,
    telling: true,
    healthy: true,
  };
}
