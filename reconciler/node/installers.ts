// What another installer, or our own driver-manager, writes on a node about who installs what.
import { COMPONENTS, GATING, isDeployed, namesOf } from '../../core/components.ts';
import { GPU_OPERATOR_DEPLOY_PREFIX, GPU_OPERATOR_WORKLOAD } from '../../core/keys.ts';
import { DRIVER_MANAGER } from '../manifests/driver.ts';
import type { NodeObject, PodObject } from '../model.ts';
import { failed, type Finding } from './findings.ts';
import { isManagedHere, type Observed } from './observed.ts';

/** Operands of the GPU Operator that give a node's GPUs to virtual machines. */
const FOR_MACHINES = /^(vfio|vgpu|sandbox|kata|cc)-/;
const PRE_INSTALLED = 'pre-installed';
const DRIVER_KEY = GPU_OPERATOR_DEPLOY_PREFIX + namesOf('driver').operator;

/** Operands that NVIDIA's installer is to bring. Our driver-manager leaves empty labels. */
export const markedBy = ({ metadata: { labels = {} } }: NodeObject): readonly string[] =>
  Object.entries(labels).flatMap(([key, value]) =>
    key.startsWith(GPU_OPERATOR_DEPLOY_PREFIX) && value !== 'false' && value !== ''
      ? [key.slice(GPU_OPERATOR_DEPLOY_PREFIX.length)]
      : [],
  );

/** The label that says that the GPUs are for virtual machines. */
export function markForMachines(node: NodeObject): string | undefined {
  const workload = node.metadata.labels?.[GPU_OPERATOR_WORKLOAD];
  if (workload !== undefined && workload !== 'container') return `${GPU_OPERATOR_WORKLOAD}=${workload}`;
  const name = markedBy(node).find((one) => FOR_MACHINES.test(one));
  return name === undefined ? undefined : GPU_OPERATOR_DEPLOY_PREFIX + name;
}

/** Labels by which a second installer would bring what is ours on this node; empty if none does. */
export function secondInstaller(seen: Observed): string {
  const { node, policy } = seen.input;
  const marked = markedBy(node);
  const ours = COMPONENTS.filter((component) =>
    GATING.includes(component) ? isManagedHere(seen, component) : isDeployed(component, policy),
  );
  const doubled = ours
    .map((component) => GPU_OPERATOR_DEPLOY_PREFIX + namesOf(component).operator)
    .filter((key) => node.metadata.labels?.[key] !== PRE_INSTALLED)
    .filter((key) => marked.includes(key.slice(GPU_OPERATOR_DEPLOY_PREFIX.length)));
  const machines = ours.length === 0 ? undefined : markForMachines(node);
  return [...doubled, ...(machines === undefined ? [] : [machines])].join(', ');
}

export const isPreInstalled = (node: NodeObject): boolean => node.metadata.labels?.[DRIVER_KEY] === PRE_INSTALLED;

export const preInstalled = (): Finding =>
  failed(
    'DriverPreInstalled',
    `NVIDIA's driver-manager found a driver on this host (label nvidia.com/gpu.deploy.driver=pre-installed): set components.driver.mode: external and hostPaths.driverRoot: / in its GPUPolicy, or remove that driver and the label`,
  );

/** Has our own driver-manager ended because it found a driver on the host? */
export function foundPreInstalled(node: NodeObject, pod: PodObject): boolean {
  const manager = pod.initContainers.find(({ name }) => name === DRIVER_MANAGER);
  const last = manager?.state?.terminated ?? manager?.lastState?.terminated;
  const hasEnded = last !== undefined && last.exitCode !== 0;
  return hasEnded && (isPreInstalled(node) || last.message?.includes(PRE_INSTALLED) === true);
}
