// The stages as an ordered walk: what each deploys or creates, and from what it sees whether it is done. Pure.
import { COMPONENT } from '../../core/keys.ts';
import { COMPONENTS, POD_COMPONENT, STAGES, type Component, type Stage } from '../../core/stages.ts';
import type { Action, Manifest } from '../actions.ts';
import {
  allocatable,
  componentPods,
  digest,
  externalFinding,
  operandFinding,
  preflightFinding,
  validationFinding,
  type Finding,
} from './findings.ts';
import { HANDLER } from '../manifests/parts.ts';
import { validationPod } from '../manifests/validation-pod.ts';
import { driverImage } from '../manifests/driver.ts';
import { type NodeInput, specOf, isDeployed, isOursHere, type Pass, type Stop, isOfNode } from './pass.ts';
import { isBackingOff, attemptFor } from './clock.ts';

/** Goes through the stages in order up to the first that is not done; deploys and creates what that one needs. */
export function firstUndone(pass: Pass): Stop | undefined {
  for (const stage of STAGES) {
    const finding = findingOf(pass, stage);
    if (finding.kind !== 'done') {
      // All that comes after the stop is stale the moment the stop is mended.
      return { stage, finding };
    }
  }
  for (const component of COMPONENTS) {
    if (component === 'dcgm-exporter' || component === 'feature-discovery') deployOptional(pass, component);
  }
  return undefined;
}

/** Components that gate nothing come after the proof, and follow the policy's switch at once. */
function deployOptional(pass: Pass, component: Component): void {
  const revision = pass.input.revisions[component];
  if (revision === undefined) delete pass.deploy[component];
  else pass.deploy[component] ??= revision;
}

function findingOf(pass: Pass, stage: Stage): Finding {
  switch (stage) {
    case 'preflight':
      return preflight(pass);
    case 'toolkit': {
      const finding = component(pass, stage);
      return finding.kind === 'done' ? (handlerMissing(pass.input) ?? finding) : finding;
    }
    case 'driver':
      return component(pass, stage);
    case 'device-plugin': {
      const finding = component(pass, stage);
      if (
        finding.kind !== 'done' ||
        Object.keys(allocatable(pass.input.node, pass.input.policy.spec.resources)).length > 0
      )
        return finding;
      return {
        kind: 'waiting',
        reason: 'NoAllocatableGPUs',
        message: `waiting for the kubelet to offer ${pass.input.policy.spec.resources[0] ?? 'GPUs'} on this node`,
      };
    }
    case 'driver-validation':
    case 'device-plugin-validation':
      return validation(pass, stage);
  }
}

function preflight(pass: Pass): Finding {
  const { input, walk } = pass;
  const { spec } = input.policy;
  const finding = preflightFinding(input.node, {
    managed: COMPONENTS.filter((c) => isDeployed(specOf(input.policy, c))),
    beenHere: walk.stage !== 'preflight' || walk.once || Object.keys(pass.deploy).length > 0,
    resources: spec.resources,
    driver: isOursHere(pass, 'driver') && !pass.settled ? driverImage(input.policy) : undefined,
  });
  // A label that flaps is not believed at once: NFD's worker may only be restarting.
  if (
    finding.kind === 'failed' &&
    walk.labelGone !== undefined &&
    input.now - Date.parse(walk.labelGone) < spec.labelHold
  )
    return { kind: 'done' };
  if (finding.kind === 'done' && pass.boot === '')
    return {
      kind: 'waiting',
      reason: 'NoBootID',
      message: 'waiting for the kubelet to publish a boot ID',
      untimed: true,
    };
  if (finding.kind === 'done' && !input.slotFree && !walk.once && walk.stage === 'preflight') {
    return {
      kind: 'waiting',
      reason: 'WaitingForSlot',
      message: `waiting until fewer nodes are on their way (bringUp.maxConcurrent ${spec.bringUp.maxConcurrent})`,
      untimed: true,
    };
  }
  return finding;
}

/** The toolkit's pod is Ready, but does the runtime know the handler? A pod that names it would wait with an Event and no more. */
function handlerMissing(input: Pass['input']): Finding | undefined {
  const handlers = input.node.status?.runtimeHandlers ?? [];
  if (handlers.length === 0 || handlers.includes(HANDLER) || !isDeployed(specOf(input.policy, 'toolkit')))
    return undefined;
  return {
    kind: 'waiting',
    reason: 'RuntimeHandlerMissing',
    message: `the toolkit is Ready, but the container runtime has no handler ${HANDLER} (it has ${handlers.filter((name) => name !== '').join(', ')}): check the toolkit's runtime, configPath and socketPath in the GPUPolicy`,
  };
}

