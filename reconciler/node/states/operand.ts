// What the states of components share: an operand's DaemonSet is let onto the node, and its pod is
// the evidence; or another installer's pods are.
import {
  COMPONENTS,
  GATING,
  isAllocator,
  isDeployed,
  POD_COMPONENT,
  type Component,
} from '../../../core/components.ts';
import { REVISION } from '../../../core/keys.ts';
import { externalFinding, operandFinding, waiting, type Finding, type Freshness } from '../findings.ts';
import { counted, listed } from '../drain.ts';
import { foundPreInstalled, preInstalled } from '../installers.ts';
import { componentPods, operandPod, type Observed } from '../observed.ts';
import type { PodObject } from '../../model.ts';
import { rivalOf } from './both.ts';
import type { Ground, Look } from './state.ts';

const REPLACING = 'Replacing';
export const notReady = ({ isOverloaded }: Observed['input']): Finding => ({
  kind: 'waiting',
  reason: 'NodeNotReady',
  message:
    isOverloaded === true
      ? 'waiting for the kubelet to be heard again; many nodes are silent at once, which says nothing about their GPUs'
      : 'waiting for the node to be Ready',
  untimed: true,
});

/**
 * With what a kubelet or a controller reported of the pod, or of the DaemonSet that does not create
 * it.
 */
export const withTrouble = (finding: Finding, trouble: string | undefined): Finding =>
  finding.kind === 'waiting' && trouble !== undefined
    ? { ...finding, message: `${finding.message}; ${trouble}`, trouble: true }
    : finding;

/** Reports of a pod are of the past once one of its containers has started. */
export const troubleOfPod = ({ troubles }: Observed['input'], pod: PodObject): string | undefined =>
  [...pod.initContainers, ...pod.containers].some(({ state }) => (state?.running ?? state?.terminated) !== undefined)
    ? undefined
    : troubles?.get(pod.uid);

export function operand(seen: Observed, ground: Ground, name: Component): Look {
  const look = lookAt(seen, ground, name);
  const { finding } = look;
  // A kubelet out of sight says nothing about its pods: nothing is timed, and nothing is held
  // against them.
  if (finding.kind !== 'done' && seen.walk.notReady !== undefined)
    return {
      ...look,
      finding:
        finding.kind === 'waiting' && finding.reason === REPLACING
          ? { ...finding, untimed: true }
          : notReady(seen.input),
    };
  return finding.kind === 'done' ? { ...look, evidence: finding.evidence } : look;
}

function lookAt(seen: Observed, ground: Ground, name: Component): Look {
  const { input, walk } = seen;
  const choice = walk.target[name];
  const rival = isAllocator(name) ? rivalOf(seen) : undefined;
  if (rival !== undefined && isThere(seen, ground, rival))
    return isHeld(seen, name) ? inUse(seen, name) : without(ground, rival, rival);
  if (choice === undefined)
    return { finding: waiting('NoRevision', `waiting for the ${name} DaemonSet to be rendered`) };
  if ('revision' in choice) return deployment(seen, ground, name, choice.revision);
  const going = ground.deploy[name] === undefined ? undefined : takeOff(seen, ground, name);
  return going ?? { finding: externalFinding(input.pods, choice.external, name, freshness(seen, name)) };
}

const freshness = ({ walk, boot, input }: Observed, name: Component): Freshness => ({
  known: walk.evidence[name],
  boot,
  booted: walk.booted,
  now: input.now,
});

/**
 * A label value changes only as: remove, old pods gone, set new; and from the last component back
 * to this one.
 */
