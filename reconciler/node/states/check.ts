// What the validation states share: one pod per try of one round. A round's name says what it
// proves, so that a change of any of it asks for another round.
import type { ComponentEvidence } from '../../../gate/node-proof.ts';
import { COMPONENT } from '../../../core/keys.ts';
import { POD_COMPONENT } from '../../../core/components.ts';
import { attemptFor, isBackingOff } from '../clock.ts';
import { digest, validationFinding } from '../findings.ts';
import { isOfNode, type Observed } from '../observed.ts';
import { validationPod } from '../../manifests/validation-pod.ts';
import { notReady, troubleOfPod, withTrouble } from './operand.ts';
import type { Look, PodAction } from './state.ts';

export type CheckName = 'driver-validation' | 'device-plugin-validation' | 'dra-validation';

interface Check {
  readonly name: CheckName;
  /** Evidence that the round proves. */
  readonly proves: readonly (ComponentEvidence | number | string | undefined)[];
  /** Extended resource to ask for, and by which scheduler. */
  readonly resource?: string | undefined;
  readonly schedulerName?: string | undefined;
  /** Name of the ResourceClaimTemplate to ask by. */
  readonly claimTemplate?: string | undefined;
}

export function check(seen: Observed, { name, proves, resource, schedulerName, claimTemplate }: Check): Look {
  const { input, walk, boot } = seen;
  const round = digest(name, input.node.metadata.uid, boot, proves);
  if (walk.passed[name] === round) return { finding: { kind: 'done' } };
  if (walk.notReady !== undefined) return { finding: notReady(input) };
  const manifest = validationPod({
    kind: name,
    policy: input.policy,
    namespace: input.operandNamespace,
    node: { name: input.node.metadata.name, uid: input.node.metadata.uid },
    round,
    attempt: attemptFor(seen, name),
    resource,
    schedulerName,
    claimTemplate,
  });
  const found = input.validationPods.get(manifest.metadata.name);
  const pod = found?.validates === input.node.metadata.uid ? found : undefined;
  const finding = validationFinding(pod, manifest.metadata.name);
  if (finding.kind === 'done') return { finding, passed: round };
  if (pod !== undefined) return { finding: withTrouble(finding, troubleOfPod(input, pod)) };
  if (isBackingOff(seen, name)) return { finding };
  const refused = input.troubles?.get(manifest.metadata.name);
  return {
    finding: withTrouble(finding, refused),
    pods: [...previousRounds(seen, name), { kind: 'create-pod', manifest }],
  };
}

/** The scheduler of users' pods, where the policy names one. */
export const schedulerOf = ({ policy }: Observed['input']): string | undefined =>
  policy.spec.injection.schedulerName === '' ? undefined : policy.spec.injection.schedulerName;

/** Pods of previous rounds are kept to be looked at until the next one begins. */
const previousRounds = ({ input }: Observed, name: CheckName): PodAction[] =>
  [...input.validationPods.values()]
    .filter((pod) => !pod.deleting && pod.labels[COMPONENT] === POD_COMPONENT[name] && isOfNode(pod, input.node))
    .map((pod) => ({
      kind: 'delete-pod',
      namespace: pod.namespace,
      name: pod.name,
      uid: pod.uid,
      because: 'a new round of validation begins',
    }));