function component(pass: Pass, name: 'toolkit' | 'driver' | 'device-plugin'): Finding {
  const finding = isOursHere(pass, name)
    ? deployment(pass, name)
    : pass.deploy[name] === undefined
      ? elsewhere(pass, name)
      : (takeOff(pass, name) ?? elsewhere(pass, name));
  if (finding.kind === 'done' && finding.evidence !== undefined) pass.evidence[name] = finding.evidence;
  // A kubelet out of sight says nothing about its pods: nothing is timed, and nothing is held against them.
  if (finding.kind !== 'done' && pass.walk.notReady !== undefined && finding.reason !== REPLACING) return NOT_READY;
  return finding;
}

const REPLACING = 'Replacing';
const NOT_READY: Finding = {
  kind: 'waiting',
  reason: 'NodeNotReady',
  message: 'waiting for the node to be Ready',
  untimed: true,
};

/** A component that somebody else installs: by its pods, or as it was validated where the policy no longer says which these are. */
export function elsewhere(pass: Pass, name: Component): Finding {
  const { input, walk } = pass;
  const spec = specOf(input.policy, name);
  const known = pass.proof?.components[name] ?? walk.evidence[name];
  return isDeployed(spec) && known !== undefined
    ? { kind: 'done', evidence: known }
    : externalFinding(input.pods, spec, name, walk.stale[name]);
}

/**
 * Takes a component off, and before it every one that came after it; a label goes only when the one before is gone whole. Undefined: nothing
 * of them is left.
 */
function takeOff(pass: Pass, name: Component): Finding | undefined {
  const last = COMPONENTS.slice(COMPONENTS.indexOf(name)).findLast(
    (later) => pass.deploy[later] !== undefined || componentPods(pass.input.pods, later).length > 0,
  );
  if (last === undefined) return undefined;
  delete pass.deploy[last];
  return { kind: 'waiting', reason: REPLACING, message: `waiting for the former ${POD_COMPONENT[name]} pod to go` };
}

/** A label value changes only as: remove, old pods gone, set new; and from the last component back to this one. */
function deployment(pass: Pass, name: Component): Finding {
  const { input } = pass;
  const current = pass.deploy[name];
  const target = pass.settled && current !== undefined ? current : input.revisions[name];
  if (target === undefined)
    return { kind: 'waiting', reason: 'NoRevision', message: `waiting for the ${name} DaemonSet to be rendered` };
  if (current === target) return operandFinding(input.pods, name, target, pass.walk.stale[name]);
  const going = takeOff(pass, name);
  if (going !== undefined) return going;
  pass.deploy[name] = target;
  return { kind: 'waiting', reason: 'PodMissing', message: `waiting for the ${POD_COMPONENT[name]} pod to be created` };
}

/** What a round of validation stands for: whatever is in here is proven by it, and a change of it asks for a new round. */
const roundOf = (pass: Pass, kind: 'driver-validation' | 'device-plugin-validation'): string => {
  const { evidence, walk, boot, input } = pass;
  const own =
    kind === 'driver-validation'
      ? [evidence['toolkit'], walk.epoch]
      : [evidence['device-plugin'], walk.epoch, walk.gpuEpoch];
  return digest(kind, input.node.metadata.uid, boot, evidence['driver'], own, input.policy.spec.validation.image);
};

function validation(pass: Pass, kind: 'driver-validation' | 'device-plugin-validation'): Finding {
  const { input, walk } = pass;
  const round = roundOf(pass, kind);
  if (walk.passed[kind] === round) return { kind: 'done' };
  if (walk.notReady !== undefined) return NOT_READY;
  const resource = Object.keys(allocatable(input.node, input.policy.spec.resources))[0];
  const manifest: Manifest = validationPod({
    kind,
    policy: input.policy,
    namespace: input.operandNamespace,
    node: { name: input.node.metadata.name, uid: input.node.metadata.uid },
    round,
    attempt: attemptFor(pass, kind),
    ...(kind === 'device-plugin-validation' && resource !== undefined ? { resource } : {}),
    ...(kind === 'device-plugin-validation' && input.policy.spec.injection.schedulerName !== ''
      ? { schedulerName: input.policy.spec.injection.schedulerName }
      : {}),
  });
  const name = manifest.metadata.name;
  const pod = input.validationPods.get(name);
  const finding = validationFinding(pod, name);
  if (finding.kind === 'done') pass.walk = { ...walk, passed: { ...walk.passed, [kind]: round } };
  else if (pod === undefined && !isBackingOff(pass, kind)) {
    for (const old of oldRounds(input, kind, name)) pass.actions.push(old);
    pass.actions.push({ kind: 'create-pod', manifest });
  }
  return finding;
}

/** Former rounds are kept to be looked at until the next one begins. */
const oldRounds = (
  input: NodeInput,
  kind: 'driver-validation' | 'device-plugin-validation',
  except: string,
): Action[] =>
  [...input.validationPods.values()]
    .filter(
      (pod) =>
        pod.name !== except &&
        !pod.deleting &&
        pod.labels[COMPONENT] === POD_COMPONENT[kind] &&
        isOfNode(pod, input.node),
    )
    .map((pod) => ({
      kind: 'delete-pod',
      namespace: pod.namespace,
      name: pod.name,
      uid: pod.uid,
      because: 'a new round of validation begins',
    }));
