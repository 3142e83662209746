// What keeps a pod off a node apart from the gate: its own selector and affinity, taints that it
// does not tolerate, and more GPUs than the whole node has. Read as the scheduler's own filters
// read them, so that nobody waits for a node on its way that the pod could never use. The Event on
// a waiting pod, `explain` and the kubectl plugin ask here.
import { STARTUP_TAINT } from '../core/keys.ts';
import { amountOf } from '../core/quantity.ts';
import { list, object, text, type Raw } from '../core/raw.ts';
import type { RawPod } from './gpu-request.ts';
import type { NodeView } from './node-proof.ts';

interface Requirement {
  readonly key: string;
  readonly operator: string;
  readonly values: readonly string[];
}
interface Term {
  readonly labels: readonly Requirement[];
  readonly fields: readonly Requirement[];
}
interface Toleration {
  readonly key: string;
  readonly operator: string;
  readonly value: string;
  readonly effect: string;
}

/** Where a pod may go by its own fields. */
export interface Placement {
  readonly selector: Readonly<Record<string, string>>;
  /** One of them must hold; `undefined` if the pod requires no affinity. */
  readonly terms: readonly Term[] | undefined;
  readonly tolerations: readonly Toleration[];
  /** GPUs that it asks for, by resource. */
  readonly gpus: Readonly<Record<string, number>>;
}

/** Why a pod cannot go to a node: a sentence that carries no name of a node, and what to do. */
export interface Obstacle {
  readonly text: string;
  readonly advice: string;
}

/**
 * Kubernetes puts these on by itself and takes them off by itself; the gate's own reasons say what
 * they say (not Ready, cordoned).
 */
const PASSING = /^node\.(kubernetes|cloudprovider\.kubernetes)\.io\//;

const requirement = (value: unknown): Requirement => {
  const raw = object(value);
  return { key: text(raw['key'], ''), operator: text(raw['operator'], ''), values: list<string>(raw['values']) };
};
const term = (value: unknown): Term => {
  const raw = object(value);
  return {
    labels: list<unknown>(raw['matchExpressions']).map(requirement),
    fields: list<unknown>(raw['matchFields']).map(requirement),
  };
};
const toleration = (value: unknown): Toleration => {
  const raw: Raw = object(value);
  return {
    key: text(raw['key'], ''),
    operator: text(raw['operator'], '') || 'Equal',
    value: text(raw['value'], ''),
    effect: text(raw['effect'], ''),
  };
};

export function placementOf(spec: RawPod['spec'], gpus: Placement['gpus'] = {}): Placement {
  const required = object(object(object(spec?.affinity)['nodeAffinity'])[REQUIRED])['nodeSelectorTerms'];
  return {
    gpus,
    selector: spec?.nodeSelector ?? {},
    terms: required === undefined ? undefined : list<unknown>(required).map(term),
    tolerations: list<unknown>(spec?.tolerations)
      .map(toleration)
      .filter(({ key }) => !PASSING.test(key)),
  };
}
const REQUIRED = 'requiredDuringSchedulingIgnoredDuringExecution';

/** Whole numbers, as Kubernetes compares them. */
const isAbove = (a: string | undefined, b: string | undefined): boolean =>
  /^-?\d+$/.test(a ?? '') && /^-?\d+$/.test(b ?? '') && Number(a) > Number(b);

function holds({ operator, values }: Requirement, present: string | undefined): boolean {
  switch (operator) {
    case 'In':
      return present !== undefined && values.includes(present);
    case 'NotIn':
      return present === undefined || !values.includes(present);
    case 'Exists':
      return present !== undefined;
    case 'DoesNotExist':
      return present === undefined;
    case 'Gt':
      return isAbove(present, values[0]);
    case 'Lt':
      return isAbove(values[0], present);
    // What a later Kubernetes adds is not held against the node.
    default:
      return true;
  }
}

/** A term without a requirement matches no node. */
const termHolds = ({ labels, fields }: Term, node: NodeView): boolean =>
  labels.length + fields.length > 0 &&
  labels.every((one) => holds(one, node.metadata.labels?.[one.key])) &&
  fields.every((one) => one.key !== 'metadata.name' || holds(one, node.metadata.name));

type Taint = NonNullable<NonNullable<NodeView['spec']>['taints']>[number];

function tolerates({ key, operator, value, effect }: Toleration, taint: Taint): boolean {
  if (effect !== '' && effect !== taint.effect) return false;
  if (key !== '' && key !== taint.key) return false;
  switch (operator) {
    case 'Exists':
      return true;
    case 'Equal':
      return key !== '' && value === (taint.value ?? '');
    case 'Gt':
      return isAbove(taint.value, value);
    case 'Lt':
      return isAbove(value, taint.value);
    default:
      return true;
  }
}

const keepsOff = ({ key, effect }: Taint): boolean =>
  (effect === 'NoSchedule' || effect === 'NoExecute') && key !== STARTUP_TAINT && !PASSING.test(key);

/**
 * The first thing that keeps the pod off the node; `undefined` if nothing of this kind does. The
 * startup taint goes by itself when the node is validated.
 */
export function obstacleTo({ selector, terms, tolerations, gpus }: Placement, node: NodeView): Obstacle | undefined {
  const labels = node.metadata.labels ?? {};
  const unmet = Object.entries(selector).find(([key, value]) => labels[key] !== value);
  if (unmet !== undefined)
    return {
      text: `the pod's nodeSelector ${unmet.join('=')} is not met`,
      advice: 'change the nodeSelector of the pod, or label the node',
    };
  if (terms?.some((one) => termHolds(one, node)) === false)
    return { text: "the pod's node affinity is not met", advice: 'change the affinity of the pod, or label the node' };
  const taint = node.spec?.taints?.find((one) => keepsOff(one) && !tolerations.some((each) => tolerates(each, one)));
  if (taint === undefined) return tooSmall(gpus, node);
  const value = taint.value === undefined || taint.value === '' ? '' : `=${taint.value}`;
  return {
    text: `the pod does not tolerate the taint ${taint.key}${value}:${taint.effect}`,
    advice: 'add a toleration to the pod, or to injection.tolerations of its GPUPolicy',
  };
}

/**
 * Where the kubelet has not counted any of that resource yet, nothing is known against the node.
 */
function tooSmall(gpus: Placement['gpus'], node: NodeView): Obstacle | undefined {
  for (const [name, amount] of Object.entries(gpus)) {
    const all = amountOf(node.status?.capacity?.[name]);
    if (all > 0 && all < amount)
      return {
        text: `the pod requests ${amount} ${name}, more than the ${all} of the node`,
        advice: 'request fewer GPUs in one pod, or add nodes that have as many',
      };
  }
  return undefined;
}

/** The nodes that the pod's affinity names one by one, as a DaemonSet's does. */
export function namedNodes({ terms }: Placement): readonly string[] | undefined {
  const named = terms?.map(({ fields }) =>
    fields.find(({ key, operator }) => key === 'metadata.name' && operator === 'In'),
  );
  return named?.every((one) => one !== undefined) === true ? named.flatMap(({ values }) => values) : undefined;
}
