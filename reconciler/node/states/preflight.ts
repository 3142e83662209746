// Before anything is installed: is there an NVIDIA device, does nobody else install what we are to
// install, does the driver fit the host, and may this node begin?
import { COMPONENTS, GATING, isDeployed, isPartOf, namesOf } from '../../../core/components.ts';
import { GPU_OPERATOR_DEPLOY_PREFIX, NFD_OS_RELEASE, NFD_PREFIX } from '../../../core/keys.ts';
import { isUsualGpu } from '../../../gate/gpu-request.ts';
import { driverImage } from '../../manifests/driver.ts';
import type { NodeObject } from '../../model.ts';
import { allocatable, failed, hasPciLabel, offeredBeside, type Finding } from '../findings.ts';
import { isPreInstalled, markedBy, markForMachines, preInstalled } from '../installers.ts';
import { componentPods, isManagedHere, type Observed } from '../observed.ts';
import { offeredOtherwise, wasOurs } from './both.ts';
import type { WalkState } from './state.ts';

/**
 * How often a node that waits for a place asks, ms: places also become more without a node that
 * gives one back.
 */
const PLACE_MS = 60_000;

export const preflight: WalkState = {
  name: 'preflight',
  limit: () => undefined,
  restarts: [],
  look: (seen) => ({
    finding: discovery(seen) ?? host(seen) ?? others(seen) ?? both(seen) ?? place(seen) ?? { kind: 'done' },
  }),
};

/**
 * Discovery lets a walk begin. It is not evidence: what was proven here is not doubted for a label.
 */
function discovery({ input, walk }: Observed): Finding | undefined {
  const { node, now, policy } = input;
  if (walk.proven !== undefined || hasPciLabel(node)) return undefined;
  // A label that flaps is not believed at once: NFD's worker may only be restarting.
  if (walk.labelGone !== undefined && now - Date.parse(walk.labelGone) < policy.spec.labelHold) return undefined;
  return Object.keys(node.metadata.labels ?? {}).some((key) => key.startsWith(NFD_PREFIX))
    ? failed(
        'NoGPU',
        'Node Feature Discovery found no NVIDIA PCI device on this node: opt it out, or check that its worker runs with the pci source',
      )
    : failed(
        'NoNFD',
        'Node Feature Discovery has not labelled this node: it is not installed, or a taint keeps its worker off',
      );
}

/** Does the driver's image fit the host? Asked where it is to be installed, not where it runs. */
function host(seen: Observed): Finding | undefined {
  const { input, walk } = seen;
  if (!isManagedHere(seen, 'driver') || (walk.proven !== undefined && walk.renew !== true)) return undefined;
  const mismatch = hostMismatch(input.node, driverImage(input.policy), input.policy.spec.components.driver.alsoFor);
  return mismatch === undefined ? undefined : failed('WrongDriverImage', mismatch);
}

/**
 * `595.91.07-ubuntu24.04`, or for one kernel alone `595-6.8.0-71-generic-ubuntu24.04`: NVIDIA's way
 * to tag driver images.
 */
const DRIVER_TAG =
  /:\d[\d.]*(?:-(\d+\.\d+\.\d+-[\w.-]+))?-((?:ubuntu|rhel|rhcos|sles|rocky|flatcar|amzn|centos|fedora)[\d.]*)$/;

/**
 * A driver image made for another operating system or kernel than the node's, as a sentence;
 * undefined where nothing is known against it.
 */
export function hostMismatch(node: NodeObject, image: string, alsoFor: readonly string[]): string | undefined {
  const [, kernel, os] = DRIVER_TAG.exec(image) ?? [];
  const labels = node.metadata.labels ?? {};
  const [id, version] = [labels[`${NFD_OS_RELEASE}ID`], labels[`${NFD_OS_RELEASE}VERSION_ID`]];
  const own = `in a GPUPolicy of these nodes' own (spec.nodeSelector) set components.driver.version to a tag for it, or mode: external`;
  if (os !== undefined && id !== undefined && version !== undefined) {
    const host = id + version;
    // `rhel9` is for every 9.x, `ubuntu24.04` for no other release.
    if (![os, ...alsoFor].some((one) => host === one || host.startsWith(`${one}.`)))
      return `this node runs ${host}, the driver image is for ${os} (${image}): ${own}; where the image fits this system too, add ${id}${version.split('.')[0] ?? ''} to components.driver.alsoFor`;
  }
  const running = node.status?.nodeInfo?.kernelVersion;
  if (kernel !== undefined && running !== undefined && running !== kernel)
    return `this node runs kernel ${running}, the driver image is for ${kernel} (${image}): ${own}`;
  return undefined;
}

