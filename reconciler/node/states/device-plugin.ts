// The device plugin: its pod is Ready, and the kubelet offers GPUs.
import { entriesFor, isUsualGpu } from '../../../gate/gpu-request.ts';
import { allocatable, offeredBeside } from '../findings.ts';
import { isManagedHere } from '../observed.ts';
import { notGoneYet } from './both.ts';
import { operand } from './operand.ts';
import type { WalkState } from './state.ts';

export const devicePlugin: WalkState = {
  name: 'device-plugin',
  allocation: 'DevicePlugin',
  limit: (policy) => policy.spec.validation.timeouts.devicePlugin,
  look(seen, ground) {
    const look = operand(seen, ground, 'device-plugin');
    const { node, policy } = seen.input;
    const { resources } = policy.spec;
    if (look.finding.kind !== 'done') return look;
    const other = notGoneYet(seen);
    if (other !== undefined) return { ...look, finding: other };
    if (Object.keys(allocatable(node, resources)).length > 0) return look;
    const beside = offeredBeside(node, resources);
    const unlisted = beside.filter(isUsualGpu);
    if (unlisted.length > 0)
      return {
        ...look,
        finding: {
          kind: 'waiting',
          reason: 'UnlistedResources',
          message: `the kubelet offers ${unlisted.join(', ')}, which the GPUPolicy does not list: add ${entriesFor(unlisted).join(', ')} to its spec.resources, and to the chart's policy.spec.resources`,
          telling: true,
        },
      };
    return {
      ...look,
      finding: {
        kind: 'waiting',
        reason: 'NoAllocatableGPUs',
        message: `waiting for the kubelet to offer ${resources[0] ?? 'GPUs'} on this node${
          isManagedHere(seen, 'device-plugin')
            ? ''
            : ', which the external device plugin is to do; GPUs that come by Dynamic Resource Allocation alone are not offered by a kubelet'
        }${beside.length === 0 ? '' : `; it offers ${beside.join(', ')}, which the GPUPolicy does not list`}`,
        healthy: true,
      },
    };
  },
  operand: 'device-plugin',
  restarts: ['device-plugin', 'toolkit', 'driver'],
};