function deployment(seen: Observed, ground: Ground, name: Component, revision: string): Look {
  const { input, walk } = seen;
  if (ground.deploy[name] === revision) return { finding: running(seen, name, revision) };
  const deploy = { ...ground.deploy, [name]: revision };
  // Another writer changed or removed the label of an operand that runs here. Restore the label and
  // leave all later components as they are.
  if (walk.evidence[name]?.revision === revision) {
    const others = componentPods(input, name).filter((pod) => pod.labels[REVISION] !== revision);
    return others.length === 0 ? { finding: running(seen, name, revision), deploy } : without(ground, name, name);
  }
  return (
    takeOff(seen, ground, name) ?? {
      finding: waiting('PodMissing', `waiting for the ${POD_COMPONENT[name]} pod to be created`),
      deploy,
    }
  );
}

function running(seen: Observed, name: Component, revision: string): Finding {
  const { input } = seen;
  const pod = operandPod(input, name, revision);
  const finding = operandFinding(pod, POD_COMPONENT[name], revision, freshness(seen, name));
  if (name === 'driver' && finding.kind !== 'done' && pod !== undefined && foundPreInstalled(input.node, pod))
    return preInstalled();
  const daemonSet = input.daemonSets.get(`${POD_COMPONENT[name]}-${revision}`) ?? '';
  return withTrouble(finding, pod === undefined ? input.troubles?.get(daemonSet) : troubleOfPod(input, pod));
}

/**
 * Takes a component off, and before it every one that came after it; a label goes only when the
 * pods of the previous one are gone. `undefined` if nothing of them is left.
 */
function takeOff(seen: Observed, ground: Ground, name: Component): Look | undefined {
  const last = COMPONENTS.slice(COMPONENTS.indexOf(name)).findLast((later) => isThere(seen, ground, later));
  if (last === undefined) return undefined;
  return isHeld(seen, name) ? inUse(seen, name) : without(ground, last, last);
}

const isThere = ({ input }: Observed, { deploy }: Ground, name: Component): boolean =>
  deploy[name] !== undefined || componentPods(input, name).length > 0;

function inUse({ users }: Observed, name: Component): Look {
  const message = `waiting for ${counted(users)} to end (${listed(users)}) before the ${name} is replaced`;
  return { finding: { kind: 'waiting', reason: 'InUse', message, untimed: true } };
}

/** Pods that run need no device plugin, so that a policy may replace it under them. */
const isHeld = ({ isInUse, walk, input }: Observed, name: Component): boolean =>
  isInUse &&
  !(
    walk.rollOut?.phase === 'replace' &&
    input.policy.spec.upgrade.drain.mode === 'None' &&
    COMPONENTS.indexOf(name) > COMPONENTS.indexOf('driver')
  );

function without(ground: Ground, off: Component, awaited: Component): Look {
  const { [off]: _, ...deploy } = ground.deploy;
  return {
    finding: waiting(REPLACING, `waiting for the previous ${POD_COMPONENT[awaited]} pod to go`),
    deploy,
  };
}

/**
 * The deploy labels, with those restored that another writer removed from a proven node. Restores
 * them at once and in every state of the walk, because otherwise the operands there would go.
 */
export function putBack({ input, walk, proof, deployed }: Observed): Ground['deploy'] {
  if (proof === undefined || walk.renew === true) return deployed;
  return GATING.reduce((deploy, name) => {
    const choice = walk.target[name];
    if (choice === undefined || !('revision' in choice) || deploy[name] === choice.revision) return deploy;
    const { revision } = choice;
    const isKnown = walk.evidence[name]?.revision === revision;
    const hasOthers = componentPods(input, name).some((pod) => pod.labels[REVISION] !== revision);
    return isKnown && !hasOthers ? { ...deploy, [name]: revision } : deploy;
  }, deployed);
}

/** Components that gate nothing come after the proof, and follow the policy at once. */
export function follow({ input }: Observed, deploy: Ground['deploy'], name: Component): Ground['deploy'] {
  const wanted = isDeployed(name, input.policy) ? input.revisions[name] : undefined;
  const { [name]: current, ...others } = deploy;
  if (current === wanted) return deploy;
  const isGone = current === undefined && componentPods(input, name).length === 0;
  return wanted !== undefined && isGone ? { ...others, [name]: wanted } : others;
}