/**
 * Another installer's marks, judged only where we install something ourselves and nothing of ours
 * is or was there.
 */
function others(seen: Observed): Finding | undefined {
  const { input, walk, deployed } = seen;
  const hasBeenHere = walk.stage !== 'preflight' || walk.proven !== undefined || Object.keys(deployed).length > 0;
  const managed = COMPONENTS.filter((component) => isDeployed(component, input.policy));
  if (managed.length === 0) return undefined;
  const forMachines = markForMachines(input.node);
  // It is the driver's pod that would take them away.
  const isBeforeDriver =
    walk.proven === undefined && deployed.driver === undefined && componentPods(input, 'driver').length === 0;
  if (forMachines !== undefined && (!hasBeenHere || isBeforeDriver))
    return failed(
      'AnotherInstaller',
      `GPUs of this node are for virtual machines (label ${forMachines}): gpu-gate's driver would take them away; opt the node out, or remove that label`,
    );
  if (hasBeenHere) return undefined;
  const marked = markedBy(input.node);
  const theirs = managed.find((component) => marked.includes(namesOf(component).operator));
  const key = theirs === undefined ? '' : GPU_OPERATOR_DEPLOY_PREFIX + namesOf(theirs).operator;
  if (theirs === 'driver' && isPreInstalled(input.node)) return preInstalled();
  if (theirs !== undefined)
    return failed(
      'AnotherInstaller',
      `label ${key} shows another installer of the ${theirs} (NVIDIA's GPU Operator): remove it from this node, or set that component to mode: external in the GPUPolicy`,
    );
  const areAllOurs = GATING.filter((component) => isPartOf(component, input.policy)).every((component) =>
    managed.includes(component),
  );
  const unknown = marked.find((name) => COMPONENTS.every((component) => namesOf(component).operator !== name));
  if (areAllOurs && unknown !== undefined)
    return failed(
      'AnotherInstaller',
      `label ${GPU_OPERATOR_DEPLOY_PREFIX}${unknown} shows another installer (NVIDIA's GPU Operator): remove it from this node, or set what it installs to mode: external in the GPUPolicy`,
    );
  // A plugin of ours may still run where a Node was deleted and made again.
  const isOurs = componentPods(input, 'device-plugin').length > 0;
  if (
    managed.includes('device-plugin') &&
    !isOurs &&
    (Object.keys(allocatable(input.node, input.policy.spec.resources)).length > 0 ||
      offeredBeside(input.node, input.policy.spec.resources).some(isUsualGpu))
  )
    return failed(
      'AnotherInstaller',
      'this node already offers GPUs: another device plugin runs here; remove it, or set devicePlugin to mode: external in the GPUPolicy',
    );
  return undefined;
}

/**
 * Are GPUs served in the other way? Judged before the first proof, and not while what served them
 * was ours: it is taken off in its own state.
 */
function both(seen: Observed): Finding | undefined {
  const { walk, allocation } = seen;
  const offered = walk.proven === undefined && !wasOurs(seen) ? offeredOtherwise(seen) : undefined;
  return offered === undefined
    ? undefined
    : failed(
        'OtherAllocation',
        `GPUs of this node are served in another way than allocation: ${allocation} of the GPUPolicy: ${offered}; remove it from this node, or set allocation: ${allocation === 'DRA' ? 'DevicePlugin' : 'DRA'}`,
      );
}

/** May the walk begin now? */
function place({ input, walk, boot }: Observed): Finding | undefined {
  if (boot === '')
    return {
      kind: 'waiting',
      reason: 'NoBootID',
      message: 'waiting for the kubelet to publish a boot ID',
      untimed: true,
    };
  if (input.slotFree || walk.proven !== undefined || walk.stage !== 'preflight') return undefined;
  return {
    kind: 'waiting',
    reason: 'WaitingForSlot',
    message: `waiting until fewer nodes are on their way (bringUp.maxConcurrent ${input.policy.spec.bringUp.maxConcurrent})`,
    untimed: true,
    wakeAt: input.now + PLACE_MS,
  };
}
